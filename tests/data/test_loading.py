"""From tables to series: roles of columns, ids and their types, categories, the future table, labels of outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpulstm.data.future import known_ahead, new_rows
from gpulstm.data.loading import load_series
from gpulstm.errors import ConfigError, DataError

DAYS = pd.date_range("2024-01-01", periods=10)


def long(ids: Any, name: str = "id") -> pd.DataFrame:
    """Ten days of each id, whose target tells the series and the row."""
    return pd.concat(
        pd.DataFrame({name: [one] * 10, "day": DAYS, "y": 100.0 * number + np.arange(10)})
        for number, one in enumerate(ids)
    )


def test_roles_and_their_order() -> None:
    data = {"day": DAYS, "b": np.arange(10), "a": np.arange(10) * 10, "k": np.ones(10)}
    series = load_series(data, target="a", past="b", future=["k"], time="day", calendar="weekly")
    assert series.columns == ("a", "b", "k", "weekly_sin", "weekly_cos")
    assert (series.targets, series.past, series.future, series.known, series.made) == (1, 1, 3, 1, 2)
    np.testing.assert_array_equal(series.values[1, :3], [10, 1, 1])


def test_the_target_is_by_default_what_holds_numbers() -> None:
    data = pd.DataFrame({"day": DAYS, "x": range(10), "note": ["a", "b"] * 5, "y": range(10)})
    series = load_series(data)
    assert series.target_names == ("x", "y")
    assert series.notes == (
        "times are those of column 'day'",
        "columns ignored, which hold no numbers: note",
    )
    assert load_series(data, past="x").target_names == ("y",)


@pytest.mark.parametrize(
    ("ids", "names"),
    [((1, 2), ("1", "2")), ((1.0, 2.0), ("1", "2")), (("a", "b"), ("a", "b")), ((" x ", "007"), ("x", "007"))],
)
def test_ids_keep_their_type(ids: Any, names: tuple[str, ...]) -> None:
    series = load_series(long(ids), series="id")
    assert series.names == names
    columns = series.labels.id_columns(series.names, np.array([1, 0]))
    expected = [int(one) if isinstance(one, float) else one.strip() if isinstance(one, str) else one for one in ids]
    assert columns["id"].tolist() == expected[::-1]


def test_several_columns_of_ids(tmp_path: Path) -> None:
    frame = long([1, 2]).assign(shop=["n", "s"] * 10).sort_values(["id", "shop", "day"])
    series = load_series(frame, series=["id", "shop"])
    assert series.names == ("1/n", "1/s", "2/n", "2/s")
    assert series.labels.id_names == ("id", "shop")
    assert series.labels.ids[3] == (2, "s")
    indexed = load_series(frame.set_index(["id", "shop", "day"]))
    assert indexed.names == series.names
    np.testing.assert_array_equal(indexed.values, series.values)
    slashes = pd.DataFrame({"a": ["x/y", "x"], "b": ["z", "y/z"], "v": [1.0, 2.0]})
    assert len(set(load_series(slashes, target="v", series=["a", "b"]).names)) == 2


@pytest.mark.parametrize("hole", [None, np.nan, pd.NA, "", "  "])
def test_empty_ids_are_refused(hole: Any) -> None:
    frame = long(["a", "b"]).reset_index(drop=True)
    frame["id"] = frame["id"].astype(object)
    frame.loc[7, "id"] = hole
    with pytest.raises(DataError, match=r"series column 'id', position 7 of the frame is empty \(1 such\)"):
        load_series(frame, series="id")


def test_dicts_of_frames_are_panels() -> None:
    parts = {"a": pd.Series(np.arange(10.0), index=DAYS), "b": pd.Series(np.arange(5.0), index=DAYS[:5])}
    series = load_series(parts)
    assert series.names == ("a", "b")
    assert series.lengths.tolist() == [10, 5]


def test_columns_of_two_levels() -> None:
    columns = pd.MultiIndex.from_tuples([("Close", "AAPL"), ("Close", "MSFT")])
    wide = pd.DataFrame(np.arange(20.0).reshape(10, 2), index=DAYS, columns=columns)
    assert load_series(wide).target_names == ("Close AAPL", "Close MSFT")
    assert load_series(wide, target=[("Close", "MSFT")]).target_names == ("Close MSFT",)


def test_categories_are_one_column_a_value() -> None:
    frame = long(["a", "b"]).assign(promo=["no", "yes"] * 10, kind=["x"] * 10 + ["z"] * 10, size=[3] * 10 + [5] * 10)
    series = load_series(frame, target="y", series="id", future="promo", static=["kind", "size"])
    assert series.columns == ("y", "promo=no", "promo=yes", "kind=x", "kind=z", "size")
    assert (series.future, series.known, series.static) == (5, 2, 3)
    np.testing.assert_array_equal(series.values[:2, 1:3], np.eye(2))
    np.testing.assert_array_equal(series.values[[0, 10], 3:], [[1, 0, 3], [0, 1, 5]])
    assert (series.kept, series.shared) == ({1, 2, 3, 4}, {5})
    other = load_series(frame.iloc[:10], like=series)
    assert other.columns == series.columns
    ahead = pd.DataFrame({"id": ["b", "a"] * 2, "day": DAYS[-1] + pd.to_timedelta([1, 1, 2, 2], "D")})
    known = known_ahead(series, 2, ahead.assign(promo=["yes", "no", "unheard of", "yes"]))
    np.testing.assert_array_equal(known, [[[1, 0], [0, 1]], [[0, 1], [0, 0]]])
    longer = series.extended(2, known)
    np.testing.assert_array_equal(longer.values[[10, 11], 3:], [[1, 0, 3], [1, 0, 3]])
    with pytest.raises(DataError, match="static column 'promo' changes within series 'a'"):
        load_series(frame, target="y", series="id", static="promo")


def test_last_rows_without_a_target_are_the_future_table() -> None:
    data = {"day": DAYS, "y": np.where(np.arange(10) < 7, np.arange(10.0), np.nan), "price": np.arange(10.0)}
    series = load_series(data, target="y", future="price")
    assert series.rows == 7
    assert "the last rows with known covariates and an empty target (3 in all)" in series.notes[-1]
    np.testing.assert_array_equal(known_ahead(series, 3, None), [[[7], [8], [9]]])
    with pytest.raises(DataError, match="has 3 rows of price after the last target of series 'series'"):
        known_ahead(series, 4, None)
    plain = load_series({"day": DAYS, "y": data["y"]}, target="y")
    assert plain.rows == 10  # nothing is known of those rows: they are missing


def test_tables_that_follow() -> None:
    data = {"day": DAYS[:5], "y": np.arange(5.0), "k": np.arange(5.0)}
    series = load_series(data, target="y", future="k", calendar="weekly")
    later = {"day": DAYS[5:8], "k": [5.0, 6, 7]}
    np.testing.assert_array_equal(known_ahead(series, 2, later)[0, :, 0], [5, 6])
    np.testing.assert_array_equal(known_ahead(series, 2, np.array([1.0, 2]))[0, :, 0], [1, 2])
    values, times = new_rows(series, {"day": DAYS[7:9], "y": [7.0, 8], "k": [7.0, 8]})
    np.testing.assert_array_equal(times[0], DAYS[5:9].to_numpy())  # two rows in between are missing
    np.testing.assert_array_equal(values[0, :, 0], [np.nan, np.nan, 7, 8])
    with pytest.raises(DataError, match="begin at 2024-01-05 in series 'series', expected a time after 2024-01-05"):
        new_rows(series, {"day": DAYS[4:5], "y": [7.0], "k": [7.0]})
    with pytest.raises(DataError, match=r"future has shape \(1, 1\), expected \(1, 2, 1\)"):
        known_ahead(series, 2, np.ones((1, 1)))
    with pytest.raises(DataError, match="missing or not finite"):
        known_ahead(series, 2, np.array([1.0, np.nan]))
    zoned = {"day": DAYS[5:8].tz_localize("Europe/Berlin"), "k": [5.0, 6, 7]}
    with pytest.raises(DataError, match="times have Europe/Berlin, those of the fitted series have no zone"):
        known_ahead(series, 2, zoned)


def test_other_data_are_read_at_the_step_of_the_fit() -> None:
    series = load_series({"day": DAYS, "y": np.arange(10.0)})
    assert load_series({"day": DAYS[:1], "y": [1.0]}, like=series).axis.step == series.axis.step
    with pytest.raises(DataError, match=r"is at 2024-01-01T01:00:00, which freq='D' does not reach"):
        load_series({"day": pd.date_range("2024-01-01", periods=5, freq="h"), "y": np.arange(5.0)}, like=series)


def test_an_array_that_was_given_is_not_the_series_own() -> None:
    values = np.arange(20.0).reshape(10, 2)
    read = load_series(values)
    assert not np.shares_memory(read.values, values)
    np.testing.assert_array_equal(read.values, values)


@pytest.mark.parametrize(
    ("shape", "series", "columns"), [((5,), 1, ("0",)), ((5, 2), 1, ("0", "1")), ((3, 5, 2), 3, ("0", "1"))]
)
def test_arrays(rng, shape: tuple[int, ...], series: int, columns: tuple[str, ...]) -> None:
    array = rng.normal(size=shape)
    loaded = load_series(array)
    assert (len(loaded), loaded.columns) == (series, columns)
    np.testing.assert_array_equal(loaded.values.ravel(), array.ravel())
    assert load_series(loaded) is loaded
    np.testing.assert_array_equal(load_series(rng.normal(size=(5, 3)), target=2, past=[0]).columns, ["2", "0"])


def test_masked_values_are_missing_once_a_rule_is_chosen() -> None:
    masked = np.ma.array([1, 2, 3], mask=[0, 1, 0])
    for data in (masked, {"y": masked}):
        np.testing.assert_array_equal(load_series(data, missing="forward").values[:, 0], [1, np.nan, 3])
        with pytest.raises(DataError, match="is a masked array with 1 masked values; say what stands in their place"):
            load_series(data)


MISTAKES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "two roles": ({"a": [1, 2], "b": [1, 2]}, {"target": "a", "past": "a"}, "'a' is given two roles, target and past"),
    "nothing left": ({"day": DAYS, "x": ["a"] * 10}, {}, "has no column left to forecast: column 'x', position 0"),
    "calendar without time": ({"a": [1, 2]}, {"calendar": "weekly"}, "calendar needs a time column"),
    "calendar of numbers": ({"t": [1, 2], "a": [1, 2]}, {"time": "t", "calendar": "weekly"}, "it holds numbers"),
    "unknown rule": ({"a": [1, 2]}, {"missing": "drop"}, "missing is 'drop'"),
    "unknown duplicates": ({"a": [1, 2]}, {"duplicates": "drop"}, "duplicates is 'drop'"),
    "missing refused": ({"a": [1, None, 3]}, {"missing": "refuse"}, "has 1 missing value, the first in position 1"),
    "off the step": ({"t": DAYS, "a": range(10)}, {"freq": "MS"}, "is at 2024-01-02, which freq='MS' does not reach"),
    "too many values": (
        {"a": range(300), "k": [f"v{row}" for row in range(300)]},
        {"target": "a", "past": "k"},
        "has 300 different texts, such as 'v0', more than 200",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake: str) -> None:
    data, options, message = MISTAKES[mistake]
    with pytest.raises((DataError, ConfigError)) as caught:
        load_series(data, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mistakes_in_arrays() -> None:
    for data, message in (
        (np.ones((1, 1, 1, 1)), r"shape \(1, 1, 1, 1\)"),
        (np.ones((0, 2)), "at least one value"),
        (np.array(["a"]), "real numbers"),
        ([[1, 2], [3]], "no array of numbers"),
    ):
        with pytest.raises(DataError, match=message):
            load_series(data)


@pytest.mark.cuda
def test_an_array_on_a_device_is_not_moved_silently() -> None:
    from gpulstm.arrays.devices import to_device

    array = to_device(np.ones(5), "cuda")
    with pytest.raises(DataError, match=r"gpulstm\.to_host"):
        load_series(array)


def test_categories_of_a_later_table_are_those_of_the_fit() -> None:
    table = pd.DataFrame({"y": np.arange(6.0), "sky": list("abcabc"), "wind": np.arange(6.0)})
    before = load_series(table, target="y", past=["sky", "wind"])
    for sky in (None, "1", 1, "new"):
        series = load_series(table.assign(sky=sky), like=before)
        assert series.columns == before.columns
        assert not series.values[:, 1:4].any()


def test_ids_of_a_dict_of_series_keep_their_type() -> None:
    days = pd.date_range("2024-01-01", periods=5)
    series = load_series({number: pd.Series(np.arange(5.0), index=days) for number in (7, 8)})
    assert series.labels.ids == ((7,), (8,))


def test_a_number_is_a_time_in_an_index_of_ids_and_numbers() -> None:
    index = pd.MultiIndex.from_product([[1, 2], range(10, 16)])
    series = load_series(pd.DataFrame({"y": np.arange(12.0)}, index=index))
    assert series.names == ("1", "2")
    assert series.times.tolist() == [*range(10, 16)] * 2


def test_a_later_table_is_read_in_the_zone_of_the_fit() -> None:
    index = pd.date_range("2024-03-20", periods=20, freq="D", tz="Europe/Berlin")
    before = load_series(pd.DataFrame({"t": index[:5], "y": np.arange(5.0)}), time="t")
    for times in (index.tz_convert("UTC"), [time.isoformat() for time in index], [str(time) for time in index[12:]]):
        series = load_series(pd.DataFrame({"t": times, "y": np.arange(float(len(times)))}), like=before)
        after = series.axis.form.column(series.after(1)[0])[0]
        assert pd.Timestamp(after).isoformat() == "2024-04-09T00:00:00+02:00"
