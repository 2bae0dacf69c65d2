"""The toolkits whose NVRTC compiles the kernels."""

from __future__ import annotations

import nvrtc
import pytest


@pytest.fixture(scope="session")
def toolkit() -> nvrtc.Toolkit:
    """The oldest toolkit that is installed."""
    found = nvrtc.toolkits()
    assert found, nvrtc.MISSING
    return found[0]


@pytest.fixture(scope="session")
def newest() -> nvrtc.Toolkit:
    """The newest."""
    found = nvrtc.toolkits()
    assert found, nvrtc.MISSING
    return found[-1]
