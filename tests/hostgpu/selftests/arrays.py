"""CuPy arrays: creation, indexing, ufuncs, reductions, sorts, products, FFT, random numbers."""

import os
import pickle

import cupy as cp
import cupyx
import numpy as np

from selftests.tools import check, eq, rng


@check
def device():
    assert os.environ.get("HOSTGPU") == "1"
    assert cp.cuda.is_available() and cp.cuda.runtime.getDeviceCount() == int(os.environ.get("HOSTGPU_DEVICES") or 1)
    assert not cp.cuda.runtime.is_hip
    assert cp.cuda.Device().compute_capability == "90"
    assert b"simulator" in cp.cuda.runtime.getDeviceProperties(0)["name"]
    p = cp.cuda.runtime.getDeviceProperties(0)
    assert (
        p["warpSize"] == 32
        and p["major"] == 9
        and p["sharedMemPerBlockOptin"] == 232448
        and p["multiProcessorCount"] >= 1
    )
    free, total = cp.cuda.runtime.memGetInfo()
    assert 0 < free <= total


@check
def creation_and_copies():
    for dt in ["e", "f", "d", "i", "l", "?"]:
        eq(cp.zeros((3, 4), dt), np.zeros((3, 4), dt))
        eq(cp.ones((3, 4), dt), np.ones((3, 4), dt))
        eq(cp.full((2, 3), 1, dt), np.full((2, 3), 1, dt))
    eq(cp.arange(10), np.arange(10))
    x = rng.normal(size=(4, 5, 6))
    g = cp.asarray(x)
    eq(g, x)
    eq(g.get(), x)
    h = cp.empty((4, 5, 6))
    h.set(x)
    eq(h, x)
    eq(g.T, x.T)
    eq(cp.ascontiguousarray(g.T), x.T)
    eq(g[1:3, ::2], x[1:3, ::2])
    eq(g.reshape(20, 6), x.reshape(20, 6))
    eq(g.transpose(1, 0, 2).reshape(5, 24), x.transpose(1, 0, 2).reshape(5, 24))
    eq(cp.concatenate([g, h], 1), np.concatenate([x, x], 1))
    eq(cp.stack([g, h]), np.stack([x, x]))
    eq(g.astype("f"), x.astype("f"))
    eq(g.astype("e"), x.astype("e"))
    g += 1
    g[0] = 7
    y = x + 1
    y[0] = 7
    eq(g, y)
    eq(pickle.loads(pickle.dumps(g)), y)
    eq(cp.from_dlpack(g), y)


@check
def ufuncs():
    for dt, tol in (("e", 3e-3), ("f", 1e-5), ("d", 1e-13)):
        x, y = rng.normal(size=(2, 7, 9)).astype(dt)
        g, h = cp.asarray(x), cp.asarray(y)
        for n in [
            "exp",
            "tanh",
            "sin",
            "cos",
            "sqrt",
            "log",
            "abs",
            "negative",
            "floor",
            "isfinite",
            "isnan",
            "sign",
            "expm1",
            "log1p",
        ]:
            a = np.abs(x) if n in ("sqrt", "log", "log1p") else x
            eq(getattr(cp, n)(cp.asarray(a)), getattr(np, n)(a), tol)
        for n in [
            "add",
            "subtract",
            "multiply",
            "divide",
            "maximum",
            "minimum",
            "power",
            "arctan2",
            "greater",
            "less_equal",
            "equal",
        ]:
            a = np.abs(x) if n == "power" else x
            eq(getattr(cp, n)(cp.asarray(a), h), getattr(np, n)(a, y), tol * 3)
        eq(cp.where(g > 0, g, h), np.where(x > 0, x, y))
        eq(g.clip(-0.5, 0.5), x.clip(-0.5, 0.5))
        o = cp.empty_like(g)
        cp.add(g, h, out=o)
        eq(o, x + y, tol)
        assert bool(cp.all(cp.isfinite(g))) and bool(cp.any(g > 0))
    i, j = rng.integers(-50, 50, (5, 6)), rng.integers(1, 9, (5, 6))
    for n in ["add", "multiply", "floor_divide", "remainder", "bitwise_and", "maximum"]:
        eq(getattr(cp, n)(cp.asarray(i), cp.asarray(j)), getattr(np, n)(i, j))
    c = rng.normal(size=5) + 1j * rng.normal(size=5)
    eq(cp.exp(cp.asarray(c)) * cp.asarray(c).conj(), np.exp(c) * c.conj(), 1e-13)


