"""CuPy, or what is missing for it."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from gpulstm.arrays import cupy_backend
from gpulstm.arrays.devices import resolve, to_host
from gpulstm.errors import DeviceError


def test_cuda_without_cupy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_backend.importlib.util, "find_spec", lambda name: None)
    assert resolve("auto") is resolve("cpu")
    with pytest.raises(DeviceError, match=r"device 'cuda' cannot be used: CuPy is not installed; run: pip install"):
        resolve("cuda")


def test_cupy_without_the_libraries_of_cuda_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy.cublas", None)
    reason = cupy_backend._libraries_missing.__wrapped__()
    assert reason is not None
    assert "without the libraries of CUDA" in reason
    assert "pip install 'gpulstm[cuda12]'" in reason


@pytest.mark.cuda
def test_cuda_array_interface_comes_in_without_a_copy() -> None:
    backend: Any = resolve("cuda")

    class Foreign:
        def __init__(self, owner: Any) -> None:
            self.owner = owner
            self.__cuda_array_interface__ = owner.__cuda_array_interface__

    owner = backend.from_host(np.arange(4.0))
    taken = backend.asarray(Foreign(owner))
    taken += 1
    np.testing.assert_array_equal(to_host(owner), [1, 2, 3, 4])


@pytest.mark.cuda
def test_memory_used_follows_the_pool() -> None:
    backend = resolve("cuda")
    before = backend.memory_used()
    held = backend.zeros((1 << 18,), "float32")
    assert backend.memory_used() - before == held.nbytes
