"""Training in 16 bits: the curve of float32, steps left out, the scale that finds itself, no waiting, checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import make, numbers, windows
from variables import SetVariable

import gpulstm
import hostgpu
from gpulstm import losses
from gpulstm.arrays.devices import resolve, to_host
from gpulstm.arrays.dtypes import HALF
from gpulstm.arrays.params import ParamDict
from gpulstm.engines.cuda import planner
from gpulstm.errors import ConfigError, DTypeError, TrainingError
from gpulstm.training.callbacks import Callback
from gpulstm.training.mixed_precision import FIRST, MOST, LossScale, masters
from gpulstm.training.trainer import Trainer

pytestmark = pytest.mark.cuda


@pytest.fixture(params=["1", "0"], ids=["graph", "launched"])
def graph(request: pytest.FixtureRequest, set_variable: SetVariable) -> str:
    """With passes replayed as graphs, and without."""
    set_variable(planner.GRAPH, request.param)
    return request.param


def half(**options: Any) -> Trainer:
    """A trainer of a network in float16."""
    return make("cuda", "float16", **options)


class Watch(Callback):
    """The loss scale before each step."""

    name = "watch"

    def __init__(self, change: dict[int, float] | None = None) -> None:
        self.seen: list[float] = []
        self.weights: list[bytes] = []
        self.change = change or {}

    def on_step(self, run: Any) -> None:
        self.seen.append(float(run.state.loss_scale.state[0]))
        self.weights.append(to_host(run.weights.flat).tobytes())
        if run.step in self.change:
            run.state.loss_scale.state[0] = self.change[run.step]


@pytest.mark.parametrize(("dtype", "allowed"), [("float16", 0.02), ("bfloat16", 0.05)])
def test_it_trains_the_curve_of_float32(dtype: str, allowed: float, graph: str) -> None:
    """Within a few percent of each epoch's loss, over which both fall by more than half."""
    data = windows(60, "float32")
    runs = [make("cuda", name) for name in ("float32", dtype)]
    curves = []
    for run in runs:
        history = run.fit(data)
        curves.append(np.array([row["train_loss"] for row in history.rows]))
    assert runs[1].network.params.flat.dtype.name == dtype
    assert (runs[1].state.loss_scale is None) == (dtype == "bfloat16")
    assert runs[1].weights.flat.dtype == np.float32
    np.testing.assert_allclose(curves[1], curves[0], rtol=allowed)
    assert curves[0][-1] < 0.5 * curves[0][0]
    copies = runs[1].weights.flat.astype(runs[1].network.params.flat.dtype)
    assert to_host(runs[1].network.params.flat).tobytes() == to_host(copies).tobytes()


def test_a_step_that_overflows_is_left_out_and_the_scale_halved(graph: str) -> None:
    watch = Watch({4: 2.0**18})
    run = half(callbacks=[watch], epochs=4)
    run.state.loss_scale.state[0] = 1024.0  # type: ignore[union-attr]
    run.fit(windows(dtype="float32"))
    assert watch.seen[:4] == [1024.0] * 4
    after = watch.seen[4:]
    skipped = [old < before for before, old in zip([2.0**18, *after], after, strict=False)]
    assert skipped[0] and not all(skipped)
    for number, left_out in enumerate(skipped):
        step = 4 + number
        assert (watch.weights[step] == watch.weights[step - 1]) == left_out
    assert sorted(after, reverse=True) == after
    assert set(after) <= {2.0**n for n in range(25)}


def test_the_scale_is_doubled_after_good_steps() -> None:
    scale = LossScale(resolve("cuda"), interval=3)
    backend = scale.backend
    good, bad = backend.from_host(np.float32(0.5)), backend.from_host(np.float32(np.nan))
    seen = []
    for factor in (good, good, good, good, bad, good, good, good):
        scale.move(factor)
        seen.append(to_host(scale.state).tolist())
    assert seen == [
        *([FIRST, 1.0], [FIRST, 2.0], [2 * FIRST, 0.0], [2 * FIRST, 1.0]),
        *([FIRST, 0.0], [FIRST, 1.0], [FIRST, 2.0], [2 * FIRST, 0.0]),
    ]
    scale.state[...] = backend.from_host(np.array([MOST, 2], "f"))
    scale.move(good)
    assert to_host(scale.state).tolist() == [MOST, 0.0]
    scale.state[...] = backend.from_host(np.array([1, 0], "f"))
    scale.move(bad)
    assert to_host(scale.state).tolist() == [1.0, 0.0]


