"""Training in 16 bits: weights in float32 next to their copies in half precision, and for float16 a loss scale.

bfloat16 has the exponents of float32, so its gradients need no scale.  A float16 holds nothing below 6e-8, and many
gradients are smaller.  So the loss is multiplied by a large number before the backward pass and the gradients are
divided by it afterward, in float32 (Micikevicius et al. 2018, arXiv:1710.03740).  A scale that is too large makes
gradients infinite: such a step is left out and the scale halved; after many good steps it is doubled.  All of that is
decided on the device, and the host waits for nothing.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from gpulstm.arrays.backend import Array, Backend
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.params import ParamDict

FIRST = 65536.0  # the scale of the first step
MOST = 16777216.0
INTERVAL = 2000  # good steps after which it is doubled

_UNSCALE = "out = (float)half_ / state[0];"
_GUARD = """
    bool over = !isfinite(norm) && state[0] > 1.0f;
    norm_out = over ? 0.0f : norm;
    factor_out = over ? nanf("") : factor;
"""
_MOVE = """
    float scale = state[0], good = state[1] + 1.0f;
    if (isnan(factor[0])) { scale = fmaxf(0.5f * scale, 1.0f); good = 0.0f; }
    else if (good >= interval) { scale = fminf(2.0f * scale, most); good = 0.0f; }
    state[0] = scale; state[1] = good;
"""


def masters(params: ParamDict) -> ParamDict:
    """float32 weights with the values of parameters in half precision."""
    copies = params.like("float32")
    with params.backend.activate():
        copies.flat[...] = params.flat
    return copies


class LossScale:
    """The scale of the loss and how many good steps it has seen, `state (2,)` float32 on the device.

    Args:
        backend: a GPU.
        interval: good steps after which the scale is doubled.
    """

    def __init__(self, backend: Backend, interval: int = INTERVAL) -> None:
        self.backend, self.interval = cast(CupyBackend, backend), interval
        self.state: Array = backend.from_host(np.array([FIRST, 0.0], np.float32))

    def scaled(self, draw: Array) -> Array:
        """The gradient of a float32 loss as that of the scaled one, in float16."""
        return (draw * self.state[0]).astype("float16")

    def unscale(self, halves: Array, out: Array) -> None:
        """out = halves / scale, flat; an infinity or NaN stays one."""
        kernel = self.backend.elementwise(
            "gpulstm_unscale", "float16 half_, raw float32 state", "float32 out", _UNSCALE
        )
        kernel(halves, self.state, out)

    def guarded(self, norm: Array, factor: Array) -> tuple[Array, Array]:
        """What to go on with from the norm of the gradients and what clipping multiplies them by.

        Where the scale was too large: a norm of 0 and a factor of NaN, which makes the optimizer leave the step out.
        With a scale of 1 there is nothing to halve, and the norm stays what it is: the run has diverged.
        """
        kernel = self.backend.elementwise(
            "gpulstm_guard",
            "float32 norm, float32 factor, raw float32 state",
            "float32 norm_out, float32 factor_out",
            _GUARD,
        )
        return kernel(norm, factor, self.state)

    def move(self, factor: Array) -> None:
        """After a step with this factor of `guarded`: halve the scale, count the step, or double it."""
        kernel = self.backend.elementwise(
            "gpulstm_loss_scale", "raw float32 factor, float32 interval, float32 most", "raw float32 state", _MOVE
        )
        with self.backend.activate():
            kernel(factor.reshape(1), self.interval, MOST, self.state, size=1)

    def restore(self, state: Any) -> None:
        """Take back what a checkpoint has kept."""
        with self.backend.activate():
            self.state[...] = self.backend.from_host(state)
