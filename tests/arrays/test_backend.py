"""Devices, transfers, and what is refused instead of moved."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from gpulstm.arrays import cupy_backend
from gpulstm.arrays.backend import Backend
from gpulstm.arrays.devices import backend_of, resolve, to_device, to_host
from gpulstm.arrays.kernel_source import kernel_preamble
from gpulstm.arrays.random import host_generator
from gpulstm.errors import ConfigError, DeviceError, DTypeError


def test_cpu_is_numpy() -> None:
    backend = resolve("cpu")
    assert backend.xp is np
    assert resolve(backend) is backend
    assert not backend.is_cuda
    assert backend.memory_used() > 1 << 20


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", "", None, 0])
def test_unknown_devices_are_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="expected 'auto', 'cpu', 'cuda' or 'cuda:N'"):
        resolve(name)


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


@pytest.mark.parametrize("value", [[1, 2, 3], (1.0, 2.0), np.arange(3), np.float32(2), True])
def test_the_cpu_takes_what_numpy_takes(value: Any) -> None:
    taken = resolve("cpu").asarray(value, "float32")
    assert taken.dtype == np.float32
    np.testing.assert_array_equal(taken, np.asarray(value, "float32"))


def test_no_copy_without_need() -> None:
    x = np.zeros(3, "float32")
    assert resolve("cpu").asarray(x) is x
    assert resolve("cpu").asarray(x, "float32") is x


@pytest.mark.parametrize("value", [np.zeros(2, complex), np.array(["a"]), np.array([None])])
def test_other_than_real_numbers_are_refused(value: np.ndarray) -> None:
    with pytest.raises(DTypeError, match=r"x has dtype .*, expected real numbers"):
        resolve("cpu").asarray(value, name="x")


class Elsewhere:
    """An array of another library on a CUDA device."""

    def __dlpack__(self) -> None:
        raise AssertionError("must not be asked for its memory")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 3


def test_arrays_of_a_gpu_do_not_come_to_the_cpu_on_their_own() -> None:
    with pytest.raises(
        DeviceError, match=r"x lives on cuda:3 but the model is on cpu; move it with gpulstm.to_host\(x\)"
    ):
        resolve("cpu").asarray(Elsewhere(), name="x")


def test_dlpack_from_the_host() -> None:
    import array_api_strict

    x = array_api_strict.asarray([1.0, 2.0])
    np.testing.assert_array_equal(resolve("cpu").asarray(x), [1.0, 2.0])


def test_generators_repeat_and_differ_by_stream() -> None:
    first, again, other = (host_generator(7, *stream).random(4) for stream in ((1, 2), (1, 2), (2, 1)))
    np.testing.assert_array_equal(first, again)
    assert not np.any(first == other)


def test_a_preamble_holds_each_header_once() -> None:
    text = kernel_preamble(("cuda/state.cuh",))
    assert '#include "' not in text
    assert text.count("#define GPULSTM_INLINE_H") == text.count("#define GPULSTM_GATES_H") == 1


def test_round_trip(backend: Backend) -> None:
    x = np.arange(6.0).reshape(2, 3)
    there = to_device(x, backend)
    assert backend.owns(there)
    assert backend_of(there) is backend
    assert to_device(there, backend) is there
    np.testing.assert_array_equal(to_host(there), x)
    backend.synchronize()


@pytest.mark.cuda
def test_host_arrays_do_not_go_to_the_gpu_on_their_own() -> None:
    with pytest.raises(DeviceError, match=r"x is a ndarray on the host but the model is on cuda:0; move it with"):
        resolve("cuda").asarray(np.zeros(3), name="x")
    with pytest.raises(DeviceError, match=r"x is a list on the host but the model is on cuda:0"):
        resolve("cuda").asarray([1.0], name="x")


@pytest.mark.cuda
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(DeviceError, match="device 'cuda:99' is not there: this machine has cuda:0 to cuda:"):
        resolve("cuda:99")


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
