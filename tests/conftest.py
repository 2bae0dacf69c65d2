"""Fixtures for the whole suite: the devices to test on, random numbers, variables that calls are planned by."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
from variables import SetVariable

import gpulstm.arrays.backend
import gpulstm.arrays.native
from gpulstm.model.plan import forget_plans

os.environ.setdefault("GPULSTM_CUDA_VERIFY", "0")  # plans are those of the thresholds, on a GPU too


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse to skip: a `cuda` test without a device fails with the reason, unless deselected with -m 'not cuda'."""
    for item in items:
        if "device" in getattr(item, "fixturenames", ()) and "cuda" in item.name.split("[")[-1]:
            item.add_marker(pytest.mark.cuda)


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Signals are heard, which a job in the background or under nohup hands down as ignored."""
    names = {"SIGHUP": signal.SIG_DFL, "SIGINT": signal.default_int_handler}
    handlers = {getattr(signal, name): handler for name, handler in names.items() if hasattr(signal, name)}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> str:
    """Each test that asks for this runs on the CPU and, marked `cuda`, on a GPU or the simulator."""
    return request.param


@pytest.fixture
def backend(device: str) -> gpulstm.arrays.backend.Backend:
    """The backend of `device`."""
    return gpulstm.arrays.devices.resolve(device)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(20261)


@pytest.fixture
def no_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optimizers and losses as in an installation without native code."""
    monkeypatch.setattr(gpulstm.arrays.native, "load", lambda: None)


@pytest.fixture
def set_variable(monkeypatch: pytest.MonkeyPatch) -> Iterator[SetVariable]:
    """Sets an environment variable that calls are planned by, or with None unsets it; all plans are forgotten."""

    def change(name: str, value: str | None) -> None:
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
        forget_plans()

    yield change
    monkeypatch.undo()
    forget_plans()
