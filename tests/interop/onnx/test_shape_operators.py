"""Operators that make, cut and turn values, next to NumPy, and what is refused when the extents are known."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from onnx_models import HUGE, integers, model, node, refused_at_run, tensor

from gpulstm.errors import InteropError
from gpulstm.interop import from_onnx

REFUSED: dict[str, tuple[bytes, str]] = {
    "constant of shape": (
        model(node("ConstantOfShape", "n", "y"), weights=(integers("n", HUGE, HUGE),)),
        r"my ConstantOfShape' would make a value of \d+ bytes, more than the limit of 2147483648",
    ),
    "expand": (
        model(node("Expand", "x n", "y"), weights=(integers("n", HUGE, 1),)),
        "'my Expand' would make a value of",
    ),
    "expand past all bounds": (
        model(node("Expand", "x n", "y"), weights=(integers("n", 2**62, 2),)),
        "would make a value",
    ),
    "tile": (model(node("Tile", "x n", "y"), weights=(integers("n", HUGE, 1),)), "'my Tile' would make a value of"),
    "range": (
        model(
            node("Range", "a b c", "y"),
            weights=tuple(tensor(n, data=struct.pack("<q", v), kind=7) for n, v in (("a", 0), ("b", 2**60), ("c", 1))),
        ),
        "'my Range' would make a value of",
    ),
    "pad": (model(node("Pad", "x n", "y"), weights=(integers("n", 0, 0, HUGE, 0),)), "'my Pad' would make a value of"),
    "an index outside": (
        model(node("Gather", "x i", "y"), weights=(integers("i", 7),)),
        "has indices outside of -1 to 0",
    ),
    "a reshape that does not fit": (
        model(node("Reshape", "x n", "y"), weights=(integers("n", 7),)),
        "my Reshape' fails",
    ),
    "two unknown extents": (model(node("Reshape", "x n", "y"), weights=(integers("n", -1, -1),)), "at most one -1"),
    "rank without end": (
        model(node("Unsqueeze", "x n", "y"), weights=(integers("n", *range(40)),)),
        "makes a value of rank 42, expected at most 32",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_where_the_file_alone_does_not_tell(name: str) -> None:
    refused_at_run(*REFUSED[name])


def test_the_limit_can_be_chosen() -> None:
    data = model(node("Expand", "x n", "y"), weights=(integers("n", 1000),))
    x = np.ones(1, np.float32)
    assert from_onnx(data, device="cpu", limit=4000).run([x])[0].shape == (1000,)
    with pytest.raises(InteropError, match="4000 bytes, more than the limit of 3999"):
        from_onnx(data, device="cpu", limit=3999).run([x])


A = np.arange(12.0, dtype=np.float32).reshape(2, 3, 2)

RESULTS: dict[str, tuple[bytes, Any]] = {
    "Shape": (model(node("Shape", "x", "y")), [2, 3, 2]),
    "Size": (model(node("Size", "x", "y")), 12),
    "Reshape": (model(node("Reshape", "x n", "y"), weights=(integers("n", 0, -1),)), A.reshape(2, 6)),
    "Flatten": (model(node("Flatten", "x", "y", axis=2)), A.reshape(6, 2)),
    "Transpose": (model(node("Transpose", "x", "y")), A.T),
    "Transpose by axes": (model(node("Transpose", "x", "y", perm=[1, 0, 2])), A.swapaxes(0, 1)),
    "Unsqueeze": (model(node("Unsqueeze", "x n", "y"), weights=(integers("n", 0, -1),)), A[None, ..., None]),
    "Squeeze": (
        model(node("Unsqueeze", "x n", "a"), node("Squeeze", "a n", "y"), weights=(integers("n", 0, -1),)),
        A,
    ),
    "Expand": (model(node("Expand", "x n", "y"), weights=(integers("n", 2, 1, 1, 1),)), np.stack([A, A])),
    "Tile": (model(node("Tile", "x n", "y"), weights=(integers("n", 1, 2, 1),)), np.tile(A, (1, 2, 1))),
    "ConstantOfShape": (model(node("ConstantOfShape", "n", "y"), weights=(integers("n", 2, 2),)), np.zeros((2, 2))),
    "Range": (
        model(
            node("Range", "a b c", "y"),
            weights=tuple(tensor(n, data=struct.pack("<q", v), kind=7) for n, v in (("a", 1), ("b", 8), ("c", 3))),
        ),
        [1, 4, 7],
    ),
    "Concat": (model(node("Concat", "x x", "y", axis=1)), np.concatenate([A, A], axis=1)),
    "Slice": (
        model(
            node("Slice", "x b e a", "y"),
            weights=(integers("b", 1, -1), integers("e", 9, 9), integers("a", 1, 2)),
        ),
        A[:, 1:, -1:],
    ),
    "Slice backwards": (
        model(
            node("Slice", "x b e a s", "y"),
            weights=(integers("b", -1), integers("e", -99), integers("a", 1), integers("s", -2)),
        ),
        A[:, ::-2],
    ),
    "Gather": (model(node("Gather", "x i", "y", axis=1), weights=(integers("i", 2, -3),)), A[:, [2, 0]]),
    "Pad": (
        model(node("Pad", "x n", "y"), weights=(integers("n", 0, 1, 0, 0, 0, 2),)),
        np.pad(A, ((0, 0), (1, 0), (0, 2))),
    ),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_those_of_numpy(name: str) -> None:
    data, expected = RESULTS[name]
    (y,) = from_onnx(data, device="cpu").run([A])
    np.testing.assert_array_equal(y, expected, strict=isinstance(expected, np.ndarray) and expected.dtype == "f4")


def test_a_split_gives_all_its_parts() -> None:
    data = model(node("Split", "x n", "y z", axis=1), weights=(integers("n", 1, 2),), outputs="y z")
    parts = from_onnx(data, device="cpu").run([A])
    for part, expected in zip(parts, (A[:, :1], A[:, 1:]), strict=True):
        np.testing.assert_array_equal(part, expected)


def test_rows_are_reversed_within_their_lengths() -> None:
    data = model(node("ReverseSequence", "x n", "y"), weights=(integers("n", 1, 2),))
    x = np.arange(6.0, dtype=np.float32).reshape(3, 2)
    (y,) = from_onnx(data, device="cpu").run([x])
    np.testing.assert_array_equal(y, [[0, 3], [2, 1], [4, 5]])