@check
def indexing():
    x = rng.normal(size=(6, 7))
    g, ix = cp.asarray(x), np.array([0, 3, 5])
    eq(g[cp.asarray(ix)], x[ix])
    eq(g[:, cp.asarray(ix)], x[:, ix])
    eq(g[g > 0], x[x > 0])
    y = x.copy()
    g[g < 0] = 0
    y[y < 0] = 0
    g[cp.asarray(ix), 1] = 9
    y[ix, 1] = 9
    eq(g, y)
    eq(cp.nonzero(g > 1)[0], np.nonzero(y > 1)[0])
    w = cp.zeros(4, "f")
    cupyx.scatter_add(w, cp.asarray([0, 0, 2]), cp.asarray([1.0, 2.0, 3.0], "f"))
    eq(w, [3, 0, 3, 0])


@check
def reductions_and_sorts():
    for dt in "fdl":
        x = (rng.normal(size=(5, 33, 70)) * 10).astype(dt)
        g = cp.asarray(x)
        for ax in (None, 0, 2, (1, 2)):
            for n in ["sum", "max", "min", "mean", "var", "any", "all"]:
                b = getattr(x.astype("d") if dt == "f" else x, n)(axis=ax)
                np.testing.assert_allclose(
                    cp.asnumpy(getattr(g, n)(axis=ax)), b, rtol=2e-4 if dt == "f" else 1e-11, atol=1e-4
                )
        for ax in (None, 0, 2):
            eq(g.argmax(axis=ax), x.argmax(axis=ax))
    x = rng.normal(size=20000)
    g = cp.asarray(x)
    eq(cp.cumsum(g), np.cumsum(x), 1e-9)
    eq(cp.linalg.norm(g), np.linalg.norm(x), 1e-9)
    eq(cp.sort(g), np.sort(x))
    eq(cp.argsort(g), np.argsort(x))
    eq(cp.unique(cp.asarray([3, 1, 3, 2])), [1, 2, 3])


@check
def products():
    G = cp.asarray
    for dt, tol in (("e", 2e-2), ("f", 1e-4), ("d", 1e-12)):

        def r(*s, dt=dt):
            return rng.normal(size=s).astype(dt)

        a, b, A, B, v = r(5, 7), r(7, 4), r(3, 5, 7), r(3, 7, 4), r(7)
        eq(G(a) @ G(b), a @ b, tol)
        eq(G(A) @ G(B), A @ B, tol)
        eq(G(a) @ G(B), a @ B, tol)
        eq(G(A) @ G(b), A @ b, tol)
        eq(G(a) @ G(v), a @ v, tol)
        eq(cp.dot(G(v), G(v)), np.dot(v, v), tol)
        t = r(7, 5)
        eq(G(t).T @ G(b), t.T @ b, tol)
        big = r(14, 10)
        eq(G(big)[::2, ::2].T @ G(b), big[::2, ::2].T @ b, tol)
        o = cp.empty((5, 4), dt)
        cp.matmul(G(a), G(b), out=o)
        eq(o, a @ b, tol)
        o = cp.zeros((5, 8), dt)
        cp.matmul(G(a), G(b), out=o[:, :4])
        eq(o[:, :4], a @ b, tol)
        O = cp.empty((3, 5, 4), dt)
        cp.matmul(G(A), G(B), out=O)
        eq(O, A @ B, tol)
        eq(cp.tensordot(G(A), G(B), ((0, 2), (0, 1))), np.tensordot(A, B, ((0, 2), (0, 1))), tol * 10)
        eq(cp.einsum("bij,bjk->ik", G(A), G(B)), np.einsum("bij,bjk->ik", A, B), tol * 10)
        eq(cp.outer(G(v), G(v)), np.outer(v, v), tol)
    i = rng.integers(0, 9, (4, 5))
    eq(G(i) @ G(i.T), i @ i.T)


@check
def fft_and_random():
    z = rng.normal(size=(5, 12)) + 1j * rng.normal(size=(5, 12))
    eq(cp.fft.fft(cp.asarray(z)), np.fft.fft(z), 1e-11)
    eq(cp.fft.irfft(cp.fft.rfft(cp.asarray(z.real)), n=12), z.real, 1e-11)
    r = cp.random.RandomState(0)
    a = r.normal(size=10000)
    assert abs(float(a.mean())) < 0.05 and 0.95 < float(a.std()) < 1.05
    u = r.rand(1000)
    assert float(u.min()) >= 0 and float(u.max()) < 1
    eq(cp.random.RandomState(5).rand(8), cp.random.RandomState(5).rand(8).get())
