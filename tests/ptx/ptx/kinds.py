"""The fundamental types of PTX (ISA, 5.2): how wide they are and which NumPy type holds them."""

from __future__ import annotations

import numpy as np

WIDTHS = (
    {"pred": 0}
    | {
        f"{letter}{bits}": bits // 8
        for letter, sizes in {"b": (8, 16, 32, 64), "u": (8, 16, 32, 64), "s": (8, 16, 32, 64)}.items()
        for bits in sizes
    }
    | {"f16": 2, "bf16": 2, "f16x2": 4, "bf16x2": 4, "f32": 4, "tf32": 4, "f64": 8}
)
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
SIGNED = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}
FLOATS = {"f16": np.float16, "f32": np.float32, "f64": np.float64}


def numpy_type(kind: str) -> type[np.generic]:
    """The NumPy type in which values of a PTX type are computed; bits are unsigned, bfloat16 and TF32 are bits."""
    if kind == "pred":
        return np.bool_
    if kind in FLOATS:
        return FLOATS[kind]
    return (SIGNED if kind[0] == "s" else UNSIGNED)[WIDTHS[kind]]


def bits_of_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 rounded to the nearest bfloat16, ties to even, as uint16; a NaN stays one."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint32(0x7FFF), rounded).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """bfloat16 as float32."""
    return (np.asarray(bits, np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def bits_of_tf32(values: np.ndarray) -> np.ndarray:
    """float32 rounded to TF32 (10 bits of fraction), ties away from zero, as the bits of a float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return np.where(np.isfinite(values), (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000), bits).astype(np.uint32)
