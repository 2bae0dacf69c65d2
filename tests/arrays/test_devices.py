"""Devices by name, and those that are not there."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpulstm.arrays import cupy_backend
from gpulstm.arrays.devices import backend_of, namespace, one_device, processor, resolve, to_device, to_host
from gpulstm.errors import ConfigError, DeviceError


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", "", None, 0])
def test_unknown_devices_are_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="expected 'auto', 'cpu', 'cuda' or 'cuda:N'"):
        resolve(name)


def test_auto_is_the_cpu_where_cupy_finds_no_driver() -> None:
    """CuPy's wheel alone, as the tests install it, without the toolkit's libraries and without a driver."""
    bare = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "LD_LIBRARY_PATH")}
    code = "import gpulstm.arrays.devices as d; print(d.cuda_missing() is None, d.resolve('auto'))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**bare, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["False", "Backend('cpu')"]


@pytest.mark.cuda
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(DeviceError, match="device 'cuda:99' is not there: this machine has cuda:0 to cuda:"):
        resolve("cuda:99")


def test_a_backend_is_given_back_as_it_is() -> None:
    backend = resolve("cpu")
    assert resolve(backend) is backend
    assert backend_of(np.zeros(2)) is backend and namespace(np.zeros(2)) is np


def test_host_arrays_come_back_from_any_device(device: str) -> None:
    values = np.arange(6.0).reshape(2, 3)
    moved = to_device(values, device)
    assert backend_of(moved) is resolve(device)
    np.testing.assert_array_equal(to_host(moved), values)


def test_work_on_one_device_knows_it() -> None:
    with one_device(np.zeros(1), None, np.ones(2)) as backend:
        assert backend is resolve("cpu")


def test_the_name_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Linux gives it; elsewhere what Python knows."""
    assert processor()
    monkeypatch.setattr(Path, "is_file", lambda path: False)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert processor() == "riscv64"


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
    assert "pip install 'cupy-cuda12x[ctk]'" in reason
