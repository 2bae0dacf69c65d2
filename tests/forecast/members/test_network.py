"""Network members: what they read, and that a window alone is said the same of."""

from __future__ import annotations

import numpy as np
import pytest

from gpulstm.forecast.forecaster import Forecaster
from gpulstm.forecast.members.network import patches
from gpulstm.forecast.results import MODEL


@pytest.mark.parametrize(("length", "patch"), [(5, 1), (15, 2), (25, 3), (192, 24)])
@pytest.mark.parametrize("extra", [0, 1, 4])
def test_a_window_is_read_in_about_eight_steps_and_then_what_is_known_besides(
    length: int, patch: int, extra: int
) -> None:
    horizon = 3
    columns = np.arange(length + horizon + extra + 1.0)
    x = patches(np.stack([columns, columns + 1000]), length, horizon, extra)
    assert x.shape == (2, length // patch + -(-extra // patch), patch)
    read = x[0].ravel()
    newest = length - length % patch
    np.testing.assert_array_equal(read[:newest], columns[length % patch : length])  # the oldest rows are left out
    np.testing.assert_array_equal(read[newest : newest + extra], columns[length + horizon : length + horizon + extra])
    assert not read[newest + extra :].any()
    np.testing.assert_array_equal(x[1, 0], x[0, 0] + 1000)


def test_networks_that_count_agree_in_float64() -> None:
    """A series that only a network forecasts: what it says of an origin does not depend on the others of a pass."""
    rng = np.random.default_rng(1)
    values = np.zeros(420)
    for row in range(1, 420):
        values[row] = 1.8 * np.abs(values[row - 1]) - 1 + 0.02 * rng.normal()
    model = Forecaster(1, device="cpu", dtype="float64", hidden_size=16, season=1, test=60)
    model.fit({"y": values}, progress=False)
    assert model.members is not None
    assert any(one["weight"] > 0 and one["name"].startswith("LSTM") for one in model.members["members"])
    result = model.backtest(stride=1)
    stream = model.stream(data={"y": values[:360]})
    for index in (0, 17, 59):
        origin = int(result.origins[index])
        alone = model.predict(data={"y": values[:origin]})
        np.testing.assert_allclose(alone.median[0], result.forecasts[MODEL][index], rtol=0, atol=1e-12)
        if origin > 360:
            rows = values[360 + stream.rows : origin, None]
            np.testing.assert_allclose(stream.update(rows).median, alone.median, rtol=0, atol=1e-12)
