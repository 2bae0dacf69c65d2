"""What a fit leaves behind, a single network or a mixture of members, and how a checkpoint file holds it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpulstm import validate
from gpulstm.arrays import checkpoint, files
from gpulstm.data.scaling import Scaler
from gpulstm.data.series import SeriesSet, end_of, restore_series, save_series
from gpulstm.errors import CheckpointError, ConfigError, DataError, ShapeError
from gpulstm.forecast.config import ForecasterConfig
from gpulstm.forecast.members.network import Residual
from gpulstm.forecast.mixed import Mixed, mixture_forecast
from gpulstm.forecast.predictor import Predictor
from gpulstm.forecast.results import Forecast
from gpulstm.forecast.shaping import Shape
from gpulstm.forecast.short import forecast_all, too_short
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
        seasons: rows in each season, the shortest first; (1,) where there is none.
        shape: what the network need not learn.
    """

    config: ForecasterConfig
    network: Network
    loss: Loss
    scaler: Scaler
    tail: SeriesSet
    until: np.ndarray
    seasons: tuple[int, ...]
    shape: Shape = field(default_factory=Shape)

    @property
    def horizon(self) -> int:
        """Steps of a forecast."""
        return self.config.horizon

    @property
    def context(self) -> int:
        """Rows that a forecast sees before it."""
        return self.config.context

    @property
    def least(self) -> int:
        """Rows that a forecast needs before it."""
        return self.config.least

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the series of the fit."""
        return self.scaler.names

    def quantize(self, kind: str | None) -> None:
        """See `Recurrent.quantize`."""
        self.network.quantize(kind)

    @property
    def reach(self) -> int:
        """Rows before an origin that a forecast may look at."""
        return self.config.context

    @property
    def members(self) -> None:
        """There is no table of members."""
        return None

    def model(self, series: SeriesSet, stops: np.ndarray) -> Predictor:
        """What forecasts `series`: scaled as at the fit where they were fitted, else by their rows before `stops`."""
        scaler = self.scaler
        if series.names != scaler.names:
            scaler = new_scaler(self.config, self.shape.transform.forward(series), stops)
            known = {name: at for at, name in enumerate(self.names)}
            place = np.array([known.get(name, -1) for name in series.names])
            scaler.location[place >= 0] = self.scaler.location[place[place >= 0]]
            scaler.scale[place >= 0] = self.scaler.scale[place[place >= 0]]
        return Predictor(self.network, self.loss, scaler, self.config, self.shape)

    def forecast(self, past: SeriesSet, steps: int, future: Any) -> tuple[Forecast, list[str]]:
        """Forecast what follows `past`; see `Forecaster.predict`.

        Returns:
            the forecast of `steps` steps, and sentences on what the data made necessary.
        """
        direct = self.config.strategy == "direct"
        if direct and steps > self.horizon:
            raise ConfigError(
                f"horizon is {steps}, but this direct forecaster was made for {self.horizon} steps; a mixture or a "
                "recursive one (strategy='recursive') forecasts any number"
            )
        known = ahead_of(past, self.horizon if direct else steps, future)
        predictor = self.model(past, past.offsets[1:])
        forecast, short = forecast_all(predictor, known, self.horizon if direct else steps, self.seasons[0])
        return forecast.first(steps), too_short(short, self.config.least)

    def summary(self, notes: list[str]) -> str:
        """Lines of text: the network, and `notes`."""
        return "\n".join([f"{self.network!r}, horizon {self.horizon}, context {self.context}", *notes])

    def save(
        self, path: str | os.PathLike[str], options: Mapping[str, Any], history: History, notes: list[str]
    ) -> None:
        """Write everything to one checkpoint file; `options` are those of the forecaster."""
        arrays = {f"weights.{name}": value for name, value in self.network.params.items()}
        arrays |= {f"scaler.{name}": value for name, value in self.scaler.arrays().items()}
        arrays |= {f"shape.{name}": value for name, value in self.shape.arrays().items()}
        meta = {
            "resolved": self.config.to_dict(),
            "network": self.network.config.to_dict(),
            "scaler": self.scaler.scalars(),
            "shape": self.shape.scalars(),
        }
        _save(self, path, arrays, {"options": dict(options), "history": history.state(), "notes": notes, **meta})


@dataclass(frozen=True)
class FittedMixture:
    """Members and their weights with all that it takes to forecast.

    Attributes:
        mixed: the mixture.
        tail: the last rows of every series, from which forecasts go on; its times are never None.
        until: `(series,)` time of the last row that training or validation saw.
        seasons: rows in each season, the shortest first; (1,) where there is none.
    """

    mixed: Mixed
    tail: SeriesSet
    until: np.ndarray
    seasons: tuple[int, ...]

    context = least = 1  # rows that a forecast needs before it

    @property
    def horizon(self) -> int:
        """Steps that the mixture was made for."""
        return self.mixed.horizon

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the series of the fit."""
        return self.mixed.names

    def quantize(self, kind: str | None) -> None:
        """Of the networks among the members; there may be none; see `Recurrent.quantize`."""
        for member in self._residuals:
            member.network.quantize(kind)

    @property
    def reach(self) -> int:
        """Rows before an origin that a forecast may look at."""
        return self.mixed.reach

    @property
    def members(self) -> dict[str, Any]:
        """The table of members; see `Forecaster.members`."""
        return dict(self.mixed.ensemble.report)

    def model(self, series: SeriesSet, stops: np.ndarray) -> Mixed:
        """What forecasts series: the same for all of them."""
        return self.mixed

    def forecast(self, past: SeriesSet, steps: int, future: Any) -> tuple[Forecast, list[str]]:
        """Forecast what follows `past`; see `Forecaster.predict`."""
        length = max(steps, self.horizon)
        return mixture_forecast(self.mixed, ahead_of(past, length, future), length).first(steps), []

    def weights(self) -> dict[str, dict[str, np.ndarray]]:
        """The networks' weights on the host, by what each starts from, for a fit that goes on from them."""
        return {
            one.warm_key: {name: one.network.backend.to_host(value) for name, value in one.network.params.items()}
            for one in self._residuals
        }

    @property
    def _residuals(self) -> list[Residual]:
        return [member for member in self.mixed.ensemble.members if isinstance(member, Residual)]

    def summary(self, notes: list[str]) -> str:
        """Lines of text: members with their errors and weights, and `notes`."""
        report = self.mixed.ensemble.report
        lines = [f"horizon {self.horizon}, season {self.seasons[0]}; errors relative to {report['reference']}"]
        for one in sorted(report["members"], key=lambda one: -one["weight"]):
            error = "" if one["error"] is None else f"{one['error']:.4f}"
            lines.append(f"{100 * one['weight']:5.1f} %  {error:>8}  {one['name']}")
        if report["error"] is not None:
            lines.append(f"         {report['error']:8.4f}  the mixture")
            lines.append(f"         {report['without_networks']:8.4f}  the mixture without networks")
        return "\n".join([*lines, *notes])

    def save(
        self, path: str | os.PathLike[str], options: Mapping[str, Any], history: History, notes: list[str]
    ) -> None:
        """Write everything to one checkpoint file; `options` are those of the forecaster."""
        own, meta = self.mixed.save()
        arrays = {f"mixture.{name}": value for name, value in own.items()}
        precision = {"stack": {"dtype": options.get("dtype", "float32")}}  # what its networks compute in
        more = {"history": history.state(), "notes": notes, "mixture": meta, "network": precision}
        _save(self, path, arrays, {"options": dict(options), **more})


