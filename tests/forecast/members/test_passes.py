"""Windows in runs of fixed sizes."""

from __future__ import annotations

import numpy as np
import pytest

from gpulstm.forecast.members.passes import in_passes


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 63, 64, 65, 200])
def test_every_row_comes_back_once_and_runs_have_few_sizes(count: int) -> None:
    sizes = []

    def rule(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
        sizes.append(len(x))
        return [x + y[:, None], y]

    x, y = np.arange(3.0 * count).reshape(count, 3), np.arange(float(count))
    both, second = in_passes(rule, 64, 8, x, y)
    np.testing.assert_array_equal(both, x + y[:, None])
    np.testing.assert_array_equal(second, y)
    assert all(size % 8 == 0 and 0 < size <= 64 for size in sizes) and sum(sizes) < max(count, 1) + 8


def test_a_product_of_a_row_is_that_among_others() -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(300, 50)), rng.normal(size=(50, 5))
    together = in_passes(lambda rows: [rows @ weights], 32, 32, x)[0]
    for row in (0, 31, 299):
        alone = in_passes(lambda rows: [rows @ weights], 32, 32, x[[row]])[0]
        np.testing.assert_array_equal(alone[0], together[row])
