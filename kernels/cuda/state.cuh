// One time step of a layer as an elementwise kernel: element e of B*H is one hidden unit of one batch row.
//
// These functions load, call gates.h, apply what is not the cell's (lengths, zoneout, recurrent dropout) and store.
// T is the storage type, R the type to compute in (float for half).  A pointer that is null switches its option off;
// the callers pass literal nullptr there, so the compiler drops the branch.
//
// States lie in time order in slots, hs[T+1][B][H]; step t reads slot `from` and writes slot `to` (t and t+1 forwards,
// t+1 and t backwards in time), so that all h_{t-1} are one matrix for the gradient of W_h, and y is hs without h_0.
#ifndef GPULSTM_STATE_CUH
#define GPULSTM_STATE_CUH

#include "equations/gates.h"

// Where element e of step t lies: `row`, `unit`; `before` numbers of [T][B][H] come before step t, `at` is in it;
// `from`, `to` are in [T+1][B][H].  Within a step 32 bits are enough, which planner.py checks.
struct GlPlace {
    unsigned int e, row, unit, units;
    long long t, before, at, from, to;
};

GL_INLINE GlPlace gl_place_at(unsigned int row, unsigned int unit, unsigned int rows, unsigned int units, long long t,
                              bool reverse) {
    GlPlace p;
    const long long size = rows * units;
    p.e = row * units + unit;
    p.row = row;
    p.unit = unit;
    p.units = units;
    p.t = t;
    p.before = t * size;
    p.at = p.before + p.e;
    const long long after = p.at + size;
    p.from = reverse ? after : p.at;
    p.to = reverse ? p.at : after;
    return p;
}

GL_INLINE GlPlace gl_place(unsigned int e, unsigned int rows, unsigned int units, long long t, bool reverse) {
    return gl_place_at(e / units, e % units, rows, units, t, reverse);
}

// Element e of the first gate in a matrix [T][B][gates * H]; the others follow `units` apart.
GL_INLINE long long gl_gate(const GlPlace& p, int gates) {
    return p.before * gates + (p.row * gates * p.units + p.unit);
}

// What a step does besides the cell.  Zoneout is a mask in training and the weight of the old state outside it.
template <typename T>
struct GlOptions {
    const long long* lengths;     // [B]: row b ends before step lengths[b]
    const bool *keep_h, *keep_c;  // [T][B][H]: false keeps the old state
    double hold_h, hold_c;
    const T* mask;  // [B][H]: factor on h in the recurrent product
};

// Many cards compare two integers faster than they do anything with a double.
GL_INLINE bool gl_is_zero(double number) {
#ifdef __CUDA_ARCH__
    return __double_as_longlong(number) == 0;
#else
    return number == 0.0;
#endif
}

template <typename T>
GL_INLINE bool gl_valid(const GlOptions<T>& o, const GlPlace& p) {
    return !o.lengths || p.t < o.lengths[p.row];
}

// `old` is where the old state lies, which is not read where the fresh one takes its place.
template <typename R, typename T>
GL_INLINE R gl_blend(R fresh, const T* old, const bool* keep, double hold, const GlPlace& p) {
    if (keep) return keep[p.at] ? fresh : (R)*old;
    return gl_is_zero(hold) ? fresh : (R(1) - R(hold)) * fresh + R(hold) * (R)*old;
}

// h for the next step (hs; vs = h * mask for its product) and for the reader (y, zero past a row's end).
template <typename T, typename R>
GL_INLINE void gl_store_h(const GlOptions<T>& o, const GlPlace& p, R fresh, T* hs, T* vs, T* y) {
    bool valid = gl_valid(o, p);
    R h = valid ? gl_blend(fresh, hs + p.from, o.keep_h, o.hold_h, p) : (R)hs[p.from];
    hs[p.to] = (T)h;
    if (vs) vs[p.to] = (T)(h * (R)o.mask[p.e]);
    if (y) y[p.at] = valid ? (T)h : (T)R(0);
}

// The gradient of h_t from step t+1: what came around its product, and what came through it.
template <typename T, typename R>
GL_INLINE R gl_join_dh(const GlOptions<T>& o, const GlPlace& p, R around, R through) {
    return around + (o.mask ? through * (R)o.mask[p.e] : through);
}

