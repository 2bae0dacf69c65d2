"""The default fit: seasons, lengths and validation from the data, then the mixture of all members."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from gpulstm.data.series import SeriesSet
from gpulstm.data.splits import chronological_cuts
from gpulstm.errors import DataError
from gpulstm.forecast.bands import Bands, width
from gpulstm.forecast.config import AUTO, ForecasterConfig
from gpulstm.forecast.decisions import automatic_horizon
from gpulstm.forecast.ensemble import Ensemble
from gpulstm.forecast.features import Features
from gpulstm.forecast.fitting import Plan, learn
from gpulstm.forecast.members.simple import Simple
from gpulstm.forecast.members.training import Runs, Training
from gpulstm.forecast.mixed import Mixed, panel_of
from gpulstm.forecast.panel import Panel, Seasons
from gpulstm.forecast.setup import Setup, seasons_of
from gpulstm.forecast.short import listed

YEARS = {52: 52.1775, 7: 365.25, 5: 260.9, 24: 365.25}  # rows (days for hours) in a year, by rows in a season


def fit_mixture(
    config: ForecasterConfig, series: SeriesSet, stops: np.ndarray, season: int, runs: Runs
) -> tuple[Mixed, list[str]]:
    """Fit the mixture.

    Args:
        config: the forecaster's options.
        series: in their own units.
        stops: `(series,)` first absolute row after those that may be seen.
        season: rows in a season of the time step.
        runs: the networks' runs, which are added to.

    Returns:
        the mixture, and sentences on what the data made necessary.

    Raises:
        DataError: a target has no observed value in a series.
    """
    panel = panel_of(series)
    every = (stops + series.rows * np.arange(series.targets)[:, None]).ravel()
    rows = every - panel.starts
    if int(rows.max()) < 1:
        raise DataError("the rows to learn from hold no observed value")
    notes: list[str] = []
    typical = int(np.median(rows[rows > 0]))
    m = season if typical > season else 1
    if m != season:
        notes.append(f"the series are shorter than a season of {season} rows, so no season is looked for")
    horizon = automatic_horizon(m, typical) if config.horizon == AUTO else config.horizon
    day = series.axis.step.seconds / 86400 if panel.time is not None else 0.0
    seasons = seasons_of(m, typical, YEARS.get(m, 0.0) if panel.time is not None else 0.0)
    if m == 24 and panel.time is not None and abs(day * 24 - 1) > 1e-6:
        seasons = Seasons(m)  # no hours: a day of their steps, but no week of 168
    nonnegative, said = (config.nonnegative is True,) * series.targets, list[str]()
    if config.nonnegative is None:
        nonnegative, said = _nonnegative(panel, every, series.target_names)
    notes += said
    if int(rows.max()) < horizon + max(2 * m, 8):
        notes.append(
            f"{int(rows.max())} rows leave no room to judge members for a horizon of {horizon}: the forecast is a "
            "mean of simple ones, and its bands come from their errors so far"
        )
        ensemble = _short(panel, every, horizon, seasons)
        return Mixed(ensemble, series.names, series.targets, tuple(config.quantiles), nonnegative), notes
    amount = None
    if config.validation != AUTO:
        cuts = chronological_cuts(series, config.validation, config.test)
        amount = max(horizon, int(np.median(cuts.validation - cuts.train)))
    kept = horizon if amount is None else amount
    if amount is None and len(panel) == 1:
        kept = int(min(max(3 * horizon, 0.2 * typical), typical / 3))
    networks = config.members == AUTO or "network" in config.members
    plan = Plan(
        Features(
            known=panel.known is not None,
            past=panel.past is not None,
            static=panel.static is not None,
            back=min(m, 24),
        ),
        seed=config.seed,
        amount=amount,
        calendar=panel.time is not None and (m in (5, 7) or bool(seasons.long)),
        networks=training_of(config) if networks else None,
        ridges=config.members == AUTO or "ridge" in config.members,
    )
    setup = Setup.of(horizon, seasons, rows[rows > 0], kept, None if config.context == AUTO else config.context)
    ensemble = learn(panel, every, setup, plan, runs)
    return Mixed(ensemble, series.names, series.targets, tuple(config.quantiles), nonnegative), notes


def training_of(config: ForecasterConfig) -> Training:
    """How network members are trained: as the options say, with `Training`'s own values for what is automatic."""
    named = {one.name: getattr(config, one.name) for one in fields(Training)}
    return Training(**{name: value for name, value in named.items() if value != AUTO or name == "device"})


def _nonnegative(panel: Panel, stops: np.ndarray, names: tuple[str, ...]) -> tuple[tuple[bool, ...], list[str]]:
    """Which targets stay at zero or above, because they are counts or sales.

    Those are known by zeros, one row in a hundred or more, or by whole numbers some of which are small; values that
    merely happen to be above zero, as a summer's temperatures, tell nothing.
    """
    inside = panel.observed.copy()
    for stop, end in zip(stops, panel.offsets[1:], strict=True):
        inside[stop:end] = False
    bounds = panel.offsets[:: len(stops) // len(names)]
    zeros, counts = list[str](), list[str]()
    for name, start, end in zip(names, bounds[:-1], bounds[1:], strict=True):
        values = panel.values[start:end][inside[start:end]]
        if not values.size or values.min() < 0:
            continue
        if (values == 0).mean() >= 0.01 and values.max() > 0:
            zeros.append(name)
        elif bool((values == np.round(values)).all()) and values.min() <= 0.05 * values.max():
            counts.append(name)
    notes = [
        f"{reason}, so forecasts of {listed(some)} are kept from below zero (nonnegative)"
        for some, reason in ((zeros, "no value is below zero and some are zero"), (counts, "all values are counts"))
        if some
    ]
    return tuple(name in (*zeros, *counts) for name in names), notes


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
        "without_networks": None,
        "reference": "naive",
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
