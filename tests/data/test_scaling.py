"""Scaling: statistics of training rows only, exact round trips, and window statistics on either device."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpulstm.data.scaling import KINDS, Scaler, window_statistics
from gpulstm.errors import ConfigError, DataError, ShapeError

OFFSETS = np.array([0, 6, 10])


def fitted(kind: str, values: np.ndarray, stops: np.ndarray | None = None, skip: int = 0) -> Scaler:
    columns = [str(column) for column in range(values.shape[1])]
    return Scaler(kind).fit(
        values, OFFSETS, OFFSETS[1:] if stops is None else stops, names=["a", "b"], columns=columns, skip=skip
    )


@given(
    kind=st.sampled_from(KINDS),
    values=hnp.arrays(np.float64, (10, 2), elements=st.floats(-1e9, 1e9, width=32)),
)
@settings(max_examples=100, deadline=None)
def test_round_trip(kind: str, values: np.ndarray) -> None:
    scaler = fitted(kind, values)
    back = scaler.inverse(scaler.transform(values, OFFSETS), OFFSETS)
    np.testing.assert_allclose(back, values, rtol=1e-12, atol=1e-12 * np.abs(values).max())
    again = Scaler.restore(scaler.arrays(), json.loads(json.dumps(scaler.scalars())))
    np.testing.assert_array_equal(again.transform(values, OFFSETS), scaler.transform(values, OFFSETS))
    assert again.constant == scaler.constant


@pytest.mark.parametrize(
    ("kind", "location", "scale"),
    [("standard", 2.0, np.sqrt(2.0)), ("minmax", 0.0, 4.0), ("robust", 2.0, 2.0), ("none", 0.0, 1.0)],
)
def test_statistics_leave_gaps_out(kind: str, location: float, scale: float) -> None:
    values = np.array([[0.0], [1], [np.nan], [2], [3], [4], [10], [20], [30], [40]])
    scaler = fitted(kind, values)
    assert scaler.location[0, 0] == pytest.approx(location)
    assert scaler.scale[0, 0] == pytest.approx(scale)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_after_the_training_part_change_nothing(kind: str, rng) -> None:
    values = rng.normal(size=(10, 3))
    other = values.copy()
    other[4:6] = 1e6
    other[8:10] = np.nan
    stops = np.array([4, 8])
    first, second = fitted(kind, values, stops), fitted(kind, other, stops)
    np.testing.assert_array_equal(first.location, second.location)
    np.testing.assert_array_equal(first.scale, second.scale)


def test_a_constant_column_is_centred_and_named() -> None:
    values = np.full((10, 1), 0.1)
    values[6:] = [[1], [2], [3], [4]]
    scaler = fitted("standard", values)
    assert scaler.constant == [("a", "0")]
    assert scaler.notes() == [
        "column '0' of series 'a' does not vary in the training rows; it is centered and not scaled"
    ]
    np.testing.assert_allclose(scaler.transform(values, OFFSETS)[:6], 0, atol=1e-15)


def test_calendar_columns_are_skipped(rng) -> None:
    values = rng.normal(size=(10, 3)) + 5
    scaled = fitted("standard", values, skip=1).transform(values, OFFSETS)
    np.testing.assert_array_equal(scaled[:, 2], values[:, 2])
    assert abs(scaled[:6, :2].mean()) < 1e-12


def test_inverse_of_forecasts(rng) -> None:
    values = rng.normal(size=(10, 2)) * [3, 5] + [1, 2]
    scaler = fitted("standard", values)
    scaled = scaler.transform(values, OFFSETS)
    series = np.array([1, 0])
    forecasts = np.stack([scaled[6:9], scaled[0:3]])  # (B, horizon, targets)
    expected = np.stack([values[6:9], values[0:3]])
    np.testing.assert_allclose(scaler.inverse_targets(forecasts, series), expected, rtol=1e-12)
    quantiles = scaler.inverse_targets(np.repeat(forecasts[..., None], 3, axis=-1), series)
    np.testing.assert_allclose(quantiles, np.repeat(expected[..., None], 3, axis=-1), rtol=1e-12)


@pytest.mark.parametrize("kind", ["standard", "minmax", "robust"])
def test_a_series_without_training_values_is_scaled_as_the_others_are(kind: str, rng) -> None:
    values = rng.normal(size=(10, 1))
    alone = fitted(kind, values, np.array([6, 6]))
    assert alone.empty == [("b", "0")]
    assert alone.notes() == [
        "column '0' of series 'b' has no value in the training rows; it is scaled as the other series are"
    ]
    np.testing.assert_array_equal(alone.location[1], alone.location[0])
    np.testing.assert_array_equal(alone.scale[1], alone.scale[0])


@pytest.mark.parametrize("kind", ["standard", "minmax", "robust"])
def test_many_series_have_the_statistics_of_each_alone(kind: str, rng) -> None:
    """The right values are NumPy's, series by series; more than 64 are computed together."""
    lengths = rng.integers(0, 9, size=100)
    lengths[:2] = 5, 0
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.round(rng.normal(size=(offsets[-1], 2)) * 100)
    values[rng.random(values.shape) < 0.2] = np.nan
    names = [str(series) for series in range(100)]
    scaler = Scaler(kind).fit(values, offsets, offsets[1:], names=names, columns=["a", "b"])
    for series in range(100):
        for column in range(2):
            cells = values[offsets[series] : offsets[series + 1], column]
            cells = cells[~np.isnan(cells)]
            if not cells.size:
                assert (str(series), "ab"[column]) in scaler.empty
                continue
            low, middle, high = np.quantile(cells, (0.25, 0.5, 0.75))
            location, scale = {
                "standard": (cells.mean(), cells.std()),
                "minmax": (cells.min(), np.ptp(cells)),
                "robust": (middle, high - low or cells.std()),
            }[kind]
            assert scaler.location[series, column] == pytest.approx(location, rel=1e-12, abs=1e-12)
            assert scaler.scale[series, column] == pytest.approx(scale or 1.0, rel=1e-12)


