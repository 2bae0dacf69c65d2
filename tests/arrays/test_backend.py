"""Devices, transfers, and what is refused instead of moved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpulstm.arrays.backend import Backend
from gpulstm.arrays.devices import backend_of, resolve, to_device, to_host
from gpulstm.errors import DeviceError, DTypeError


def test_cpu_is_numpy() -> None:
    backend = resolve("cpu")
    assert backend.xp is np
    assert resolve(backend) is backend
    assert not backend.is_cuda


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


def test_round_trip(backend: Backend) -> None:
    x = np.arange(6.0).reshape(2, 3)
    moved = to_device(x, backend)
    assert backend.owns(moved)
    assert backend_of(moved) is backend
    assert to_device(moved, backend) is moved
    np.testing.assert_array_equal(to_host(moved), x)
    backend.synchronize()


@pytest.mark.cuda
def test_host_arrays_do_not_go_to_the_gpu_on_their_own() -> None:
    with pytest.raises(DeviceError, match=r"x is a ndarray on the host but the model is on cuda:0; move it with"):
        resolve("cuda").asarray(np.zeros(3), name="x")
    with pytest.raises(DeviceError, match=r"x is a list on the host but the model is on cuda:0"):
        resolve("cuda").asarray([1.0], name="x")
