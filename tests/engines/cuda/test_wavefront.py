"""Layers side by side within a graph: the same bits, and where it is chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from variables import SetVariable

import gpulstm
import hostgpu
from gpulstm.arrays.devices import to_host
from gpulstm.engines.cuda import planner, wavefront
from gpulstm.errors import ConfigError

STEPS, BATCH = 13, 3
CASES: dict[str, dict[str, Any]] = {
    "lstm": {},
    "dropout": {"dropout": 0.4, "recurrent_dropout": 0.2, "zoneout": 0.3},
    "three layers": {"num_layers": 3, "dtype": "float32", "bias": False},
    "gru": {"cell": gpulstm.GRU, "dropout": 0.2},
    "rnn": {"cell": gpulstm.RNN, "dtype": "float16"},
}


def results(lengths: bool, memory: str | None, cell: Any = gpulstm.LSTM, **options: Any) -> tuple[list[bytes], int]:
    """The bytes of everything that replays of a forward and a backward pass give, and the nodes of their graphs."""
    layer = cell(2, 9, **{"num_layers": 2, "dtype": "float64", "device": "cuda", "seed": 3, **options})
    rng, dtype = np.random.default_rng(0), layer.spec.dtype
    x, dy = (layer.backend.from_host(rng.normal(size=(STEPS, BATCH, n)).astype(dtype)) for n in (2, 9))
    rows = layer.backend.from_host(np.array([13, 0, 6])) if lengths else None
    results: list[bytes] = []
    nodes = 0
    for _ in range(5):
        layer.calls = 0
        y, state, tape = layer.forward(x, None, rows, memory=memory)
        with hostgpu.counting() as count:
            dx, dstate, grads = layer.backward(tape, dy)
            plain, _ = layer(x, None, rows)
        nodes = count["graph_nodes"]
        values = (y, dx, grads.flat, plain, *(part for each in (state, dstate) for part in each))
        results = [to_host(value).tobytes() for value in values]
    return results, nodes


@pytest.mark.cuda
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_bits_are_those_of_one_layer_after_the_other(
    case: str, lengths: bool, monkeypatch: pytest.MonkeyPatch, set_variable: SetVariable
) -> None:
    set_variable(planner.GRAPH, "1")
    set_variable(planner.FORM, "fused")
    monkeypatch.setattr("gpulstm.engines.cuda.engine.BLOCK_ROWS", 5 * BATCH)  # products of five steps, cut up further
    monkeypatch.setattr(planner, "SLICES", 4)
    result = {}
    for way in ("0", "1"):
        set_variable(planner.WAVEFRONT, way)
        result[way] = results(lengths, None, **CASES[case])
    assert result["0"][0] == result["1"][0]
    if hostgpu.simulated():
        assert result["1"][1] > result["0"][1] > 0  # more products, each of fewer steps


@pytest.mark.cuda
def test_explain_and_the_switch(set_variable: SetVariable) -> None:
    set_variable(planner.GRAPH, "1")
    set_variable(planner.FORM, "fused")
    set_variable(planner.WAVEFRONT, "1")
    layer = gpulstm.LSTM(2, 9, 2, device="cuda")
    assert "; wavefront over the layers: in slices of " in str(layer.explain(64, 3))
    assert "none, as there is one step" in str(layer.explain(1, 3))
    assert "wavefront" not in str(gpulstm.LSTM(2, 9, device="cuda").explain(64, 3))
    both = gpulstm.LSTM(2, 9, 2, bidirectional=True, device="cuda")
    assert "none, as a layer reads both directions of the one below" in str(both.explain(64, 3))
    set_variable(planner.FORM, "first")
    assert "none, as in the form 'first' the steps of a layer stay together" in str(layer.explain(64, 3))
    set_variable(planner.FORM, "fused")
    set_variable(planner.WAVEFRONT, "0")
    assert "none, as GPULSTM_CUDA_WAVEFRONT is 0" in str(layer.explain(64, 3))
    set_variable(planner.WAVEFRONT, "yes")
    with pytest.raises(ConfigError, match="GPULSTM_CUDA_WAVEFRONT is 'yes', expected 0 or 1"):
        layer.explain(64, 3)


def test_slices_cover_all_steps_and_stay_within_blocks() -> None:
    results = wavefront.slices(23, 2, 10, 4)
    assert [part[:2] for part in results] == [(0, 4), (4, 8), (8, 10), (10, 14), (14, 18), (18, 20), (20, 23)]
    assert [part[2] for part in results] == [20] * 6 + [6]
    assert wavefront.slices(3, 2, 10, 16) == [(0, 3, 6)]
