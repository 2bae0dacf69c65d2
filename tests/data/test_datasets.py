"""The bundled series are whole, small, and say where they come from."""

from __future__ import annotations

import numpy as np
import pytest

from gpulstm.data import datasets
from gpulstm.errors import DataError


def test_co2() -> None:
    series = datasets.co2()
    assert series.values.shape == (2284, 3)
    assert series.columns == ("co2", "yearly_sin", "yearly_cos")
    assert np.isnan(series.values[:, 0]).sum() == 59
    assert (str(series.time[0])[:10], str(series.time[-1])[:10]) == ("1958-03-29", "2001-12-29")
    assert np.all(np.diff(series.time) == np.timedelta64(7, "D"))
    assert (series.values[0, 0], series.values[-1, 0]) == (316.1, 371.5)
    assert np.isfinite(series.filled()).all()
    with pytest.raises(DataError, match=r"column .co2. of co2\.csv has 59 missing values, the first in row 8"):
        datasets.co2(missing="refuse")


def test_seattle_weather() -> None:
    series = datasets.seattle_weather(target="temp_min")
    assert series.values.shape == (1461, 6)
    assert series.columns[:4] == ("temp_min", "precipitation", "temp_max", "wind")
    assert (series.targets, series.past, series.future) == (1, 3, 2)
    assert not series.has_missing
    np.testing.assert_array_equal(series.values[0, :4], [5.0, 0.0, 12.8, 4.7])


@pytest.mark.parametrize("name", datasets.NAMES)
def test_files_are_small_and_their_source_is_stated(name: str) -> None:
    path = datasets.path(name)
    assert path.stat().st_size < 150_000
    provenance = (path.parent / "PROVENANCE.md").read_text(encoding="utf-8")
    assert f"## {path.name}" in provenance


def test_unknown_name() -> None:
    with pytest.raises(DataError, match="there are: co2, seattle_weather"):
        datasets.path("co3")
