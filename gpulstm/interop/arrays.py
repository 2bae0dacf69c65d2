"""Arrays of other libraries as NumPy arrays, and files of weights, without importing the libraries or unpickling."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.arrays import files
from gpulstm.arrays.devices import backend_of, resolve
from gpulstm.arrays.dtypes import NAMES
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import ConfigError, DTypeError, InteropError, ShapeError

_KNOWN = {"BOOL", "F16", "F32", "F64", *(f"{sign}{bits}" for sign in "IU" for bits in (8, 16, 32, 64))}
_PICKLED = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".tar"}
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # torch's zip; plain pickles


def host(value: Any, name: str) -> np.ndarray:
    """`value` as a NumPy array of its own dtype.

    Args:
        value: a NumPy array, or anything with DLPack (PyTorch, JAX, CuPy ...), `numpy()` or `__array__`; values on a
            CUDA device are copied to the host.
        name: for messages.

    Raises:
        DTypeError: the dtype is none that NumPy has (bfloat16), or not one of real numbers.
    """
    array = _host(value, name)
    if array.dtype.kind not in "fiub":
        raise DTypeError(f"{name} has dtype {array.dtype}, expected real numbers")
    return array


def _host(value: Any, name: str) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach"):  # PyTorch refuses to share what has a gradient
        value = value.detach()
    if "bfloat16" in str(getattr(value, "dtype", "")):
        raise DTypeError(f"{name} has dtype bfloat16, which NumPy does not have; convert it to float32 first")
    if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        kind, index = value.__dlpack_device__()
        if int(kind) == 1:
            return np.from_dlpack(value)
        backend = resolve(f"cuda:{index}")
        return backend.to_host(backend.asarray(value, name=name))
    if hasattr(value, "__cuda_array_interface__"):
        return backend_of(value).to_host(value)
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


def common_dtype(values: Mapping[str, np.ndarray]) -> str:
    """The one floating dtype of all values.

    Raises:
        DTypeError: there are several, or it is none that a stack can have.
    """
    dtypes = sorted({value.dtype.name for value in values.values()})
    if len(dtypes) != 1 or dtypes[0] not in NAMES:
        raise DTypeError(f"the weights have dtype {', '.join(dtypes)}, expected one of {', '.join(NAMES)} for all")
    return dtypes[0]


def expect_shape(name: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`value`, if it has that shape.

    Raises:
        ShapeError: it has another.
    """
    if value.shape != shape:
        raise ShapeError(f"{name} has shape {value.shape}, expected {shape}")
    return value


def reorder(value: np.ndarray, stored: Sequence[str], order: Sequence[str], axis: int = 0) -> np.ndarray:
    """Blocks of gates along an axis in another order; zeros for a gate that is not stored."""
    parts = dict(zip(stored, np.split(value, len(stored), axis), strict=True))
    zeros = np.zeros_like(next(iter(parts.values())))
    return np.concatenate([parts.get(gate, zeros) for gate in order], axis)


def one_bias(spec: StackSpec, first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
    """This library's biases from those of the input and the recurrent product, each `(G*H,)` in its order of gates.

    They are added up, but for the second one of a GRU's candidate, which the reset gate multiplies.
    """
    if "b_hn" not in spec.layer_shapes(0):
        return {"b": first + second}
    cut = 2 * spec.hidden_size
    return {"b": np.concatenate([first[:cut] + second[:cut], first[cut:]]), "b_hn": second[cut:]}


def two_biases(spec: StackSpec, params: Mapping[str, np.ndarray], suffix: str) -> tuple[np.ndarray, np.ndarray]:
    """The way back: the second bias is zero but for a GRU's candidate."""
    first = params[f"b{suffix}"]
    second = np.zeros_like(first)
    if f"b_hn{suffix}" in params:
        second[2 * spec.hidden_size :] = params[f"b_hn{suffix}"]
    return first, second


def refuse_options(spec: StackSpec, names: tuple[str, ...], target: str) -> None:
    """Raise `InteropError` if one of the named options is set: `target` has nothing that computes the same."""
    plain = StackSpec(spec.cell, spec.input_size, spec.hidden_size)
    used = [name for name in names if getattr(spec, name) != getattr(plain, name)]
    if used:
        settings = ", ".join(f"{name}={getattr(spec, name)!r}" for name in used)
        raise InteropError(f"{target} has no layer that computes the same as this {spec.cell.upper()} with {settings}")


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata of a .safetensors file.

    Raises:
        InteropError: the file is a pickle, damaged, or holds a dtype that NumPy does not have.
        ConfigError: there is no such file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = files.read(path, InteropError, missing=ConfigError)
    _refuse_pickle(path, data[:4])
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise InteropError(f"{path} is not a whole .safetensors file: its header goes past its end")
    header = files.parse_json(data[8 : 8 + size], f"the header of {path}", InteropError)
    with files.damaged(f"{path} is not a whole .safetensors file", InteropError):
        metadata = header.pop("__metadata__", {})
        for name, entry in header.items():
            if entry["dtype"] not in _KNOWN:
                raise InteropError(f"{name} in {path} has dtype {entry['dtype']}, which NumPy does not have")
        try:
            return load(data), {str(name): str(value) for name, value in metadata.items()}
        except SafetensorError as error:
            raise InteropError(f"{path} is not a whole .safetensors file: {error}") from error


def _refuse_pickle(path: str | os.PathLike[str], start: bytes) -> None:
    """Raise where a file is one of pickled objects; the message says how to save one that can be read."""
    if Path(path).suffix.lower() in _PICKLED or start.startswith(_PICKLE_STARTS):
        raise InteropError(
            f"{path} is a pickle, which runs code when it is loaded, and is not opened; save the weights with "
            "safetensors.torch.save_file(model.state_dict(), 'model.safetensors') and give that file"
        )
