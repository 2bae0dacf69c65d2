"""Device memory of recordings: given back when a model or a shape is, whole stacks of any depth recorded."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest
from variables import SetVariable

import gpulstm as gl
import hostgpu
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import resolve, to_host
from gpulstm.data.windows import WindowSet
from gpulstm.engines.cuda import planner
from gpulstm.engines.cuda.graph import KEPT, Order, Recording
from gpulstm.engines.spec import StackSpec
from gpulstm.losses import MSE
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.optimizers import Adam
from gpulstm.training.gradients import GradientPass
from gpulstm.training.trainer import Trainer

pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def always(set_variable: SetVariable) -> None:
    """Passes are replayed whatever the planner finds."""
    set_variable(planner.GRAPH, "1")


@pytest.fixture
def cuda() -> CupyBackend:
    """The first device."""
    backend = resolve("cuda")
    assert isinstance(backend, CupyBackend)
    return backend


def free_bytes(backend: CupyBackend) -> int:
    """What the device has left when everything that nobody holds has been given back."""
    gc.collect()
    backend.xp.get_default_memory_pool().free_all_blocks()
    return int(backend.xp.cuda.runtime.memGetInfo()[0])


def use(layer: gl.LSTM, steps: int) -> None:
    """Enough calls of a shape to have inference, forward and backward recorded."""
    x = layer.backend.from_host(np.ones((steps, 16, 64), "f"))
    for _ in range(3):
        y, _, tape = layer.forward(x)
        assert tape is not None
        layer.backward(tape, y)
        del tape
        layer(x)


def test_a_dropped_model_gives_its_memory_back(cuda: CupyBackend) -> None:
    use(gl.LSTM(64, 64, device="cuda", seed=0), 10)
    before = free_bytes(cuda)
    for _ in range(3):
        use(gl.LSTM(64, 64, device="cuda", seed=0), 10)
        assert free_bytes(cuda) == before


def test_a_model_within_a_cycle_gives_its_memory_back(cuda: CupyBackend) -> None:
    """The garbage collector drops the weak references within a cycle first; arrays find their pool by one."""

    def one() -> None:
        layer: Any = gl.LSTM(64, 64, device="cuda", seed=0)
        use(layer, 10)
        layer.cycle = layer

    one()
    before = free_bytes(cuda)
    for _ in range(3):
        one()
        assert free_bytes(cuda) == before


def test_a_shape_that_is_given_up_gives_its_memory_back(cuda: CupyBackend) -> None:
    layer = gl.LSTM(64, 64, device="cuda", seed=0)
    lengths = range(3, 5 + KEPT)
    for steps in lengths:
        use(layer, steps)
    before = free_bytes(cuda)
    for steps in lengths:
        use(layer, steps)
    assert free_bytes(cuda) == before


def train(number: int) -> None:
    """A model made, trained for two epochs in one of several shapes, asked once, and dropped."""
    config = NetworkConfig(StackSpec("gru" if number % 3 == 0 else "lstm", 3, 9, 1 + number % 2))
    trainer = Trainer(Network(config, device="cuda", seed=number), MSE(), Adam(), 0.01, epochs=2, batch_size=8)
    values = np.random.default_rng(number).normal(size=(30 + number % 5, 3)).astype("f")
    trainer.fit(WindowSet(values, np.array([0, len(values)]), context=5 + number % 7, horizon=1, targets=1, past=2))
    trainer.network.forward(trainer.network.backend.from_host(np.ones((4, 2, 3), "f")))


@pytest.mark.slow
def test_device_memory_is_level_over_models_made_trained_and_dropped(cuda: CupyBackend) -> None:
    for number in range(40):  # every kind of model and shape once
        train(number)
    levels = []
    for number in range(40, 240):
        train(number)
        if number % 40 == 39:
            levels.append(free_bytes(cuda))
    assert len(levels) == 5 and len(set(levels)) == 1, levels


@pytest.mark.slow
def test_device_memory_is_level_over_shapes(cuda: CupyBackend) -> None:
    layer = gl.LSTM(64, 64, device="cuda", seed=0)
    levels = []
    for _ in range(2):
        for steps in range(3, 53):
            use(layer, steps)
        levels.append(free_bytes(cuda))
    assert levels[0] == levels[1], levels


def test_a_recording_that_fails_gives_its_memory_back(cuda: CupyBackend) -> None:
    def waits(x: object) -> object:
        cuda.xp.zeros(1 << 20)
        return cuda.to_host(x)

    x = cuda.xp.ones(1 << 20)
    before = free_bytes(cuda)
    with pytest.raises(RuntimeError):
        Recording(cuda, waits, {"x": x})
    assert free_bytes(cuda) == before


def test_outputs_that_outlive_their_recording_are_given_back_later(cuda: CupyBackend) -> None:
    def function(x: Any) -> Any:
        return x + 1

    x = cuda.xp.ones(1 << 18)
    function(x)
    Recording(cuda, function, {"x": x})
    before = free_bytes(cuda)
    recording = Recording(cuda, function, {"x": x})
    kept = recording({"x": x})
    del recording
    assert float(kept[0]) == 2
    assert free_bytes(cuda) < before
    del kept
    Recording(cuda, function, {"x": x})
    assert free_bytes(cuda) == before


def test_memory_is_given_back_later_where_the_caller_records(cuda: CupyBackend) -> None:
    x = cuda.xp.ones(1 << 18)
    before = free_bytes(cuda)
    recording = Recording(cuda, lambda x: x + 1, {"x": x})
    stream = cuda.xp.cuda.Stream(non_blocking=True)
    out = cuda.xp.empty_like(x)
    cuda.xp.cuda.Device().synchronize()
    with stream:
        stream.begin_capture(cuda.xp.cuda.runtime.streamCaptureModeGlobal)  # in which nothing may be freed
        del recording
        cuda.xp.add(x, 1, out=out)
        graph = stream.end_capture()
    graph.launch(stream)
    stream.synchronize()
    assert float(out[0]) == 2
    del out, graph
    Recording(cuda, lambda x: x + 1, {"x": x})
    assert free_bytes(cuda) == before


@pytest.mark.parametrize(("num_layers", "bidirectional"), [(9, False), (5, True)])
def test_stacks_of_more_than_eight_states_are_recorded(num_layers: int, bidirectional: bool) -> None:
    layer = gl.LSTM(3, 4, num_layers=num_layers, bidirectional=bidirectional, device="cuda", seed=1)
    x = layer.backend.from_host(np.random.default_rng(0).normal(size=(3, 2, 3)).astype("f"))
    results = []
    for _ in range(3):
        y, (h, c), tape = layer.forward(x)
        assert tape is not None
        dx, _, grads = layer.backward(tape, y)
        results.append([to_host(part) for part in (y, h, c, dx, grads.flat)])
        del tape
    assert all(
        np.array_equal(one, other) for result in results[1:] for one, other in zip(results[0], result, strict=True)
    )
    assert "recorded" in str(layer.explain(3, 2, training=True))


def test_the_default_stream_of_another_thread_is_another_stream(cuda: CupyBackend) -> None:
    order, stream = Order(cuda), cuda.xp.cuda.Stream.ptds
    assert stream.ptr == 2

    def turn() -> None:
        with stream, order.turn():
            pass

    turn()
    with hostgpu.counting() as count:
        thread = threading.Thread(target=turn)
        thread.start()
        thread.join()
    if hostgpu.simulated():
        assert count["event_waits"] == 1


def training(steps: int = 5) -> tuple[GradientPass, dict[str, Any]]:
    """A pass of a small network, and a batch for it."""
    network = Network(NetworkConfig(StackSpec("lstm", 3, 9)), device="cuda", seed=2)
    rng, put = np.random.default_rng(0), network.backend.from_host
    data = {"x": put(rng.normal(size=(steps, 4, 3)).astype("f")), "target": put(rng.normal(size=(4, 1, 1)))}
    return GradientPass(network, MSE(), network.params.like()), data


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("graph_instantiate=1+", "1 more: cudaErrorMemoryAllocation"),
        ("graph_launch=1+", "1 more: cudaErrorMemoryAllocation"),
        ("capture=1+", "1 more: cudaErrorStreamCaptureInvalidated"),
    ],
)
def test_what_cuda_cannot_record_is_done_piece_by_piece(fault: str, said: str) -> None:
    if not hostgpu.simulated():
        return
    plain, data = training()
    expected = plain(**data)
    values = [to_host(expected.value), to_host(plain.grads.flat)]
    passes, data = training()
    layer, x = gl.LSTM(3, 8, device="cuda", seed=4), data["x"]
    first = to_host(layer(x)[0])
    step = layer.stream(4)
    with hostgpu.failing(fault):
        for _ in range(5):
            result = passes(**data)
            assert np.array_equal(to_host(result.value), values[0])
            assert np.array_equal(to_host(passes.grads.flat), values[1])
            assert np.array_equal(to_host(layer(x)[0]), first)
        outputs = [to_host(step(row)) for row in x]
    assert np.allclose(np.stack(outputs), first, atol=1e-6)
    assert f"not recorded, {said}" in passes.explain(5, 4)
    assert f"not recorded, {said}" in str(layer.explain(5, 4))
    passes(**data)
    assert "0 recorded" in passes.explain(5, 4)


def test_a_capture_that_another_made_invalid_is_tried_again() -> None:
    if not hostgpu.simulated():
        return
    passes, data = training()
    passes(**data)
    with hostgpu.failing("capture=1"):
        passes(**data)
        passes(**data)
    assert "1 recorded" in passes.explain(5, 4)


def test_a_recording_takes_the_memory_that_the_first_call_left(cuda: CupyBackend) -> None:
    layer = gl.LSTM(64, 64, device="cuda", seed=0)
    x = cuda.xp.ones((100, 64, 64), "f")
    layer(x)
    pool = cuda.xp.get_default_memory_pool()
    idle = pool.free_bytes()
    assert idle > 4 << 20
    layer(x)
    assert "1 recorded" in str(layer.explain(100, 64))
    assert pool.free_bytes() < 0.8 * idle  # given back before the recording asked for as much


def test_passes_that_would_fill_the_card_are_not_kept(
    monkeypatch: pytest.MonkeyPatch, set_variable: SetVariable, cuda: CupyBackend
) -> None:
    set_variable(planner.GRAPH, None)
    passes, _ = training()
    assert passes.refusal(5, 4) is None
    set_variable(planner.GRAPH, None)
    monkeypatch.setattr(cuda, "memory_total", 4096, raising=False)
    assert "is not kept between calls" in str(passes.refusal(5, 4))
