"""The losses and gradient norms of an epoch, kept on the device, and a latch that falls once one is not finite.

Nothing here waits for the device until `host` is asked for.  The latch makes the optimizer leave the weights alone from
the first bad step on (a NaN scale), so that when the host looks, some steps later, the weights are still those that the
bad step began with, and the cause can be named.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array, Backend

_LOSS, _NORM, _AMOUNT = range(3)

_BODY = """
    log[k] = loss; log[steps + k] = norm; log[2 * steps + k] = amount;
    good[0] = good[0] && isfinite(loss) && isfinite(norm);
    guarded = good[0] ? scale : T(nan(""));
"""


class StepLog:
    """Room for the steps of one epoch.

    Args:
        backend: where it lies.
        steps: of the epoch.
        dtype: of losses and norms as they come.
    """

    def __init__(self, backend: Backend, steps: int, dtype: Any) -> None:
        self._backend, self._dtype = backend, dtype
        self._log = backend.zeros((3, steps), np.float64)
        self._good = backend.from_host(np.ones(1, dtype=bool))

    def record(self, step: int, loss: Array, norm: Array, scale: Array, amount: Any) -> Array:
        """Note a step.

        Args:
            step: of the epoch, from 0.
            loss, norm, scale: 0-d arrays on the device: the loss, the gradients' norm and what clipping multiplies
                them by.
            amount: how many targets the loss is the mean of, a number or a 0-d array on the device.

        Returns:
            `scale`, or NaN once a loss or norm was not finite: a 0-d array on the device.
        """
        if not self._backend.is_cuda:
            self._log[:, step] = loss, norm, amount
            self._good[0] &= math.isfinite(loss) and math.isfinite(norm)
            return scale if self._good[0] else np.asarray(math.nan, self._dtype)
        with self._backend.activate():
            kernel = self._backend.elementwise(  # type: ignore[attr-defined]
                "gpulstm_step_log",
                "T loss, T norm, T scale, T amount, int64 k, int64 steps",
                "raw float64 log, raw bool good, T guarded",
                _BODY,
            )
            guarded = self._backend.xp.empty((), self._dtype)
            kernel(loss, norm, scale, amount, step, self._log.shape[1], self._log.reshape(-1), self._good, guarded)
            return guarded

    def host(self, steps: int) -> np.ndarray:
        """Losses, norms and amounts of the first `steps` steps, `(3, steps)` float64; waits for the device."""
        return self._backend.to_host(self._log[:, :steps])

    def load(self, log: np.ndarray) -> None:
        """Take back what `host` gave, as the first steps of this epoch."""
        self._log[:, : log.shape[1]] = self._backend.from_host(log)


def first_bad(log: np.ndarray) -> int | None:
    """The first step of a log from `StepLog.host` whose loss or gradient norm is not finite, or None."""
    bad = np.flatnonzero(~np.isfinite(log[[_LOSS, _NORM]]).all(axis=0))
    return int(bad[0]) if bad.size else None


def means(log: np.ndarray) -> tuple[float, float]:
    """The mean loss, weighted by the amounts, and the mean gradient norm."""
    total = log[_AMOUNT].sum()
    loss = float((log[_LOSS] * log[_AMOUNT]).sum() / total) if total > 0 else 0.0
    return loss, float(log[_NORM].mean())
