"""The mixture as what forecasts a set of series: each target column of each series is forecast by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Backend
from gpulstm.data.series import SeriesSet
from gpulstm.errors import CheckpointError, DataError
from gpulstm.forecast.bands import Bands
from gpulstm.forecast.ensemble import Ensemble
from gpulstm.forecast.features import Features
from gpulstm.forecast.members.network import Residual
from gpulstm.forecast.members.ridge import Ridge
from gpulstm.forecast.members.simple import Simple
from gpulstm.forecast.members.space import FURTHEST, LEVEL, PAIRS, Space
from gpulstm.forecast.panel import Panel, Seasons
from gpulstm.forecast.results import Forecast
from gpulstm.forecast.setup import Setup
from gpulstm.model.network import Network, NetworkConfig

RUN = 8192  # forecasts of one pass


@dataclass(frozen=True, eq=False)
class Said:
    """What was said of N origins, in the units of the series.

    Attributes:
        mean, median: `(N, H, targets)` float64.
        quantiles: `(N, H, targets, levels)` float64.
    """

    mean: np.ndarray
    median: np.ndarray
    quantiles: np.ndarray


def panel_of(series: SeriesSet) -> Panel:
    """Every target column of every series, one column after the other.

    Past and known covariates are filled by their last value; where there is none yet, they stay NaN.

    Raises:
        DataError: a target has no value at all in a series.
    """
    count, rows, targets = len(series), series.rows, series.targets
    whole = _zeros(series) if series.missing == "zero" else series.values
    values = whole[:, :targets].T.reshape(-1)
    offsets = np.concatenate([[0], (series.offsets[1:] + rows * np.arange(targets)[:, None]).ravel()])
    shared = _carried(whole[:, targets:], series.offsets)
    first, last = series.past + series.known, series.past + series.known + series.static
    past = np.tile(shared[:, : series.past], (targets, 1)) if series.past else None
    ahead = np.concatenate([shared[:, series.past : first], shared[:, last:]], axis=1)
    known = np.tile(ahead, (targets, 1)) if ahead.shape[1] else None
    static = np.tile(shared[series.offsets[:-1], first:last], (targets, 1)) if series.static else None
    clock = None if series.time is None else series.axis.clock(series.time)
    time = None if clock is None else np.tile(clock, targets)
    empty = np.add.reduceat(~np.isnan(values), offsets[:-1]) == 0
    if empty.any():
        target, row = divmod(int(np.flatnonzero(empty)[0]), count)
        raise DataError(f"column {series.columns[target]!r} of series {series.names[row]!r} has no value at all")
    return Panel.of(values, offsets, series.missing, known=known, past=past, static=static, time=time)


def _zeros(series: SeriesSet) -> np.ndarray:
    """The values with 0 where one is missing, up to the last target of each series; what follows is to be forecast."""
    seen = ~np.isnan(series.values[:, : series.targets]).all(axis=1)
    rows = np.arange(series.rows)
    last = np.maximum.reduceat(np.where(seen, rows, -1), series.offsets[:-1])
    inside = rows <= np.repeat(last, series.lengths)
    return np.where(inside[:, None] & np.isnan(series.values), 0.0, series.values)


def _carried(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Gaps filled by the last value of the same series."""
    if not np.isnan(values).any():
        return values
    starts = np.repeat(offsets[:-1], np.diff(offsets))[:, None]
    rows = np.where(np.isnan(values), -1, np.arange(len(values))[:, None])
    last = np.maximum.accumulate(rows, axis=0)
    return np.where(last >= starts, np.take_along_axis(values, np.maximum(last, 0), axis=0), np.nan)


def mixture_forecast(mixed: Mixed, known: SeriesSet, steps: int, spread: Any = 1.0) -> Forecast:
    """What the mixture says of the last `steps` rows of each series, from the rows before them."""
    said = mixed.forecast(known, known.offsets[1:] - steps, steps, spread)
    index = known.times[(known.offsets[1:] - steps)[:, None] + np.arange(steps)]
    return Forecast(
        known.names,
        known.target_names,
        index,
        said.mean,
        mixed.levels,
        said.quantiles,
        middle=said.median,
        labels=known.labels,
    )


