// The gates and the state update of LSTM, GRU and RNN, forward and backward, for one hidden unit.
//
// This is the one place where compiled code states these equations; gpulstm/engines/cells.py states them in Python.
// Nothing here knows of memory, threads or time.  R is the type to compute in: float or double, or (for the CPU) a
// vector type with the usual operators and overloads of gl_tanh and gl_where_positive.  Compiles under NVRTC, nvcc and
// a host C++ compiler.
//
// Names: z pre-activation, a its input part, u its recurrent part; dx is the gradient of the loss with respect to x.
#ifndef GPULSTM_GATES_H
#define GPULSTM_GATES_H

#include "equations/inline.h"

#ifndef GPULSTM_OWN_TANH
#if !defined(__CUDACC__) && !defined(__CUDACC_RTC__)
#include <math.h>
#endif
GL_INLINE float gl_tanh(float x) { return tanhf(x); }
GL_INLINE double gl_tanh(double x) { return tanh(x); }
#endif

// v where x > 0, else 0.
GL_INLINE float gl_where_positive(float x, float v) { return x <= 0.0f ? 0.0f : v; }  // a NaN in x lets v through
GL_INLINE double gl_where_positive(double x, double v) { return x <= 0.0 ? 0.0 : v; }

template <typename R>
GL_INLINE R gl_sigmoid(R z) {
    return R(0.5) * gl_tanh(R(0.5) * z) + R(0.5);
}

// ---- LSTM: c = f * c_old + i * g, h = o * tanh(c) --------------------------------------------------------------
template <typename R>
GL_INLINE R gl_lstm_memory(R i, R f, R g, R c_old) {
    return f * c_old + i * g;
}

// In: z_* pre-activations, c_old.  Out: the gates i, f, g, o (in place of z_*), c, and h by value.
template <typename R>
GL_INLINE R gl_lstm(R& i, R& f, R& g, R& o, R c_old, R& c) {
    i = gl_sigmoid(i);
    f = gl_sigmoid(f);
    g = gl_tanh(g);
    o = gl_sigmoid(o);
    c = gl_lstm_memory(i, f, g, c_old);
    return o * gl_tanh(c);
}

// In: gates, c_old, c, dh, dc (of c_t from the step after).  Out: dz_* (in place of the gates), dc of c_old by value.
template <typename R>
GL_INLINE R gl_lstm_backward(R& i, R& f, R& g, R& o, R c_old, R c, R dh, R dc) {
    R r = gl_tanh(c);
    R d = dc + dh * o * (R(1) - r * r);
    R dc_old = d * f;
    R dz_i = d * g * i * (R(1) - i);
    R dz_f = d * c_old * f * (R(1) - f);
    R dz_g = d * i * (R(1) - g * g);
    R dz_o = dh * r * o * (R(1) - o);
    i = dz_i;
    f = dz_f;
    g = dz_g;
    o = dz_o;
    return dc_old;
}

// ---- GRU, reset after the product: n = tanh(a_n + r * s), s = u_n + b_hn, h = (1 - z) * n + z * h_old -----------
// In: r, z pre-activations, n = a_n, s, h_old.  Out: the gates in place, h by value.
template <typename R>
GL_INLINE R gl_gru(R& r, R& z, R& n, R s, R h_old) {
    r = gl_sigmoid(r);
    z = gl_sigmoid(z);
    n = gl_tanh(n + r * s);
    return (R(1) - z) * n + z * h_old;
}

// In: gates, s, h_old, dh.  Out: da_r, da_z, da_n in place of the gates, ds in place of s, dh_old (the way around the
// product) by value.
template <typename R>
GL_INLINE R gl_gru_backward(R& r, R& z, R& n, R& s, R h_old, R dh) {
    R da_n = dh * (R(1) - z) * (R(1) - n * n);
    R da_r = da_n * s * r * (R(1) - r);
    R da_z = dh * (h_old - n) * z * (R(1) - z);
    R dh_old = dh * z;
    s = da_n * r;
    r = da_r;
    z = da_z;
    n = da_n;
    return dh_old;
}

// ---- RNN: h = tanh(z) or max(z, 0) ------------------------------------------------------------------------------
template <typename R>
GL_INLINE R gl_rnn(R z, bool relu) {
    return relu ? gl_where_positive(z, z) : gl_tanh(z);
}

template <typename R>
GL_INLINE R gl_rnn_backward(R h, R dh, bool relu) {
    return relu ? gl_where_positive(h, dh) : dh * (R(1) - h * h);
}

#endif
