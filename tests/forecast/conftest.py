"""What the tests of forecasts share."""

from __future__ import annotations

import pytest
from forecasters import small

from gpulstm.forecast.forecaster import Forecaster


@pytest.fixture(scope="session")
def fitted() -> Forecaster:
    """One small forecaster that no test changes."""
    return small(test=30)