// The same with the gradient of y_t, which lies at `dy`; nothing past a row's end.
template <typename T, typename R>
GL_INLINE R gl_add_dy(const GlOptions<T>& o, const GlPlace& p, R dh, const T* dy) {
    return gl_valid(o, p) ? dh + (R)*dy : dh;
}

// Both, where dh holds what came around the product and dv, unless dh has it too, what came through it.
template <typename T, typename R>
GL_INLINE R gl_load_dh(const GlOptions<T>& o, const GlPlace& p, const T* dh, const T* dv, const T* dy) {
    R d = (R)dh[p.e];
    if (dv) d = gl_join_dh(o, p, d, (R)dv[p.e]);
    return gl_add_dy(o, p, d, dy + p.at);
}

// ---- forward: gates holds a = x W_x + b, plus the recurrent product where u is null; it is left with the gates ----
// The functions named _on take the recurrent product in registers, `u`; those above them load it from memory.
template <typename T, typename R>
GL_INLINE void gl_lstm_step_on(const GlOptions<T>& o, const GlPlace& p, T* gates, const R* u, T* hs, T* vs, T* y,
                               const R* c_from, R* c_to) {
    R z[4];
    gates += gl_gate(p, 4);
    for (int k = 0; k < 4; ++k) z[k] = (R)gates[k * p.units] + u[k];
    R c_old = c_from[p.e], c;
    R h = gl_lstm(z[0], z[1], z[2], z[3], c_old, c);
    for (int k = 0; k < 4; ++k) gates[k * p.units] = (T)z[k];
    c_to[p.e] = gl_valid(o, p) ? gl_blend(c, &c_old, o.keep_c, o.hold_c, p) : c_old;
    gl_store_h(o, p, h, hs, vs, y);
}

template <typename T, typename R>
GL_INLINE void gl_gru_step_on(const GlOptions<T>& o, const GlPlace& p, T* gates, const R* u, const T* b_hn, T* s_saved,
                              T* hs, T* vs, T* y) {
    R z[3];
    gates += gl_gate(p, 3);
    for (int k = 0; k < 3; ++k) z[k] = (R)gates[k * p.units];
    R s = u[2];
    if (b_hn) s += (R)b_hn[p.unit];
    z[0] += u[0];
    z[1] += u[1];
    R h_old = (R)hs[p.from];
    R h = gl_gru(z[0], z[1], z[2], s, h_old);
    for (int k = 0; k < 3; ++k) gates[k * p.units] = (T)z[k];
    if (s_saved) s_saved[p.at] = (T)s;
    gl_store_h(o, p, h, hs, vs, y);
}

template <typename T, typename R>
GL_INLINE void gl_rnn_step_on(const GlOptions<T>& o, const GlPlace& p, bool relu, T* gates, R u, T* hs, T* vs, T* y) {
    R h = gl_rnn((R)gates[p.at] + u, relu);
    gates[p.at] = (T)h;
    gl_store_h(o, p, h, hs, vs, y);
}

template <typename T, typename R>
GL_INLINE void gl_lstm_step(const GlOptions<T>& o, const GlPlace& p, T* gates, const T* u, T* hs, T* vs, T* y,
                            const R* c_from, R* c_to) {
    R product[4];
    for (int k = 0; k < 4; ++k) product[k] = u ? (R)u[(p.row * 4 + k) * p.units + p.unit] : R(0);
    gl_lstm_step_on(o, p, gates, product, hs, vs, y, c_from, c_to);
}

template <typename T, typename R>
GL_INLINE void gl_gru_step(const GlOptions<T>& o, const GlPlace& p, T* gates, const T* u, const T* b_hn, T* s_saved,
                           T* hs, T* vs, T* y) {
    R product[3];
    for (int k = 0; k < 3; ++k) product[k] = (R)u[(p.row * 3 + k) * p.units + p.unit];
    gl_gru_step_on(o, p, gates, product, b_hn, s_saved, hs, vs, y);
}

template <typename T, typename R>
GL_INLINE void gl_rnn_step(const GlOptions<T>& o, const GlPlace& p, bool relu, T* gates, const T* u, T* hs, T* vs,
                           T* y) {
    gl_rnn_step_on(o, p, relu, gates, u ? (R)u[p.e] : R(0), hs, vs, y);
}

