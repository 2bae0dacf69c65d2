"""Checkpoints: named arrays and JSON metadata in one safetensors file, written atomically.  No pickle anywhere.

The file is an ordinary safetensors file (8 bytes of header length, a JSON header, the arrays), so that any tool can
read the arrays.  The header's `__metadata__` holds five strings:

    format             "gpulstm"
    format_version     "1"
    library_version    the version that wrote it
    meta               JSON: whatever `save` was given
    crc32              of `meta` and all arrays, in hexadecimal

Weights that are not finite are saved as they are: what a broken run leaves behind can be looked at.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.arrays import files
from gpulstm.arrays.devices import to_host
from gpulstm.errors import CheckpointError

FORMAT = "gpulstm"
FORMAT_VERSION = 1

_FOREIGN_STARTS = {
    b"PK\x03\x04": "a zip archive, as PyTorch (.pt) and NumPy (.npz) write it",
    **{bytes([0x80, protocol]): "a pickle, as joblib and old PyTorch write it" for protocol in range(2, 6)},
    b"\x89HDF": "an HDF5 file, as Keras writes it",
}


def save(path: str | os.PathLike[str], arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Write a checkpoint; the file is there whole or, on any failure or Ctrl-C, as it was before.

    Args:
        path: where to; a file of that name is replaced in one step.
        arrays: by name, from any device; copied to the host.
        meta: whatever JSON can hold; NaN and infinities are refused.

    Raises:
        CheckpointError: `meta` cannot be JSON, or the folder is not there or cannot be written to.
    """
    from safetensors.numpy import save as to_bytes

    path = Path(path)
    host = {name: np.asarray(to_host(value), order="C") for name, value in arrays.items()}
    try:
        text = json.dumps(dict(meta), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"the metadata of {path} cannot be written as JSON: {error}") from error
    header = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "library_version": package_version(),
        "meta": text,
        "crc32": _checksum(host, text),
    }
    files.write(path, to_bytes(host, header))


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a checkpoint: its arrays on the host, read-only, and its metadata.

    Raises:
        CheckpointError: there is no such file; it is another kind of file (it says which), cut short or damaged; or a
            later version wrote it.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    path = Path(path)
    data = files.read(path, CheckpointError)
    header = _header(path, data)
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file but no checkpoint of gpulstm: its metadata does not say format '{FORMAT}'"
        )
    version = header.get("format_version", "")
    if not (version.isascii() and version.isdecimal()) or len(version) > 9 or int(version) > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version!r}, written by gpulstm {header.get('library_version', '?')}; this is "
            f"gpulstm {package_version()}, which reads up to {FORMAT_VERSION}: upgrade it"
        )
    text = header.get("meta", "")
    try:
        arrays = from_bytes(data)
        checksum = _checksum(arrays, text)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:  # the last three: dtypes, text, extents
        raise CheckpointError(f"{path} is cut short or damaged: {error}") from error
    if header.get("crc32") != checksum:
        raise CheckpointError(f"{path} is damaged: its contents do not have the checksum they were written with")
    meta = files.parse_json(text, f"the metadata of {path}", CheckpointError)
    if not isinstance(meta, dict):
        raise CheckpointError(f"the metadata of {path} is a {type(meta).__name__}, expected named values")
    return arrays, meta


def _header(path: Path, data: bytes) -> dict[str, str]:
    """The `__metadata__` of a safetensors file, checked no further."""
    if data[8:9] != b"{":  # not safetensors
        for start, kind in _FOREIGN_STARTS.items():
            if data.startswith(start):
                raise CheckpointError(f"{path} is no checkpoint of gpulstm but {kind}; such files are never read here")
        if len(data) < 9:
            raise CheckpointError(f"{path} is cut short: it has {len(data)} bytes")
        raise CheckpointError(f"{path} is no checkpoint of gpulstm: it is not a safetensors file")
    (length,) = struct.unpack("<Q", data[:8])
    if length > len(data) - 8:
        raise CheckpointError(f"{path} is cut short: its header of {length} bytes goes past the end of the file")
    header = files.parse_json(data[8 : 8 + length], f"the header of {path}", CheckpointError)
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    return {key: str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}


def _checksum(arrays: Mapping[str, np.ndarray], text: str) -> str:
    """CRC-32 of the metadata and of all arrays, with names, dtypes and shapes, in the order of their names."""
    value = zlib.crc32(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        value = zlib.crc32(f"{name}{array.dtype.str}{array.shape}".encode(), value)
        value = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, value)
    return f"{value:08x}"


def package_version() -> str:
    """The version of this package."""
    return str(sys.modules["gpulstm"].__version__)  # the package itself stands above every module of it