def read_like(data: Any, tail: SeriesSet) -> SeriesSet:
    """A table read with the roles of columns of a fit, whose series end with `tail`.

    Raises:
        DataError: as `load_series`, or the columns are not those of the fit.
    """
    from gpulstm.data.loading import load_series

    series = load_series(data) if isinstance(data, SeriesSet) else load_series(data, like=tail)
    if (series.columns, series.targets, series.past) != (tail.columns, tail.targets, tail.past):
        raise DataError(
            f"the series have the columns {', '.join(series.columns)} in other roles or order than those "
            f"of the fit, {', '.join(tail.columns)}"
        )
    return series


def past_of(fitted: Fitted | FittedMixture, data: Any) -> SeriesSet:
    """The end of the fitted series, or of others, as far as a forecast looks back."""
    return fitted.tail if data is None else end_of(read_like(data, fitted.tail), fitted.reach)


def ahead_of(past: SeriesSet, steps: int, future: Any) -> SeriesSet:
    """The series with the rows of the forecast, and in them the future covariates."""
    ahead = None
    if past.known or future is not None:
        from gpulstm.data.future import known_ahead  # here, because most forecasts do without

        ahead = known_ahead(past, steps, future)
    return past.extended(steps, ahead)


def _save(
    fitted: Fitted | FittedMixture, path: str | os.PathLike[str], arrays: dict[str, Any], meta: dict[str, Any]
) -> None:
    """Write the arrays and the rest, and the end of the series."""
    parts, described = save_series(fitted.tail)
    arrays |= {f"tail.{name}": value for name, value in parts.items()}
    until = fitted.until
    arrays["until"] = until.view(np.int64) if until.dtype.kind == "M" else until
    meta |= {"kind": "forecaster", "seasons": list(fitted.seasons), "series": described}
    checkpoint.save(path, arrays, meta)


