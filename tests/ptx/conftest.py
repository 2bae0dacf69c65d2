"""The toolkits whose NVRTC compiles the kernels."""

from __future__ import annotations

import nvrtc
import pytest


@pytest.fixture(scope="session")
def toolkit() -> nvrtc.Toolkit:
    """The oldest toolkit that is installed."""
    toolkits = nvrtc.toolkits()
    assert toolkits, nvrtc.MISSING
    return toolkits[0]


@pytest.fixture(scope="session")
def newest() -> nvrtc.Toolkit:
    """The newest."""
    toolkits = nvrtc.toolkits()
    assert toolkits, nvrtc.MISSING
    return toolkits[-1]
