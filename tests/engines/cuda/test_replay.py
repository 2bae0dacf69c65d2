"""Layers, streams and all kinds of training steps as CUDA graphs."""

from __future__ import annotations

import contextlib
import copy
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
from paths import CUDA_PROGRAMS, TESTS
from replayed import bits, small
from variables import SetVariable

import gpulstm
import hostgpu
from gpulstm.arrays.devices import resolve
from gpulstm.engines.cuda import graph, planner
from gpulstm.engines.cuda.graph import KEPT, Recordings
from gpulstm.engines.cuda.replay import TAPES
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import ConfigError
from gpulstm.losses import MSE, Loss
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.optimizers import Adam
from gpulstm.training.gradients import GradientPass

PROGRAM = CUDA_PROGRAMS / "cuda_calls.py"
MODES = {
    "default": {},
    "two devices": {"HOSTGPU_DEVICES": "2", planner.WAVEFRONT: "1"},
    "lazy streams": {"HOSTGPU_LAZY": "1", planner.WAVEFRONT: "1"},
    "branches launched on lazy streams": {
        "HOSTGPU_LAZY": "1",
        planner.WAVEFRONT: "1",
        "GPULSTM_TEST_BRANCHES": "launched",
    },
    "reversed": {"HOSTGPU_SCHED": "reverse", planner.WAVEFRONT: "1"},
    "random": {"HOSTGPU_SCHED": "random", "HOSTGPU_SEED": "3", planner.WAVEFRONT: "1"},
    "poison": {"HOSTGPU_POISON": "1", planner.WAVEFRONT: "1"},
}

pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def always(set_variable: SetVariable) -> None:
    """Calls are replayed whatever the planner finds."""
    set_variable(planner.GRAPH, "1")


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=[] if mode == "lazy streams" else [pytest.mark.slow]) for mode in MODES]
)
def test_calls_on_two_streams_equal_the_reference_and_keep_their_results(mode: str) -> None:
    """On a GPU the modes mean nothing; there the same calls are made once more, on two devices where they are."""
    kinds = [] if mode == "default" else ["lstm with dropout", "gru both ways"]
    command = [sys.executable, str(PROGRAM), *kinds]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **MODES[mode]})
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("ok ") >= 6


def test_a_call_is_recorded_the_second_time_and_results_are_the_callers() -> None:
    layer, x = small()
    first, _ = layer(x)
    assert layer._replays.bytes_held == 0
    kept = bits(first)
    again, _ = layer(x)
    assert "1 recorded, which hold" in str(layer.explain(6, 4))
    again[...] = 7
    third, state = layer(2 * x)
    assert bits(layer(x)[0]) == kept == bits(first)
    assert bits(third) != kept
    assert state[0].shape == (2, 4, 8)


