"""Streams of forecasts: the state goes on over new rows, and starts over where it must."""

from __future__ import annotations

import numpy as np
import pytest
from forecasters import SMALL, dated, many, small, wave

from gpulstm.errors import DataError
from gpulstm.forecast.forecaster import Forecaster


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_stream_carries_the_state_over_the_whole_sequence(cell: str, device: str) -> None:
    model = small(window_scaling="none", dtype="float64", cell=cell, device=device)
    values = np.concatenate([wave(), wave(20, 3)])
    part, stream = model.fitted, model.stream()
    np.testing.assert_array_equal(stream.forecast.quantiles, model.predict().quantiles)
    for start, stop in ((150, 151), (151, 156), (156, 170)):
        forecast = stream.update(values[start:stop])
        scaled = (values[138:stop] - part.scaler.location[0, 0]) / part.scaler.scale[0, 0]
        raw, _, _ = part.network.forward(part.network.backend.from_host(scaled[:, None, None]))
        raw = part.network.backend.to_host(raw)
        expected = np.sort(raw[0, :, 0], axis=-1) * part.scaler.scale[0, 0] + part.scaler.location[0, 0]
        np.testing.assert_allclose(forecast.quantiles[0, :, 0], expected, rtol=1e-10)
        np.testing.assert_array_equal(forecast.index[0], np.arange(stop, stop + 4.0))
    assert (stream.rows, stream.starts) == (20, 1)


def test_a_stream_with_scaled_windows_starts_over_when_it_has_carried_enough() -> None:
    model = small(stream_rows=5)
    values = np.concatenate([wave(), wave(20, 3)])
    stream = model.stream()
    starts = [(stream.update(values[row : row + 1]), stream.starts)[1] for row in range(150, 163)]
    assert starts == [1] * 5 + [2] * 6 + [3] * 2
    fresh = small(stream_rows=0).stream()
    for row in range(150, 153):
        forecast = fresh.update(values[row : row + 1])
    assert fresh.starts == 4
    np.testing.assert_allclose(forecast.mean, small(stream_rows=0).predict(data=values[:153]).mean, rtol=1e-6)


def test_a_carried_state_forecasts_about_as_well_as_a_fresh_one() -> None:
    values = wave(500)
    model = small(values[:400], stream_rows=8, epochs=12, horizon=4, context=24, hidden_size=16, validation=60)
    stream, fresh, carried = model.stream(), [], []
    for row in range(400, 490):
        forecast = stream.update(values[row : row + 1])
        actual = values[row + 1 : row + 5]
        carried.append(np.abs(forecast.mean[0, :, 0] - actual).mean())
        fresh.append(np.abs(model.predict(data=values[: row + 1]).mean[0, :, 0] - actual).mean())
    assert stream.starts < 15
    assert np.mean(carried) < 1.25 * np.mean(fresh)


@pytest.mark.parametrize("missing", ["auto", "mask"])
def test_the_level_of_a_past_covariate_does_not_matter_where_it_is_scaled_with_its_window(missing: str) -> None:
    data = dated(160)
    data["z"] = np.where(np.arange(160) % 9 == 4, np.nan, data["z"])
    roles = {"target": "y", "past": "z", "time": "day", "missing": missing}
    table = {name: data[name] for name in ("y", "z", "day")}
    higher = table | {"z": table["z"] + 50 * (np.arange(160) >= 130)}
    forecasts = {}
    for past_scaling in ("window", "none"):
        model = small(table, roles=roles, stream_rows=8, past_scaling=past_scaling)
        for name, each in (("own", table), ("higher", higher)):
            live = model.stream({key: column[:150] for key, column in each.items()})
            forecasts[past_scaling, name] = live.update({key: column[150:153] for key, column in each.items()}).mean
            assert live.starts == 1
    np.testing.assert_allclose(forecasts["window", "own"], forecasts["window", "higher"], rtol=1e-4)
    assert np.abs(forecasts["none", "own"] - forecasts["none", "higher"]).max() > 1e-3


def test_streams_of_tables_calendars_and_several_series() -> None:
    data = dated(160)
    past = {name: column[:150] for name, column in data.items()}
    roles = {"target": "y", "past": "z", "future": "k", "time": "day", "calendar": "weekly"}
    model = small(past, roles=roles, window_scaling="none")
    by_table, by_array = (model.stream(future=data["k"][150:154]) for _ in range(2))
    rows = {name: column[150:152] for name, column in data.items()}
    first = by_table.update(rows, future=data["k"][152:156])
    second = by_array.update(np.stack([rows["y"], rows["z"], rows["k"]], axis=1), future=data["k"][152:156])
    np.testing.assert_array_equal(first.quantiles, second.quantiles)
    np.testing.assert_array_equal(first.index[0], data["day"][152:156])
    with pytest.raises(DataError, match="begin at 2024-05-30 in series 'series', expected a time after 2024-05-31"):
        by_table.update({name: column[150:151] for name, column in data.items()}, future=data["k"][152:156])
    model = Forecaster(**{**SMALL, "validation": 8, "window_scaling": "none"})
    model.fit(many((80, 120)), target="y", time="t", series="id", progress=False)
    stream = model.stream()
    forecast = stream.update(np.zeros((2, 3, 1)))
    np.testing.assert_array_equal(forecast.index[:, 0], [83, 123])
    with pytest.raises(DataError, match=r"rows has shape \(3,\), expected \(2, n, 1\)"):
        stream.update(np.zeros(3))


def test_a_refused_update_changes_nothing() -> None:
    stream = small(window_scaling="none").stream()
    for rows, message in (
        (np.array([np.inf]), "rows holds infinite values"),
        (np.zeros((1, 2)), r"rows has shape \(1, 2\)"),
        (np.zeros((0, 1)), r"rows has shape \(0, 1\)"),
    ):
        with pytest.raises(DataError, match=message):
            stream.update(rows)
    assert stream.rows == 0
    np.testing.assert_array_equal(stream.update([5.0]).mean, small(window_scaling="none").stream().update([5.0]).mean)
