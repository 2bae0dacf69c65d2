"""What a stack says of itself, and which options do not go together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mistakes import Mistake, check, texts

from gpulstm.engines.stack_spec import CellName, StackSpec, unsupported
from gpulstm.errors import ConfigError


@pytest.mark.parametrize(
    ("cell", "options", "gates"),
    [
        ("lstm", {}, ("i", "f", "g", "o")),
        ("lstm", {"coupled": True}, ("i", "g", "o")),
        ("gru", {}, ("r", "z", "n")),
        ("rnn", {}, ("h",)),
    ],
)
def test_gates_have_the_documented_order(cell: CellName, options: dict[str, Any], gates: tuple[str, ...]) -> None:
    spec = StackSpec(cell, 2, 3, **options)
    assert spec.gate_names == gates
    assert spec.layer_shapes(0)["W_h"] == (3, 3 * len(gates))
    assert spec.has_memory == (cell == "lstm")


def test_a_deep_stack_in_both_directions_names_all_its_parameters() -> None:
    spec = StackSpec("lstm", 3, 8, 2, bidirectional=True, proj_size=5)
    assert spec.suffixes == ("_l0", "_l0_reverse", "_l1", "_l1_reverse")
    assert (spec.state_size, spec.output_size) == (5, 10)
    shapes = spec.shapes()
    assert shapes["W_x_l0_reverse"] == (3, 32)
    assert shapes["W_x_l1"] == (10, 32)  # reads both directions of the layer below
    assert shapes["W_h_l1"] == (5, 32) and shapes["W_p_l1"] == (8, 5)


@pytest.mark.parametrize(
    ("cell", "options", "more"),
    [
        ("lstm", {"bias": False}, {}),
        ("lstm", {"peepholes": True}, {"b": (16,), "p": (12,)}),
        ("lstm", {"peepholes": True, "coupled": True}, {"b": (12,), "p": (8,)}),
        ("lstm", {"layer_norm": True}, {"b": (16,), "gain_x": (16,), "gain_h": (16,), "gain_c": (4,), "b_c": (4,)}),
        ("gru", {}, {"b": (12,), "b_hn": (4,)}),
        ("gru", {"reset_after": False}, {"b": (12,)}),
        ("gru", {"layer_norm": True}, {"b": (12,), "b_hn": (4,), "gain_x": (12,), "gain_h": (12,)}),
        ("rnn", {}, {"b": (4,)}),
    ],
)
def test_options_add_parameters(cell: CellName, options: dict[str, Any], more: dict[str, tuple[int, ...]]) -> None:
    shapes = StackSpec(cell, 2, 4, **options).layer_shapes(0)
    assert {name: shape for name, shape in shapes.items() if name not in ("W_x", "W_h")} == more


def test_numbers_of_numpy_become_plain_ones() -> None:
    spec = StackSpec("lstm", np.int64(2), np.int32(3), dropout=np.float32(0.5))  # type: ignore[arg-type]
    assert spec == StackSpec("lstm", 2, 3, dropout=0.5)
    assert type(spec.input_size) is int and type(spec.dropout) is float


def test_float16_keeps_its_data_in_float32() -> None:
    kept = {dtype: StackSpec("lstm", 1, 1, dtype=dtype).data_dtype for dtype in ("float16", "float32", "float64")}
    assert kept == {"float16": "float32", "float32": "float32", "float64": "float64"}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"cell": "lstm", "zoneout": (0.1, 0.1), "dropout": 0.1, "bias": False}, []),
        ({"cell": "lstm", "coupled": True, "peepholes": True}, ["peepholes", "coupled gates"]),
        ({"cell": "gru", "reset_after": False, "clip": 1.0}, ["clip", "reset_after=False"]),
        ({"cell": "rnn", "activations": ("Elu",)}, ["activations"]),
    ],
)
def test_what_no_cuda_kernel_has(options: dict[str, Any], names: list[str]) -> None:
    assert unsupported(StackSpec(input_size=2, hidden_size=3, **options)) == names


MISTAKES: dict[Callable[[], StackSpec], Mistake] = {
    lambda: StackSpec("ltsm", 1, 1): (ConfigError, "cell is 'ltsm', expected 'lstm', 'gru' or 'rnn'"),
    lambda: StackSpec("gru", 1, 4, peepholes=True): (
        ConfigError,
        "peepholes is an option of the LSTM; the GRU has none",
    ),
    lambda: StackSpec("rnn", 1, 4, proj_size=2): (ConfigError, "proj_size is an option of the LSTM; the RNN has none"),
    lambda: StackSpec("gru", 1, 4, zoneout=(0.0, 0.1)): (ConfigError, "zoneout has a rate for c .*the GRU has no c"),
    lambda: StackSpec("lstm", 1, 4, reset_after=False): (ConfigError, "reset_after is an option of the GRU"),
    lambda: StackSpec("gru", 1, 4, nonlinearity="relu"): (ConfigError, "nonlinearity is an option of the RNN"),
}


@pytest.mark.parametrize(("call", "mistake"), texts(MISTAKES))
def test_options_that_do_not_go_together(call: Callable[[], StackSpec], mistake: Mistake) -> None:
    check(call, mistake)