def test_without_memory_for_a_recording_the_work_is_done_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the device is nearly full: the same bits, masks of the same passes, no second attempt, and it is said."""
    expected = training_bits(3)
    capture, tried = graph._recording, []

    @contextlib.contextmanager
    def full() -> Iterator[None]:
        with capture():
            tried.append(1)
            yield
            raise MemoryError

    layer, x = small()
    passes = [layer.forward(x) for _ in range(2)]
    assert passes[1][2].recording is not None
    monkeypatch.setattr(graph, "_recording", full)
    results = [layer.backward(tape, y) for y, _, tape in passes for _ in range(2)]
    assert len({bits(dx, grads.flat)[1] for dx, _, grads in results}) == len(tried) == 1
    assert "no memory for 1 backward" in str(layer.explain(6, 4, training=True))
    tried.clear()
    layer, x = small()
    first = bits(layer(x)[0])
    assert all(bits(layer(x)[0]) == first for _ in range(3))
    assert "0 recorded, which hold 0 B; no memory for 1 more" in str(layer.explain(6, 4))
    assert len(tried) == 1
    assert training_bits(3) == expected
    assert len(tried) == 2


def training_bits(count: int) -> list[list[bytes]]:
    """The losses and gradients of training passes with dropout."""
    network = Network(NetworkConfig(StackSpec("lstm", 3, 6, 2, dropout=0.5)), device="cuda", seed=1)
    gradients = GradientPass(network, MSE(), network.params.like())
    data = [network.backend.from_host(np.ones(shape, "f")) for shape in ((4, 2, 3), (2, 1, 1))]
    return [bits(gradients(*data).value, gradients.grads.flat) for _ in range(count)]


def test_the_weights_of_a_replay_are_those_of_the_moment() -> None:
    layer, x = small()
    before = [bits(layer(x)[0]) for _ in range(3)]
    layer.params.flat[...] *= 0.5
    other, _ = small()
    other.params.flat[...] *= 0.5
    assert bits(layer(x)[0]) == bits(other(x)[0]) != before[0]
    assert before[0] == before[1] == before[2]


def test_as_many_tapes_as_are_asked_for() -> None:
    """More than have buffers: the others are launched piece by piece; a tape whose buffers are free is replayed."""
    layer, x = small()
    passes = [layer.forward((number + 1) * x) for number in range(TAPES + 3)]
    assert len(layer._replays.tapes) == TAPES
    replayed = [tape.recording is not None for _, _, tape in passes]
    assert replayed == [False, True, True, False, False]
    fresh, _ = small()
    for number, (y, _, tape) in reversed(list(enumerate(passes))):
        other, _, whole = fresh.forward((number + 1) * x)
        mine, theirs = layer.backward(tape, y), fresh.backward(whole, other)
        assert bits(mine[0], mine[2].flat) == bits(theirs[0], theirs[2].flat)
        del whole
    del passes, tape
    assert layer.forward(x)[2].recording is not None


def test_old_shapes_are_given_up_and_a_layer_takes_its_recordings_along() -> None:
    layer, x = small()
    for batch in (1, 2, 3, 4, 1, 2, 3, 4):
        layer(x[:, :batch])
    assert len(layer._replays.passes) == KEPT
    for steps in (2, 3, 2, 3):
        layer(x[:steps])
    assert len(layer._replays.passes) == KEPT
    assert len(copy.deepcopy(layer)._replays.passes) == 0
    recording = weakref.ref(next(iter(layer._replays.passes._seen.values()))[0])
    del layer  # by the count of references, without a search for cycles
    assert recording() is None


def test_a_graph_of_the_callers_own() -> None:
    """Within somebody else's capture everything is launched plainly, and nothing needs cuBLAS."""
    layer, x = small()
    cuda = layer.backend.xp.cuda
    expected = [bits(layer(x)[0]) for _ in range(2)]
    pool, stream = cuda.MemoryPool(), cuda.Stream(non_blocking=True)
    step = layer.stream(4)
    first = bits(step(x[0]))
    step.reset()
    layer.backend.synchronize()
    with cuda.using_allocator(pool.malloc), stream:
        stream.begin_capture()
        y, _, tape = layer.forward(x)
        gradients = layer.backward(tape, y)
        outputs, _ = layer(x)
        one = step(x[0])
        graph = stream.end_capture()
    assert tape.recording is None
    graph.launch(stream)
    stream.synchronize()
    assert bits(outputs) == expected[0] == expected[1]
    assert bits(one) == first
    y, _, tape = layer.forward(x)
    assert bits(gradients[0]) == bits(layer.backward(tape, y)[0])


def test_the_switch_and_what_explain_says(set_variable: SetVariable) -> None:
    layer, x = small()
    set_variable(planner.GRAPH, "0")
    for _ in range(3):
        layer(x)
    assert "graph: none: GPULSTM_CUDA_GRAPH is 0" in str(layer.explain(6, 4))
    step = layer.stream(4)
    plain = [bits(step(x[t])) for t in range(6)]
    assert "launched one by one (GPULSTM_CUDA_GRAPH is 0)" in step.explain()
    assert layer._replays.bytes_held == 0
    set_variable(planner.GRAPH, "1")
    step = layer.stream(4)
    assert "5 pieces of work, as one graph" in step.explain()
    assert [bits(step(x[t])) for t in range(6)] == plain
    other = gpulstm.LSTM(3, 8, device="cuda", peepholes=True)
    assert "graph: none: the reference engine's work cannot be recorded" in str(other.explain(6, 4))
    assert "graph" not in str(gpulstm.LSTM(3, 8, device="cpu").explain(6, 4))


def test_a_large_training_pass_is_not_kept_between_calls_unless_asked(
    monkeypatch: pytest.MonkeyPatch, set_variable: SetVariable
) -> None:
    monkeypatch.setattr("gpulstm.model.plan.LARGEST", 1000)
    layer, _ = small()
    assert "graph: replayed" in str(layer.explain(6, 4, training=True))
    set_variable(planner.GRAPH, None)
    layer, _ = small()
    said = str(layer.explain(6, 4, training=True))
    assert "graph: none: a training pass of" in said
    assert "is not kept between calls" in said


