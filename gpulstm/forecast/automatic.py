"""The default fit: seasons, lengths and validation from the data, then the mixture of all members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gpulstm.data.series import SeriesSet
from gpulstm.errors import DataError
from gpulstm.forecast import fitting
from gpulstm.forecast.bands import Bands, width
from gpulstm.forecast.config import automatic_horizon
from gpulstm.forecast.ensemble import Ensemble
from gpulstm.forecast.features import Features
from gpulstm.forecast.members.simple import Simple
from gpulstm.forecast.members.training import Training
from gpulstm.forecast.mixed import Mixed, panel_of
from gpulstm.forecast.panel import Panel, Seasons
from gpulstm.forecast.setup import Setup, seasons_of
from gpulstm.training.callbacks import Callback
from gpulstm.training.history import History

YEARS = {52: 52.1775, 7: 365.25, 5: 260.9, 24: 365.25}  # rows (days for hours) in a year, by rows in a season


@dataclass(frozen=True)
class Wishes:
    """What a user asked of the default fit.

    Args:
        horizon: H, or None for one season, less for short series.
        validation: rows at the end of each series to judge members by, or None.
        season: m of the time step.
        levels: of the quantiles.
        calendar: "auto" or "none": whether ridges and networks may read the calendar.
        nonnegative: "auto", True or False.
        networks: how networks are trained, or None for none.
        seed: of samples.
        context: rows that learned members see, or None.
    """

    horizon: int | None
    validation: int | None
    season: int
    levels: tuple[float, ...]
    calendar: bool
    nonnegative: bool | None
    networks: Training | None
    seed: int = 0
    context: int | None = None


@dataclass(eq=False)
class Outcome:
    """A fit: the mixture, sentences on what the data made necessary, and the runs of the networks."""

    mixed: Mixed
    notes: list[str] = field(default_factory=list)
    histories: list[History] = field(default_factory=list)


def fit_mixed(series: SeriesSet, stops: np.ndarray, wishes: Wishes, callbacks: Sequence[Callback] = ()) -> Outcome:
    """Fit the mixture on the rows before `stops` `(series,)` of each series.

    Raises:
        DataError: no series has an observed value.
    """
    panel = panel_of(series)
    every = (stops + series.rows * np.arange(series.targets)[:, None]).ravel()
    rows = every - panel.starts
    if not len(rows) or int(rows.max()) < 1 or np.isnan(panel.values[panel.starts]).all():
        raise DataError("no series has an observed value to learn from")
    notes: list[str] = []
    typical = int(np.median(rows[rows > 0]))
    m = wishes.season if typical >= wishes.season + 1 else 1
    if m != wishes.season:
        notes.append(f"the series are shorter than a season of {wishes.season} rows, which is not looked at")
    horizon = automatic_horizon(m, typical) if wishes.horizon is None else wishes.horizon
    seasons = seasons_of(m, typical, YEARS.get(m, 0.0) if panel.time is not None else 0.0)
    nonnegative, note = _nonnegative(panel, every, wishes.nonnegative)
    notes += note
    if int(rows.max()) < horizon + max(2 * m, 8):
        notes.append(
            f"with {int(rows.max())} rows there is no room to judge members for a horizon of {horizon}: the forecast "
            "is a mean of simple ones, and its bands come from their errors so far"
        )
        ensemble = _short(panel, every, horizon, seasons)
        return Outcome(Mixed(ensemble, series.names, series.targets, wishes.levels, nonnegative), notes)
    kept = wishes.validation
    judged = int(min(max(3 * horizon, 0.2 * typical), typical / 3)) if len(panel) == 1 else horizon
    setup = Setup.of(horizon, seasons, rows[rows > 0], judged if kept is None else kept, wishes.context)
    features = Features(
        known=panel.known is not None,
        past=panel.past is not None,
        static=panel.static is not None,
        back=min(m, 24),
    )
    clock = panel.time is not None and wishes.calendar and m in (5, 7, 24)
    ensemble, histories, said = fitting.learn(
        panel,
        every,
        setup,
        features,
        seed=wishes.seed,
        amount=kept,
        calendar=clock,
        networks=wishes.networks,
        callbacks=callbacks,
    )
    return Outcome(Mixed(ensemble, series.names, series.targets, wishes.levels, nonnegative), notes + said, histories)


def _nonnegative(panel: Panel, stops: np.ndarray, asked: bool | None) -> tuple[bool, list[str]]:
    """Whether forecasts stay at zero or above: as asked, or for counts and sales.

    Those are known by zeros, one row in a hundred or more, or by whole numbers some of which are small; values that
    merely happen to be above zero, as a summer's temperatures, tell nothing.
    """
    if asked is not None:
        return asked, []
    inside = np.zeros(len(panel.values), bool)
    for start, stop in zip(panel.offsets[:-1], stops, strict=True):
        inside[start:stop] = True
    values = panel.values[inside & panel.observed]
    if not values.size or values.min() < 0:
        return False, []
    if (values == 0).mean() >= 0.01 and values.max() > 0:
        return True, ["no value is below zero and some are zero, so forecasts are kept from below it (nonnegative)"]
    if bool((values == np.round(values)).all()) and values.min() <= 0.05 * values.max():
        return True, ["all values are counts, so forecasts are kept from below zero (nonnegative)"]
    return False, []


def _short(panel: Panel, stops: np.ndarray, horizon: int, seasons: Seasons) -> Ensemble:
    """Series too short to judge members by: the mean of theta and damped Holt, or the season again."""
    rows, m = int((stops - panel.starts).max()), seasons.short
    limit = max(4, rows)
    setup = Setup(horizon, seasons, min(rows, 2 * m + 1), limit, 1)
    if rows >= 2 * m + 1 and rows >= 4:
        members = [Simple(kind, True, m, limit) for kind in ("theta", "damped")]
    else:
        members = [Simple("seasonal", season=m) if rows >= m > 1 else Simple("naive")]
    ensemble = Ensemble(setup, list(members), np.full(len(members), 1 / len(members)), _no_bands(horizon))
    longer = _longer(panel, stops, horizon)  # errors so far: from every row on, as far as there are rows
    ends = longer.offsets[1:] - horizon
    origins = np.concatenate([np.arange(a + 1, b) for a, b in zip(longer.starts, ends, strict=True)])
    if len(origins):
        view = ensemble.view(longer, origins)
        error = view.actual() - ensemble.median(view)
        for step in range(1, horizon):  # steps that were never reached: as the last one that was, and growing
            if np.isnan(error[:, step]).all():
                error[:, step] = error[:, step - 1] * np.sqrt((step + 1) / step)
        ensemble.bands = Bands.of(error, width(view, "none"), 1.0, "none")
    ensemble.report = {
        "members": [{"name": member.name, "error": None, "weight": 1 / len(members)} for member in members],
        "error": None,
        "share": 0.0,
        "guarded": False,
    }
    return ensemble


def _no_bands(horizon: int) -> Bands:
    return Bands(np.zeros((horizon, 1)), np.ones(horizon, int), np.zeros(horizon), kind="none")


def _longer(panel: Panel, stops: np.ndarray, horizon: int) -> Panel:
    """The series up to their stops, and `horizon` unknown rows behind each."""
    values = [
        np.concatenate([np.where(panel.observed[a:b], panel.values[a:b], np.nan), np.full(horizon, np.nan)])
        for a, b in zip(panel.offsets[:-1], stops, strict=True)
    ]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in values])])
    return Panel.of(np.concatenate(values), offsets)