def load(
    path: str | os.PathLike[str], device: str, likelihood: Loss | None = None
) -> tuple[ForecasterConfig, Fitted | FittedMixture, History, list[str]]:
    """Read what `save` wrote: the options, with `device`, what was fitted, its history and its notes.

    Raises:
        CheckpointError: there is no such file, it is damaged, or holds something else.
        DeviceError: the device is not there.
    """
    arrays, meta = checkpoint.load(path)
    if meta.get("kind") != "forecaster":
        raise CheckpointError(f"{path} holds {meta.get('kind')!r}, expected a forecaster")
    with files.damaged(f"{path} is no whole forecaster", CheckpointError):
        config = ForecasterConfig.from_dict(meta["options"], device, likelihood)
        parts = {name.removeprefix("tail."): value for name, value in arrays.items() if name.startswith("tail.")}
        tail = restore_series(parts, meta["series"])
        tail.check()
        until, seasons = np.asarray(arrays["until"]), tuple(validate.count("seasons", one) for one in meta["seasons"])
        until = until.view(tail.times.dtype) if tail.times.dtype.kind == "M" else until
        history, notes = History.restore(meta["history"]), [str(note) for note in meta["notes"]]
        if "mixture" in meta:
            own = {name.removeprefix("mixture."): value for name, value in arrays.items()}
            mixed = Mixed.restore(own, meta["mixture"], device, config.engine)
            _check_until(until, mixed.names)
            return config, FittedMixture(mixed, tail, until, seasons), history, notes
        scaler = Scaler.restore({name: arrays[f"scaler.{name}"] for name in ("location", "scale")}, meta["scaler"])
        if scaler.columns != tail.columns:
            raise CheckpointError(f"{path} is no whole forecaster: its scaler is of other columns than its series")
        _check_until(until, scaler.names)
        resolved = ForecasterConfig.from_dict(meta.get("resolved", meta["options"]), device, likelihood)
        layout = NetworkConfig.from_dict(meta["network"])
        weights = {
            name.removeprefix("weights."): value for name, value in arrays.items() if name.startswith("weights.")
        }
        layout.check_weights(weights)
        _check_parts(resolved, layout, tail)
        if layout.stack.dtype != config.dtype:  # half precision, read where it cannot be computed with
            layout = replace(layout, stack=replace(layout.stack, dtype=config.dtype))
        network = Network(layout, device=device, seed=config.seed, engine=config.engine, initial=False)
        network.params.load(weights)
        own = {name.removeprefix("shape."): value for name, value in arrays.items() if name.startswith("shape.")}
        shape = Shape.restore(own, meta["shape"]) if "shape" in meta else Shape()
        return config, Fitted(resolved, network, resolved.loss(), scaler, tail, until, seasons, shape), history, notes


def _check_until(until: np.ndarray, names: tuple[str, ...]) -> None:
    if until.shape != (len(names),):
        raise ShapeError(f"until has shape {until.shape}, expected {(len(names),)}")


def _check_parts(config: ForecasterConfig, layout: NetworkConfig, tail: SeriesSet) -> None:
    """Raise unless network, options and series belong together."""
    horizon = config.horizon if config.strategy == "direct" else 1
    for name, value, expected in (
        ("horizon", layout.horizon, horizon),
        ("targets", layout.targets, tail.targets),
        ("outputs", layout.outputs, config.loss().outputs),
    ):
        if value != expected:
            raise ShapeError(f"{name} of the network is {value}, but options and series ask for {expected}")


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
