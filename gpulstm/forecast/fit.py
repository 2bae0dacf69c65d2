"""One fit of a forecaster: by this process, together with the ranks of an MPI program, or by processes it starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from gpulstm.arrays.devices import resolve
from gpulstm.arrays.launch import place
from gpulstm.data.parts import Parts
from gpulstm.data.series import SeriesSet, end_of
from gpulstm.data.splits import chronological_cuts
from gpulstm.forecast import ranks as processes
from gpulstm.forecast.automatic import fit_mixture
from gpulstm.forecast.config import ForecasterConfig
from gpulstm.forecast.decisions import planned, resolved, season_notes, seasons_for, single_notes, typical_rows
from gpulstm.forecast.fitted import Fitted, FittedMixture
from gpulstm.forecast.learning import fit_network, last_times
from gpulstm.forecast.members.training import Runs
from gpulstm.forecast.partitions import fit_parts
from gpulstm.training.callbacks import Callback
from gpulstm.training.history import History
from gpulstm.training.launcher import cards
from gpulstm.training.parallel import Ranks, ends_all, ranks_of, settle


class Found(NamedTuple):
    """What a fit gives: what forecasts, the history of its first training run, and sentences on what the data made
    necessary."""

    fitted: Fitted | FittedMixture
    history: History
    notes: list[str]


@dataclass(frozen=True)
class Fitting:
    """How a forecaster is fitted.

    Args:
        config: its options.
        callbacks, progress, checkpoint, resume: as `Forecaster.fit`.
        earlier: a fit whose weights this one goes on from, or None.
    """

    config: ForecasterConfig
    callbacks: Sequence[Callback] = ()
    progress: bool = False
    checkpoint: str | os.PathLike[str] | None = None
    resume: str | os.PathLike[str] | None = None
    earlier: Fitted | FittedMixture | None = None

    def learn(self, data: SeriesSet | Parts) -> Found:
        """Fit on series, or on a table in parts.

        All ranks compute the simple forecasts and ridges alike, which takes less than to hand their results round, and
        share the training of networks.
        """
        config = self.config
        if config.devices is not None and place().size == 1:
            chosen = cards(config.devices)
            if len(chosen) > 1:
                return Found(*processes.fit(self, chosen, data))
        ranks = ranks_of(config.parallel, resolve(config.device))
        identity = {**config.identity(), **data.identity()}
        settle(ranks, lambda: None, lambda: {"work": "a fit", **identity})
        with ends_all(ranks):
            found = self._found(data, self._runs(identity, ranks))
        settle(ranks, lambda: None, lambda: {"work": "the end of a fit"})
        return found

    def _runs(self, identity: dict[str, object], ranks: Ranks) -> Runs:
        weights = self.earlier.weights() if isinstance(self.earlier, FittedMixture) else None
        return Runs(self.callbacks, self.progress, self.checkpoint, self.resume, weights, identity, ranks)

    def _found(self, data: SeriesSet | Parts, runs: Runs) -> Found:
        read = data if isinstance(data, SeriesSet) else data.first
        config, seasons, notes = planned(self.config, read), seasons_for(self.config, read), list[str]()
        fitted: Fitted | FittedMixture
        if isinstance(data, Parts):
            fitted, history, notes = fit_parts(self.config, data, seasons, runs)
        elif config.single:
            options = resolved(config, seasons[0], typical_rows(config, read))
            warm = self.earlier if isinstance(self.earlier, Fitted) else None
            fitted, history, notes = fit_network(options, read, seasons, runs, warm)
            notes = single_notes(self.config) + notes
        else:
            stops = chronological_cuts(read, 0, config.test).validation
            mixed, notes = fit_mixture(config, read, stops, seasons[0], runs)
            history = runs.histories[0] if runs.histories else History()
            fitted = FittedMixture(mixed, end_of(read, mixed.reach), last_times(read, stops), seasons)
        return Found(fitted, history, [*read.notes, *notes, *season_notes(self.config, read)])

    def on(self, device: str) -> Fitting:
        """The same on another device, by a process that another one has started."""
        return replace(self, config=replace(self.config, device=device), earlier=None)
