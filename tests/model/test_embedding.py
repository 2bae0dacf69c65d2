"""Learned vectors of categories: as a layer, in a network, and in a forecaster's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import gpulstm as gl
from gpulstm.arrays.devices import to_host
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import ConfigError, DTypeError, InteropError, ShapeError
from gpulstm.model.embedding import Category, Embedding
from gpulstm.model.network import Network, NetworkConfig

CONFIG = NetworkConfig(
    StackSpec("gru", 3 - 2 + 4 + 2, 5, dtype="float64"),
    horizon=2,
    outputs=2,
    future_size=2,
    categories=(Category(1, 6, 4, future=0), Category(2, 3, 2)),
)


def inputs(rng: np.random.Generator, network: Network) -> tuple[Any, Any, Any]:
    """x with codes in its last two columns, some of no known value; the covariates of the horizon; a gradient."""
    x = np.concatenate([rng.normal(size=(5, 3, 1)), rng.integers(-1, 7, (5, 3, 1)), rng.integers(0, 3, (5, 3, 1))], 2)
    future = np.concatenate([rng.integers(-1, 6, (3, 2, 1)), rng.normal(size=(3, 2, 1))], axis=2)
    return tuple(network.backend.from_host(part) for part in (x, future, rng.normal(size=(3, 2, 1, 2))))


def test_a_layer_looks_rows_up_and_learns_them(device: str, rng: np.random.Generator) -> None:
    layer = gl.Embedding(5, 3, dtype="float64", device=device, seed=4)
    table = to_host(layer.params["W"])
    codes = np.array([[0, 4, 4], [2, -1, 5]])
    on_host = layer.params.backend.from_host(codes)
    y = to_host(layer(on_host))
    np.testing.assert_array_equal(y[0], table[[0, 4, 4]])
    np.testing.assert_array_equal(y[1], [table[2], np.zeros(3), np.zeros(3)])  # of no known value
    dy = rng.normal(size=(2, 3, 3))
    gradient = to_host(layer.backward(on_host, layer.params.backend.from_host(dy))["W"])
    expected = np.zeros((5, 3))
    for code, row in zip(codes.ravel(), dy.reshape(-1, 3), strict=True):
        if 0 <= code < 5:
            expected[code] += row
    np.testing.assert_allclose(gradient, expected, rtol=1e-12)
    again = gl.Embedding(5, 3, dtype="float64", device="cpu", seed=9)
    again.params.load(layer.params.host())
    np.testing.assert_array_equal(again.params["W"], table)


def test_many_categories_are_added_in_blocks(device: str, rng: np.random.Generator, monkeypatch: Any) -> None:
    monkeypatch.setattr("gpulstm.model.embedding._BLOCK", 64)
    layer = gl.Embedding(30, 2, dtype="float64", device=device)
    codes, dy = rng.integers(0, 30, 100), rng.normal(size=(100, 2))
    expected = np.stack([dy[codes == code].sum(axis=0) for code in range(30)])
    backend = layer.params.backend
    gradient = layer.backward(backend.from_host(codes), backend.from_host(dy))["W"]
    np.testing.assert_allclose(to_host(gradient), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("last", "state_at"), [(None, None), (2, 2)])
def test_gradients_of_a_network_equal_central_differences(
    last: int | None, state_at: int | None, rng: np.random.Generator
) -> None:
    network = Network(CONFIG, device="cpu")
    x, future, draw = inputs(rng, network)
    if last is not None:
        future, draw = np.concatenate([future, future]), np.concatenate([draw, 2 * draw])
    _, _, tape = network.forward(x, future, training=True, read=last, state_at=state_at)
    grads = network.backward(tape, draw)
    for name, values in network.params.items():
        numeric = np.zeros_like(values)
        for index in np.ndindex(values.shape):
            losses = []
            for step in (1e-6, -2e-6):
                values[index] += step
                losses.append(float((network.forward(x, future, read=last)[0] * draw).sum()))
            values[index] += 1e-6
            numeric[index] = (losses[0] - losses[1]) / 2e-6
        np.testing.assert_allclose(grads[name], numeric, rtol=1e-6, atol=1e-8, err_msg=name)


def test_devices_agree(device: str, rng: np.random.Generator) -> None:
    results = []
    for where in ("cpu", device):
        network = Network(CONFIG, device=where)
        x, future, draw = inputs(np.random.default_rng(1), network)
        raw, _, tape = network.forward(x, future, training=True)
        results.append((to_host(raw), to_host(network.backward(tape, draw).flat)))
    for on_host, on_device in zip(*results, strict=True):
        np.testing.assert_allclose(on_host, on_device, rtol=1e-10, atol=1e-12)


def test_a_config_comes_back_from_json_and_refuses_columns_that_are_not_there() -> None:
    assert NetworkConfig.from_dict(CONFIG.to_dict()) == CONFIG
    assert CONFIG.input_size == 3
    with pytest.raises(ConfigError, match=r"columns \[1, 1\], expected different ones of 1"):
        NetworkConfig(CONFIG.stack, categories=(Category(1, 6, 4), Category(1, 6, 4)))
    network = Network(CONFIG, device="cpu")
    with pytest.raises(ShapeError, match=r"x has shape \(5, 3, 7\), expected \(T, B, 3\)"):
        network.forward(np.ones((5, 3, 7)), np.ones((3, 2, 2)))
    layer = Embedding(3, 2, device="cpu")
    with pytest.raises(DTypeError, match="codes have dtype float64"):
        layer(np.ones(3))
    with pytest.raises(ShapeError, match="dy has shape"):
        layer.backward(np.ones(3, int), np.ones((3, 3), "float32"))
    with pytest.raises(InteropError, match="learned vectors"):
        gl.interop.to_torch(network)
    with pytest.raises(InteropError, match="learned categories"):
        gl.interop.to_keras(network)


def test_onnx_has_the_vectors(rng: np.random.Generator) -> None:
    network = Network(CONFIG, device="cpu", seed=2)
    x, future, _ = inputs(rng, network)
    x = np.where(x == 6, -1, x)  # a code of V and more is no index of ONNX's Gather
    net = gl.interop.from_onnx(gl.interop.to_onnx(network), device="cpu")
    np.testing.assert_allclose(net.run({"x": x, "future": future})[0], network.forward(x, future)[0], rtol=1e-9)


def test_a_forecaster_learns_what_a_category_says(tmp_path: Path) -> None:
    """Twelve kinds of day, known ahead, that each have their own level; four shops, which stay one column a value."""
    rng = np.random.default_rng(0)
    kinds, rows = np.array([f"kind {number}" for number in range(12)]), 240
    level = 10.0 * np.arange(12)
    which = rng.integers(0, 12, (4, rows + 3))
    table = pd.DataFrame(
        {
            "shop": np.repeat(list("abcd"), rows + 3),
            "day": np.tile(pd.date_range("2024-01-01", periods=rows + 3), 4),
            "kind": kinds[which].ravel(),
            "place": np.repeat(["north", "south", "north", "south"], rows + 3),
            "y": level[which].ravel() + rng.normal(size=4 * (rows + 3)),
        }
    )
    ahead = table.groupby("shop").cumcount() >= rows
    options = {"horizon": 3, "context": 4, "hidden_size": 16, "epochs": 8, "batch_size": 16, "device": "cpu"}
    forecaster = gl.Forecaster(**options, embedding=10, learning_rate=0.02, window_scaling="none")
    forecaster.fit(table[~ahead], series="shop", time="day", target="y", future="kind", static="place", progress=False)
    series = forecaster.fitted.tail
    assert series.columns == ("y", "kind", "place=north", "place=south")
    assert series.coded == ((1, 12),)
    forecast = forecaster.predict(future=table[ahead])
    assert np.abs(forecast.median[:, :, 0] - level[which[:, rows:]]).mean() < 15  # the spread of levels is 35
    forecaster.save(tmp_path / "m.safetensors")
    loaded = gl.Forecaster.load(tmp_path / "m.safetensors", device="cpu")
    np.testing.assert_array_equal(loaded.predict(future=table[ahead]).median, forecast.median)
    strange = table[ahead].assign(kind="never seen")
    assert np.isfinite(loaded.predict(future=strange).median).all()


@pytest.mark.parametrize("dtype", ["bogus", None, "int32", "float16"])
def test_a_dtype_that_the_device_has_not_is_one_sentence(dtype: str | None) -> None:
    with pytest.raises(DTypeError, match=r"dtype is .*, (expected|which is)"):
        gl.Embedding(3, 2, dtype=dtype, device="cpu")


@pytest.mark.parametrize("seed", [-1, "a", None])
def test_a_seed_that_is_none_is_one_sentence(seed: object) -> None:
    with pytest.raises(ConfigError, match=r"seed is .*, expected a whole number of at least 0"):
        gl.Embedding(3, 2, seed=seed, device="cpu")  # type: ignore[arg-type]
