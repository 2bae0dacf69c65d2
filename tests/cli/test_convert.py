"""The command `convert`, as in an environment without the other libraries: every way, what it prints, mistakes."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import GOLDEN_FOLDER

import gpulstm as gl
from gpulstm.cli import main
from gpulstm.interop import from_keras, from_onnx, from_torch, to_onnx, to_torch
from gpulstm.model.network import Network, NetworkConfig

OTHERS = {"torch", "keras", "onnxruntime"}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the other libraries is there."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in OTHERS else find(name, *rest))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command's status, and what it wrote."""

    def convert(*arguments: Any) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["convert", *map(str, arguments)])
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return convert


def network(cell: str = "lstm") -> Network:
    spec = {"lstm": gl.LSTM, "gru": gl.GRU, "rnn": gl.RNN}[cell](3, 4, 2, device="cpu").spec
    return Network(NetworkConfig(spec, 5), device="cpu", seed=2)


X = np.random.default_rng(4).normal(size=(6, 2, 3)).astype("f4")


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_round_through_all_kinds_of_file(cell: str, run: Run, tmp_path: Path) -> None:
    """PyTorch -> Keras -> ONNX -> PyTorch: the same weights come back, the ONNX model's without the dense layer."""
    first = network(cell)
    to_torch(first, tmp_path / "a.safetensors")
    for source, target in (("a.safetensors", "b.weights.h5"), ("b.weights.h5", "c.onnx"), ("c.onnx", "d.safetensors")):
        status, out, _ = run(tmp_path / source, tmp_path / target)
        assert status == 0
        assert f"{source} -> " in out
        assert "not compared: it is not installed" in out or target == "c.onnx"
    np.testing.assert_allclose(
        from_onnx(tmp_path / "c.onnx", device="cpu").run([X])[0], first.forward(X)[0], rtol=1e-5, atol=1e-6
    )
    last = from_torch(tmp_path / "d.safetensors", device="cpu")
    np.testing.assert_array_equal(last.params.flat, first.rnn.params.flat)


def test_an_onnx_model_is_compared_with_this_librarys_reader(run: Run, tmp_path: Path) -> None:
    to_torch(network(), tmp_path / "a.safetensors")
    status, out, _ = run(tmp_path / "a.safetensors", tmp_path / "a.onnx")
    assert status == 0
    assert "this library's reader on a.onnx" in out


def test_a_keras_archive(run: Run, tmp_path: Path) -> None:
    assert run(GOLDEN_FOLDER / "interop_keras.keras", tmp_path / "a.onnx", "--no-check")[0] == 0
    net = from_keras(GOLDEN_FOLDER / "interop_keras.keras", device="cpu")
    x = np.random.default_rng(4).normal(size=(6, 2, 2)).astype("f4")
    results = from_onnx(tmp_path / "a.onnx", device="cpu").run([x])[0]
    np.testing.assert_allclose(results.reshape(2, 3), net(x)[0], rtol=1e-5, atol=1e-6)


def test_a_forecaster(run: Run, tmp_path: Path) -> None:
    series = np.sin(np.arange(120) / 5)
    forecaster = gl.Forecaster(2, 8, 4, members="network", epochs=1, device="cpu")
    forecaster.fit(series, progress=False)
    forecaster.save(tmp_path / "forecaster")
    (tmp_path / "forecaster").rename(tmp_path / "forecaster.safetensors")
    assert run(tmp_path / "forecaster.safetensors", tmp_path / "a.onnx")[0] == 0
    model = forecaster.fitted.network
    x = np.random.default_rng(4).normal(size=(8, 3, model.config.stack.input_size)).astype("f4")
    results = from_onnx(tmp_path / "a.onnx", device="cpu").run([x])[0]
    np.testing.assert_allclose(results, model.forward(x)[0], rtol=1e-5, atol=1e-6)


