"""What `train` says of a table before it trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from gpulstm.cli.summary import summary
from gpulstm.data.loading import load_series
from gpulstm.errors import ConfigError
from gpulstm.forecast.config import ForecasterConfig


def lines(table: Any, roles: dict[str, Any], **options: Any) -> list[str]:
    return summary(load_series(table, **roles), ForecasterConfig(**{"horizon": 2, "context": 6, **options}))


def daily(rows: int = 40) -> dict[str, Any]:
    days = np.datetime64("2024-01-01") + np.arange(rows)
    return {"day": days, "y": np.arange(rows) + 0.5, "k": np.ones(rows)}


def test_rows_columns_step_and_parts_are_named() -> None:
    said = lines(daily(), {"target": "y", "future": "k", "time": "day"}, test=5)
    assert said[0] == "rows: 40, from 2024-01-01 to 2024-02-09"
    assert said[1] == "columns: target y; future k"
    assert said[2] == "step: D; season 7"
    assert said[-1].endswith("test 5 rows from 2024-02-05")


def test_rows_without_times_are_numbered() -> None:
    assert "step: rows are numbered, for there is no column of times" in lines(np.arange(30.0), {})


def test_several_series_are_counted_and_the_first_are_named() -> None:
    table = pd.DataFrame({"id": np.repeat(list("abcdef"), 20), "t": list(range(20)) * 6, "y": np.arange(120.0)})
    said = lines(table, {"target": "y", "time": "t", "series": "id"})
    assert said[0].startswith("rows: 120 in 6 series (a, b, c, d, ...), 20 to 20 each, from 0 to 19")


def test_windows_of_a_single_network_are_those_that_it_is_trained_on() -> None:
    said = lines(daily(), {"target": "y", "time": "day"}, members=("network",), validation=8, test=4)
    assert any(line.startswith("parts: training 28 rows from 2024-01-01, validation 8 rows") for line in said)
    assert said[-1] == "windows: 21 for training, each 6 rows and the 2 after them"


def test_a_part_that_leaves_nothing_to_train_is_refused() -> None:
    with pytest.raises(ConfigError, match="test=5 leave no training rows of any series; the longest has 5 rows"):
        lines(daily(5), {"target": "y", "time": "day"}, test=5)
