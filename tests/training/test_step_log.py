"""The log of an epoch: what it adds up to, and the latch that falls at the first step that is not finite."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpulstm.training.step_log import StepLog, first_bad, means


def test_the_step_log_latches(backend: Any) -> None:
    log = StepLog(backend, 5, np.float32)
    one = backend.from_host(np.asarray(1.0, "float32"))
    nan = backend.from_host(np.asarray(np.nan, "float32"))
    results = [float(log.record(k, nan if k == 2 else one, one, one, 3)) for k in range(5)]
    np.testing.assert_array_equal(results, [1, 1, np.nan, np.nan, np.nan])
    host = log.host(5)
    np.testing.assert_array_equal(host[0], [1, 1, np.nan, 1, 1])
    np.testing.assert_array_equal(host[2], [3] * 5)


def test_an_epoch_goes_on_from_what_the_host_kept(backend: Any) -> None:
    one = backend.from_host(np.asarray(1.0, "float32"))
    first, second = StepLog(backend, 4, np.float32), StepLog(backend, 4, np.float32)
    for step in range(2):
        first.record(step, one * (step + 1), one, one, 5)
    second.load(first.host(2))
    second.record(2, one * 3, one, one, 5)
    np.testing.assert_array_equal(second.host(3), [[1, 2, 3], [1, 1, 1], [5, 5, 5]])


def test_the_first_bad_step_is_that_of_a_loss_or_a_norm() -> None:
    log = np.ones((3, 4))
    assert first_bad(log) is None
    log[1, 3] = np.inf
    assert first_bad(log) == 3
    log[0, 2] = np.nan
    assert first_bad(log) == 2
    log[:] = 1
    log[2, 0] = np.nan  # how many targets there were is no reason to stop
    assert first_bad(log) is None


def test_losses_are_weighted_by_their_targets_and_norms_are_not() -> None:
    assert means(np.array([[1.0, 3.0], [2.0, 4.0], [1.0, 3.0]])) == (2.5, 3.0)
    assert means(np.array([[1.0], [2.0], [0.0]])) == (0.0, 2.0)  # an epoch without a target has no loss
