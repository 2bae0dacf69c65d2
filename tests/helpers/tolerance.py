"""How far results may lie from the expected ones, by dtype and kind: relative to the norm or largest value of an array.

In float64 two ways to compute the same thing differ by the order of their sums.  The others are compared with float64
on the same numbers: float32 rounds sums over hidden units and steps, and gradients pass each step twice.  float16 and
bfloat16 are storage with float32 arithmetic: each step stores states, gates and gradients rounded to 11 bits (relative
5e-4) or 8 (4e-3).  "half" is the reference itself in float16, which rounds each operation, and where a bound of `clip`
may then hold on one side and not on the other.  TF32 has factors of 10 bits.
"""

from __future__ import annotations

PRODUCT = {"float64": 1e-13, "float32": 1e-5, "float16": 2e-3, "TF32": 2e-3}  # one product of matrices
# Outputs and states; gradients; all of a layer over a few steps.
FORWARD = {
    "float64": 1e-12,
    "float32": 1e-5,
    "float16": 2e-3,
    "bfloat16": 2e-2,
    "half": 5e-3,
    "TF32": 5e-3,
}  # outputs and states
GRADIENT = {"float64": 1e-12, "float32": 1e-4, "float16": 1e-2, "bfloat16": 8e-2, "half": 5e-2, "TF32": 5e-3}
FEW_STEPS = {
    "float64": 1e-12,
    "float32": 2e-5,
    "float16": 5e-3,
    "bfloat16": 4e-2,
    "TF32": 5e-3,
}  # all of a layer over a few steps
DIFFERENCES = 1e-7  # a gradient in float64 next to central differences, whose step is 1e-6
