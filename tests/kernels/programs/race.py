"""A race made on purpose, which ThreadSanitizer must report: threads that step the same weights."""

from __future__ import annotations

import threading

import numpy as np

import gpulstm as gl
from gpulstm import optimizers

gl.set_num_threads(1)
model, adam = gl.LSTM(8, 64, device="cpu"), optimizers.Adam()
adam.init(model.params)
y, _, tape = model.forward(np.ones((5, 4, 8), "float32"), training=True)
_, _, grads = model.backward(tape, np.ones_like(y))


def steps() -> None:
    """Many of them, so that the threads meet."""
    for _ in range(300):
        adam.step(model.params, grads, rate=1e-3)


threads = [threading.Thread(target=steps) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
