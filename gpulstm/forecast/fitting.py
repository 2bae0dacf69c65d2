"""Fit members, judge them at validation origins, and mix them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpulstm.forecast import bands as band
from gpulstm.forecast import mixture as mix
from gpulstm.forecast.bands import Bands
from gpulstm.forecast.ensemble import Ensemble
from gpulstm.forecast.features import Features
from gpulstm.forecast.members.network import Residual
from gpulstm.forecast.members.ridge import PENALTIES, Moments, Ridge
from gpulstm.forecast.members.simple import Simple, simple_members
from gpulstm.forecast.members.space import Space
from gpulstm.forecast.members.training import Origin, Part, Runs, Training, train
from gpulstm.forecast.panel import Panel, View
from gpulstm.forecast.setup import BLOCKS, ORIGINS, Setup, training_origins, validation_origins

MOSTLY = 0.9  # share of windows that have to be above zero for logarithms
SLIGHT = 0.03  # weight below which a network is not worth its training on all rows
LEARN = 8  # windows below which nothing is learned
CALENDAR_GAIN = 0.01  # by which the calendar has to lower the ridge's validation error


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
        self.judge = View(panel, origins, horizon, m, setup.sight)
        self.scales = season_scales(panel, self.cut, m)
        self.logs = bool(self.judge.positive.mean() >= MOSTLY)
        self.positive = bool(self.judge.positive.all() and np.nanmin(self.judge.actual(), initial=np.inf) > 0)
        self.members: list[Any] = list(
            simple_members(setup.seasons, int(np.median(self.cut - panel.starts)), setup.limit, self.logs)
        )
        self.trial = self._trial(np.stack([member.forecast(self.judge) for member in self.members]))
        self._views: dict[int, View] = {}  # by the rows before the first origin
        self._upto = self.cut
        self.ridges: list[int] = []
        self.networks = Training()
        self.runs = Runs()
        self._everywhere: View | None = None
        self._outside: dict[Ridge, np.ndarray] = {}

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

    def drop(self, first: int) -> None:
        """Leave the members out that were added last, from number `first` on."""
        del self.members[first:]
        self.ridges = [index for index in self.ridges if index < first]
        self.trial = self._trial(self.trial.forecasts[:first])

    @property
    def plain(self) -> list[int]:
        """The indices of the simple forecasts."""
        return [index for index, member in enumerate(self.members) if isinstance(member, Simple)]

    def error(self, index: int) -> float:
        """The criterion of a member at the validation origins."""
        return self.trial.criterion(self.trial.forecasts[index])

    # -- what is learned -------------------------------------------------------------------------------------------
    def training(self, space: Space, stops: np.ndarray) -> View:
        """Views of training windows, in the space's own values."""
        first = self.setup.first if space.base.kind != "blend" else max(self.setup.first, space.length)
        if self._views and stops is not self._upto:  # those for judging are not needed again
            self._views.clear()
        self._upto = stops
        if first not in self._views:
            origins = training_origins(self.panel, stops, self.setup, first, self.seed)
            self._views[first] = View(
                self.panel, origins, self.setup.horizon, self.setup.seasons.short, self.setup.sight
            )
        return space.view(self._views[first])

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

    def network(self, index: int, linear: bool) -> int | None:
        """Train a network on what a ridge (`linear`), or the base of its space, leaves, and let it take part.

        Returns:
            its number, or None where it is no better than what it starts from.
        """
        ridge, number = self.members[index], len(self.members)
        space, view, judge = ridge.space, self.training(ridge.space, self.cut), ridge.space.view(self.judge)
        learn, judged = Part(view, self.window_weights(space, view)), Part(judge, self.window_weights(space, judge))
        options = replace(self.networks, seed=self.networks.seed + number)
        origin = Origin(space, ridge if linear else None, index, f"{index} {'ridge' if linear else 'base'}")
        member = train(origin, learn, judged, options, self.runs)
        return None if member is None else self.add(member)

    def refit(self, member: Any) -> Any:
        """The member fitted on all rows; after Ctrl-C a network stays as it is."""
        if isinstance(member, Residual):
            if self.runs.interrupted:
                return member
            view = self.training(member.space, self.stops)
            options = replace(self.networks, seed=member.network.seed)
            ridge = None if member.ridge is None else self.refit(member.ridge)
            origin = Origin(member.space, ridge, member.start, f"{self.members.index(member)} whole")
            part = Part(view, self.window_weights(member.space, view))
            return train(origin, part, None, options, self.runs, member.epochs)
        if not isinstance(member, Ridge):
            return member
        view = self.training(member.space, self.stops)
        scaled = member.space.scaled(view)
        moments = Moments(scaled.inputs, member.space.residual(view, scaled), self.window_weights(member.space, view))
        return replace(member, weights=moments.solve(member.penalty))

    # -- one long series -------------------------------------------------------------------------------------------
    @property
    def is_long(self) -> bool:
        """Whether one series is so long that errors over all of it say more than those of its end."""
        rows = int((self.stops - self.panel.starts).max())
        return len(self.panel) == 1 and (rows - self.setup.first) / self.setup.horizon >= 10

    @property
    def everywhere(self) -> View:
        """Origins all over a series, at most `ORIGINS` of them."""
        if self._everywhere is None:
            setup = self.setup
            start, stop = int(self.panel.starts[0] + setup.first), int(self.stops[0]) - setup.horizon
            origins = np.linspace(start, stop, min(ORIGINS, stop - start + 1)).round().astype(np.int64)
            self._everywhere = View(self.panel, origins, setup.horizon, setup.seasons.short, setup.sight)
        return self._everywhere

    def outside(self, index: int) -> np.ndarray:
        """Forecasts of a member at `everywhere`, as it would have made them without having seen what came `(N, H)`.

        A ridge is fitted for each of some blocks of origins on the windows of the others; a network adds nothing to the
        ridge that it starts from.
        """
        view, member = self.everywhere, self.members[index]
        if isinstance(member, Simple):
            return member.forecast(view)
        ridge = member if isinstance(member, Ridge) else self.members[member.start]
        if not isinstance(ridge, Ridge):
            return ridge.forecast(view)
        if ridge not in self._outside:
            self._outside[ridge] = self._blocks(ridge, view)
        return self._outside[ridge]

    def _blocks(self, ridge: Ridge, view: View) -> np.ndarray:
        windows = self.training(ridge.space, self.stops)
        scaled, horizon = ridge.space.scaled(windows), self.setup.horizon
        residual, weight = ridge.space.residual(windows, scaled), self.window_weights(ridge.space, windows)
        whole = Moments(scaled.inputs, residual, weight)
        judged = ridge.space.view(view)
        inside = ridge.space.scaled(judged)
        found = np.empty(inside.base.shape)
        for part in np.array_split(np.arange(len(view)), BLOCKS):
            low, high = view.origins[part[0]], view.origins[part[-1]]
            near = (windows.origins > low - horizon) & (windows.origins < high + horizon)
            moments = whole - Moments(scaled.inputs[near], residual[near], weight[near])
            weights = moments.solve(ridge.penalty)
            found[part] = inside.base[part] + inside.scale[part] * (inside.inputs[part] @ weights)
        return judged.back(found)


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


