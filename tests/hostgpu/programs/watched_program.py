"""A layer of more steps than a launch may take where the driver ends what runs for seconds; prints the launches."""

from __future__ import annotations

import os
import sys

import numpy as np

import gpulstm as gl
import hostgpu

os.environ |= {"GPULSTM_CUDA_FORM": "persistent", "GPULSTM_CUDA_GRAPH": "0"}
steps = int(sys.argv[1])
layer = gl.LSTM(1, 1, device="cuda", seed=0)
x = gl.to_device(np.random.default_rng(0).normal(size=(steps, 1, 1)).astype("float32"), "cuda")
with hostgpu.counting() as count:
    y, _, tape = layer.forward(x)
    layer.backward(tape, y)
print(count["kernels"]["gpulstm_forward_all"], count["kernels"]["gpulstm_backward_all"])