def test_threads_share_a_layer() -> None:
    """Each on a stream of its own; a replay is one thread's from the copy of its input to those of its results."""
    layer, x = small()
    cuda = layer.backend.xp.cuda
    inputs = [(number + 1) * x for number in range(4)]
    expected = [bits(layer(each)[0]) for each in inputs]
    layer.backend.synchronize()
    wrong: list[int] = []

    def work(number: int) -> None:
        stream = cuda.Stream(non_blocking=True)
        with layer.backend.activate(), stream:
            for _ in range(25):
                y, _ = layer(inputs[number])
                stream.synchronize()
                if bits(y) != expected[number]:
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(layer._replays.passes) == 1


class Own(MSE):
    """A loss from outside of the package."""

    name: ClassVar[str] = "own"


class Enqueued(Own):
    """One that says what it does."""

    on_device = True


class Waits(Enqueued):
    """One that says so and is wrong."""

    def _each(self, xp: Any, z: Any, y: Any) -> tuple[Any, Any]:
        if float(y.sum()) > 1e9:
            raise ArithmeticError
        return super()._each(xp, z, y)


def passes(loss: Loss) -> list[list[bytes]]:
    """The bits of three passes."""
    network = Network(NetworkConfig(StackSpec("gru", 3, 6)), device="cuda")
    gradients = GradientPass(network, loss, network.params.like())
    put = network.backend.from_host
    data = put(np.ones((4, 2, 3), "f")), put(np.ones((2, 1, 1), "f"))
    return [bits(gradients(*data).value, gradients.grads.flat) for _ in range(3)]


def test_a_loss_of_the_users_own_is_recorded_where_it_says_that_it_may_be() -> None:
    expected = passes(MSE())[0]
    with hostgpu.counting() as count:
        assert passes(Enqueued())[2] == expected
    assert count["graph_launches"] >= 2 or not hostgpu.simulated()
    with hostgpu.counting() as count:
        passes(Own())
    network = Network(NetworkConfig(StackSpec("gru", 3, 6)), device="cuda")
    assert "on_device = True" in GradientPass(network, Own(), network.params.like()).explain(4, 2)
    with pytest.raises(ConfigError, match="the loss 'own' says on_device = True, but its work cannot be recorded"):
        passes(Waits())


@pytest.mark.parametrize("memory", [None, "sqrt"])
@pytest.mark.parametrize("state_at", [None, 6, 3])
def test_every_kind_of_training_step_is_replayed_with_the_bits_of_its_pieces(
    memory: str | None, state_at: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments within a bound of memory, truncated steps that carry the state on, dropout in all of them."""
    monkeypatch.setattr("gpulstm.engines.cuda.engine.BLOCK_ROWS", 4)  # a step is a block, so that six steps can be cut

    def run(find: Callable[..., Any] | None) -> list[list[bytes]]:
        with monkeypatch.context() as patch:
            if find is not None:
                patch.setattr(Recordings, "find", find)
            spec = StackSpec("lstm", 3, 7, 2, dropout=0.2, recurrent_dropout=0.1)
            network = Network(NetworkConfig(spec), device="cuda", seed=2)
            gradients = GradientPass(network, MSE(), network.params.like(), 0.5, memory)
            optimizer, state, seen = Adam(), None, []
            optimizer.init(network.params)
            read = None if state_at is None else 3
            rng, put = np.random.default_rng(0), network.backend.from_host
            states = []
            for _ in range(5):
                x = put(rng.normal(size=(6, 4, 3)).astype("f"))
                target = put(rng.normal(size=(4 * (read or 1), 1, 1)).astype("f"))
                result = gradients(x, target, state=state, read=read, state_at=state_at)
                optimizer.step(network.params, gradients.grads, rate=0.01, scale=result.scale)
                state = result.state
                states.append(state)
                seen.append(bits(result.value, result.norm, network.params.flat, *(state or ())))
            assert network.calls == 5 * (2 if state_at == 3 else 1)
            if state_at is not None:  # earlier states keep their values
                assert [bits(*one) for one in states] == [one[3:] for one in seen]
            assert (len(gradients._recordings) == 1) == (find is None)
            assert ("1 recorded" if find is None else "0 recorded") in gradients.explain(6, 4)
            return seen

    assert run(None) == run(lambda self, key, make: None)


def test_two_devices_keep_their_recordings_apart() -> None:
    """In one process on a device each, and arrays of the other device are refused by name before any replay."""
    program = TESTS / "hostgpu" / "programs" / "devices_program.py"
    settings = {"HOSTGPU_DEVICES": "2", planner.GRAPH: "1"}
    if not hostgpu.simulated() and resolve("cuda").xp.cuda.runtime.getDeviceCount() < 2:
        return
    run = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, env={**os.environ, **settings})
    assert run.returncode == 0, run.stdout + run.stderr
    assert "ok" in run.stdout
