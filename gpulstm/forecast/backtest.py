"""Rolling-origin backtests: one fitted model, many origins, a few batched passes.

The model is not fitted again at each origin (Tashman 2000, "Out-of-sample tests of forecasting accuracy", Int. J. of
Forecasting 16(4), calls this updating without recalibration).  Every forecast sees the rows before its origin only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpulstm import metrics, validate
from gpulstm.data.series import SeriesSet
from gpulstm.errors import ConfigError, DataError
from gpulstm.forecast.baselines import baselines, naive2
from gpulstm.forecast.mixed import Mixed
from gpulstm.forecast.predictor import Predictor
from gpulstm.forecast.results import MODEL, Backtest


def backtest_origins(
    series: SeriesSet,
    context: int,
    horizon: int,
    origins: int | Sequence[int] | np.ndarray | None,
    stride: int,
    tests: np.ndarray | None,
) -> np.ndarray:
    """The rows, absolute as `series.offsets`, at which the forecasts of a backtest begin.

    Args:
        origins: a number (that many in each series, the last of them a horizon before its end), rows (the same in each
            series, counted from its first), or None for all of the test part.
        stride: rows between neighbouring origins; not used where rows are given.
        tests: `(series,)` first absolute row of the test part, or None where there is none.

    Raises:
        ConfigError: neither origins nor a test part.
        DataError: a series is too short.
    """
    all_rows = []
    for index, name in enumerate(series.names):
        start, stop = int(series.offsets[index]), int(series.offsets[index + 1])
        first, last = start + context, stop - horizon
        if origins is None:
            if tests is None:
                raise ConfigError("there is no test part to backtest on; give origins, or fit with test=...")
            rows = np.arange(max(int(tests[index]), first), last + 1, stride)
            room = f"its test part has {stop - int(tests[index])} rows"
        elif isinstance(origins, (int, np.integer)):
            count = validate.count("origins", origins)
            rows = last - stride * np.arange(count - 1, -1, -1)
            room = f"{count} origins {stride} apart, context {context} and horizon {horizon} need "
            room += f"{context + horizon + stride * (count - 1)} rows"
        else:
            rows = start + np.array([validate.count("origins", row, at_least=0) for row in origins], dtype=np.int64)
            room = f"its origins may lie in the rows {context} to {stop - start - horizon}"
        if not rows.size or rows.min() < first or rows.max() > last:
            raise DataError(f"series {name!r} has {stop - start} rows, too few for this backtest: {room}")
        all_rows.append(rows)
    return np.concatenate(all_rows).astype(np.int64)


def run_backtest(model: Predictor | Mixed, series: SeriesSet, origins: np.ndarray, season: int) -> Backtest:
    """Forecast from every origin, by the model and by the simple forecasts.

    Args:
        model: what forecasts; a predictor with a row of its scaler for each series.
        origins: absolute rows.
        season: of the seasonal-naive forecast and of MASE.
    """
    horizon, mean = model.horizon, None
    quantiles: np.ndarray | None
    if isinstance(model, Mixed):
        said = model.forecast(series, origins)
        point, mean, quantiles, levels = said.median, said.mean, said.quantiles, model.levels
    else:
        point, quantiles = model.forecast(model.windows(series, origins))
        levels = model.loss.levels
    which = np.searchsorted(series.offsets, origins, side="right") - 1
    targets = series.values[:, : series.targets]
    rows = origins[:, None] + np.arange(horizon)
    scales = np.empty((len(series), series.targets))
    for index in range(len(series)):
        start, first = series.offsets[index], origins[which == index].min()
        for target in range(series.targets):
            apart = season if first - start > season else 1
            scales[index, target] = metrics.seasonal_scale(targets[start:first, target], apart)
    time = np.concatenate([series.time_of(index) for index in range(len(series))])
    return Backtest(
        names=series.names,
        targets=series.target_names,
        series=which,
        origins=origins - series.offsets[which],
        index=time[rows],
        actual=targets[rows],
        forecasts={MODEL: point, **baselines(series, origins, horizon, season)},
        levels=levels,
        quantiles=quantiles,
        season=season,
        scales=scales,
        mean=mean,
        second=naive2(targets, series.offsets, origins, horizon, season),
    )
