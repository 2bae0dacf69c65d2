"""What "auto" means, where the series decide it: horizon, test rows, and the options of a single network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gpulstm.data.seasons import seasons_of
from gpulstm.data.series import SeriesSet
from gpulstm.data.splits import chronological_cuts
from gpulstm.errors import option
from gpulstm.forecast.config import ALONE, AUTO, ForecasterConfig

SINGLE = {  # what "auto" means for a single network
    "num_layers": 2,
    "learning_rate": 5e-3,
    "weight_decay": 0.0,
    "batch_size": 64,
    "epochs": 30,
    "patience": 10,
}
LONGEST_HORIZON = 240  # steps of a horizon that the data choose
CONTEXT, LONGEST_CONTEXT = 156, 512  # rows that a single network sees: without a season, and at most with one


def automatic_horizon(season: int, rows: int) -> int:
    """One season, six rows without one, and at most a sixth of the rows."""
    return int(max(1, min(season if season > 1 else 6, LONGEST_HORIZON, rows // 6)))


def automatic_test(horizon: int | str, season: int, rows: int) -> int:
    """Rows that are kept for a backtest: three horizons, at most a fifth of the rows; none of too few rows."""
    steps = automatic_horizon(season, rows) if isinstance(horizon, str) else horizon
    return max(steps, min(3 * steps, rows // 5)) if rows >= 3 * steps + 8 else 0


def seasons_for(config: ForecasterConfig, series: SeriesSet) -> tuple[int, ...]:
    """Rows in each season, the shortest first: as asked, or those of the time step; (1,) where there is none."""
    if config.season is not None:
        return (config.season,)
    return seasons_of(series.axis.step, int(series.lengths.max())) or (1,)


def with_test(config: ForecasterConfig, series: SeriesSet) -> ForecasterConfig:
    """The options with `test="auto"` as a number of rows."""
    if config.test != AUTO:
        return config
    rows = int(series.lengths.min())
    return replace(config, test=automatic_test(config.horizon, seasons_for(config, series)[0], rows))


def test_rows(config: ForecasterConfig, series: SeriesSet) -> np.ndarray | None:
    """`(series,)` first absolute row of the part that is kept for a backtest, or None where nothing is."""
    amount = with_test(config, series).test
    kept = isinstance(amount, str) or amount != 0
    return chronological_cuts(series, 0, amount).validation if kept else None


def planned(config: ForecasterConfig, series: SeriesSet) -> ForecasterConfig:
    """The options with what is automatic decided for `series`, as far as that is known before the fit."""
    config = with_test(config, series)
    if not config.single:
        return config
    return resolved(config, seasons_for(config, series)[0], typical_rows(config, series))


def typical_rows(config: ForecasterConfig, series: SeriesSet) -> int:
    """The median length of the series that are long enough to learn from; of all where none is, or no horizon known."""
    lengths = series.lengths
    long = lengths[lengths > 2 * config.horizon] if isinstance(config.horizon, int) else lengths
    return int(np.median(long if len(long) else lengths))


def resolved(config: ForecasterConfig, season: int, rows: int) -> ForecasterConfig:
    """The options of a single network, with what is automatic decided for series of `rows` rows."""
    found: dict[str, Any] = {name: value for name, value in SINGLE.items() if getattr(config, name) == AUTO}
    horizon = automatic_horizon(season, rows) if config.horizon == AUTO else config.horizon
    kept = 0
    if config.validation == AUTO:
        kept = max(round(0.1 * rows), horizon)
        enough = round(0.1 * rows) >= horizon and kept + horizon < rows
        some = min(kept, rows // 2)
        found["validation"] = 0.1 if enough else some if some >= horizon else 0
    if config.context == AUTO:
        usual = CONTEXT if season == 1 else min(max(3 * season, 24), LONGEST_CONTEXT)
        room = (rows - kept - horizon) // 2
        found["context"] = max(1, min(usual, room), min(config.stream_rows + 1, rows))
    return replace(config, horizon=horizon, members=ALONE, **found)


def single_notes(config: ForecasterConfig) -> list[str]:
    """A sentence, where options have chosen a single network."""
    alone = config.alone()
    if config.members == ALONE or not alone:
        return []
    return [f"{', '.join(alone)} is of a single network, so one forecasts: members=('network',)"]


def season_notes(config: ForecasterConfig, series: SeriesSet) -> list[str]:
    """A sentence, where no season was asked for and none of the time step fits the series."""
    step = series.axis.step
    if config.season is not None or seasons_for(config, series) != (1,) or not step.seconds >= 1:
        return []
    return [f"no season of the step {step.freq} fits the series; name it as {option('season', ...)}"]
