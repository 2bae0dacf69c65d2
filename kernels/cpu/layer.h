// What one call of the CPU engine is given: one layer, one direction, all time steps.  Plain structs, no instruction
// set.
//
// Shapes: x, dx [T][B][I]; y, dy [T][B][H]; h0, c0 (forwards null for zeros) and the ends [B][H]; w_x [I][G*H],
// w_h [H][G*H], b [G*H], b_hn [H].
// What training saves lies in the engine's own order, units padded to whole panels (see Shape in pack.h):
// gates [T][B][width], cells [T][B][padded].  A null pointer means: not there.
#ifndef GPULSTM_CPU_LAYER_H
#define GPULSTM_CPU_LAYER_H

#include <stddef.h>
#include <stdint.h>

namespace gpulstm {

enum class Cell { lstm, gru, rnn_tanh, rnn_relu };

// Of the packed weights: as they are, or rounded (reduced_call.h); rounded ones serve inference in float32 alone.
enum class Precision { full, bfloat16, int8 };

template <typename R>
struct ForwardCall {
    Cell cell;
    bool reverse;
    long T, B, I, H;
    const R *x, *w_x, *w_h, *b, *b_hn, *h0, *c0;
    const R* mask;           // [B][H]: factor on h in the recurrent product
    const int64_t* lengths;  // [B]
    R *y, *h_end, *c_end;
    R *gates, *cells;  // saved for backward
    Precision precision = Precision::full;
};

template <typename R>
struct BackwardCall {
    Cell cell;
    bool reverse;
    long T, B, I, H;
    const R *x, *w_x, *w_h, *h0, *c0, *mask;
    const int64_t* lengths;
    const R *y, *gates, *cells;
    const R *dy, *dh_end, *dc_end;
    R *dx, *dh0, *dc0;
    R *dw_x, *dw_h, *db, *db_hn;  // added to; db null without biases
};

// All layers of a stack, for one time step after another: the weights are packed when it is made, the state stays
// inside. Arrays of pointers have one for each layer, w_x of the first [I][G*H], of the others [H][G*H].
template <typename R>
struct StreamCall {
    Cell cell;
    long B, I, H, layers;
    const R *const *w_x, *const *w_h, *const *b, *const *b_hn;
    int threads;
    Precision precision = Precision::full;
};

template <typename R>
struct Stream {
    virtual ~Stream() {}
    virtual void step(const R* x, R* y) = 0;  // x [B][I] -> y [B][H]; allocates nothing
    virtual void read(R* h, R* c) const = 0;  // [layers][B][H]; c null without
    virtual void write(const R* h, const R* c) = 0;
};

// All layers of a stack in one direction over all time steps, nothing saved: x [T][B][I] -> y [T][B][H].  Arrays of
// pointers have one for each layer; states are [layers][B][H], h0 and c0 null for zeros.
template <typename R>
struct StackCall {
    Cell cell;
    long T, B, I, H, layers;
    const R *const *w_x, *const *w_h, *const *b, *const *b_hn;
    const R *x, *h0, *c0;
    const int64_t* lengths;
    R *y, *h_end, *c_end;
    Precision precision = Precision::full;
};

// How the work is divided: rows of the batch (threads never meet), or units (they meet once a step).
enum class Split { automatic, rows, units };

// A table of functions for each of the two types of numbers.
template <template <typename> class Functions>
struct ByType {
    Functions<float> of_float;
    Functions<double> of_double;

    template <typename R>
    const Functions<R>& of() const {
        if constexpr (sizeof(R) == 8)
            return of_double;
        else
            return of_float;
    }
};

// One instruction set's functions; they return false, or null, when memory is short.
template <typename R>
struct EngineFunctions {
    long lanes;
    bool (*forward)(const ForwardCall<R>&, int threads, Split);
    bool (*backward)(const BackwardCall<R>&, int threads, Split);
    size_t (*room)(const BackwardCall<R>&, int threads);  // bytes of working space: of backward, and of forward
    bool (*stack)(const StackCall<R>&, int threads);
    Stream<R>* (*stream)(const StreamCall<R>&);  // to be deleted
};
struct Engine : ByType<EngineFunctions> {
    const char* name;
};

}  // namespace gpulstm

#endif