def test_a_mixture_gives_its_network_and_says_what_is_missing(run: Run, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 200)
    walk = np.zeros(200)
    for row in range(3, 200):  # curved: a linear member leaves something to learn
        walk[row] = 0.9 * np.sin(3 * walk[row - 1]) - 0.3 * walk[row - 3] + noise[row]
    forecaster = gl.Forecaster(2, hidden_size=4, device="cpu")
    forecaster.fit(walk, progress=False)
    path = tmp_path / "mixture.safetensors"
    forecaster.save(path)
    status, _, err = run(path, tmp_path / "a.onnx")
    assert status == 0
    assert "is a mixture: the target holds its network of" in err
    members = gl.Forecaster(2, members=("simple",), device="cpu").fit(walk, progress=False)
    members.save(path)
    status, _, err = run(path, tmp_path / "b.onnx")
    assert status == 2 and "a mixture without a network" in err


def test_options(run: Run, tmp_path: Path) -> None:
    state = to_torch(gl.RNN(3, 4, nonlinearity="relu", device="cpu"))
    weights = {f"a.{name}": value for name, value in state.items()} | {
        f"b.{name}": value for name, value in state.items()
    }
    from safetensors.numpy import save_file

    save_file(weights, tmp_path / "two.safetensors")
    options = ("--prefix", "b.", "--nonlinearity", "relu", "--lengths")
    status, out, _ = run(tmp_path / "two.safetensors", tmp_path / "a.onnx", *options)
    assert status == 0
    assert "nonlinearity='relu'" in out
    assert "not compared: the model reads more than x" in out
    assert [value.name for value in from_onnx(tmp_path / "a.onnx", device="cpu").inputs] == ["x", "lengths", "h_0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.safetensors", "a.txt"), "target is a.txt, expected a name that ends in .onnx"),
        (("a.txt", "b.onnx"), "source is a.txt, expected a name that ends in .safetensors"),
        (("none.onnx", "b.onnx"), "there is no file none.onnx"),
        (("a.safetensors", "there.onnx"), "there.onnx is there already; overwrite it with --force"),
        (("a.safetensors", "nowhere/a.onnx"), "there is no folder"),
        (("there.onnx", "b.onnx", "--prefix", "a."), "--prefix, --head and --nonlinearity are for PyTorch's weights"),
        (("a.safetensors", "b.weights.h5", "--lengths"), "--lengths is for ONNX"),
        (("a.safetensors", "b.onnx", "--prefix", "z."), "no recurrent weights begin with 'z.'"),
        (
            ("peepholes.onnx", "b.safetensors"),
            "PyTorch has no layer that computes the same as this LSTM with peepholes",
        ),
        (("pickle.safetensors", "b.onnx"), "is a pickle, which runs code when it is loaded"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...], message: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    to_torch(network(), "a.safetensors")
    to_onnx(network(), "there.onnx")
    to_onnx(gl.LSTM(2, 3, peepholes=True, device="cpu"), "peepholes.onnx")
    Path("pickle.safetensors").write_bytes(b"\x80\x04rest")
    before = sorted(tmp_path.iterdir())
    status, out, error = run(*arguments)
    assert (status, out) == (2, "")
    assert error.startswith("gpulstm: ")
    assert message in error
    assert sorted(tmp_path.iterdir()) == before


def test_without_the_onnx_package(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to_torch(network(), tmp_path / "a.safetensors")
    to_onnx(network(), tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    needs = "gpulstm: reading and writing ONNX models needs onnx, which is not installed; run: pip install onnx"
    for source, target in (("a.safetensors", "b.onnx"), ("a.onnx", "b.safetensors")):
        assert run(tmp_path / source, tmp_path / target) == (2, "", needs + "\n")
        assert not (tmp_path / target).exists()
    assert run(tmp_path / "a.safetensors", tmp_path / "b.weights.h5")[0] == 0


def test_a_wrong_conversion_is_noticed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to_torch(network(), tmp_path / "a.safetensors")
    monkeypatch.setattr(
        "gpulstm.cli.other_libraries.onnx_outputs", lambda path, x: ("another", np.zeros((x.shape[1], 5)))
    )
    status, _, error = run(tmp_path / "a.safetensors", tmp_path / "a.onnx")
    assert status == 2
    assert "the two sides differ by" in error
