"""CuPy underneath: copies under way, foreign arrays, the mode of cuBLAS, a card that nothing can be compiled for."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from variables import SetVariable

import hostgpu
from gpulstm.arrays import cupy_backend
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import resolve, to_host
from gpulstm.errors import DeviceError

PROGRAMS = Path(__file__).parent / "programs"

pytestmark = pytest.mark.cuda


@pytest.fixture
def cuda() -> CupyBackend:
    """The first device."""
    backend = resolve("cuda")
    assert isinstance(backend, CupyBackend)
    return backend


@pytest.mark.parametrize("lazy", ["0", "1"])
def test_buffers_of_copies_under_way_are_kept(lazy: str) -> None:
    run = subprocess.run(
        [sys.executable, str(PROGRAMS / "pinned_uploads.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "HOSTGPU_LAZY": lazy},
    )
    assert run.stdout == "ok\n", run.stderr


def test_uploads_of_several_sequences_at_once(cuda: CupyBackend) -> None:
    parts = [np.full((50 + size, 3), size, "f") for size in range(5)]
    one, two = cuda.uploads(parts, "float32"), cuda.uploads(parts[::-1], "float64")
    together = list(zip(one, two, strict=True))
    for (left, right), expected, other in zip(together, parts, parts[::-1], strict=True):
        assert (left.dtype, right.dtype) == ("float32", "float64")
        assert np.array_equal(to_host(left), expected)
        assert np.array_equal(to_host(right), other)


def test_uploads_of_several_threads(cuda: CupyBackend) -> None:
    results: dict[int, list[np.ndarray]] = {}

    def upload(number: int) -> None:
        parts = [np.full((100, 7), 10 * number + part, "f") for part in range(6)]
        results[number] = [to_host(array) for array in cuda.uploads(parts, "float32")]

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(3):
        assert [float(array.min()) for array in results[number]] == [10 * number + part for part in range(6)]
        assert all(array.min() == array.max() for array in results[number])


def test_constants_are_kept_for_good(cuda: CupyBackend) -> None:
    first = cuda.constant((0.25, 4.0), "float32")
    for number in range(300):
        cuda.constant((float(number),), "float64")
    assert cuda.constant((0.25, 4.0), "float32") is first


class Speaker:
    """A foreign array that offers DLPack and the older interface, and says which was taken."""

    def __init__(self, array: Any, kind: int = 2) -> None:
        self.array, self.kind, self.taken = array, kind, ""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        self.taken += "interface"
        return self.array.__cuda_array_interface__

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.kind, 0)

    def __dlpack__(self, **options: Any) -> Any:
        self.taken += "dlpack"
        return self.array.__dlpack__(**options)


def test_dlpack_goes_before_the_older_interface(cuda: CupyBackend) -> None:
    foreign = Speaker(cuda.from_host(np.arange(5.0)))
    assert np.array_equal(to_host(cuda.asarray(foreign)), np.arange(5.0))
    assert foreign.taken == "dlpack"


def test_pinned_host_memory_is_on_the_host(cuda: CupyBackend) -> None:
    pinned = Speaker(np.arange(5.0), kind=3)
    with pytest.raises(DeviceError, match=r"x is a Speaker on the host but the model is on cuda:0"):
        cuda.asarray(pinned, name="x")


@pytest.mark.parametrize(("tf32", "expected"), [("1", [3, 0]), ("0", []), (None, [])])
def test_tf32_reaches_cublas(
    tf32: str | None, expected: list[int], cuda: CupyBackend, monkeypatch: pytest.MonkeyPatch, set_variable: SetVariable
) -> None:
    modes: list[int] = []
    library = cuda.xp.cuda.cublas
    original = library.setMathMode

    class Library:
        """cuBLAS as CuPy binds it, with its modes written down."""

        def __getattr__(self, name: str) -> Any:
            return getattr(library, name)

        def setMathMode(self, handle: int, mode: int) -> None:
            modes.append(mode)
            original(handle, mode)

    monkeypatch.setattr(cuda.xp.cuda, "cublas", Library())
    set_variable("CUPY_TF32", None)
    if tf32 is not None:
        set_variable("CUPY_TF32", tf32)
    a, b, out = (cuda.from_host(np.ones(size, "f")) for size in ((3, 4), (4, 5), (3, 5)))
    cuda.gemm(a, b, out)
    assert modes == (expected if cuda.capability >= 80 else [])
    assert np.array_equal(to_host(out), np.full((3, 5), 4, "f"))


def test_a_card_that_nothing_can_be_compiled_for_is_said_in_one_sentence() -> None:
    code = (
        "import gpulstm.arrays.devices as d\n"
        "print(d.resolve('auto'))\n"
        "try: d.resolve('cuda')\n"
        "except Exception as e: print(type(e).__name__, e)\n"
    )
    environment = {**os.environ, "HOSTGPU_CAPABILITY": "70", "HOSTGPU_NVRTC_OLDEST": "75"}
    if not hostgpu.simulated():
        assert cupy_backend._cannot_compile(0) is None
        return
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    auto, asked = run.stdout.splitlines()
    assert auto == "Backend('cpu')"
    assert asked.startswith("DeviceError device 'cuda' cannot be used: CUDA 12.9 compiles no kernel for")
    assert "of compute capability 7.0 (nvrtc: error: invalid value for --gpu-architecture" in asked


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
