"""What a fit leaves behind, and how a checkpoint file holds it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpulstm.arrays import checkpoint
from gpulstm.data.scaling import Scaler
from gpulstm.data.series import SeriesSet, restore_series, save_series
from gpulstm.errors import CheckpointError, ConfigError, ShapeError
from gpulstm.forecast.config import ForecasterConfig
from gpulstm.losses import Loss
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.training.history import History


@dataclass(frozen=True)
class Fitted:
    """A trained network with all that it takes to forecast.

    Attributes:
        network, loss, scaler: as trained.
        tail: the last rows of every series, from which forecasts go on; its times are never None.
        until: `(series,)` time of the last row that training or validation saw.
        seasons: rows in each season, the shortest first; (1,) where there is none.
    """

    network: Network
    loss: Loss
    scaler: Scaler
    tail: SeriesSet
    until: np.ndarray
    seasons: tuple[int, ...]

    def save(
        self, path: str | os.PathLike[str], options: Mapping[str, Any], history: History, notes: list[str]
    ) -> None:
        """Write everything to one checkpoint file; `options` are those of the forecaster."""
        tail = self.tail
        assert tail.time is not None
        arrays = {f"weights.{name}": value for name, value in self.network.params.items()}
        arrays |= {f"scaler.{name}": value for name, value in self.scaler.arrays().items()}
        parts, described = save_series(tail)
        arrays |= {f"tail.{name}": value for name, value in parts.items()}
        until = self.until
        arrays["until"] = until.view(np.int64) if until.dtype.kind == "M" else until
        meta = {
            "kind": "forecaster",
            "options": dict(options),
            "network": self.network.config.to_dict(),
            "scaler": self.scaler.scalars(),
            "seasons": list(self.seasons),
            "series": described,
            "history": history.state(),
            "notes": notes,
        }
        checkpoint.save(path, arrays, meta)


def load(path: str | os.PathLike[str], device: str) -> tuple[ForecasterConfig, Fitted, History, list[str]]:
    """Read what `Fitted.save` wrote: the options, with `device`, what was fitted, its history and its notes.

    Raises:
        CheckpointError: there is no such file, it is damaged, or holds something else.
        DeviceError: the device is not there.
    """
    arrays, meta = checkpoint.load(path)
    if meta.get("kind") != "forecaster":
        raise CheckpointError(f"{path} holds {meta.get('kind')!r}, expected a forecaster")
    try:
        config = ForecasterConfig.from_dict(meta["options"], device)
        parts = {name.removeprefix("tail."): value for name, value in arrays.items() if name.startswith("tail.")}
        tail = restore_series(parts, meta["series"])
        scaler = Scaler.restore({name: arrays[f"scaler.{name}"] for name in ("location", "scale")}, meta["scaler"])
        layout = NetworkConfig.from_dict(meta["network"])
        if layout.stack.dtype != config.dtype:  # half precision, read where it cannot be computed with
            layout = replace(layout, stack=replace(layout.stack, dtype=config.dtype))
        network = Network(layout, device=device, seed=config.seed, engine=config.engine, initial=False)
        network.params.load(
            {name.removeprefix("weights."): value for name, value in arrays.items() if name.startswith("weights.")}
        )
        assert tail.time is not None
        until = np.asarray(arrays["until"])
        until = until.view(tail.time.dtype) if tail.time.dtype.kind == "M" else until
        fitted = Fitted(network, config.loss(), scaler, tail, until, tuple(meta["seasons"]))
        return config, fitted, History(**meta["history"]), list(meta["notes"])
    except (KeyError, TypeError, ValueError, ConfigError, ShapeError) as error:
        raise CheckpointError(f"{path} is no whole forecaster: {error}") from error


def new_scaler(config: ForecasterConfig, series: SeriesSet, stops: np.ndarray) -> Scaler:
    """A scaler of `series` in their own units, each by its rows before `stops` `(series,)`."""
    return Scaler(config.scaling).fit(
        series.values,
        series.offsets,
        stops,
        names=series.names,
        columns=series.columns,
        skip=series.made,
        shared=series.shared,
        kept=series.kept,
    )
