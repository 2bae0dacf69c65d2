"""The suite `forecast`: tasks, measures, and its command on a series as short as can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bench_cases import WAVES, monthly

from gpulstm.bench import forecasts
from gpulstm.errors import ConfigError, DataError


def test_tasks_are_those_whose_files_are_there(tmp_path: Path) -> None:
    assert [task.name for task in forecasts.tasks(None)] == ["co2", "seattle_weather"]
    (tmp_path / "air_passengers.csv").write_text("month,passengers\n1949-01-01,112\n1949-02-01,118\n")
    assert [task.name for task in forecasts.tasks(tmp_path)][2:] == ["air_passengers"]
    read = forecasts.read(forecasts.tasks(tmp_path, ["air_passengers"])[0], tmp_path)
    assert read.table["value"].tolist() == [112, 118] and read.season == 12
    with pytest.raises(ConfigError, match="task is 'rain'"):
        forecasts.tasks(None, ["rain"])
    with pytest.raises(DataError, match="needs etth2"):
        forecasts.tasks(tmp_path, ["etth2_24"])


def test_measures_are_those_of_a_loop() -> None:
    known = forecasts.truth(monthly(), 12, 6)
    assert known.origins.tolist() == [72, 78, 84]
    value = monthly().table["value"]
    scale = np.abs(value[12:72] - value[:60]).mean()
    forecast = known.actual + 2.0
    assert forecasts.score(monthly(), known, forecast, "MASE") == pytest.approx(2 / scale)
    assert forecasts.score(monthly(), known, forecast, "MSE") == pytest.approx(4.0)
    again, naive = (score.value for score in forecasts.baselines(WAVES, monthly(), known))
    assert again < naive


def test_ours_and_a_linear_network_are_better_than_the_last_value() -> None:
    known = forecasts.truth(monthly(), 12, 6)
    ours = forecasts.ours(WAVES, monthly(), known, 0, members=("simple", "ridge"))
    assert ours.coverage is not None and 1 < ours.coverage <= 100 and ours.seconds > 0
    assert ours.value < forecasts.baselines(WAVES, monthly(), known)[1].value
    linear = forecasts.dlinear(WAVES, monthly(), known, context=24)
    assert linear.value < forecasts.baselines(WAVES, monthly(), known)[1].value
