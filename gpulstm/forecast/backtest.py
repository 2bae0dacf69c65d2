"""Rolling-origin backtests: one fitted model, many origins, a few batched passes.

The model is not fitted again at each origin (Tashman 2000, "Out-of-sample tests of forecasting accuracy", Int. J. of
Forecasting 16(4), calls this updating without recalibration).  Every forecast sees the rows before its origin only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from gpulstm import metrics, validate
from gpulstm.data.series import SeriesSet, spans
from gpulstm.errors import ConfigError, DataError, option
from gpulstm.forecast.baselines import automatic_baselines, baselines, naive2
from gpulstm.forecast.fitted import Fitted, FittedMixture
from gpulstm.forecast.mixed import Mixed
from gpulstm.forecast.predictor import Predictor
from gpulstm.forecast.results import MODEL, Backtest


def backtest(
    fitted: Fitted | FittedMixture,
    series: SeriesSet,
    seasons: tuple[int, ...],
    tests: np.ndarray | None,
    origins: int | Sequence[int] | np.ndarray | None,
    stride: int | None,
    automatic: bool,
) -> Backtest:
    """The backtest of a fit; `tests` as of `backtest_origins`, and the rest as of `Forecaster.backtest`."""
    step = max(1, fitted.horizon // 4) if stride is None else validate.count("stride", stride)
    rows = backtest_origins(series, (fitted.context, fitted.least, fitted.horizon), origins, step, tests)
    which = np.searchsorted(series.offsets, rows, side="right") - 1
    firsts = series.offsets[1:].copy()
    np.minimum.at(firsts, which, rows)
    result = run_backtest(fitted.model(series, firsts), series, rows, seasons, automatic)
    known = {name: at for at, name in enumerate(fitted.names)}
    place = np.array([known.get(name, -1) for name in series.names])[result.series]
    seen = bool((result.index[place >= 0, 0] <= fitted.until[place[place >= 0]]).any())
    return replace(result, seen=seen)


def unseen_origins(series: SeriesSet, until: np.ndarray, horizon: int) -> list[int]:
    """Every origin behind the rows that a fit saw, up to `until` `(series,)`; the last one where there is none."""
    rows = np.arange(series.rows) - np.repeat(series.offsets[:-1], series.lengths)
    first = int(rows[series.times <= np.max(until)].max(initial=-1)) + 1
    last = int(series.lengths.min()) - horizon
    return list(range(min(first, last), last + 1)) if last >= 0 else []


def backtest_origins(
    series: SeriesSet,
    needs: tuple[int, int, int],
    origins: int | Sequence[int] | np.ndarray | None,
    stride: int,
    tests: np.ndarray | None,
) -> np.ndarray:
    """The rows, absolute as `series.offsets`, at which the forecasts of a backtest begin.

    Series that are too short for one of them have none.

    Args:
        needs: rows that a forecast sees before it, rows that it needs at least, and its horizon.
        origins: a number (that many in each series, the last of them a horizon before its end), rows (the same in each
            series, counted from its first), or None for all of the test part.
        stride: rows between neighboring origins; not used where rows are given.
        tests: `(series,)` first absolute row of the test part, or None where there is none.

    Raises:
        ConfigError: neither origins nor a test part.
        DataError: every series is too short.
    """
    context, least, horizon = needs
    starts, stops = series.offsets[:-1], series.offsets[1:]
    short = series.lengths < context + horizon
    first, last = starts + np.where(short, least, context), stops - horizon
    longest = int(series.lengths.max())
    apart, stride = stride, min(stride, longest)  # of numbers without end only what the series have room for
    if origins is None:
        if tests is None:
            raise ConfigError(
                f"there is no test part to backtest on; give {option('origins', ...)}, or fit with "
                + option("test", ...)
            )
        begin = np.maximum(tests, first)
        counts = np.maximum((last - begin) // stride + 1, 0)
        room = f"the longest test part has {int((stops - tests).max())} rows"
    elif isinstance(origins, (int, np.integer)):
        asked = validate.count("origins", origins)
        begin = last - min(stride * (asked - 1), longest)
        counts = np.where(begin >= first, min(asked, longest), 0)
        room = f"{asked} origins {apart} apart, context {context} and horizon {horizon} need "
        room += f"{context + horizon + apart * (asked - 1)} rows"
    else:
        rows = np.array([min(validate.count("origins", row, at_least=0), longest) for row in origins], dtype=np.int64)
        absolute = starts[:, None] + rows[None, :]
        inside = ((absolute >= first[:, None]) & (absolute <= last[:, None])).all(axis=1) & (len(rows) > 0)
        if not inside.any():
            raise DataError(
                f"every series is too short for this backtest: its origins may lie in the rows {context} to "
                f"{longest - horizon} of the longest"
            )
        return absolute[inside].ravel()
    place, _ = spans(np.zeros_like(counts), counts)
    if not len(place):
        raise DataError(f"every series is too short for this backtest, the longest has {longest} rows: {room}")
    return np.repeat(begin, counts) + stride * place


def run_backtest(
    model: Predictor | Mixed, series: SeriesSet, origins: np.ndarray, seasons: tuple[int, ...], automatic: bool = False
) -> Backtest:
    """Forecast from every origin, by the model and by the simple forecasts.

    Args:
        model: what forecasts; a predictor with a row of its scaler for each series.
        origins: absolute rows.
        seasons: the shortest is that of the seasonal-naive forecast and of MASE.
        automatic: compare with automatic models of statsforecast, too.
    """
    horizon, season, mean = model.horizon, seasons[0], None
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
    first = series.offsets[:-1].copy()  # before the first origin of each series; nothing where it has none
    order = np.argsort(origins, kind="stable")[::-1]
    first[which[order]] = origins[order]
    scales = metrics.seasonal_scales(targets, series.offsets[:-1], first, season)
    short = first - series.offsets[:-1] <= season
    if short.any():
        scales[short] = metrics.seasonal_scales(targets, series.offsets[:-1], first, 1)[short]
    simple = baselines(series, origins, horizon, season)
    if automatic:
        simple |= automatic_baselines(series, origins, horizon, season)
    return Backtest(
        names=series.names,
        targets=series.target_names,
        series=which,
        origins=origins - series.offsets[which],
        index=series.times[rows],
        actual=targets[rows],
        forecasts={MODEL: point, **simple},
        levels=levels,
        quantiles=quantiles,
        season=season,
        scales=scales,
        seasons=seasons,
        labels=series.labels,
        mean=mean,
        second=partial(naive2, targets, series.offsets, origins, horizon, season),
    )