@dataclass(eq=False)
class Mixed:
    """A fitted mixture, and which series its weights are of.

    Attributes:
        ensemble: of all series and targets.
        names: of the series of the fit.
        targets: columns.
        levels: of the quantiles.
        nonnegative: of each target, whether its values cannot be below zero.
    """

    ensemble: Ensemble
    names: tuple[str, ...]
    targets: int
    levels: tuple[float, ...]
    nonnegative: tuple[bool, ...]

    @property
    def horizon(self) -> int:
        """H."""
        return self.ensemble.setup.horizon

    @property
    def reach(self) -> int:
        """Rows before an origin that a forecast may look at, at most."""
        setup = self.ensemble.setup
        m, horizon = max(setup.seasons.short, 1), setup.horizon
        found = [setup.sight, 4 * m + 16, 24]
        for member in self.ensemble.members:
            base = member if isinstance(member, Simple) else member.space.base
            whole = -(-horizon // base.season) * base.season
            found += [base.limit, whole + (base.count + 1) * base.season + base.move, whole + m]
            if not isinstance(member, Simple):
                space = member.space
                furthest = max(space.apart) + max(max(space.length, 2 * max(space.apart), 8), 0)
                found += [space.length, min(m, LEVEL), min(furthest, PAIRS + max(space.apart)) + 1]
                found += [space.season + space.length if space.season > space.length else 0, FURTHEST]
        return max(found) + 1

    def forecast(self, series: SeriesSet, origins: np.ndarray, horizon: int | None = None, spread: Any = 1.0) -> Said:
        """Forecast from the rows before each origin.

        Args:
            series: holds the rows of the horizon, too, for their times and known covariates.
            origins: `(N,)` absolute rows.
            horizon: steps; more than the mixture was made for are forecast a horizon at a time, each from the medians
                of the one before.
            spread: what half widths of bands are multiplied by, a number or `(levels,)`.

        Raises:
            DataError: a series has no observed value before an origin.
        """
        steps = self.horizon if horizon is None else horizon
        panel = panel_of(series)
        rows, count = series.rows, len(origins)
        every = (origins + rows * np.arange(self.targets)[:, None]).ravel()
        which = np.searchsorted(panel.offsets, every, side="right") - 1
        which = np.minimum(which, len(panel) - 1)
        if (every <= panel.starts[which]).any():
            bad = int(np.flatnonzero(every <= panel.starts[which])[0])
            name = series.names[which[bad] % len(series)]
            raise DataError(f"series {name!r} has no observed value before the origin of a forecast")
        own = self._rows_of(series.names)[which]
        median, width = self._median(panel, every, own, steps)
        bands = self.ensemble.bands
        quantiles = bands.quantiles(median, width, self.levels)
        quantiles = median[..., None] + (quantiles - median[..., None]) * spread
        mean = bands.mean(median, width)
        lowest = np.where(self.nonnegative, 0.0, -np.inf)  # (targets,)
        shape = (self.targets, count, steps)
        mean, median = (np.moveaxis(part.reshape(shape), 0, 2) for part in (mean, median))
        quantiles = np.moveaxis(quantiles.reshape(*shape, -1), 0, 2)
        return Said(np.maximum(mean, lowest), np.maximum(median, lowest), np.maximum(quantiles, lowest[:, None]))

    def _rows_of(self, names: tuple[str, ...]) -> np.ndarray:
        """The row of `series_weights` of each channel, -1 for a series that was not fitted."""
        place = {name: index for index, name in enumerate(self.names)}
        found = np.array([place.get(name, -1) for name in names])
        blocks = [np.where(found >= 0, found + target * len(self.names), -1) for target in range(self.targets)]
        return np.concatenate(blocks)

    def _median(self, panel: Panel, origins: np.ndarray, own: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Medians `(N, steps)` and widths `(N,)`."""
        parts = []
        for first in range(0, len(origins), RUN):
            run = slice(first, first + RUN)
            view = self.ensemble.view(panel, origins[run], min(self.horizon, steps) if self._any else self.horizon)
            parts.append((self.ensemble.median(view, own[run]), self.ensemble.width(view)))
        median, width = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
        done = median.shape[1]
        if done >= steps:
            return median[:, :steps], width
        # a copy of the series in which the medians so far stand for what came
        values, observed = panel.values.copy(), panel.observed.copy()
        ahead = origins[:, None] + np.arange(done)
        values[ahead], observed[ahead] = median, True
        last = None if panel.last is None else panel.last.copy()
        if last is not None:
            last[ahead] = ahead
        further = replace(panel, values=values, observed=observed, last=last)
        more, _ = self._median(further, origins + done, own, steps - done)
        return np.concatenate([median, more], axis=1), width

    @property
    def _any(self) -> bool:
        """Whether members can forecast any number of steps."""
        return all(isinstance(member, Simple) for member in self.ensemble.members)

    # -- files -------------------------------------------------------------------------------------------------------
    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays by name, and what JSON holds of the rest."""
        ensemble, setup, bands = self.ensemble, self.ensemble.setup, self.ensemble.bands
        arrays: dict[str, np.ndarray] = {
            "weights": ensemble.weights,
            "bands.sizes": bands.sizes,
            "bands.counts": bands.counts,
            "bands.shift": bands.shift,
        }
        if ensemble.series_weights is not None:
            arrays["series_weights"] = ensemble.series_weights
        spaces: list[Space] = []
        for member in ensemble.members:
            if not isinstance(member, Simple) and member.space not in spaces:
                spaces.append(member.space)
        for number, space in enumerate(spaces):
            arrays |= {f"space.{number}.{name}": value for name, value in space.features.scales.items()}
        members: list[dict[str, Any]] = []
        for number, member in enumerate(ensemble.members):
            if isinstance(member, Simple):
                members.append({"member": "simple", **member.config()})
                continue
            entry: dict[str, Any] = {"space": spaces.index(member.space)}
            ridge = member if isinstance(member, Ridge) else member.ridge
            if ridge is not None:
                arrays[f"member.{number}.ridge"] = ridge.weights
                entry["penalty"] = ridge.penalty
            if isinstance(member, Residual):
                params = {name: member.network.backend.to_host(value) for name, value in member.network.params.items()}
                arrays |= {f"member.{number}.network.{name}": value for name, value in params.items()}
                entry |= {"network": member.network.config.to_dict(), "seed": member.network.seed}
                entry |= {"epochs": member.epochs, "start": member.start}
            members.append({"member": "network" if isinstance(member, Residual) else "ridge", **entry})
        seasons = {"short": setup.seasons.short, "long": setup.seasons.long, "year": setup.seasons.year}
        lengths = {name: getattr(setup, name) for name in ("horizon", "length", "limit", "first")}
        meta = {
            "setup": {**lengths, "seasons": seasons},
            "spaces": [space.config() for space in spaces],
            "members": members,
            "bands": {"factor": bands.factor, "kind": bands.kind},
            "report": ensemble.report,
            "names": list(self.names),
            "targets": self.targets,
            "levels": list(self.levels),
            "nonnegative": list(self.nonnegative),
        }
        return arrays, meta

    @classmethod
    def restore(
        cls, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], device: str | Backend, engine: str | None
    ) -> Mixed:
        """What `save` gave, with the networks on `device`."""
        given = dict(meta["setup"])
        setup = Setup(**{**given, "seasons": Seasons(**given["seasons"])})
        spaces = [_space(number, entry, arrays) for number, entry in enumerate(meta["spaces"])]
        members: list[Any] = []
        for number, entry in enumerate(meta["members"]):
            entry = dict(entry)
            kind = entry.pop("member")
            if kind == "simple":
                members.append(Simple.from_config(entry))
                continue
            space, ridge = spaces[entry["space"]], None
            if "penalty" in entry:
                ridge = Ridge(space, arrays[f"member.{number}.ridge"], entry["penalty"])
            if kind == "ridge":
                members.append(ridge)
                continue
            config = NetworkConfig.from_dict(entry["network"])
            prefix = f"member.{number}.network."
            weights = {name.removeprefix(prefix): one for name, one in arrays.items() if name.startswith(prefix)}
            config.check_weights(weights)
            network = Network(config, device=device, seed=entry["seed"], engine=engine, initial=False)
            network.params.load(weights)
            members.append(Residual(space, ridge, network, entry["epochs"], entry["start"]))
        if len(members) != len(arrays["weights"]):
            raise CheckpointError(f"the file has {len(arrays['weights'])} weights for {len(members)} members")
        bands = Bands(arrays["bands.sizes"], arrays["bands.counts"], arrays["bands.shift"], **meta["bands"])
        ensemble = Ensemble(
            setup, members, arrays["weights"], bands, arrays.get("series_weights"), dict(meta["report"])
        )
        names, levels = tuple(meta["names"]), tuple(meta["levels"])
        return cls(ensemble, names, meta["targets"], levels, tuple(meta["nonnegative"]))


def _space(number: int, entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Space:
    prefix = f"space.{number}."
    scales = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
    base = Simple.from_config(entry["base"])
    features = Features(**entry["features"], scales=scales)
    return Space(base, entry["length"], entry["season"], entry["log"], tuple(entry["apart"]), features)
