"""Chunks of host arrays whose results stay on the device, on streams that run late: `HOSTGPU_LAZY=1`.

Two sequences follow each other at once, so that the second one's copies come while the first one's are under way, and
a sequence is left early while its next chunk is being read ahead.
"""

import numpy as np

import gpulstm as gl
from gpulstm.arrays.devices import resolve

xp = resolve("cuda").xp
layer = gl.LSTM(64, 64, device="cuda", seed=0)
rng = np.random.default_rng(0)
sequences = [rng.normal(size=(96, 4, 64)).astype("float32") for _ in range(2)]
expected = [xp.asnumpy(layer(xp.asarray(sequence))[0]) for sequence in sequences]
outputs = [list(layer.chunks(sequence, steps=32)) for sequence in sequences]  # nothing waits
for whole, parts in zip(expected, outputs, strict=True):
    assert np.array_equal(np.concatenate([xp.asnumpy(part) for part in parts]), whole)

chunks = layer.chunks(sequences[0], steps=32)
next(chunks)
del chunks
zeros = [xp.zeros((32, 4, 64), "float32") for _ in range(30)]
xp.cuda.Device().synchronize()
assert max(float(abs(array).max()) for array in zeros) == 0
print("ok")
