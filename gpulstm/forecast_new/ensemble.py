"""Fit members, judge them, mix them, and say how sure the mixture is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from gpulstm.forecast_new import bands as band
from gpulstm.forecast_new import mixture as mix
from gpulstm.forecast_new.bands import Bands
from gpulstm.forecast_new.features import Features
from gpulstm.forecast_new.members.ridge import PENALTIES, Moments, Ridge
from gpulstm.forecast_new.members.simple import Simple, simple_members
from gpulstm.forecast_new.members.space import Space
from gpulstm.forecast_new.panel import Panel, View
from gpulstm.forecast_new.setup import BLOCKS, ORIGINS, Setup, training_origins, validation_origins

LEARN = 8  # windows below which nothing is learned
CALENDAR_GAIN = 0.01  # by which the calendar has to lower the ridge's validation error


class Member(Protocol):
    """Who forecasts."""

    @property
    def name(self) -> str:
        """As tables of members show it."""

    def forecast(self, view: View) -> np.ndarray:
        """Medians `(N, H)` in the units of the series, from the rows before each origin."""


@dataclass(eq=False)
class Ensemble:
    """Members that forecast together.

    Attributes:
        members: those that count, and `weights` `(members,)` of each.
        series_weights: `(series, members)` where weights differ from series to series, by the names of the fit.
        bands: how sure the mixture is.
        report: for the table of members: name, validation error, weight.
    """

    setup: Setup
    members: list[Any]
    weights: np.ndarray
    bands: Bands
    series_weights: np.ndarray | None = None
    report: dict[str, Any] = field(default_factory=dict)

    def view(self, panel: Panel, origins: np.ndarray, horizon: int | None = None) -> View:
        """The origins as members see them."""
        setup = self.setup
        return View(panel, origins, setup.horizon if horizon is None else horizon, setup.seasons.short, setup.limit)

    def median(self, view: View, series: np.ndarray | None = None) -> np.ndarray:
        """The mixture `(N, H)`; `series` `(N,)` are rows of `series_weights`, -1 for a series that was not fitted."""
        weights = np.broadcast_to(self.weights, (len(view), len(self.weights)))
        if self.series_weights is not None and series is not None:
            weights = np.where(series[:, None] >= 0, self.series_weights[np.maximum(series, 0)], weights)
        total = np.zeros((len(view), view.horizon))
        for index, member in enumerate(self.members):
            use = np.flatnonzero(weights[:, index] > 0)
            if len(use):
                part = view if len(use) == len(view) else view.at(use)
                total[use] += weights[use, index][:, None] * member.forecast(part)
        return total

    def width(self, view: View) -> np.ndarray:
        """u `(N,)`."""
        return band.width(view, self.bands.centred)


class Fit:
    """One fit of an ensemble: what it needs at several steps.

    Args:
        panel: series.
        stops: `(series,)` first row after those that may be seen.
        setup: lengths.
        features: of the learned members, fitted.
        seed: of samples.
        amount: rows of each series for validation; None lets the lengths decide.
    """

    def __init__(
        self, panel: Panel, stops: np.ndarray, setup: Setup, features: Features, seed: int, amount: int | None = None
    ) -> None:
        self.panel, self.stops, self.setup, self.features, self.seed = panel, stops, setup, features, seed
        horizon, m = setup.horizon, setup.seasons.short
        origins, self.age, self.cut = validation_origins(panel, stops, horizon, amount, seed)
        self.judge = View(panel, origins, horizon, m, setup.limit)
        self.scales = season_scales(panel, self.cut, m)
        self.positive = bool((panel.values[: int(stops.max())][panel.observed[: int(stops.max())]] > 0).all())
        self.members: list[Any] = list(simple_members(setup.seasons, int(np.median(self.cut - panel.starts)), setup.limit, self.positive))
        self.trial = self._trial(np.stack([member.forecast(self.judge) for member in self.members]))
        self._views: dict[Any, View] = {}
        self.ridges: list[int] = []
        self._long: dict[int, float] = {}

    def _trial(self, forecasts: np.ndarray) -> mix.Trial:
        view = self.judge
        names = [member.name for member in self.members]
        reference = 1 if self.setup.seasons.short > 1 else 0
        return mix.Trial(
            names, forecasts, view.actual(), self.scales[view.series], view.series, self.age, reference, self.positive
        )

    def add(self, member: Any, forecast: np.ndarray | None = None) -> int:
        """Let another member take part."""
        forecast = member.forecast(self.judge) if forecast is None else forecast
        self.members.append(member)
        self.trial = self._trial(np.concatenate([self.trial.forecasts, forecast[None]]))
        return len(self.members) - 1

    def error(self, index: int) -> float:
        """The criterion of a member at the validation origins."""
        return self.trial.criterion(self.trial.forecasts[index])

    # -- what is learned -------------------------------------------------------------------------------------------
    def training(self, space: Space, stops: np.ndarray) -> View:
        """Views of training windows, in the space's own values."""
        first = self.setup.first if space.base.kind != "blend" else max(self.setup.first, space.length)
        key = (first, stops is self.cut)
        if key not in self._views:
            origins = training_origins(self.panel, stops, self.setup, first, self.seed)
            self._views[key] = View(self.panel, origins, self.setup.horizon, self.setup.seasons.short, self.setup.limit)
        return space.view(self._views[key])

    def window_weights(self, space: Space, view: View) -> np.ndarray:
        """How much a window counts in the criterion: its error in its own scale, in those of sMAPE and MASE."""
        scale = space.scaled(view).scale[:, 0]
        first, second = self.trial.yardstick
        actual = np.abs(np.nan_to_num(view.actual())).mean(axis=1)
        safe = np.where(actual > 0, actual, 1.0)
        unit = np.where(view.positive, scale * safe, scale) if space.log else scale
        weight = unit / self.scales[view.series] / first
        if self.positive:
            weight = weight + 100 * unit / safe / second
        weight = weight / max(float(weight.mean()), 1e-300)
        return np.clip(weight, 0.05, 10.0)

    def ridge(self, space: Space) -> tuple[int, float] | None:
        """Fit a ridge on the windows before the cut with each penalty and let the best take part."""
        view = self.training(space, self.cut)
        if len(view) < LEARN:
            return None
        scaled = space.scaled(view)
        moments = Moments(scaled.inputs, space.residual(view, scaled), self.window_weights(space, view))
        if moments.count == 0:
            return None
        judged = space.view(self.judge)
        inside = space.scaled(judged)
        best: tuple[float, Ridge, np.ndarray] | None = None
        for penalty in PENALTIES:
            weights = moments.solve(penalty)
            forecast = judged.back(inside.base + inside.scale * (inside.inputs @ weights))
            error = self.trial.criterion(forecast)
            if best is None or error < best[0]:
                best = error, Ridge(space, weights, penalty), forecast
        assert best is not None
        index = self.add(best[1], best[2])
        self.ridges.append(index)
        return index, best[0]

    def refit(self, member: Any) -> Any:
        """The member fitted on all rows."""
        if not isinstance(member, Ridge):
            return member
        view = self.training(member.space, self.stops)
        scaled = member.space.scaled(view)
        moments = Moments(
            scaled.inputs, member.space.residual(view, scaled), self.window_weights(member.space, view)
        )
        return replace(member, weights=moments.solve(member.penalty))

    # -- one long series -------------------------------------------------------------------------------------------
    @property
    def is_long(self) -> bool:
        """Whether one series is so long that errors over all of it say more than those of its end."""
        rows = int((self.stops - self.panel.starts).max())
        return len(self.panel) == 1 and (rows - self.setup.first) / self.setup.horizon >= 10

    def blocks(self, ridge: Ridge) -> list[tuple[View, np.ndarray]]:
        """Out-of-sample forecasts of a ridge all over the series: each of some blocks by the others' windows."""
        view = self.training(ridge.space, self.stops)
        order = np.argsort(view.origins)
        view = view.at(order)
        scaled, horizon = ridge.space.scaled(view), self.setup.horizon
        residual, weight = ridge.space.residual(view, scaled), self.window_weights(ridge.space, view)
        whole = Moments(scaled.inputs, residual, weight)
        found = []
        for part in np.array_split(np.arange(len(view)), BLOCKS):
            if not len(part):
                continue
            low, high = view.origins[part[0]], view.origins[part[-1]]
            near = (view.origins > low - horizon) & (view.origins < high + horizon)
            moments = whole - Moments(scaled.inputs[near], residual[near], weight[near])
            weights = moments.solve(ridge.penalty)
            part = part[:: max(1, len(part) * BLOCKS // ORIGINS)]
            forecast = scaled.base[part] + scaled.scale[part] * (scaled.inputs[part] @ weights)
            inner = view.at(part)
            found.append((inner, inner.back(forecast)))
        return found


def season_scales(panel: Panel, stops: np.ndarray, season: int) -> np.ndarray:
    """What MASE divides by: mean `|y_t - y_{t-m}|` of each series before its stop `(series,)`."""
    found = np.ones(len(panel))
    for index, (start, stop) in enumerate(zip(panel.starts, stops, strict=True)):
        values = panel.values[start:stop]
        for apart in (season, 1):
            if len(values) > apart:
                steps = np.abs(values[apart:] - values[:-apart])
                seen = panel.observed[start + apart : stop] & panel.observed[start : stop - apart]
                if seen.any() and steps[seen].mean() > 0:
                    found[index] = steps[seen].mean()
                    break
    return found


def learn(
    panel: Panel,
    stops: np.ndarray,
    horizon: int,
    setup: Setup,
    features: Features,
    *,
    seed: int = 0,
    amount: int | None = None,
    calendar: bool = False,
    networks: Any = None,
) -> Ensemble:
    """Fit, judge and mix all members.

    Args:
        panel: series.
        stops: `(series,)` first row after those that may be seen.
        horizon: H.
        setup: lengths.
        features: what learned members read in any case.
        seed: of samples and networks.
        amount: rows of each series for validation; None lets the lengths decide.
        calendar: whether the calendar may take part, too.
        networks: trains the networks: called with the fit and the spaces to learn in; None for none.
    """
    features = features.fitted(panel, stops)
    fit = Fit(panel, stops, setup, features, seed, amount)
    spaces = _spaces(fit, features, calendar)
    for member in [] if networks is None else networks(fit, spaces):
        fit.add(member)
    return _mixed(fit)


def _spaces(fit: Fit, features: Features, calendar: bool) -> list[int]:
    """Fit the ridges; the indices of those on whose windows networks are worth training."""
    seasons, setup = fit.setup.seasons, fit.setup
    m = seasons.short
    logs = (False, True) if fit.positive else (False,)
    if seasons.long:
        bases = [(Simple("seasonal", season=m), setup.length, (m,))]
        if int(np.median(fit.cut - fit.panel.starts)) >= 2 * 336 + setup.horizon:
            bases.append((Simple("blend", season=seasons.long), 336, (m, seasons.long)))
    elif m > setup.limit // 2:  # a season longer than windows
        bases = [(Simple("seasonal", season=m), setup.length, (m,))]
    elif m > 1:
        bases = [(Simple("theta", season=m, limit=setup.limit), setup.length, (m,))]
        more = [member for member in fit.members if member.kind == "harmonic" and member.move]
        if m == 7:
            more = [member for member in fit.members if member.kind == "seasonal" and member.count == 3]
        bases += [(member, setup.length, (m,)) for member in more]
    else:
        bases = [(Simple("naive"), setup.length, (1,))]
    found: dict[tuple[int, bool], tuple[int, float]] = {}
    variants = [features]
    rows = int(np.median(fit.cut - fit.panel.starts))
    if calendar and m == 24:
        variants.append(replace(features, calendar=True))
    if calendar and seasons.year and m != 52 and rows >= 2 * seasons.year * (m if m == 24 else 1):
        variants.append(replace(variants[-1], yearly=True))
    chosen: list[int] = []
    for variant_number, variant in enumerate(variants):
        errors: dict[int, tuple[int, float]] = {}
        for number, (base, length, apart) in enumerate(bases):
            for log in logs:
                result = fit.ridge(Space(base, length, m, log, apart, variant))
                if result is not None and (number not in errors or result[1] < errors[number][1]):
                    errors[number] = result
        if not errors:
            return []
        best = min(errors.values(), key=lambda pair: pair[1])
        if variant_number == 0 or best[1] <= found[0, False][1] * (1 - CALENDAR_GAIN):
            found[0, False] = best
            ridge = fit.members[best[0]]
            chosen = [
                index
                for index in fit.ridges
                if fit.members[index].space.base == ridge.space.base
                and fit.members[index].space.features is ridge.space.features
            ]
    return chosen


def _mixed(fit: Fit) -> Ensemble:
    trial, setup = fit.trial, fit.setup
    count = len(fit.panel)
    recent = np.array([fit.error(index) for index in range(len(fit.members))])
    errors = _long_errors(fit, recent) if fit.is_long else recent
    kept = mix.distinct(trial, range(len(fit.members)))
    weights = np.zeros(len(fit.members))
    weights[kept] = mix.power_weights(errors[kept])
    part = mix.Trial(
        [trial.names[k] for k in kept], trial.forecasts[kept], trial.actual, trial.scale, trial.series, trial.age,
        0, trial.positive,
    )
    part._yardstick = trial.yardstick
    share = mix.choose_share(part, setup.horizon, count) if count > 1 else 0.0
    every = np.ones(len(trial.age), bool)
    per_series = None
    if share:
        per_series = np.zeros((count, len(fit.members)))
        per_series[:, kept] = mix.series_weights(part, errors[kept], share, every, count)
        blended = mix.blend(trial.forecasts, per_series, trial.series)
    else:
        blended = mix.blend(trial.forecasts, weights)
    plain = [index for index, member in enumerate(fit.members) if isinstance(member, Simple)]
    mixed_error = trial.criterion(blended)
    best_plain = min(plain, key=lambda index: recent[index])
    guarded = mixed_error > recent[best_plain]
    if guarded:
        weights = np.eye(len(fit.members))[best_plain]
        per_series, share = None, 0.0
        blended = trial.forecasts[best_plain]
    # residuals: as they would have been without what is judged
    judged = blended
    if share:
        judged = np.empty_like(blended)
        for age in np.unique(trial.age):
            here = trial.age == age
            others = np.abs(trial.age - age) >= setup.horizon
            if others.any():
                w = np.zeros((count, len(fit.members)))
                w[:, kept] = mix.series_weights(part, errors[kept], share, others, count)
            else:
                w = per_series
            judged[here] = mix.blend(trial.forecasts[:, here], w, trial.series[here])
    centred = band.mostly_trend(fit.judge)
    u = band.width(fit.judge, centred)
    factor = _widening(fit, recent, centred) if count == 1 else 1.0
    bands = Bands.of(trial.actual - judged, u, factor, centred)
    used = np.flatnonzero((per_series if per_series is not None else weights[None]).max(axis=0) > 0)
    members = [fit.refit(fit.members[index]) for index in used]
    report = {
        "members": [
            {"name": trial.names[k], "error": float(errors[k]), "recent": float(recent[k]),
             "weight": float(weights[k] if per_series is None else per_series[np.unique(trial.series), k].mean())}
            for k in range(len(fit.members))
        ],
        "mixture": mixed_error, "share": share, "guarded": bool(guarded), "factor": factor, "centred": centred,
    }
    return Ensemble(setup, members, weights[used], bands, None if per_series is None else per_series[:, used], report)


def _long_errors(fit: Fit, recent: np.ndarray) -> np.ndarray:
    """Errors of members over one long series, half by its end and half by all of it."""
    setup, horizon = fit.setup, fit.setup.horizon
    start, stop = int(fit.panel.starts[0] + setup.first), int(fit.stops[0]) - horizon
    origins = np.unique(np.linspace(start, stop, min(ORIGINS, stop - start + 1)).round().astype(np.int64))
    view = View(fit.panel, origins, horizon, setup.seasons.short, setup.limit)
    scale = float(fit.scales[0])
    found = recent.copy()

    def trial(forecasts: np.ndarray, view: View) -> mix.Trial:
        zeros = np.zeros(len(view), np.int64)
        return mix.Trial([], forecasts, view.actual(), np.full(len(view), scale), zeros, zeros, 0, fit.positive)

    reference = trial(fit.members[fit.trial.reference].forecast(view)[None], view).yardstick
    for index, member in enumerate(fit.members):
        if isinstance(member, Simple):
            judge, forecast = trial(member.forecast(view)[None], view), member.forecast(view)
        elif isinstance(member, Ridge):
            parts = fit.blocks(member)
            inner = View(fit.panel, np.concatenate([p[0].origins for p in parts]), horizon, setup.seasons.short, setup.limit)
            forecast = np.concatenate([p[1] for p in parts])
            judge = trial(forecast[None], inner)
        else:
            ridge = member.ridge_index
            found[index] = found[ridge] * recent[index] / recent[ridge]
            continue
        judge._yardstick = reference
        found[index] = np.sqrt(recent[index] * judge.criterion(forecast))
    return found


def _widening(fit: Fit, recent: np.ndarray, centred: bool) -> float:
    """How much quieter the validation rows are than the others: the bands' factor."""
    if not fit.ridges:
        return 1.0
    best = min(fit.ridges, key=lambda index: recent[index])
    levels = []
    for view, forecast in fit.blocks(fit.members[best]):
        plain = View(fit.panel, view.origins, view.horizon, view.season, view.reach)
        error = np.abs(plain.actual() - forecast) / np.maximum(band.width(plain, centred), 1e-12)[:, None]
        if (~np.isnan(error)).any():
            levels.append(float(np.nanquantile(error, 0.8)))
    if len(levels) < 2 or levels[-1] <= 0:
        return 1.0
    return float(np.clip(np.median(levels) / levels[-1], 1.0, band.MOST))
