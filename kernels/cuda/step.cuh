// What follows the recurrent product of a step: the gates and the state update on the product's own registers.
//
// The equations are in gates.h, what a step loads and stores is in state.cuh; here their arguments come together.  The
// structs are passed by value from Python (engines/cuda/fused.py), every field eight bytes wide.
#ifndef GPULSTM_STEP_CUH
#define GPULSTM_STEP_CUH

#include "cuda/state.cuh"
#include "cuda/tile.cuh"

enum : int { GL_LSTM = 0, GL_GRU = 1, GL_RNN = 2 };

// Columns of the packed weights that belong to one hidden unit in a forward step: its gates, side by side.
template <int CELL>
struct GlGates {
    enum : int { count = CELL == GL_LSTM ? 4 : CELL == GL_GRU ? 3 : 1, wide = CELL == GL_RNN ? 1 : 4 };
};

template <typename T, typename R>
struct GlForward {
    long long rows, units, reverse, slots, relu;  // slots: c keeps all steps
    double hold_h, hold_c;
    const long long* lengths;     // [B]
    const bool *keep_h, *keep_c;  // [T][B][H]
    const T* mask;                // [B][H]
    const T* packed;              // [H][pitch]: gl_pack_forward
    long long pitch;
    T* gates;        // [T][B][G*H]: x W_x + b, then the gates
    T *hs, *vs, *y;  // [T+1][B][H], the same times mask or null, [T][B][H] or null
    R* cs;           // [T+1][B][H] or [B][H]
    const T* b_hn;   // [H] or null
    T* s;            // [T][B][H] or null
};

template <typename T, typename R>
struct GlBackward {
    long long rows, units, reverse, relu;
    const long long* lengths;
    const bool *keep_h, *keep_c;
    const T* mask;
    const T* packed;  // [G*H][pitch]: gl_pack_backward
    long long pitch;
    const T* gates;   // [T][B][G*H]: activated
    T *dgates, *du;   // [T][B][G*H]: gradients of a and of the recurrent product (one array but for the GRU)
    const R* cs;      // [T+1][B][H]
    const T *s, *hs;  // GRU: [T][B][H] and [T+1][B][H]
    const T* dy;      // element (t, row, unit) at t * dy_step + row * dy_row + unit
    long long dy_step, dy_row;
    R *around, *dc;  // [B][H]: what reaches h_{t-1} around the product; gradient of c
    T* dh;           // [B][H]: gradient of the state before the first step
};

// COUNT: neighboring columns that are handed on at once, the gates of one unit or of several.
template <typename T, typename R, int CELL, int COUNT>
struct GlForwardStep {
    const GlForward<T, R>& a;
    long long t;
    unsigned int row0, column0;

    GL_INLINE void operator()(int row, int column, const R* sums) const {
        GlOptions<T> o = {a.lengths, a.keep_h, a.keep_c, a.hold_h, a.hold_c, a.mask};
        const unsigned int rows = a.rows, units = a.units, r = row0 + row;
        unsigned int unit = (column0 + column) / GlGates<CELL>::wide;
        if (r >= rows) return;
#pragma unroll
        for (int j = 0; j < COUNT / GlGates<CELL>::wide; ++j, ++unit) {
            if (unit >= units) return;
            GlPlace p = gl_place_at(r, unit, rows, units, t, a.reverse);
            long long from = a.slots ? p.from - p.e : 0, to = a.slots ? p.to - p.e : 0;
            if (CELL == GL_LSTM)
                gl_lstm_step_on<T, R>(o, p, a.gates, sums, a.hs, a.vs, a.y, a.cs + from, a.cs + to);
            else if (CELL == GL_GRU)
                gl_gru_step_on<T, R>(o, p, a.gates, sums, a.b_hn, a.s, a.hs, a.vs, a.y);
            else
                gl_rnn_step_on<T, R>(o, p, a.relu, a.gates, sums[j], a.hs, a.vs, a.y);
        }
    }
};

// The sums are the product's part of dh of COUNT neighboring units.  t < 0: nothing is left but the first state.
template <typename T, typename R, int CELL, int COUNT>
struct GlBackwardStep {
    const GlBackward<T, R>& a;
    long long t;
    unsigned int row0, column0;

    GL_INLINE void operator()(int row, int column, const R* sums) const {
        GlOptions<T> o = {a.lengths, a.keep_h, a.keep_c, 0.0, 0.0, a.mask};
        const unsigned int rows = a.rows, units = a.units, r = row0 + row;
        unsigned int unit = column0 + column;
        if (r >= rows) return;
#pragma unroll
        for (int j = 0; j < COUNT; ++j, ++unit) {
            if (unit >= units) return;
            GlPlace p = gl_place_at(r, unit, rows, units, t, a.reverse);
            R dh = gl_join_dh(o, p, a.around[p.e], sums[j]);
            if (t < 0) {
                a.dh[p.e] = (T)dh;
                continue;
            }
            dh = gl_add_dy(o, p, dh, a.dy + t * a.dy_step + r * a.dy_row + unit);
            if (CELL == GL_LSTM)
                a.around[p.e] =
                    gl_lstm_step_backward_on<T, R>(o, p, a.gates, a.dgates, a.cs + (p.from - p.e), dh, a.dc);
            else if (CELL == GL_GRU)
                a.around[p.e] = gl_gru_step_backward_on<T, R>(o, p, a.gates, a.dgates, a.s, a.du, a.hs, dh);
            else
                a.around[p.e] = gl_rnn_step_backward_on<T, R>(o, p, a.relu, a.gates, a.dgates, dh);
        }
    }
};

// h_{t-1} as the product of step t sees it, and the gradient of the product of step t, as matrices [B][K]; from one
// step to the next they lie B * K apart.
template <int CELL, typename T, typename R>
GL_INLINE GlMatrix<T> gl_forward_operand(const GlForward<T, R>& a, long long t) {
    long long slot = a.reverse ? t + 1 : t;
    return gl_matrix((a.vs ? a.vs : a.hs) + slot * a.rows * a.units, a.units, (int)a.rows, (int)a.units);
}

template <int CELL, typename T, typename R>
GL_INLINE GlMatrix<T> gl_backward_operand(const GlBackward<T, R>& a, long long t) {
    long long width = GlGates<CELL>::count * a.units;
    return gl_matrix((const T*)a.du + t * a.rows * width, width, (int)a.rows, (int)width);
}

#endif