@dataclass(frozen=True)
class Plan:
    """What a fit is asked for.

    Attributes:
        features: what learned members read in any case.
        seed: of samples and networks.
        amount: rows of each series for validation; None lets the lengths decide.
        calendar: whether the calendar may take part, too.
        networks: how networks are trained; None for none.
        ridges: whether ridges take part.
    """

    features: Features
    seed: int = 0
    amount: int | None = None
    calendar: bool = False
    networks: Training | None = None
    ridges: bool = True


def learn(panel: Panel, stops: np.ndarray, setup: Setup, plan: Plan, runs: Runs | None = None) -> Ensemble:
    """Fit, judge and mix all members.

    Args:
        panel: series.
        stops: `(series,)` first row after those that may be seen.
        setup: lengths.
        plan: who takes part, and how.
        runs: of the networks, which are added to.
    """
    features = plan.features.fitted(panel, stops)
    fit = Fit(panel, stops, setup, features, plan.seed, plan.amount)
    chosen = _spaces(fit, features, plan.calendar) if plan.ridges else []
    if plan.networks is not None:
        fit.networks, fit.runs = plan.networks, Runs() if runs is None else runs
        _networks(fit, chosen)
    return _mixed(fit)


def _networks(fit: Fit, chosen: list[int]) -> None:
    """Train networks on what each of some ridges leaves, then on what their bases leave, the best one first.

    A network on a base that is no better than the ridge of the same windows does not count, and no other is trained.
    """
    for index in chosen:
        if not fit.runs.interrupted:
            fit.network(index, True)
    for index in sorted(chosen, key=fit.error):
        number = None if fit.runs.interrupted else fit.network(index, False)
        if number is None or fit.error(number) > fit.error(index):
            break


