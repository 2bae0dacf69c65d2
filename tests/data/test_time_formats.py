"""Text and numbers that spell times: which patterns they may have, and what each reads."""

from __future__ import annotations

import numpy as np
import pytest

from gpulstm.data.time_formats import (
    as_numbers,
    finest,
    guesses,
    is_even,
    looks_like_date,
    parse,
    plain_numbers,
    spelled_dates,
    spelling,
    text_form,
    zone_of,
)


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("2024-01-31", ["ISO"]),
        ("2024-01-31T10:00:00Z", ["ISO"]),
        ("2024Q1", ["quarter"]),
        ("31.01.2024", ["%d.%m.%Y", "%m.%d.%Y"]),
        ("Jan 2024", ["%b %Y"]),
        ("31 January 2024", ["%d %B %Y"]),
        ("01/02/24 10:30 PM", ["%d/%m/%y %I:%M %p", "%m/%d/%y %I:%M %p"]),
        ("20240131 1030", []),
        ("hello", []),
    ],
)
def test_patterns_that_one_label_may_have(text: str, patterns: list[str]) -> None:
    assert guesses(text, None) == patterns


def test_day_first_decides_between_two_orders() -> None:
    assert guesses("01/02/2024", True) == ["%d/%m/%Y"]
    assert guesses("01/02/2024", False) == ["%m/%d/%Y"]


@pytest.mark.parametrize(
    ("texts", "pattern", "expected"),
    [
        (["2024-01-31", "2024-02-01"], "ISO", ["2024-01-31", "2024-02-01"]),
        (["31.01.2024"], "%d.%m.%Y", ["2024-01-31"]),
        (["2024Q3", "2024-Q4"], "quarter", ["2024-07-01", "2024-10-01"]),
        (["2024-01-31T10:00:00+02:00"], "ISO", ["2024-01-31T08:00"]),
        (["2024-01-31 10:00:00,5"], "ISO", ["2024-01-31T10:00:00.5"]),
    ],
)
def test_a_pattern_reads_its_labels(texts: list[str], pattern: str, expected: list[str]) -> None:
    dates, bad = parse(texts, pattern)
    assert bad is None
    np.testing.assert_array_equal(dates, np.array(expected, "datetime64[us]"))


def test_the_first_label_that_a_pattern_cannot_read() -> None:
    assert parse(["01.02.2024", "31.02.2024", "x"], "%d.%m.%Y")[1] == 1
    assert parse(["2024Q1", "2024Q5"], "quarter")[1] == 1


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("2024-01-31T10:00:00Z", "UTC"),
        ("2024-01-31 10:00 +01:00", "+01:00"),
        ("2024-01-31 10:00+0530", "+05:30"),
        ("2024-01-31 10:00+00:00", "UTC"),
        ("2024-01-31", None),
    ],
)
def test_zones_at_the_end(text: str, zone: str | None) -> None:
    assert zone_of(text) == zone


def test_text_that_is_no_number_may_be_a_date() -> None:
    assert looks_like_date("31 Jan 2024") and looks_like_date("2024-01-31")
    assert not looks_like_date("item 12") and not looks_like_date("abc")


@pytest.mark.parametrize(
    ("values", "pattern"),
    [
        ([20240131, 20240201], "%Y%m%d"),
        ([202401, 202402], "%Y%m"),
        ([2024013110], "%Y%m%d%H"),
        ([20240230], ""),  # no such day
        ([18990101], ""),
        ([1, 2, 3], ""),
        ([20240131.5], ""),
    ],
)
def test_numbers_that_spell_dates(values: list[float], pattern: str) -> None:
    assert spelling(np.array(values)) == pattern


def test_spelled_dates_are_read_and_wrong_ones_are_missing() -> None:
    dates = spelled_dates(np.array([20240229, 20230229]), "%Y%m%d")
    assert dates[0] == np.datetime64("2024-02-29") and np.isnat(dates[1])


def test_numbers() -> None:
    assert as_numbers(["1", "2"]).dtype == np.int64  # type: ignore[union-attr]
    assert as_numbers(["1.5", "2"]).tolist() == [1.5, 2.0]  # type: ignore[union-attr]
    assert as_numbers(["1_0"]) is None and as_numbers(["a"]) is None
    assert plain_numbers([1, 2.5]).tolist() == [1.0, 2.5]  # type: ignore[union-attr]
    assert plain_numbers([True]) is None and plain_numbers(["1"]) is None


def test_the_resolution_that_text_shows() -> None:
    assert [finest("", [text]) for text in ("2024-01", "2024-01-31", "2024-01-31 10:00")] == ["M", "D", "m"]
    assert finest("", ["2024-01-31", "2024-01-31 10:00:00.5"]) == "ms"


def test_how_labels_are_written_is_kept() -> None:
    form = text_form(["1.2.2024"], "%d.%m.%Y", None)
    assert form.pattern == "%d.%m.%Y" and form.plain
    assert text_form(["2024-01-31 10:00"], "ISO", "UTC").separator == " "
    assert text_form(["2024-Q1"], "quarter", None).pattern == "%Y-Q%q"


def test_even_dates_are_even_in_days_or_in_months() -> None:
    assert is_even(np.array(["2024-01-01", "2024-01-03", "2024-01-05"], "datetime64[us]"))
    assert is_even(np.array(["2024-01-31", "2024-03-02", "2024-04-01"], "datetime64[us]")) is False
    assert is_even(np.array(["2024-01-15", "2024-02-15", "2024-03-15"], "datetime64[us]"))
    assert not is_even(np.array(["2024-01-01", "2024-01-02"], "datetime64[us]"))
