"""Checkpoints: what goes in comes out, nothing half-written, and every wrong file named for what it is."""

from __future__ import annotations

import io
import json
import os
import pickle
import stat
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.numpy import save as to_bytes

from gpulstm import __version__
from gpulstm.arrays import checkpoint
from gpulstm.arrays.backend import Backend
from gpulstm.errors import CheckpointError

ARRAYS = {"weights.a": np.arange(6.0).reshape(2, 3), "one": np.float32(3.5), "none": np.zeros((0, 2), "float16")}
META = {"config": {"hidden_size": 3, "dtype": "float32"}, "best": None, "text": "größer"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.safetensors"


def test_round_trip(path: Path, backend: Backend) -> None:
    checkpoint.save(path, {name: backend.from_host(value) for name, value in ARRAYS.items()}, META)
    results, meta = checkpoint.load(path)
    assert meta == META
    assert results.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(results[name], value, strict=name != "one")
        assert results[name].dtype == value.dtype and results[name].shape == np.shape(value)
    assert os.listdir(path.parent) == [path.name]


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
        st.sampled_from(["float64", "float32", "int64", "uint8", "bool"]).flatmap(
            lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=3, max_side=4))
        ),
        max_size=3,
    ),
    st.dictionaries(
        st.text(max_size=5),
        st.one_of(st.none(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False)),
    ),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_arrays_and_numbers_come_back_bit_for_bit(path: Path, values: dict[str, Any], meta: dict[str, Any]) -> None:
    checkpoint.save(path, values, meta)
    results, again = checkpoint.load(path)
    assert again == meta
    assert {name: (a.dtype, a.shape, a.tobytes()) for name, a in results.items()} == {
        name: (a.dtype, a.shape, a.tobytes()) for name, a in values.items()
    }


def test_transposed_and_strided_arrays_keep_their_values(path: Path, rng: np.random.Generator) -> None:
    whole = rng.normal(size=(4, 6))
    checkpoint.save(path, {"t": whole.T, "s": whole[::2, ::3]}, {})
    results, _ = checkpoint.load(path)
    np.testing.assert_array_equal(results["t"], whole.T)
    np.testing.assert_array_equal(results["s"], whole[::2, ::3])


def test_weights_that_are_not_finite_are_kept(path: Path) -> None:
    checkpoint.save(path, {"w": np.array([np.nan, np.inf, 1.0])}, {})
    np.testing.assert_array_equal(checkpoint.load(path)[0]["w"], [np.nan, np.inf, 1.0])


@pytest.mark.parametrize("stage", ["write", "fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file(
    path: Path, stage: str, failure: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(path, ARRAYS, {"epoch": 1})
    before = path.read_bytes()

    def fail(*args: Any) -> None:
        raise failure

    with monkeypatch.context() as patch:
        if stage == "write":
            opened = os.fdopen

            def failing(handle: int, mode: str) -> Any:
                file = opened(handle, mode)
                return type(
                    "File", (), {"__enter__": lambda self: self, "__exit__": lambda *a: file.close(), "write": fail}
                )()

            patch.setattr(os, "fdopen", failing)
        else:
            patch.setattr(os, stage, fail)
        expected = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else CheckpointError
        with pytest.raises(expected):
            checkpoint.save(path, ARRAYS, {"epoch": 2})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
    assert checkpoint.load(path)[1] == {"epoch": 1}


def test_permissions_are_those_of_an_ordinary_file(path: Path) -> None:
    old = os.umask(0o027)
    try:
        checkpoint.save(path, ARRAYS, META)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    checkpoint.save(path, ARRAYS, META)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def pickled() -> bytes:
    return pickle.dumps({"w": [1.0, 2.0]})


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled())
    return buffer.getvalue()


def rewritten(data: bytes, **header: str | None) -> bytes:
    """A checkpoint with other entries in its `__metadata__`."""
    (length,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8 : 8 + length])
    for name, value in header.items():
        if value is None:
            del head["__metadata__"][name]
        else:
            head["__metadata__"][name] = value
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def flipped(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 0x10]) + data[offset + 1 :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: pickled(), "is no checkpoint of gpulstm but a pickle, as joblib and old PyTorch write it"),
        (lambda data: zipped(), r"but a zip archive, as PyTorch \(.pt\)"),
        (lambda data: b"\x89HDF\r\n\x1a\n" + bytes(100), "but an HDF5 file, as Keras writes it"),
        (lambda data: b"", "is cut short: it has 0 bytes"),
        (lambda data: data[:5], "is cut short: it has 5 bytes"),
        (lambda data: data[:60], "is cut short: its header of .* bytes goes past the end"),
        (lambda data: data[:-8], "is cut short or damaged: .*"),
        (lambda data: data + b"more", "is cut short or damaged: .*"),
        (lambda data: flipped(data, len(data) - 3), "is damaged: its contents do not have the checksum"),
        (lambda data: data[:9] + b"!" + data[10:], "the header of .* is damaged: it is no JSON"),
        (lambda data: b"time,value\n2020-01-01,3\n" * 9, "it is not a safetensors file"),
        (lambda data: to_bytes({"w": np.ones(3)}), "is a safetensors file but no checkpoint of gpulstm"),
        (lambda data: to_bytes({"w": np.ones(3)}, {"format": "pt"}), "does not say format 'gpulstm'"),
        (
            lambda data: rewritten(data, format_version="2"),
            f"has format version '2', written by gpulstm {__version__};",
        ),
        (lambda data: rewritten(data, format_version="one"), "has format version 'one'"),
        (lambda data: rewritten(data, format_version=None), "has format version ''"),
        (lambda data: rewritten(data, meta="{"), "is damaged: its contents do not have the checksum"),
        (lambda data: rewritten(data, meta=None), "is damaged: its contents do not have the checksum"),
    ],
)
def test_wrong_files_are_named(path: Path, change, message: str) -> None:
    checkpoint.save(path, ARRAYS, META)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no file .*missing"):
        checkpoint.load(tmp_path / "missing")
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        checkpoint.load(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be written: No such file or directory"):
        checkpoint.save(tmp_path / "no" / "folder", ARRAYS, META)
    for meta in ({"loss": float("nan")}, {"config": object()}):
        with pytest.raises(CheckpointError, match="cannot be written as JSON"):
            checkpoint.save(tmp_path / "run", ARRAYS, meta)
    assert not os.listdir(tmp_path)
