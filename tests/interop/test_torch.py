"""Weights from and to PyTorch: recorded results, what is refused, round trips.  PyTorch itself is not needed."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import interop_torch
import numpy as np
import pytest
from paths import GOLDEN_FOLDER
from safetensors import safe_open
from safetensors.numpy import save_file

import gpulstm as gl
from gpulstm.errors import ConfigError, DTypeError, InteropError, ShapeError
from gpulstm.interop import from_torch, to_torch
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.model.stack import Recurrent

with safe_open(GOLDEN_FOLDER / "interop_torch.safetensors", "numpy") as file:
    GOLDEN = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    OPTIONS = json.loads(file.metadata()["cases"])


def part(case: str, kind: str) -> dict[str, np.ndarray]:
    start = f"{case}/{kind}/"
    return {name.removeprefix(start): value for name, value in GOLDEN.items() if name.startswith(start)}


def weights(case: str = "lstm") -> dict[str, np.ndarray]:
    return part(case, "weight")


@pytest.mark.parametrize("case", OPTIONS)
def test_recorded_results(case: str, device: str) -> None:
    options = dict(OPTIONS[case])
    layer = from_torch(weights(case), nonlinearity=options.get("nonlinearity"), device=device)
    assert isinstance(layer, Recurrent)
    expected = {"num_layers": 1, "bidirectional": False, "bias": True, "proj_size": 0, **options}
    assert {name: getattr(layer.spec, name) for name in expected} == expected
    interop_torch.compare(interop_torch.run(layer, part(case, "given")), part(case, "result"), 1e-12)


@pytest.mark.parametrize("case", [case for case in OPTIONS if not case.endswith("lengths")])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_there_and_back_is_bit_for_bit(case: str, dtype: str) -> None:
    first = from_torch({name: value.astype(dtype) for name, value in weights(case).items()}, device="cpu")
    second = from_torch(to_torch(first), device="cpu")
    assert second.spec == first.spec
    assert second.spec.dtype == dtype
    np.testing.assert_array_equal(second.params.flat, first.params.flat)


def test_a_network_there_and_back(tmp_path: Path) -> None:
    model = Network(NetworkConfig(gl.GRU(3, 4, 2, device="cpu").spec, 5, 2, 3), device="cpu", seed=2)
    state = to_torch(model, tmp_path / "model.safetensors")
    assert state["head.weight"].shape == (30, 4)
    again = from_torch(tmp_path / "model.safetensors", shape=(5, 2, 3), device="cpu")
    assert isinstance(again, Network)
    assert again.config == model.config
    np.testing.assert_array_equal(again.params.flat, model.params.flat)
    assert from_torch(state, device="cpu").config.horizon == 30
    assert isinstance(from_torch(state, prefix="rnn.", device="cpu"), Recurrent)
    assert isinstance(from_torch(state, prefix="rnn.", head="head.", device="cpu"), Network)


def test_one_of_several_by_prefix() -> None:
    both = {f"{start}.{name}": value for start in ("encoder.rnn", "decoder") for name, value in weights().items()}
    layer = from_torch(both, prefix="encoder.rnn.", device="cpu")
    np.testing.assert_array_equal(layer.params["W_x_l0"], weights()["weight_ih_l0"].T)
    with pytest.raises(InteropError, match=r"found 2 \('encoder\.rnn\.', 'decoder\.'\); name one by prefix="):
        from_torch(both)
    with pytest.raises(InteropError, match=r"no recurrent weights begin with 'nothing\.'"):
        from_torch(both, prefix="nothing.")


class Tensor:
    """What PyTorch's tensors offer, and no more: `detach` and DLPack."""

    def __init__(self, value: np.ndarray, attached: bool = True) -> None:
        self.value, self.attached, self.dtype = value, attached, value.dtype

    def detach(self) -> Tensor:
        return Tensor(self.value, attached=False)

    def __dlpack__(self, **options: Any) -> Any:
        assert not self.attached
        return self.value.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.value.__dlpack_device__()


class OnlyNumpy:
    """Offers `numpy()` alone."""

    def __init__(self, value: np.ndarray) -> None:
        self.value = value

    def numpy(self) -> np.ndarray:
        return self.value


class Brain:
    """Claims to be bfloat16."""

    dtype = "torch.bfloat16"


@pytest.mark.parametrize("kind", [Tensor, OnlyNumpy, np.asarray])
def test_tensors_of_any_library(kind: Any) -> None:
    layer = from_torch({name: kind(value) for name, value in weights().items()}, device="cpu")
    np.testing.assert_array_equal(layer.params["W_h_l0"], weights()["weight_hh_l0"].T)


def test_weights_on_the_device(device: str) -> None:
    layer = from_torch({name: gl.to_device(value, device) for name, value in weights().items()}, device=device)
    np.testing.assert_array_equal(gl.to_host(layer.params["W_h_l0"]), weights()["weight_hh_l0"].T)


