"""Errors of every series, target and step at once, against those of one after another."""

from __future__ import annotations

import numpy as np
import pytest

from gpulstm.forecast.results import MODEL, NAIVE, Backtest
from gpulstm.forecast.scores import METRICS, owa


@pytest.mark.parametrize("levels", [(), (0.5,), (0.1, 0.5, 0.9)])
def test_the_table_has_the_errors_of_each(levels: tuple[float, ...]) -> None:
    rng = np.random.default_rng(0)
    count, horizon, names, targets = 40, 4, tuple("abcde"), ("x", "y")
    actual = 3 + rng.normal(size=(count, horizon, 2))
    actual[rng.random(actual.shape) < 0.1] = np.nan
    actual[0, 0, 0] = 0.0
    model, naive, second = (3 + rng.normal(size=actual.shape) for _ in range(3))
    scales = rng.random((5, 2))
    scales[2, 1] = 0.0  # a series that never varied
    result = Backtest(
        names,
        targets,
        rng.permutation(np.arange(count) % 4),  # the fifth has no forecast
        np.arange(count),
        np.zeros((count, horizon)),
        actual,
        {MODEL: model, NAIVE: naive},
        levels,
        np.sort(3 + rng.normal(size=(*actual.shape, len(levels))), axis=-1) if levels else None,
        7,
        scales,
        mean=model + 0.1,
        second=lambda: second,
    )
    table = result.table()
    assert {len(column) for column in table.values()} == {(5 * 2 + 1) * (horizon + 1) * 2}
    keys = list(zip(*(table[name].tolist() for name in ("series", "target", "step", "forecaster")), strict=True))
    rows = dict(zip(keys, zip(*(table[name] for name in METRICS), strict=True), strict=True))
    for at, name in enumerate(names):
        for column, target in enumerate(targets):
            for step in range(horizon + 1):
                for forecaster, errors in result.errors(at, column, step or None).items():
                    expected = [errors.get(metric, np.nan) for metric in METRICS]
                    np.testing.assert_allclose(rows[name, target, step, forecaster], expected, rtol=1e-12)
    for step in range(horizon + 1):
        for forecaster, errors in result.scaled(step or None).items():
            expected = [errors.get(metric, np.nan) for metric in METRICS]
            np.testing.assert_allclose(rows["", "", step, forecaster], expected, rtol=1e-12)


def test_owa_has_no_value_next_to_a_perfect_forecast() -> None:
    assert owa({"sMAPE": 3.0, "MASE": 2.0}, {"sMAPE": 2.0, "MASE": 2.0}) == 1.25
    assert np.isnan(owa({"sMAPE": 3.0, "MASE": 2.0}, {"sMAPE": 0.0, "MASE": 2.0}))
