// What a call of a layer with options is given: those that change a cell's equations or its products.  Plain structs,
// no instruction set.
//
// Shapes as in layer.h, but h, y and their gradients have P columns (P = H without projection), w_h is [P][G*H].  G is
// 3 for an LSTM with coupled gates (i, g, o).  A null pointer means: this option is off.
#ifndef GPULSTM_CPU_VARIANT_CALL_H
#define GPULSTM_CPU_VARIANT_CALL_H

#include "layer.h"

namespace gpulstm {

enum class ActivationKind {
    sigmoid,
    tanh,
    relu,
    softsign,
    softplus,
    affine,
    leaky_relu,
    thresholded_relu,
    scaled_tanh,
    hard_sigmoid,
    elu
};

struct Activation {
    ActivationKind kind;
    double alpha, beta;
};

template <typename R>
struct Variant {
    long P;
    bool coupled, reset_before, layer_norm;
    Activation activations[3];                // of the gates, of the candidate, of the memory read
    double limit;                             // of the input of the first two; 0 for none
    double epsilon;                           // of layer normalization
    double hold_h, hold_c;                    // zoneout outside training: the weight of the old state
    const bool *keep_h, *keep_c;              // zoneout in training: [T][B][P] and [T][B][H], false keeps the old state
    const R* p;                               // peepholes: [3*H], [2*H] with coupled gates
    const R* w_p;                             // projection: [H][P]
    const R *gain_x, *gain_h, *gain_c, *b_c;  // [G*H], [G*H], [H], [H]
};

template <typename R>
struct VariantForward {
    ForwardCall<R> call;  // its gates and cells are null
    Variant<R> variant;
    R* saved;  // [T][B][saved_row]
};

template <typename R>
struct VariantBackward {
    BackwardCall<R> call;
    Variant<R> variant;
    const R* saved;
    R *dp, *dw_p, *dgain_x, *dgain_h, *dgain_c, *db_c;  // added to
};

// One instruction set's functions; forward and backward return false when memory is short.
struct Variants {
    const char* name;
    long (*saved_row_float)(Cell, long H, const Variant<float>&);  // numbers a step and row
    long (*saved_row_double)(Cell, long H, const Variant<double>&);
    size_t (*room_float)(const VariantBackward<float>&, int threads);  // bytes of working space of backward
    size_t (*room_double)(const VariantBackward<double>&, int threads);
    bool (*forward_float)(const VariantForward<float>&, int threads);
    bool (*forward_double)(const VariantForward<double>&, int threads);
    bool (*backward_float)(const VariantBackward<float>&, int threads);
    bool (*backward_double)(const VariantBackward<double>&, int threads);
    Stream<float>* (*stream_float)(const StreamCall<float>&,
                                   const Variant<float>* options);  // as Engine's; of each layer
    Stream<double>* (*stream_double)(const StreamCall<double>&, const Variant<double>* options);
};

}  // namespace gpulstm

#endif
