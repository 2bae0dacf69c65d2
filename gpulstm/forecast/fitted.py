"""What a fit leaves behind, a single network or a mixture of members, and how a checkpoint file holds it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpulstm.arrays import checkpoint
from gpulstm.data.scaling import Scaler
from gpulstm.data.series import SeriesSet
from gpulstm.errors import CheckpointError, ConfigError, ShapeError
from gpulstm.forecast.config import ForecasterConfig
from gpulstm.forecast.mixed import Mixed
from gpulstm.losses import Loss
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.training.history import History


@dataclass(frozen=True)
class Fitted:
    """A trained network with all that it takes to forecast.

    Attributes:
        config: with everything decided that was automatic.
        network, loss, scaler: as trained.
        tail: the last rows of every series, from which forecasts go on; its times are never None.
        until: `(series,)` time of the last row that training or validation saw.
        season: rows in a season.
    """

    config: ForecasterConfig
    network: Network
    loss: Loss
    scaler: Scaler
    tail: SeriesSet
    until: np.ndarray
    season: int

    @property
    def horizon(self) -> int:
        """Steps of a forecast."""
        return self.config.horizon

    @property
    def context(self) -> int:
        """Rows that a forecast needs before it."""
        return self.config.context

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the series of the fit."""
        return self.scaler.names

    def save(
        self, path: str | os.PathLike[str], options: Mapping[str, Any], history: History, notes: list[str]
    ) -> None:
        """Write everything to one checkpoint file; `options` are those of the forecaster."""
        arrays = {f"weights.{name}": value for name, value in self.network.params.items()}
        arrays |= {f"scaler.{name}": value for name, value in self.scaler.arrays().items()}
        meta = {
            "resolved": self.config.to_dict(),
            "network": self.network.config.to_dict(),
            "scaler": self.scaler.scalars(),
        }
        _save(self, path, arrays, {"options": dict(options), "history": history.state(), "notes": notes, **meta})


@dataclass(frozen=True)
class FittedMixture:
    """Members and their weights with all that it takes to forecast.

    Attributes:
        mixed: the mixture.
        tail: the last rows of every series, from which forecasts go on; its times are never None.
        until: `(series,)` time of the last row that training or validation saw.
        season: rows in a season.
    """

    mixed: Mixed
    tail: SeriesSet
    until: np.ndarray
    season: int

    context = 1  # rows that a forecast needs before it

    @property
    def horizon(self) -> int:
        """Steps that the mixture was made for."""
        return self.mixed.horizon

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the series of the fit."""
        return self.mixed.names

    def save(
        self, path: str | os.PathLike[str], options: Mapping[str, Any], history: History, notes: list[str]
    ) -> None:
        """Write everything to one checkpoint file; `options` are those of the forecaster."""
        own, meta = self.mixed.save()
        arrays = {f"mixture.{name}": value for name, value in own.items()}
        _save(
            self, path, arrays, {"options": dict(options), "history": history.state(), "notes": notes, "mixture": meta}
        )


def _save(
    fitted: Fitted | FittedMixture, path: str | os.PathLike[str], arrays: dict[str, Any], meta: dict[str, Any]
) -> None:
    """Write the arrays and the rest, and the end of the series."""
    tail = fitted.tail
    assert tail.time is not None
    arrays |= {
        "tail.values": tail.values,
        "tail.offsets": tail.offsets,
        "tail.time": _plain_time(tail.time),
        "until": _plain_time(fitted.until),
    }
    meta |= {
        "kind": "forecaster",
        "season": fitted.season,
        "dates": tail.time.dtype.kind == "M",
        "series": {name: getattr(tail, name) for name in _SERIES_FIELDS},
    }
    checkpoint.save(path, arrays, meta)


def load(
    path: str | os.PathLike[str], device: str
) -> tuple[ForecasterConfig, Fitted | FittedMixture, History, list[str]]:
    """Read what `save` wrote: the options, with `device`, what was fitted, its history and its notes.

    Raises:
        CheckpointError: there is no such file, it is damaged, or holds something else.
        DeviceError: the device is not there.
    """
    arrays, meta = checkpoint.load(path)
    if meta.get("kind") != "forecaster":
        raise CheckpointError(f"{path} holds {meta.get('kind')!r}, expected a forecaster")
    try:
        config = ForecasterConfig.from_dict(meta["options"], device)
        dates = meta["dates"]
        described: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in meta["series"].items()
        }
        tail = SeriesSet(
            values=arrays["tail.values"],
            offsets=arrays["tail.offsets"],
            time=_real_time(arrays["tail.time"], dates),
            **described,
        )
        until, season = _real_time(arrays["until"], dates), int(meta["season"])
        history, notes = History(**meta["history"]), list(meta["notes"])
        if "mixture" in meta:
            own = {name.removeprefix("mixture."): value for name, value in arrays.items()}
            mixed = Mixed.restore(own, meta["mixture"], device, config.engine)
            return config, FittedMixture(mixed, tail, until, season), history, notes
        scaler = Scaler.restore({name: arrays[f"scaler.{name}"] for name in ("location", "scale")}, meta["scaler"])
        layout = NetworkConfig.from_dict(meta["network"])
        network = Network(layout, device=device, seed=config.seed, engine=config.engine, initial=False)
        network.params.load(
            {name.removeprefix("weights."): value for name, value in arrays.items() if name.startswith("weights.")}
        )
        resolved = ForecasterConfig.from_dict(meta.get("resolved", meta["options"]), device)
        return config, Fitted(resolved, network, resolved.loss(), scaler, tail, until, season), history, notes
    except (KeyError, TypeError, ConfigError, ShapeError) as error:
        raise CheckpointError(f"{path} is no whole forecaster: {error}") from error


_SERIES_FIELDS = ("columns", "targets", "past", "future", "names", "calendar", "missing", "time_name", "series_name")


def end_of(series: SeriesSet, context: int) -> SeriesSet:
    """The end of each series: the context, and before it back to a row without gaps, so that gaps are filled alike."""
    starts = []
    for index in range(len(series)):
        first, stop = int(series.offsets[index]), int(series.offsets[index + 1])
        start = max(first, stop - max(context, 36))  # 36 rows tell month ends from other steps
        whole = ~np.isnan(series.values[first : start + 1]).any(axis=1)
        rows = np.flatnonzero(whole)
        starts.append(first + int(rows[-1]) if rows.size else first)
    return series.tail(np.array(starts))


def new_scaler(config: ForecasterConfig, series: SeriesSet, stops: np.ndarray) -> Scaler:
    """A scaler of `series` in their own units, each by its rows before `stops` `(series,)`."""
    return Scaler(config.scaling).fit(
        series.values,
        series.offsets,
        stops,
        names=series.names,
        columns=series.columns,
        skip=2 * len(series.calendar),
    )


def _plain_time(time: np.ndarray) -> np.ndarray:
    return time.astype("datetime64[us]").astype(np.int64) if time.dtype.kind == "M" else time


def _real_time(values: np.ndarray, dates: bool) -> np.ndarray:
    return values.astype("datetime64[us]") if dates else values