def test_a_run_that_has_diverged_is_not_left_out_for_ever() -> None:
    """Data that no scale can save: not finite at a scale of 1."""
    run = half(epochs=50, log_every=1)
    run.state.loss_scale.state[0] = 4.0  # type: ignore[union-attr]
    data = windows(dtype="float32")
    data.values[...] *= 1e30
    with pytest.raises(TrainingError, match="training stopped at step"):
        run.fit(data)


@pytest.mark.parametrize("dtype", HALF)
def test_a_run_goes_on_bit_for_bit(dtype: str, graph: str, tmp_path: Path) -> None:
    data = windows(dtype="float32")

    class Stop(Callback):
        name = "stop"

        def on_step(self, run: Any) -> None:
            if run.step == 7:
                run.stop("enough")

    whole, first, rest = (make("cuda", dtype, epochs=3, callbacks=calls) for calls in ([], [Stop()], []))
    for run in (whole, first):
        if run.state.loss_scale is not None:
            run.state.loss_scale.state[0] = 2.0**24
    whole.fit(data)
    first.fit(data)
    first.save(tmp_path / "run")
    rest.restore(tmp_path / "run")
    rest.fit(data)
    assert numbers(rest) == numbers(whole)
    for run in (rest, whole):
        assert to_host(run.weights.flat).tobytes() == to_host(whole.weights.flat).tobytes()
        if run.state.loss_scale is not None and whole.state.loss_scale is not None:
            assert to_host(run.state.loss_scale.state).tobytes() == to_host(whole.state.loss_scale.state).tobytes()


def test_a_warm_step_waits_for_nothing_and_makes_few_calls(set_variable: SetVariable) -> None:
    """Counted by the simulator; a GPU has no such counters, and there the steps are only taken."""
    set_variable(planner.GRAPH, "1")
    run = half(epochs=1, batch_size=4, log_every=1000)
    assert "graph of a whole training pass: replayed from the second pass of a shape on; 0 recorded" in run.explain(6)
    counted: list[dict[str, Any]] = []
    step = run._steps.take

    def count(*arguments: Any) -> None:
        batch = arguments[0].gather(arguments[1], run.network.backend)
        arguments = (type("Ready", (), {"gather": lambda *_: batch})(), arguments[1])
        with hostgpu.counting() as results:
            step(*arguments)
        counted.append(dict(results))

    run._steps.take = count  # type: ignore[method-assign]
    run.fit(windows(dtype="float32"))
    if hostgpu.simulated():
        for results in counted[3:8]:
            assert sum(results[key] for key in ("sync_stream", "sync_device", "sync_event", "sync_implicit")) == 0
            assert results["mallocs"] == results["copies_d2h"] == results["copies_h2d"] == 0
            calls = results["launches"] + results["blas"] + results["graph_launches"] + results["copies_d2d"]
            assert calls <= 12, results


def test_masters_are_the_values_of_the_halves() -> None:
    params = ParamDict.allocate(resolve("cuda"), {"a": (3,), "b": (2, 2)}, "float16")
    params["a"] = np.array([0.1, 0.2, 0.3], "e")
    results = masters(params)
    assert results.flat.dtype == np.float32
    assert to_host(results["a"]).tolist() == np.array([0.1, 0.2, 0.3], "e").astype("f").tolist()


@pytest.mark.parametrize(("dtype", "allowed"), [("float16", 0.05), ("bfloat16", 0.2)])
def test_the_forecaster_takes_16_bits_on_cuda_alone(dtype: str, allowed: float, tmp_path: Path) -> None:
    rows = {"t": np.sin(np.arange(120) / 5) + 3}
    options: dict[str, Any] = {"context": 12, "hidden_size": 6, "epochs": 3, "validation": 12, "quantiles": (0.1, 0.9)}
    forecasts = []
    for name in ("float32", dtype):
        model = gpulstm.Forecaster(horizon=4, device="cuda", dtype=name, seed=1, **options)
        model.fit(rows, target="t")
        forecasts.append(model.predict().quantiles)
        assert np.isfinite(model.stream().update([3.0]).mean).all()
    np.testing.assert_allclose(forecasts[1], forecasts[0], atol=allowed)
    model.save(tmp_path / "model")
    again = gpulstm.Forecaster.load(tmp_path / "model", device="cuda")
    np.testing.assert_array_equal(again.predict().quantiles, forecasts[1])
    with pytest.raises(ConfigError, match=f"dtype is '{dtype}', which is for CUDA; on the cpu expected 'float32'"):
        gpulstm.Forecaster(horizon=4, device="cpu", dtype=dtype, **options)
    with pytest.raises(DTypeError, match=f"dtype is '{dtype}', which is storage on CUDA"):
        gpulstm.LSTM(2, 3, device="cpu", dtype=dtype)
    assert losses.MSE().outputs == 1
