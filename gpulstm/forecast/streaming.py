"""Forecasts that follow a series row by row: new rows move the network's state on, and the context is not read again.

The state `(h, c)` after the rows so far is all that the network needs of the past.  `update` runs it over the new rows
alone and reads the next forecast from it, so the cost of an update does not depend on the context's length.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array
from gpulstm.data.future import known_ahead, new_rows
from gpulstm.data.series import SeriesSet, end_of
from gpulstm.data.windows import Batch
from gpulstm.errors import DataError
from gpulstm.forecast.fitted import FittedMixture
from gpulstm.forecast.mixed import mixture_forecast
from gpulstm.forecast.predictor import Predictor, point_of
from gpulstm.forecast.results import Forecast

ADAPT = 0.03  # how fast bands adapt: by so much for a row outside


class ForecastStream:
    """Forecasts that follow series as they grow; made by `Forecaster.stream`.

    With `window_scaling="none"` the state is kept for ever.  Where windows are scaled by their own context, the context
    sets location and scale, and they stay while the state is kept, over at most `stream_rows` rows, as far as the
    network was trained for; then it starts over from the last `context` rows.

    Series shorter than a context are padded on the left, from one row on: they grow.

    Args:
        predictor: with a row of its scaler for each series.
        series: what came so far, of which the last `context` rows are read.
        future: the future covariates of the first horizon, where there are any.

    Attributes:
        forecast: the newest `Forecast`.
        starts: how often the context was read, the first time included.
        rows: rows read since the first context.
    """

    def __init__(self, predictor: Predictor, series: SeriesSet, future: Any = None) -> None:
        config = replace(predictor.config, min_context=1)
        self._predictor = Predictor(predictor.network, predictor.loss, predictor.scaler, config, predictor.shape)
        self._context, self._horizon = predictor.config.context, predictor.config.horizon
        self._series = end_of(series, self._context)
        self._state: Any = None
        self._moved: tuple[list[int], Array, Array] | None = None  # columns that the context scales, and how
        self._since = 0  # rows since the last start
        self.rows = self.starts = 0
        self.forecast = self._start(future)

    def update(self, rows: Any, future: Any = None) -> Forecast:
        """Read new rows and forecast what follows them.

        Args:
            rows: what came next: an array `(n, columns)` (or `(n,)` for one column) for one series, `(series, n,
                columns)` for several, in the order targets, past covariates, future covariates; or a table with those
                columns, and times that go on where the series ended.  Missing targets are NaN.
            future: the future covariates of the horizon that follows, where there are any, as in `Forecaster.predict`.

        Raises:
            DataError: rows of another shape, at times that do not follow, or with values that are not finite.
        """
        grown, count = grown_by(self._series, rows)
        known = self._extended(grown, future)  # refuses a bad `future` before anything changes
        self._series = end_of(grown, self._context)
        self.rows += count
        self._since += count
        whole = self._predictor.shape.base is not None  # what is added to the network's forecast reads a whole context
        if whole or (self._moved is not None and self._since > self._predictor.config.stream_rows):
            self.forecast = self._start(future)
            return self.forecast
        batch = self._gather(known, count, "none")
        if self._moved is not None:
            self._scale(batch, known, *self._moved)
        self.forecast = self._step(batch, known)
        return self.forecast

    def _start(self, future: Any) -> Forecast:
        """Run the network over the last context from the state of zeros."""
        known = self._extended(self._series, future)
        batch = self._gather(known, self._context, self._predictor.config.window_scaling)
        self._state, self._since = None, 0
        self.starts += 1
        self._moved = batch.moved
        return self._step(batch, known)

    def _extended(self, series: SeriesSet, future: Any) -> SeriesSet:
        return series.extended(self._horizon, known_ahead(series, self._horizon, future))

    def _gather(self, known: SeriesSet, context: int, window_scaling: str) -> Batch:
        windows = self._predictor.windows(
            known, known.offsets[1:] - self._horizon, context=context, window_scaling=window_scaling
        )
        return windows.gather(slice(None), self._predictor.network.backend)

    def _scale(self, batch: Batch, known: SeriesSet, columns: list[int], location: Array, scale: Array) -> None:
        """Scale new rows by the location and scale of the context that the state began with."""
        batch.location, batch.scale = location[:, : known.targets], scale[:, : known.targets]
        with self._predictor.network.backend.activate():
            scaled = (batch.x[..., columns] - location) / scale
            if known.missing == "mask":  # the last columns say what was observed; a gap is put at the location
                width = known.values.shape[1]
                scaled = scaled * batch.x[..., [width + column for column in columns]]
            batch.x[..., columns] = scaled

    def _step(self, batch: Batch, known: SeriesSet) -> Forecast:
        predicted, self._state = self._predictor.forecast_batch(batch, np.arange(len(known)), self._state)
        index = known.times[known.offsets[1:, None] - self._horizon + np.arange(self._horizon)]
        loss = self._predictor.loss
        return Forecast(
            known.names,
            known.target_names,
            index,
            predicted[0],
            loss.levels,
            predicted[1],
            point=point_of(loss),
            labels=known.labels,
        )


class MixtureStream:
    """Forecasts of a mixture that follow series as they grow; made by `Forecaster.stream`.

    Medians are those of `Forecaster.predict` on the same rows.  Bands adapt: each new row tells whether it lay within
    the band that its last forecast gave, and the band becomes wider or narrower so that it covers what it says
    (Gibbs & Candes 2021, "Adaptive conformal inference under distribution shift", NeurIPS 34).

    Args:
        fitted: the mixture.
        series: what came so far.
        future: the future covariates of the first horizon, where there are any.

    Attributes:
        forecast: the newest `Forecast`.
        rows: rows read since the first forecast.
        spread: `(levels,)` what half widths of bands are multiplied by now.
    """

    def __init__(self, fitted: FittedMixture, series: SeriesSet, future: Any = None) -> None:
        self._mixed, self._reach = fitted.mixed, fitted.mixed.reach
        self._series = end_of(series, self._reach)
        self.rows = 0
        self.spread = np.ones(len(self._mixed.levels))
        self.forecast = self._predict(self._series, future)

    def update(self, rows: Any, future: Any = None) -> Forecast:
        """Read new rows and forecast what follows them; arguments and errors as of `ForecastStream.update`."""
        grown, count = grown_by(self._series, rows)
        known = grown.extended(self._mixed.horizon, known_ahead(grown, self._mixed.horizon, future))
        self._adapt(grown, count)
        self._series = end_of(grown, self._reach)
        self.rows += count
        self.forecast = self._predict_known(known)
        return self.forecast

    def _adapt(self, grown: SeriesSet, count: int) -> None:
        """Move the spread by whether the new rows lay within the bands of their last forecast."""
        quantiles = self.forecast.quantiles
        assert quantiles is not None
        steps = min(count, quantiles.shape[1])
        for row in range(len(grown)):
            stop = int(grown.offsets[row + 1]) - count
            came = grown.values[stop : stop + steps, : grown.targets]
            median = self.forecast.median[row, :steps]
            for place, level in enumerate(self._mixed.levels):
                if level == 0.5:
                    continue
                half = np.abs(quantiles[row, :steps, :, place] - median)
                seen = ~np.isnan(came)
                outside = (np.abs(came - median) > half)[seen]
                target = 1 - abs(2 * level - 1)
                self.spread[place] *= np.exp(ADAPT * float((outside - target).sum()) / (len(grown) * grown.targets))
        self.spread = np.clip(self.spread, 0.2, 5.0)

    def _predict(self, series: SeriesSet, future: Any) -> Forecast:
        return self._predict_known(
            series.extended(self._mixed.horizon, known_ahead(series, self._mixed.horizon, future))
        )

    def _predict_known(self, known: SeriesSet) -> Forecast:
        return mixture_forecast(self._mixed, known, self._mixed.horizon, self.spread)


def grown_by(series: SeriesSet, rows: Any) -> tuple[SeriesSet, int]:
    """The series with new rows at their ends, and how many there are in each."""
    fresh, times = new_rows(series, rows)
    if np.isinf(fresh).any():
        raise DataError("rows holds infinite values")
    if series.missing == "refuse" and np.isnan(fresh[:, :, : series.targets + series.past + series.known]).any():
        raise DataError("rows holds missing values, and the rule is missing='refuse'")
    return series.grown(fresh, times), fresh.shape[1]
