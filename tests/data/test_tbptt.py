"""Truncated backpropagation: lanes, carried states, gradients over `reach` rows, runs that go on bit for bit."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import Call, numbers
from variables import SetVariable

from gpulstm import losses, optimizers
from gpulstm.arrays.devices import resolve, to_host
from gpulstm.data.tbptt import Lanes
from gpulstm.data.windows import WindowSet
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import ConfigError, DataError, ShapeError, TrainingError
from gpulstm.forecast.forecaster import Forecaster
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.training.trainer import Trainer

CPU = resolve("cpu")


def series(*rows: int, missing: bool = False, dtype: str = "float64", **options: Any) -> WindowSet:
    """Series of a target and a past covariate whose values tell their row."""
    count = sum(rows)
    values = np.stack([np.arange(count), 1000 + np.arange(count)], axis=1).astype(dtype)
    observed = np.random.default_rng(0).random(values.shape) > 0.3 if missing else None
    offsets = np.concatenate([[0], np.cumsum(rows)])
    origins = np.zeros(0, np.int64)
    return WindowSet(
        values, offsets, context=1, horizon=2, targets=1, past=1, observed=observed, origins=origins, **options
    )


def lanes(windows: WindowSet, count: int = 2, chunk: int = 3, reach: int = 3, **options: Any) -> Lanes:
    return Lanes(windows, windows.offsets[1:], lanes=count, chunk=chunk, reach=reach, **options)


def test_every_row_is_a_target_once_and_chunks_follow_one_another() -> None:
    data = lanes(series(34), count=3)
    steps = [data.gather(run, CPU) for run in data.batches(3)]
    assert [step.x.shape for step in steps] == [(3, 3, 2)] * 3 + [(3, 1, 2)]  # 10 chunks: 4, 3, 3
    newest = np.concatenate([step.x[..., 0].ravel() for step in steps])
    assert sorted(newest) == list(range(2, 32))  # 32 rows have a whole horizon; two at the beginning are left over
    for before, after in itertools.pairwise(steps):
        count = after.x.shape[1]
        np.testing.assert_array_equal(after.x[0, :, 0], before.x[-1, :count, 0] + 1)
        assert not after.fresh.any()
    assert steps[0].fresh.all()
    for step in steps:
        rows = step.x[..., 0].reshape(-1)  # step after step
        np.testing.assert_array_equal(step.target[:, :, 0], rows[:, None] + [1, 2])


def test_reach_looks_back_beyond_the_chunk() -> None:
    data = lanes(series(34), chunk=3, reach=9)
    steps = [data.gather(run, CPU) for run in data.batches(2)]
    assert steps[0].x.shape == (9, 2, 2) and steps[0].target.shape == (6, 2, 1)
    assert (steps[0].read, steps[0].state_at) == (3, 3)
    np.testing.assert_array_equal(steps[1].x[:, 0, 0], steps[0].x[:, 0, 0] + 3)
    targets = np.concatenate([step.target[:, 0, 0] for step in steps])
    assert sorted(targets) == list(range(33 - len(targets), 33))


@pytest.mark.parametrize("borders", ["reset", "carry"])
def test_borders_of_series_lie_between_chunks(borders: str) -> None:
    data = lanes(series(13, 4, 20), count=1, borders=borders)
    fresh = [bool(data.gather(run, CPU).fresh[0]) for run in data.batches(1)]
    firsts = [int(data.gather(run, CPU).x[0, 0, 0]) for run in data.batches(1)]
    assert data.skipped == ["1"]
    assert firsts == [2, 5, 8, 17, 20, 23, 26, 29, 32]
    assert fresh == [step in ((0, 3) if borders == "reset" else (0,)) for step in range(9)]


def test_missing_targets_weigh_nothing_and_are_told_to_the_network() -> None:
    data = lanes(series(40, missing=True, mask=True))
    batch = data.gather(data.batches(2)[1], CPU)
    rows = data.starts[data.batches(2)[1]][None, :] + np.arange(3)[:, None]
    observed = data.windows.observed
    assert observed is not None and batch.weight is not None
    np.testing.assert_array_equal(batch.x[..., 2:], observed[rows])
    ahead = rows.reshape(-1)[:, None] + [1, 2]
    np.testing.assert_array_equal(batch.weight[..., 0], observed[ahead][..., 0])
    np.testing.assert_array_equal(batch.target[..., 0], ahead * observed[ahead][..., 0])


def network(device: str = "cpu", cell: Any = "lstm", dtype: str = "float64", dropout: float = 0.2) -> Network:
    stack = StackSpec(cell, 2, 4, num_layers=2, dtype=dtype, dropout=dropout, recurrent_dropout=dropout / 2)
    return Network(NetworkConfig(stack, horizon=2), device=device, seed=4)


def trainer(device: str = "cpu", cell: Any = "lstm", dropout: float = 0.2, **options: Any) -> Trainer:
    settings = {"epochs": 3, "batch_size": 2, "clip_norm": 0.5, "log_every": 2, "schedule": 0.01, **options}
    return Trainer(network(device, cell, dropout=dropout), losses.MSE(), optimizers.Adam(), **settings)


def wave(rows: int = 60, **options: Any) -> WindowSet:
    data = series(rows, **options)
    data.values[:] = np.sin(data.values / 3)
    return data


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_lane_without_truncation_is_one_long_sequence(cell: str) -> None:
    """Losses and states of steps with a rate of nearly zero are those of one pass over the whole lane."""
    options = {"dropout": 0.0, "batch_size": 1, "epochs": 1, "schedule": 1e-300, "log_every": 1}
    data, run = lanes(wave(29), count=1), trainer(cell=cell, **options)
    seen: list[float] = []
    states: list[Any] = []
    watch = Call(0, lambda _: None)
    watch.on_log = lambda run, loss: (seen.append(loss), states.append(run.state.network_state))  # type: ignore[method-assign,attr-defined]
    run.callbacks.append(watch)
    run.fit(data)
    runs = data.batches(1)
    x = np.concatenate([data.gather(part, CPU).x for part in runs])
    raw, state, _ = run.network.forward(x, read=len(x))
    target = np.concatenate([data.gather(part, CPU).target for part in runs])
    per_chunk = ((raw[..., 0] - target) ** 2).reshape(len(runs), -1).mean(axis=1)
    np.testing.assert_allclose(seen, per_chunk, rtol=1e-12)
    for one, other in zip(np.atleast_1d(states[-1]), np.atleast_1d(state), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_gradients_flow_through_reach_rows_and_equal_central_differences() -> None:
    data, net = lanes(wave(), chunk=3, reach=9), network(dropout=0.0)
    state = tuple(np.random.default_rng(1).normal(size=(2, 2, 4)) for _ in range(2))
    batch, loss = data.gather(data.batches(2)[1], CPU), losses.MSE()

    def value() -> float:
        raw = net.forward(batch.x, None, state, read=3, state_at=3)[0]
        return float(loss(raw, batch.target)[0])

    raw, carried, tape = net.forward(batch.x, None, state, training=True, read=3, state_at=3)
    assert tape is not None and raw.shape == (6, 2, 1, 1)
    grads = net.backward(tape, loss(raw, batch.target)[1])
    np.testing.assert_array_equal(carried[0], net.forward(batch.x[:3], None, state)[1][0])
    whole, _, tape_whole = net.forward(batch.x, None, state, training=True, read=3)
    np.testing.assert_allclose(raw, whole, rtol=1e-12)
    assert tape_whole is not None
    np.testing.assert_allclose(net.backward(tape_whole, loss(whole, batch.target)[1]).flat, grads.flat, atol=1e-14)
    rng = np.random.default_rng(2)
    for name in net.params:
        array = net.params[name]
        for index in rng.integers(0, array.size, 3):
            at, old = np.unravel_index(index, array.shape), array.flat[index]
            array[at] = old + 1e-5
            high = value()
            array[at] = old - 1e-5
            low = value()
            array[at] = old
            assert grads[name][at] == pytest.approx((high - low) / 2e-5, abs=1e-8), name


@pytest.mark.parametrize("reach", [3, 6])
@pytest.mark.parametrize("step", [1, 3, 10, 13])
def test_a_run_goes_on_bit_for_bit(step: int, reach: int, tmp_path: Path, device: str) -> None:
    data = lanes(wave(missing=True), reach=reach, borders="carry")
    whole = trainer(device)
    whole.fit(data)
    stopped = trainer(device, callbacks=[Call(step, lambda run: run.stop("enough"))])
    stopped.fit(data)
    assert stopped.step == step and stopped.network.calls == step * (reach // 3)
    stopped.save(tmp_path / "run")
    rest = trainer(device)
    rest.restore(tmp_path / "run")
    rest.fit(data)
    assert numbers(rest) == numbers(whole)
    stopped.callbacks.clear()
    stopped.fit(data)
    assert numbers(stopped) == numbers(whole)


def test_a_bound_on_memory_changes_no_bit(monkeypatch: pytest.MonkeyPatch, set_variable: SetVariable) -> None:
    set_variable("GPULSTM_ENGINE", "reference")
    monkeypatch.setattr("gpulstm.engines.reference.BLOCK_ROWS", 2)  # a step is a block
    whole, bounded = trainer(), trainer(memory="sqrt")
    whole.fit(lanes(wave(), chunk=4, reach=12))
    bounded.fit(lanes(wave(), chunk=4, reach=12))
    assert numbers(bounded) == numbers(whole)
    with pytest.raises(ConfigError, match="memory is '1KiB', but a training step"):
        trainer(memory="1KiB").fit(lanes(wave(), reach=9))


def test_a_step_that_is_not_finite_is_named_and_undone() -> None:
    data = wave()
    data.values[40, 1] = np.nan
    run = trainer(log_every=5)
    with pytest.raises(TrainingError, match=r"at step \d+ .*the loss is nan; its windows hold a value in x") as caught:
        run.fit(lanes(data, reach=6))
    assert f"at step {run.step + 1} " in str(caught.value)
    assert run.network.calls == 2 * run.step
    clean = trainer(log_every=5, callbacks=[Call(run.step, lambda run: run.stop("there"))])
    clean.fit(lanes(wave(), reach=6))
    assert to_host(clean.network.params.flat).tobytes() == to_host(run.network.params.flat).tobytes()
    np.testing.assert_array_equal(np.stack(clean.state.network_state), np.stack(run.state.network_state))


def test_the_state_brings_what_a_chunk_cannot_see() -> None:
    """Every 7 rows a sign is shown, which is the target 3 rows later; in half of the cases in another chunk of 4."""
    sign = np.repeat(np.random.default_rng(0).choice([-1.0, 1.0], 900), 7)
    row = np.arange(sign.size) % 7
    values = np.stack([np.where(row == 3, sign, 0.0), np.where(row == 0, sign, 0.0)], axis=1)

    def last_loss(width: int) -> float:
        offsets = np.arange(0, len(values) + 1, width)
        data = WindowSet(values, offsets, context=1, horizon=1, targets=1, past=1, origins=np.zeros(0, np.int64))
        net = Network(NetworkConfig(StackSpec("lstm", 2, 12, dtype="float64")), device="cpu", seed=0)
        run = Trainer(net, losses.MSE(), schedule=0.02, epochs=8, batch_size=16, clip_norm=1.0)
        run.fit(Lanes(data, data.offsets[1:], lanes=16, chunk=4, reach=4))
        loss = run.history.rows[-1]["train_loss"]
        assert loss is not None
        return float(loss)

    assert last_loss(len(values)) < 0.2 * last_loss(5)


FORECASTER: dict[str, Any] = {
    "horizon": 3, "context": 24, "hidden_size": 8, "num_layers": 1, "device": "cpu", "epochs": 2, "batch_size": 4,
    "training": "truncated", "window_scaling": "none", "chunk": 8, "validation": 40,
}  # fmt: skip


def sales(rows: int = 400) -> dict[str, Any]:
    days = np.datetime64("2024-01-01", "D") + np.arange(rows)
    return {"day": days, "y": np.sin(np.arange(rows) / 4), "k": np.cos(np.arange(rows) / 5)}


@pytest.mark.parametrize("strategy", ["direct", "recursive"])
def test_a_forecaster_trains_so(strategy: str, tmp_path: Path) -> None:
    roles: dict[str, Any] = {"target": "y", "time": "day", "future": "k", "progress": False}
    forecaster = Forecaster(**{**FORECASTER, "strategy": strategy, "draws": 5, "epochs": 10, "reach": 16, "test": 20})
    forecaster.fit(sales(), **roles)
    losses_ = forecaster.history.columns()["validation_loss"]
    assert losses_[-1] < losses_[0]
    ahead = np.ones((3, 1))
    assert forecaster.predict(future=ahead).mean.shape == (1, 3, 1)
    assert not forecaster.backtest(stride=5).seen
    forecaster.save(tmp_path / "f")
    again = Forecaster.load(tmp_path / "f", "cpu")
    options = again.config
    assert (options.training, options.chunk, options.reach) == ("truncated", 8, 16)
    np.testing.assert_array_equal(again.predict(future=ahead).mean, forecaster.predict(future=ahead).mean)


def test_a_forecaster_goes_on_bit_for_bit(tmp_path: Path) -> None:
    roles: dict[str, Any] = {"target": "y", "progress": False, "past": "k"}
    table = {name: value for name, value in sales().items() if name != "day"}
    options = {**FORECASTER, "dropout": 0.3, "num_layers": 2, "schedule": "constant"}
    whole = Forecaster(**options).fit(table, **roles)
    Forecaster(**{**options, "epochs": 1}).fit(table, **roles, checkpoint=tmp_path / "run")
    rest = Forecaster(**options).fit(table, **roles, resume=tmp_path / "run")
    np.testing.assert_array_equal(rest.predict().mean, whole.predict().mean)


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match="reach is 7, expected a multiple of the chunk of 3 rows"):
        lanes(series(30), reach=7)
    with pytest.raises(ConfigError, match="borders is 'blend', expected 'reset' or 'carry'"):
        lanes(series(30), borders="blend")
    with pytest.raises(ConfigError, match="window_scaling is 'last', expected 'none'"):
        lanes(series(30, window_scaling="last"))
    with pytest.raises(DataError, match="make 9 chunks of 3 rows, fewer than two for each of 5 lanes"):
        lanes(series(30), count=5)
    with pytest.raises(ConfigError, match="batch_size is 4, expected 2, the number of lanes"):
        trainer(batch_size=4).fit(lanes(wave()))
    other = Trainer(
        Network(NetworkConfig(StackSpec("lstm", 2, 3), horizon=5), device="cpu"), losses.MSE(), batch_size=2
    )
    with pytest.raises(ShapeError, match="the windows of train have horizon 2, the network was made for 5"):
        other.fit(lanes(wave()))
    with pytest.raises(ConfigError, match="training='truncated' needs window_scaling='none', got 'last'"):
        Forecaster(training="truncated")
    with pytest.raises(ConfigError, match="training is 'stateful', expected any of 'windows', 'truncated'"):
        Forecaster(training="stateful")
    with pytest.raises(ConfigError, match="reach is 100, expected a multiple of the chunk of 64 rows"):
        Forecaster(reach=100)
    x, net = np.zeros((6, 2, 2)), network()
    for options, words in (
        ({"read": 7}, "read is 7, expected 1 to 6"),
        ({"read": 4, "state_at": 3}, "read is 4, expected 1 to 3"),
        ({"state_at": 0}, "state_at is 0, expected 1 to T = 6"),
        ({"read": 1, "lengths": [6, 6]}, "lengths cannot be combined with read or state_at"),
    ):
        with pytest.raises(ConfigError, match=words):
            net.forward(x, **options)  # type: ignore[arg-type]
