"""What the checks of the simulator share."""

import os
import subprocess
import sys

import cupy as cp
import numpy as np

rng = np.random.default_rng(0)
CHECKS = []


def check(f):
    CHECKS.append(f)
    return f


def eq(a, b, tol=0):
    a, b = cp.asnumpy(a), np.asarray(b)
    assert a.shape == b.shape, (a.shape, b.shape)
    if tol:
        np.testing.assert_allclose(a, b, rtol=tol, atol=tol)
    else:
        np.testing.assert_array_equal(a, b)


def raises(exc, text, f):
    error = None
    try:
        f()
    except exc as e:
        error = str(e)
    assert error is not None, f"{exc.__name__} was not raised"
    assert text in error, error


def settle():
    """Wait for the default stream: non-blocking streams do not wait for it."""
    cp.cuda.Stream.null.synchronize()


def run_child(code, env=()):
    head = "import cupy as cp, numpy as np, faulthandler; faulthandler.enable()\n"
    r = subprocess.run(
        [sys.executable, "-c", head + code], capture_output=True, text=True, env={**os.environ, **dict(env)}
    )
    return r.returncode, r.stdout + r.stderr