@pytest.mark.parametrize("kind", ["standard", "minmax", "robust"])
@pytest.mark.parametrize("unit", [1e300, 1e-300])
@pytest.mark.parametrize("series", [1, 70])
def test_units_of_any_size(kind: str, unit: float, series: int, rng) -> None:
    plain = rng.normal(size=(8 * series, 1))
    offsets = 8 * np.arange(series + 1)
    names = [str(number) for number in range(series)]
    one, other = (
        Scaler(kind).fit(values, offsets, offsets[1:], names=names, columns=["a"]).transform(values, offsets)
        for values in (plain, plain * unit)
    )
    np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-9)


def test_mostly_zero_series_are_scaled_robustly() -> None:
    values = np.zeros((10, 1))
    values[4] = 30.0
    scaler = fitted("robust", values)
    assert scaler.constant == [("b", "0")]
    np.testing.assert_allclose(scaler.scale[:, 0], [values[:6].std(), 1.0])


def test_columns_that_stay_the_same_within_a_series_are_scaled_over_all() -> None:
    values = np.repeat([[3.0, 1.0], [5.0, 0.0]], [6, 4], axis=0)
    scaler = Scaler().fit(
        values, OFFSETS, OFFSETS[1:], names=["a", "b"], columns=["size", "kind=x"], shared={0}, kept={1}
    )
    scaled = scaler.transform(values, OFFSETS)
    np.testing.assert_allclose(scaled[[0, 9], 0], [-1, 1])
    np.testing.assert_array_equal(scaled[:, 1], values[:, 1])
    assert scaler.constant == []


def test_without_scaling_values_have_to_fit_the_dtype() -> None:
    scaler = fitted("none", np.full((10, 1), 1e300))
    with pytest.raises(DataError, match="float32 cannot hold"):
        scaler.transform(np.full((10, 1), 1e300), OFFSETS, np.float32)


def test_mistakes(rng) -> None:
    values = rng.normal(size=(10, 1))
    with pytest.raises(ConfigError, match="scaling is 'log'"):
        Scaler("log")
    with pytest.raises(DataError, match="no series has training rows"):
        fitted("standard", values, np.array([0, 6]))
    scaler = fitted("standard", rng.normal(size=(10, 2)))
    with pytest.raises(ShapeError, match="fitted on 2 columns and 2 series"):
        scaler.transform(values, OFFSETS)
    with pytest.raises(ShapeError, match=r"location of the scaler has shape \(1, 2\), expected \(2, 2\)"):
        Scaler.restore({**scaler.arrays(), "location": np.zeros((1, 2))}, scaler.scalars())


@pytest.mark.parametrize("kind", ["standard", "mean", "last"])
@pytest.mark.parametrize("gaps", [False, True])
def test_window_statistics(kind: str, gaps: bool, backend, rng) -> None:
    context = rng.normal(size=(7, 3, 2))
    context[:, 2, 1] = 4.0  # does not vary
    observed = None
    if gaps:
        observed = rng.random((7, 3, 2)) > 0.4
        observed[:, 0, 0] = False
        observed[3, 0, 1] = observed[3, 1:, :] = True
    mask = None if observed is None else backend.from_host(observed)
    with backend.activate():
        location, scale = window_statistics(backend.xp, backend.from_host(context), mask, kind)
    location, scale = backend.to_host(location), backend.to_host(scale)
    for row in range(3):
        for target in range(2):
            cells = context[:, row, target]
            cells = cells if observed is None else cells[observed[:, row, target]]
            if not cells.size:
                assert (location[row, target], scale[row, target]) == (0, 1)
                continue
            assert location[row, target] == pytest.approx(cells[-1] if kind == "last" else cells.mean(), rel=1e-12)
            spread = cells.std() if kind == "standard" else 1.0
            assert scale[row, target] == pytest.approx(spread if spread > 1e-5 else 1.0, rel=1e-12)
