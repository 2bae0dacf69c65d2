"""Nothing at or behind an origin is seen: backtest, stream and forecast from the rows before agree."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from gpulstm.forecast.forecaster import Forecaster
from gpulstm.forecast.results import MODEL

ROWS, H = 150, 5
ORIGINS = (96, 111, 130)
EXACT = 1e-12  # how far two answers to one question may be apart, of values of about 30
RULES = ("refuse", "interpolate", "forward", "mask", "zero")
COVARIATES = ("none", "past", "future", "calendar", "static", "all")


Columns = dict[str, np.ndarray]


def table(rule: str, kind: str, seed: int = 0) -> tuple[Columns, dict[str, Any]]:
    """Columns of a table, and their roles; with static covariates of two series."""
    panel = kind in ("static", "all")
    parts = [_series(rule, kind, seed + number) for number in range(1 + panel)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    roles: dict[str, Any] = {"target": ["y", "z"], "time": "day", "missing": rule, "calendar": "auto"}
    if panel:
        columns |= {"s": np.repeat(["a", "b"], ROWS), "size": np.repeat([1.0, 2.5], ROWS)}
        roles |= {"series": "s", "static": ["size"]}
    if "p" in columns:
        roles["past"] = ["p"]
    if "k" in columns:
        roles["future"] = ["k"]
    if kind in ("calendar", "all"):
        roles["calendar"] = ["weekly"]
    return columns, roles


def _series(rule: str, kind: str, seed: int) -> Columns:
    rng = np.random.default_rng(seed)
    steps = np.arange(ROWS)
    columns = {
        "day": np.datetime64("2023-01-02", "D") + steps,
        "y": 20 + 4 * np.sin(2 * np.pi * steps / 7) + rng.normal(size=ROWS),
        "z": 30 + 0.1 * steps + rng.normal(size=ROWS),
    }
    if kind in ("past", "all"):
        columns["p"] = rng.normal(size=ROWS)
    if kind in ("future", "all"):
        columns["k"] = np.cos(steps / 3) + seed
    kept = columns["z"].copy()
    if rule != "refuse":
        for name in set(columns) & {"y", "z", "p"}:
            columns[name][rng.random(ROWS) < 0.25] = np.nan
            columns[name][0] = 1.0
        columns["y"][ORIGINS[0] - 2 : ORIGINS[0] + 3] = np.nan  # a gap across an origin
        last = np.array([*ORIGINS, ROWS]) - 1  # where all targets are missing at the end, a table ends before
        columns["z"][last] = kept[last]
    return columns


def within(columns: Columns, start: int, stop: int) -> Columns:
    """Some rows of each series."""
    return {name: values.reshape(-1, ROWS)[:, start:stop].ravel() for name, values in columns.items()}


def upto(columns: Columns, stop: int) -> Columns:
    return within(columns, 0, stop)


def ahead(columns: Columns, roles: dict[str, Any], origin: int) -> np.ndarray | None:
    return columns["k"].reshape(-1, ROWS, 1)[:, origin : origin + H] if "future" in roles else None


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("kind", "members"), [*((kind, "auto") for kind in COVARIATES), ("none", ("network",)), ("all", ("network",))]
)
def test_backtest_and_stream_say_what_would_have_been_forecast(rule: str, kind: str, members: Any) -> None:
    columns, roles = table(rule, kind)
    model = Forecaster(H, members=members, device="cpu", epochs=1, hidden_size=8, test=50)
    model.fit(columns, **roles, progress=False)
    result = model.backtest(origins=ORIGINS)
    exact = {"rtol": 0, "atol": EXACT} if members == "auto" else {"rtol": 1e-6, "atol": 1e-5}
    stream = model.stream(data=upto(columns, ORIGINS[0]), future=ahead(columns, roles, ORIGINS[0]))
    for before, origin in pairwise((ORIGINS[0], *ORIGINS)):
        for row in range(before, origin):
            stream.update(within(columns, row, row + 1), future=ahead(columns, roles, row + 1))
        alone = model.predict(upto(columns, origin), future=ahead(columns, roles, origin))
        same = result.origins == origin
        np.testing.assert_allclose(alone.median, result.forecasts[MODEL][same], **exact)
        assert alone.quantiles is not None and result.quantiles is not None
        np.testing.assert_allclose(alone.quantiles, result.quantiles[same], **exact)
        np.testing.assert_allclose(stream.forecast.median, alone.median, **exact)


@pytest.mark.parametrize("members", ["auto", ("network",)])
def test_lines_through_gaps_teach_nothing_about_noise(members: Any) -> None:
    """White noise cannot be forecast: no error at validation, nor afterwards, may lie well below its own size."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=600)
    noise[rng.random(600) < 0.5] = np.nan
    noise[0] = 0.0
    model = Forecaster(1, members=members, device="cpu", test=150, season=1, epochs=4)
    model.fit({"y": noise}, missing="interpolate", progress=False)
    result = model.backtest(stride=1)
    error = np.nanmean((result.actual - result.forecasts[MODEL]) ** 2)
    assert error > 0.8 * np.nanvar(noise)
    if members != "auto":
        losses = [row["validation_loss"] for row in model.history.rows]
        loss = model.fitted.loss
        floor = float(np.mean([loss_of_noise(noise, level) for level in loss.levels]))
        scale = float(model.fitted.scaler.scale.ravel()[0])
        assert min(losses) > 0.8 * floor / scale


def loss_of_noise(noise: np.ndarray, level: float) -> float:
    """The pinball loss of the best constant."""
    values = noise[~np.isnan(noise)]
    error = values - np.quantile(values, level)
    return float(np.maximum(level * error, (level - 1) * error).mean())


def test_a_forecast_from_a_file_is_that_of_the_whole_series(tmp_path: Any) -> None:
    for rule in RULES:
        columns, roles = table(rule, "all")
        model = Forecaster(H, device="cpu", epochs=1, hidden_size=8).fit(columns, **roles, progress=False)
        model.save(tmp_path / "m.safetensors")
        future = np.ones((2, H, 1))
        loaded = Forecaster.load(tmp_path / "m.safetensors", "cpu").predict(future=future)
        whole = model.predict(data=columns, future=future)
        np.testing.assert_allclose(loaded.quantiles, whole.quantiles, rtol=1e-12)
        np.testing.assert_allclose(loaded.mean, whole.mean, rtol=1e-12)