def _spaces(fit: Fit, features: Features, calendar: bool) -> list[int]:
    """Fit the ridges; the indices of those on whose windows networks are worth training."""
    seasons, setup = fit.setup.seasons, fit.setup
    m = seasons.short
    logs = (False, True) if fit.logs else (False,)
    if seasons.long:
        bases: list[tuple[Simple, int, tuple[int, ...]]] = [(Simple("seasonal", season=m), setup.length, (m,))]
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
    changes: list[dict[str, Any]] = [{"past": False}, {}] if features.past else [{}]
    rows = int(np.median(fit.cut - fit.panel.starts))
    if calendar and m == 24:
        changes.append({"calendar": True})
    if calendar and seasons.year and m != 52 and rows >= 2 * seasons.year * (m if m == 24 else 1):
        changes.append({**changes[-1], "yearly": True})
    chosen: list[int] = []
    for variant_number, change in enumerate(changes):
        variant, before = replace(features, **change), len(fit.members)
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
        if not change and features.past:  # past covariates are read where they were found to help
            features = fit.members[found[0, False][0]].space.features
            if not features.past:
                fit.drop(before)
    return chosen


def _mixed(fit: Fit) -> Ensemble:
    trial, setup, count = fit.trial, fit.setup, len(fit.panel)
    kept = mix.distinct(trial, range(len(fit.members)))
    recent = np.array([fit.error(index) for index in range(len(fit.members))])
    long = _long_trial(fit) if fit.is_long else None
    errors = recent
    if long is not None:
        whole = np.array([long.criterion(each) for each in long.forecasts])
        for index, member in enumerate(fit.members):
            if isinstance(member, Residual):
                whole[index] *= recent[index] / recent[member.start]
        errors = np.sqrt(recent * whole)
    weights = _overall(kept, errors)[None]
    kept = [k for k in kept if not _is_slight(fit.members[k], k, weights[0], recent)]
    weights = _overall(kept, errors)[None]
    share = mix.choose_share(trial.only(kept), setup.horizon, count) if count > 1 else 0.0
    every = np.ones(len(trial.age), bool)
    if share:
        weights = _per_series(trial, kept, errors, share, every, count)
    blended = mix.blend(trial.forecasts, weights, trial.series)
    error = trial.criterion(blended)
    if long is not None:
        error = float(np.sqrt(error * long.criterion(mix.blend(long.forecasts, weights, long.series))))
    best = min(fit.plain, key=lambda index: errors[index])
    guarded = bool(error > errors[best])
    if guarded:
        weights, share, blended, error = np.eye(len(fit.members))[[best]], 0.0, trial.forecasts[best], errors[best]
    elif share:  # the errors of bands: as they would have been without what is judged
        blended = np.empty_like(blended)
        for age in np.unique(trial.age):
            here, others = trial.age == age, np.abs(trial.age - age) >= setup.horizon
            own = _per_series(trial, kept, errors, share, others, count) if others.any() else weights
            blended[here] = mix.blend(trial.forecasts[:, here], own, trial.series[here])
    kind = "centered" if band.mostly_trend(fit.judge) else "seasonal"
    factor = _widening(fit, errors, kind) if count == 1 else 1.0
    bands = Bands.of(trial.actual - blended, band.width(fit.judge, kind), factor, kind)
    used = np.flatnonzero(weights.max(axis=0) > 0)
    judged = np.unique(trial.series) if share else [0]
    mean = weights[judged].mean(axis=0)
    report = {
        "members": [
            {"name": name, "error": float(error), "weight": float(weight)}
            for name, error, weight in zip(trial.names, errors, mean, strict=True)
        ],
        "error": float(error),
        "share": share,
        "guarded": guarded,
        "without_networks": _without_networks(fit, long, errors, weights),
        "reference": trial.names[trial.reference],
    }
    members = [fit.refit(fit.members[index]) for index in used]
    overall = weights[0] if not share else _overall(kept, errors)
    return Ensemble(setup, members, overall[used], bands, weights[:, used] if share else None, report)


