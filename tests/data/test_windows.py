"""Windows: every gathered window is the plain slice, nothing is materialised, and nothing leaks over a cut."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpulstm.arrays.backend
from gpulstm.data.loading import load_series
from gpulstm.data.scaling import Scaler
from gpulstm.data.series import SeriesSet
from gpulstm.data.splits import Cuts, chronological_cuts
from gpulstm.data.windows import WindowSet, window_set
from gpulstm.errors import ConfigError, DataError, ShapeError

CPU = gpulstm.arrays.devices.resolve("cpu")


@given(
    lengths=st.lists(st.integers(1, 25), min_size=1, max_size=4),
    context=st.integers(1, 6),
    horizon=st.integers(1, 4),
    stride=st.integers(1, 5),
    roles=st.tuples(st.integers(1, 3), st.integers(0, 2), st.integers(0, 2)),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=150, deadline=None)
def test_every_gathered_window_is_the_plain_slice(
    lengths: list[int], context: int, horizon: int, stride: int, roles: tuple[int, int, int], seed: int
) -> None:
    targets, past, future = roles
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.random.default_rng(seed).normal(size=(offsets[-1], sum(roles)))
    build = {
        "context": context,
        "horizon": horizon,
        "targets": targets,
        "past": past,
        "future": future,
        "stride": stride,
    }
    expected = [
        (series, start)
        for series, length in enumerate(lengths)
        for start in range(0, length - context - horizon + 1, stride)
    ]
    if not expected:
        with pytest.raises(DataError, match=f"a window needs {context + horizon}"):
            WindowSet(values, offsets, **build)
        return
    windows = WindowSet(values, offsets, **build)
    assert len(windows) == len(expected)
    batch = windows.gather(slice(None), CPU)
    assert batch.weight is None
    for index, (series, start) in enumerate(expected):
        rows = values[offsets[series] : offsets[series + 1]]
        seen, ahead = rows[start : start + context], rows[start + context : start + context + horizon]
        np.testing.assert_array_equal(batch.x[:, index], seen)
        np.testing.assert_array_equal(batch.target[index], ahead[:, :targets])
        if future:
            np.testing.assert_array_equal(batch.future[index], ahead[:, targets + past :])
        else:
            assert batch.future is None
        assert windows.series_of(index) == series


def test_memory_grows_with_the_series_and_not_with_the_window() -> None:
    rows = 100_000
    values = np.zeros((rows, 1), np.float32)
    tracemalloc.start()
    windows = WindowSet(values, np.array([0, rows]), context=2_000, horizon=100)
    batch = windows.gather(np.arange(8), CPU)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(windows) == rows - 2_100 + 1
    assert batch.x.shape == (2_000, 8, 1)
    assert peak < 40 * rows  # bytes; the windows themselves would be 4 * 2,100 * rows


def test_gather_on_a_device(backend, rng) -> None:
    values = rng.normal(size=(40, 3)).astype(np.float32)
    observed = rng.random((40, 3)) > 0.2
    build = {"context": 6, "horizon": 3, "targets": 1, "past": 1, "future": 1, "observed": observed, "mask": True}
    windows = WindowSet(values, np.array([0, 40]), window_scaling="standard", **build)
    indices = np.array([5, 0, 17])
    batch, plain = windows.gather(indices, backend), windows.gather(indices, CPU)
    for name in ("x", "target", "future", "weight", "location", "scale"):
        array = getattr(batch, name)
        assert backend.owns(array)
        assert array.dtype == np.float32
        np.testing.assert_allclose(backend.to_host(array), getattr(plain, name), rtol=1e-5, atol=1e-6)
    first = windows.resident[backend.device][0]
    part = windows.within(np.array([10]), np.array([30]))
    part.gather(0, backend)
    assert part.resident[backend.device][0] is first  # uploaded once, and shared with parts of the set


def test_window_scaling_is_undone_by_location_and_scale(rng) -> None:
    values = rng.normal(size=(30, 2)).cumsum(axis=0)
    plain = WindowSet(values, np.array([0, 30]), context=5, horizon=2, past=1).gather(slice(None), CPU)
    for kind in ("standard", "mean", "last"):
        windows = WindowSet(values, np.array([0, 30]), context=5, horizon=2, past=1, window_scaling=kind)
        batch = windows.gather(slice(None), CPU)
        np.testing.assert_allclose(
            batch.target * batch.scale[:, None] + batch.location[:, None], plain.target, rtol=1e-12
        )
        np.testing.assert_allclose(batch.x[..., :1] * batch.scale + batch.location, plain.x[..., :1], rtol=1e-12)
        np.testing.assert_array_equal(batch.x[..., 1], plain.x[..., 1])
        both = replace(windows, moved=(1,)).gather(slice(None), CPU)
        columns, location, scale = both.moved
        assert columns == [0, 1]
        np.testing.assert_array_equal(both.x[..., 0], batch.x[..., 0])
        np.testing.assert_array_equal(both.target, batch.target)
        np.testing.assert_allclose(both.x * scale + location, plain.x, rtol=1e-12)


def test_numbers_that_are_past_covariates_are_scaled_with_their_window_and_categories_are_not(rng) -> None:
    table = {"y": rng.normal(size=20), "wind": rng.normal(size=20), "sky": list("abcb" * 5)}
    series = load_series(table, target="y", past=["wind", "sky"])
    windows = window_set(series, lambda values, offsets, dtype: values.astype(dtype), context=3, horizon=2)
    assert series.columns == ("y", "wind", "sky=a", "sky=b", "sky=c")
    assert windows.moved == (1,)


def test_missing_targets_weigh_nothing_and_masks_say_what_was_seen() -> None:
    series = load_series(np.array([1.0, 2, np.nan, 4, 5, np.nan, 7]), missing="mask")
    windows = window_set(series, lambda values, offsets, dtype: values.astype(dtype), context=3, horizon=2)
    assert windows.inputs == 2
    batch = windows.gather(slice(None), CPU)
    np.testing.assert_array_equal(batch.x[:, 0], [[1, 1], [2, 1], [0, 0]])
    np.testing.assert_array_equal(batch.target[:, :, 0], [[4, 5], [5, 0], [0, 7]])
    np.testing.assert_array_equal(batch.weight[:, :, 0], [[1, 1], [1, 0], [0, 1]])
    filled = load_series(series.values[:, 0], missing="forward")
    windows = window_set(filled, lambda values, offsets, dtype: values.astype(dtype), context=3, horizon=2)
    batch = windows.gather(slice(None), CPU)
    np.testing.assert_array_equal(batch.x[:, 0, 0], [1, 2, 2])
    np.testing.assert_array_equal(batch.weight[:, :, 0], [[1, 1], [1, 0], [0, 1]])


def test_windows_without_an_observed_target_are_left_out() -> None:
    values = np.arange(10.0)[:, None]
    observed = np.ones((10, 1), bool)
    observed[5:7] = False
    build = {"context": 2, "horizon": 2, "observed": observed}
    windows = WindowSet(values, np.array([0, 10]), **build)
    np.testing.assert_array_equal(windows.origins, [2, 3, 4, 6, 7, 8])
    windows = WindowSet(values, np.array([0, 10]), mask=True, **build)
    np.testing.assert_array_equal(windows.origins, [2, 3, 4, 6, 8])
    with pytest.raises(DataError, match="no window has an observed target"):
        WindowSet(values, np.array([0, 10]), context=2, horizon=2, observed=np.zeros((10, 1), bool))


def two_series(rng) -> SeriesSet:
    return load_series(rng.normal(size=(2, 60, 2)).cumsum(axis=1), target=[0], past=[1])


def prepared(series: SeriesSet, validation: float | int = 12, test: float | int = 10):
    cuts = chronological_cuts(series, validation, test)
    scaler = Scaler().fit(series.values, series.offsets, cuts.train, names=series.names, columns=series.columns)
    windows = window_set(series, scaler.transform, context=8, horizon=4, cuts=cuts)
    windows = replace(windows, window_scaling="standard")
    return cuts, scaler, parts_of(windows, cuts)


def parts_of(windows: WindowSet, cuts: Cuts) -> tuple[WindowSet, ...]:
    """Training, validation and test windows."""
    begins = (windows.offsets[:-1], cuts.train, cuts.validation)
    parts = [windows.within(*rows) for rows in zip(begins, (*begins[1:], windows.offsets[1:]), strict=True)]
    windows.check_training(parts[0], cuts)
    return tuple(parts)


def test_parts_share_no_target(rng) -> None:
    cuts, _, parts = prepared(two_series(rng))
    np.testing.assert_array_equal(cuts.train, [38, 98])
    np.testing.assert_array_equal(cuts.validation, [50, 110])
    rows = [{int(origin) + step for origin in part.origins for step in range(4)} for part in parts]
    assert not rows[0] & rows[1]
    assert not rows[1] & rows[2]
    assert rows[0] == {*range(8, 38), *range(68, 98)}
    assert rows[1] == {*range(38, 50), *range(98, 110)}
    assert rows[2] == {*range(50, 60), *range(110, 120)}


@given(seed=st.integers(0, 2**16), size=st.floats(1, 1e6), holes=st.booleans())
@settings(max_examples=25, deadline=None)
def test_nothing_after_the_cut_reaches_scaling_or_training_batches(seed: int, size: float, holes: bool) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(2, 60, 2))
    values[:, 35:37, 0] = np.nan  # a gap up to the cut, which interpolation would fill from behind it
    values[:, 36:40, 1] = np.nan
    changed = values.copy()
    changed[:, 38:] = np.nan if holes else rng.normal(size=(2, 22, 2)) * size
    before, after = (
        prepared(load_series(array, target=[0], past=[1], missing="interpolate"))
        if not np.isnan(array[:, 38:]).all()
        else prepared(load_series(array, target=[0], past=[1], missing="interpolate"), 22, 0)
        for array in (values, changed)
    )
    np.testing.assert_array_equal(before[1].location, after[1].location)
    np.testing.assert_array_equal(before[1].scale, after[1].scale)
    np.testing.assert_array_equal(before[2][0].origins, after[2][0].origins)
    first, second = (run[2][0].gather(slice(None), CPU) for run in (before, after))
    for name in ("x", "target", "weight", "location", "scale"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_origins_are_checked(rng) -> None:
    series = load_series({"y": rng.normal(size=20), "id": ["a"] * 12 + ["b"] * 8}, series="id")

    def at(*origins: int) -> WindowSet:
        return window_set(series, lambda values, *_: values, context=3, horizon=2, origins=np.array(origins))

    np.testing.assert_array_equal(at(3, 15).series_of(), [0, 1])
    for origin in (2, 11, 14, 19, -1, 25):
        with pytest.raises(DataError, match="needs 3 rows before it and 2 from it on"):
            at(origin)
    windows = WindowSet(series.values, series.offsets, context=3, horizon=2)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        windows.batches(0)
    assert [len(part) for part in windows.batches(5)] == [5, 5, 2]
    np.testing.assert_array_equal(np.concatenate(windows.batches(5, np.arange(12)[::-1])), np.arange(12)[::-1])


def test_mistakes(rng) -> None:
    values, offsets = rng.normal(size=(20, 2)), np.array([0, 20])
    with pytest.raises(ConfigError, match="context is 0, expected a whole number"):
        WindowSet(values, offsets, context=0, horizon=1, targets=2)
    with pytest.raises(ConfigError, match=r"horizon is 1\.5"):
        WindowSet(values, offsets, context=1, horizon=1.5, targets=2)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="1 targets, 0 past and 0 future"):
        WindowSet(values, offsets, context=1, horizon=1)
    with pytest.raises(ShapeError, match="observed has shape"):
        WindowSet(values, offsets, context=1, horizon=1, targets=2, observed=np.ones((3, 2), bool))
    with pytest.raises(ConfigError, match="window_scaling is 'max'"):
        WindowSet(values, offsets, context=1, horizon=1, targets=2, window_scaling="max")
    windows = WindowSet(values, offsets, context=6, horizon=4, targets=2)
    with pytest.raises(DataError, match="longest training part has 9 rows, but a window needs 10"):
        parts_of(windows, chronological_cuts(load_series(values), 11))
    short = WindowSet(values, np.array([0, 3, 20]), context=4, horizon=2, targets=2, names=["a", "b"])
    assert short.skipped == ["a"]


@pytest.mark.parametrize("kind", ["last", "mean", "standard"])
def test_carried_windows_are_placed_by_rows_before_their_end(kind: str, backend, rng) -> None:
    values = rng.normal(size=(400, 1)).cumsum(axis=0)
    build = {"context": 10, "horizon": 2, "window_scaling": kind}
    plain = WindowSet(values, np.array([0, 400]), context=10, horizon=2).gather(slice(None), CPU).x[:, :, 0]
    windows = WindowSet(values, np.array([0, 400]), scale_lag=4, **build)
    batch = windows.gather(slice(None), backend)
    location = backend.to_host(batch.location)[:, 0]
    used = set()
    for index in range(len(windows)):
        rows = plain[:, index]
        fits = [stop for stop in range(6, 11) if np.isclose(location[index], _place(kind, rows[:stop]), rtol=1e-12)]
        assert len(fits) == 1
        used.add(fits[0])
    assert used == {6, 7, 8, 9, 10}
    again = windows.gather(np.array([7, 3]), backend)
    np.testing.assert_allclose(backend.to_host(again.location)[:, 0], location[[7, 3]], rtol=1e-12)
    with pytest.raises(ConfigError, match="scale_lag is 10, expected less than the context of 10"):
        WindowSet(values, np.array([0, 400]), scale_lag=10, **build)


def _place(kind: str, rows: np.ndarray) -> float:
    return float(rows[-1] if kind == "last" else rows.mean())
