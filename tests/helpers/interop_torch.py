"""Run a layer of this library on the data of a PyTorch case and name its results as PyTorch does."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpulstm.model.stack import Recurrent


def run(layer: Recurrent, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    """Outputs, final state and all gradients on the host; gradients of weights under PyTorch's names."""
    backend, spec = layer.backend, layer.spec
    on = {name: backend.from_host(value) for name, value in inputs.items()}
    state = (on["h0"], on["c0"]) if spec.has_memory else on["h0"]
    y, end, tape = layer.forward(on["x"], state, on.get("lengths"), training=True)
    dend = (on["dh"], on["dc"]) if spec.has_memory else on["dh"]
    dx, dstart, grads = layer.backward(tape, on["dy"], dend)
    results = {"y": y, "dx": dx}
    for names, value in ((("hn", "cn"), end), (("dh0", "dc0"), dstart)):
        results |= dict(zip(names, value if spec.has_memory else (value,), strict=False))
    host = {name: backend.to_host(value) for name, value in results.items()}
    return host | weight_gradients(layer, grads.host())


def weight_gradients(layer: Recurrent, grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The gradients of PyTorch's weights: both biases have that of their sum."""
    results = {}
    for suffix in layer.spec.suffixes:
        for name, ours in (("weight_ih", "W_x"), ("weight_hh", "W_h"), ("weight_hr", "W_p")):
            if f"{ours}{suffix}" in grads:
                results[f"grad/{name}{suffix}"] = grads[f"{ours}{suffix}"].T
        if layer.spec.bias:
            both = grads[f"b{suffix}"]
            results[f"grad/bias_ih{suffix}"] = both
            results[f"grad/bias_hh{suffix}"] = both
            if layer.spec.cell == "gru":  # of the candidate the reset gate comes between
                cut = 2 * layer.spec.hidden_size
                results[f"grad/bias_hh{suffix}"] = np.concatenate([both[:cut], grads[f"b_hn{suffix}"]])
    return results


def compare(results: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> float:
    """Assert that all results agree, each to `tolerance` of its own largest value (at least 1); the largest error."""
    assert results.keys() == expected.keys()
    worst = 0.0
    for name, value in expected.items():
        assert results[name].shape == value.shape, name
        error = np.abs(results[name] - value).max() / max(1.0, np.abs(value).max())
        assert error <= tolerance, f"{name} differs by {error:g}"
        worst = max(worst, float(error))
    return worst
