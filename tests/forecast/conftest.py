"""What the tests of forecasts share."""

from __future__ import annotations

import pytest
from forecasters import fitted_to, months, small

from gpulstm.forecast.forecaster import Forecaster


@pytest.fixture(scope="session")
def fitted() -> Forecaster:
    """One small forecaster that no test changes."""
    return small(test=30)


@pytest.fixture(scope="session")
def mixture() -> Forecaster:
    """One default forecaster that no test changes."""
    return fitted_to(months(), test=30)