def _is_slight(member: Any, index: int, weights: np.ndarray, errors: np.ndarray) -> bool:
    """Whether a member is a network that is not worth its training on all rows."""
    if not isinstance(member, Residual):
        return False
    return bool(weights[index] < SLIGHT or (member.ridge is None and errors[index] > errors[member.start]))


def _without_networks(fit: Fit, long: mix.Trial | None, errors: np.ndarray, weights: np.ndarray) -> float:
    """The mixture's validation error if networks counted for nothing."""
    others = [not isinstance(member, Residual) for member in fit.members]
    left = weights * others
    total = left.sum(axis=1, keepdims=True)
    left = np.where(total > 0, left / np.where(total > 0, total, 1.0), np.eye(len(errors))[np.argmin(errors)])
    error = fit.trial.criterion(mix.blend(fit.trial.forecasts, left, fit.trial.series))
    if long is not None:
        error = float(np.sqrt(error * long.criterion(mix.blend(long.forecasts, left, long.series))))
    return float(error)


def _overall(kept: list[int], errors: np.ndarray) -> np.ndarray:
    weights = np.zeros(len(errors))
    weights[kept] = mix.power_weights(errors[kept])
    return weights


def _per_series(
    trial: mix.Trial, kept: list[int], errors: np.ndarray, share: float, rows: np.ndarray, count: int
) -> np.ndarray:
    weights = np.zeros((count, len(errors)))
    weights[:, kept] = mix.series_weights(trial.only(kept), errors[kept], share, rows, count)
    return weights


def _long_trial(fit: Fit) -> mix.Trial:
    """Forecasts all over one long series; compared to the same reference as those at its end."""
    view, members = fit.everywhere, range(len(fit.members))
    forecasts = np.stack([fit.outside(index) for index in members])
    zeros = np.zeros(len(view), np.int64)
    scale = np.full(len(view), fit.scales[0])
    return mix.Trial(fit.trial.names, forecasts, view.actual(), scale, zeros, zeros, fit.trial.reference, fit.positive)


def _widening(fit: Fit, errors: np.ndarray, kind: str) -> float:
    """The bands' factor: how much larger the best ridge's errors mostly are than those of the last rows."""
    if not fit.ridges:
        return 1.0
    view = fit.everywhere
    forecast = fit.outside(min(fit.ridges, key=lambda index: errors[index]))
    ratio = np.abs(view.actual() - forecast) / np.maximum(band.width(view, kind), 1e-12)[:, None]
    parts = [part for part in np.array_split(ratio, BLOCKS) if (~np.isnan(part)).any()]
    levels = [float(np.nanquantile(part, 0.8)) for part in parts]
    return float(np.clip(np.median(levels) / levels[-1], 1.0, band.MOST)) if levels[-1] > 0 else 1.0