def changed(**changes: Any) -> dict[str, Any]:
    results = {**weights(), **{name: value for name, value in changes.items() if value is not None}}
    return {name: value for name, value in results.items() if changes.get(name, 0) is not None}


W = weights()


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        (3, {}, InteropError, "source is a int, expected a PyTorch module"),
        ({}, {}, InteropError, r"expected one recurrent network, found 0 \(none\)"),
        ({"fc.weight": W["weight_ih_l0"]}, {}, InteropError, "expected one recurrent network, found 0"),
        (changed(weight_hh_l0=None), {}, InteropError, "expected a matrix weight_hh_l0, found"),
        (changed(weight_hh_l0=np.zeros((17, 4))), {}, ShapeError, r"weight_hh_l0 has shape \(17, 4\), expected 4"),
        (changed(weight_ih_l0=np.zeros((15, 3))), {}, ShapeError, r"shape \(15, 3\), expected \(16, 3\)"),
        (changed(bias_hh_l0=None), {}, InteropError, r"missing \['bias_hh_l0'\], left none"),
        (changed(bias_ih_l0=None), {}, InteropError, r"missing none, left \['bias_hh_l0'\]"),
        (changed(weight_ih_l2=W["weight_ih_l0"]), {}, InteropError, r"missing \['bias_hh_l1'"),
        (changed(bias_hh_l0=W["bias_hh_l0"].astype("float32")), {}, DTypeError, "float32, float64, expected one of"),
        (changed(bias_hh_l0=np.array(["a"] * 16)), {}, DTypeError, "bias_hh_l0 has dtype <U1, expected real numbers"),
        (changed(bias_hh_l0=Brain()), {}, DTypeError, "bias_hh_l0 has dtype bfloat16"),
        (W, {"shape": (1, 1, 1)}, ConfigError, "there is no dense layer"),
        (W, {"head": "fc."}, InteropError, "there is no dense layer 'fc.': no matrix named fc.weight"),
        ({**W, "norm.weight": np.ones(4)}, {}, InteropError, "more than one dense layer: norm.weight"),
        ({**W, "a.weight": np.ones((2, 4)), "b.weight": np.ones((2, 2))}, {}, InteropError, "a.weight, b.weight"),
        ({**W, "a.weight": np.ones((2, 5))}, {}, ShapeError, r"a.weight has shape \(2, 5\), expected \(2, 4\)"),
        ({**W, "a.weight": np.ones((2, 4)), "a.bias": np.ones(3)}, {}, ShapeError, r"a.bias has shape \(3,\)"),
        ({**W, "a.weight": np.ones((2, 4))}, {"shape": (3, 1, 1)}, ShapeError, r"3 numbers, but the dense"),
    ],
)  # fmt: skip
def test_mistakes(source: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        from_torch(source, device="cpu", **options)


@pytest.mark.parametrize(
    "layer",
    [
        gl.LSTM(2, 3, peepholes=True, device="cpu"),
        gl.LSTM(2, 3, coupled=True, device="cpu"),
        gl.LSTM(2, 3, zoneout=0.1, device="cpu"),
        gl.LSTM(2, 3, clip=1.0, device="cpu"),
        gl.GRU(2, 3, reset_after=False, device="cpu"),
        gl.GRU(2, 3, activations=("HardSigmoid", "Tanh"), device="cpu"),
        gl.RNN(2, 3, layer_norm=True, device="cpu"),
    ],
    ids=repr,
)
def test_options_that_pytorch_does_not_have(layer: Recurrent) -> None:
    with pytest.raises(InteropError, match="PyTorch has no layer that computes the same as this"):
        to_torch(layer)


class Trap:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "model.bin"])
@pytest.mark.parametrize("zipped", [False, True])
def test_pickles_are_refused_and_not_run(tmp_path: Path, name: str, zipped: bool) -> None:
    path, trap = tmp_path / name, tmp_path / "sprung"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Trap(trap)))
    else:
        path.write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(InteropError, match=r"is a pickle.*safetensors\.torch\.save_file\(model\.state_dict\(\)"):
        from_torch(path)
    assert not trap.exists()


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    for cut in (0, 4, 100, len(whole) - 1):
        (tmp_path / "cut.safetensors").write_bytes(whole[:cut])
        with pytest.raises(InteropError, match=r"cut\.safetensors is not a whole \.safetensors file"):
            from_torch(tmp_path / "cut.safetensors")
    with pytest.raises(ConfigError, match="there is no file"):
        from_torch(tmp_path / "none.safetensors")
    header = json.dumps({"weight_ih_l0": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "brain.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(InteropError, match=r"weight_ih_l0 in .* has dtype BF16, which NumPy does not have"):
        from_torch(tmp_path / "brain.safetensors")
