"""Streams, events, memory, graphs."""

import cupy as cp
import cupyx
import numpy as np

from selftests.tools import check, eq, raises, rng, settle


@check
def streams_and_events():
    s = cp.cuda.Stream(non_blocking=True)
    with s:
        e0 = s.record()
        a = cp.arange(100) * 2
        e1 = s.record()
        b = a.sum()
    s.synchronize()
    assert int(b) == 9900
    e1.synchronize()
    assert cp.cuda.get_elapsed_time(e0, e1) >= 0 and s.done and e1.done
    s2, seen = cp.cuda.Stream(), []
    s2.wait_event(e1)
    s2.launch_host_func(seen.append, 5)
    s2.synchronize()
    assert seen == [5]
    r = cupyx.profiler.benchmark(lambda: cp.arange(10) + 1, n_repeat=3)
    assert r.gpu_times.shape[1] == 3


@check
def memory():
    p = cp.get_default_memory_pool()
    u = p.used_bytes()
    z = cp.zeros(1000)
    assert p.used_bytes() >= u + 8000
    del z
    assert p.used_bytes() == u
    s = cp.cuda.Stream(non_blocking=True)
    h = cupyx.empty_pinned(100, "d")
    h[:] = np.arange(100)
    d = cp.empty(100)
    settle()
    d.set(h, stream=s)
    s.synchronize()
    eq(d, np.arange(100.0))
    h2 = cupyx.empty_pinned(100, "d")
    d.get(out=h2, stream=s)
    s.synchronize()
    eq(h2, np.arange(100.0))

    def kind(q):
        return cp.cuda.runtime.pointerGetAttributes(q).type

    assert kind(d.data.ptr) == 2 and kind(h.ctypes.data) == 1 and kind(np.zeros(3).ctypes.data) == 0
    m = cp.cuda.malloc_managed(80)
    assert kind(m.ptr) == 3
    total = cp.cuda.runtime.memGetInfo()[1]
    raises(cp.cuda.runtime.CUDARuntimeError, "out of memory", lambda: cp.cuda.runtime.malloc(total + 1))
    # a host address is not device memory, and the other way round
    raises(
        cp.cuda.runtime.CUDARuntimeError,
        "invalid argument",
        lambda: cp.cuda.runtime.memcpy(h.ctypes.data, np.zeros(3).ctypes.data, 8, 2),
    )
    raises(
        cp.cuda.runtime.CUDARuntimeError,
        "invalid argument",
        lambda: cp.cuda.runtime.memcpy(d.data.ptr, d.data.ptr, 8, 1),
    )


@check
def graphs():
    s = cp.cuda.Stream(non_blocking=True)
    W = cp.asarray(rng.normal(size=(16, 16)).astype("f"))
    x, y, t, total = cp.zeros(16, "f"), cp.full(16, -1.0, "f"), cp.empty(16, "f"), cp.empty((), "f")
    mv = cp.ElementwiseKernel(
        "raw float32 W, raw float32 x", "float32 t", "t = 0; for (int j = 0; j < 16; ++j) t += W[i*16+j]*x[j];", "st_mv"
    )
    act = cp.ElementwiseKernel("T a", "T b", "b = tanh(a)*2", "st_act")

    def body():
        mv(W, x, t)
        act(t, y)
        cp.add(y, 1, out=y)
        y.sum(out=total)

    settle()
    with s:
        body()
    s.synchronize()
    y.fill(-1)
    settle()
    with s:
        s.begin_capture()
        assert s.is_capturing()
        body()
        g = s.end_capture()
    s.synchronize()
    eq(y, np.full(16, -1.0, "f"))  # nothing ran at capture
    for _ in range(3):
        v = rng.normal(size=16).astype("f")
        x.set(v)
        settle()
        g.launch(s)
        s.synchronize()
        ref = np.tanh(W.get() @ v) * 2 + 1
        eq(y, ref, 1e-5)
        eq(total, ref.sum(), 1e-5)
    # fork and join
    s2 = cp.cuda.Stream(non_blocking=True)
    a, b = cp.zeros(4), cp.zeros(4)
    settle()
    with s:
        s.begin_capture()
        a += 1
        s2.wait_event(s.record())
        with s2:
            b += a
            e = s2.record()
        s.wait_event(e)
        a += b
        g = s.end_capture()
    g.launch(s)
    g.launch(s)
    s.synchronize()
    eq(b, np.full(4, 4.0))
    eq(a, np.full(4, 7.0))


@check
def graph_errors():
    err = cp.cuda.runtime.CUDARuntimeError
    s, s2 = cp.cuda.Stream(non_blocking=True), cp.cuda.Stream(non_blocking=True)
    a = cp.zeros(4)
    settle()
    with s:
        a += 1
        s.begin_capture()
        a += 1
        raises(err, "cudaErrorStreamCaptureUnsupported", s.synchronize)
        raises(err, "cudaErrorStreamCaptureInvalidated", s.end_capture)
        s.begin_capture()
        a += 1
        s2.wait_event(s.record())
        with s2:
            a += 1
        raises(err, "cudaErrorStreamCaptureUnjoined", s.end_capture)
        a += 1
    s.synchronize()
    eq(a, np.full(4, 2.0))
    b = cp.cuda.Stream()  # a blocking stream
    with b:
        b.begin_capture()
        a * 2
    raises((err, cp.cuda.driver.CUDADriverError), "legacy", lambda: a * 2)
    raises(err, "Invalidated", b.end_capture)
    # CuPy 14 itself refuses cuBLAS in a capture, here as on a GPU
    with s:
        s.begin_capture()
        raises(NotImplementedError, "cuBLAS", lambda: cp.ones((2, 2)) @ cp.ones((2, 2)))
        s.end_capture()