// ---- backward: gates is left with their gradients, dh with what reaches h_{t-1} around the product ---------------
// Of dh (of the state after the step), the part that reaches the fresh value; the rest stays with the old state.
template <typename T, typename R>
GL_INLINE R gl_fresh(const GlOptions<T>& o, const GlPlace& p, const bool* keep, R d) {
    return gl_valid(o, p) && (!keep || keep[p.at]) ? d : R(0);
}

// The functions named _on take dh, read the gates in one place and write their gradients in another (which may be the
// same), and return what reaches h_{t-1} around the product; those below them keep it in dh.
template <typename T, typename R>
GL_INLINE R gl_lstm_step_backward_on(const GlOptions<T>& o, const GlPlace& p, const T* gates, T* dgates,
                                     const R* c_from, R dh, R* dc) {
    R z[4], d = dc[p.e];
    const long long first = gl_gate(p, 4);
    for (int k = 0; k < 4; ++k) z[k] = (R)(gates + first)[k * p.units];
    R fresh_h = gl_fresh(o, p, o.keep_h, dh), fresh_c = gl_fresh(o, p, o.keep_c, d);
    // The cell's own c_t again, from what was read anyway: zoneout or a row's end may have replaced the stored one.
    R c_old = c_from[p.e], c = gl_lstm_memory(z[0], z[1], z[2], c_old);
    R dc_old = gl_lstm_backward(z[0], z[1], z[2], z[3], c_old, c, fresh_h, fresh_c);
    for (int k = 0; k < 4; ++k) (dgates + first)[k * p.units] = (T)z[k];
    dc[p.e] = dc_old + (d - fresh_c);
    return dh - fresh_h;
}

template <typename T, typename R>
GL_INLINE R gl_gru_step_backward_on(const GlOptions<T>& o, const GlPlace& p, const T* gates, T* dgates,
                                    const T* s_saved, T* du, const T* hs, R dh) {
    R z[3], s = (R)s_saved[p.at];
    const long long first = gl_gate(p, 3);
    for (int k = 0; k < 3; ++k) z[k] = (R)(gates + first)[k * p.units];
    R fresh = gl_fresh(o, p, o.keep_h, dh);
    R dh_old = gl_gru_backward(z[0], z[1], z[2], s, (R)hs[p.from], fresh);
    for (int k = 0; k < 3; ++k) {
        (dgates + first)[k * p.units] = (T)z[k];
        (du + first)[k * p.units] = (T)(k == 2 ? s : z[k]);
    }
    return dh_old + (dh - fresh);
}

template <typename T, typename R>
GL_INLINE R gl_rnn_step_backward_on(const GlOptions<T>& o, const GlPlace& p, bool relu, const T* gates, T* dgates,
                                    R dh) {
    R fresh = gl_fresh(o, p, o.keep_h, dh);
    dgates[p.at] = (T)gl_rnn_backward((R)gates[p.at], fresh, relu);
    return dh - fresh;
}

template <typename T, typename R>
GL_INLINE void gl_lstm_step_backward(const GlOptions<T>& o, const GlPlace& p, T* gates, const R* c_from, T* dh,
                                     const T* dv, const T* dy, R* dc) {
    dh[p.e] = (T)gl_lstm_step_backward_on(o, p, gates, gates, c_from, gl_load_dh<T, R>(o, p, dh, dv, dy), dc);
}

template <typename T, typename R>
GL_INLINE void gl_gru_step_backward(const GlOptions<T>& o, const GlPlace& p, T* gates, const T* s_saved, T* du,
                                    const T* hs, T* dh, const T* dv, const T* dy) {
    R dh_t = gl_load_dh<T, R>(o, p, dh, dv, dy);
    dh[p.e] = (T)gl_gru_step_backward_on(o, p, gates, gates, s_saved, du, hs, dh_t);
}

template <typename T, typename R>
GL_INLINE void gl_rnn_step_backward(const GlOptions<T>& o, const GlPlace& p, bool relu, T* gates, T* dh, const T* dv,
                                    const T* dy) {
    dh[p.e] = (T)gl_rnn_step_backward_on(o, p, relu, gates, gates, gl_load_dh<T, R>(o, p, dh, dv, dy));
}

#endif
