"""Peers: how they get the same weights, and what is said where one is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from bench_cases import TINY

from gpulstm.bench import peers, problem


@pytest.mark.parametrize(
    ("library", "name"),
    [("torch", "PyTorch"), ("jax", "JAX"), ("onnxruntime", "ONNX Runtime"), ("openvino", "OpenVINO")],
)
def test_a_peer_that_is_not_installed_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, library: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not there
    with pytest.raises(RuntimeError, match=rf"{name} is not installed for .*pip install {library}"):
        peers.PEERS[library]({"case": {}, "device": "cpu"}, {})


def test_weights_as_pytorch_lays_them_out() -> None:
    arrays = problem.arrays({**vars(TINY), "layers": 2}, expected=False)
    weights = peers.torch_weights(arrays)
    assert {name: value.shape for name, value in weights.items()} == {
        "weight_ih_l0": (20, 4),
        "weight_hh_l0": (20, 5),
        "bias_ih_l0": (20,),
        "bias_hh_l0": (20,),
        "weight_ih_l1": (20, 5),
        "weight_hh_l1": (20, 5),
        "bias_ih_l1": (20,),
        "bias_hh_l1": (20,),
    }
    np.testing.assert_array_equal(weights["weight_ih_l1"][3], arrays["W_x_l1"][:, 3])
    np.testing.assert_array_equal(weights["bias_ih_l0"] + weights["bias_hh_l0"], arrays["b_l0"])


def test_gates_in_the_order_of_onnx() -> None:
    i, f, g, o = range(4)
    stored = np.repeat([i, f, g, o], 3)
    np.testing.assert_array_equal(peers._iofc(stored, 3), np.repeat([i, o, f, g], 3))
