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
template <typename R>
struct VariantFunctions {
    long (*saved_row)(Cell, long H, const Variant<R>&);      // numbers a step and row
    size_t (*room)(const VariantBackward<R>&, int threads);  // bytes of working space of backward
    bool (*forward)(const VariantForward<R>&, int threads);
    bool (*backward)(const VariantBackward<R>&, int threads);
    Stream<R>* (*stream)(const StreamCall<R>&, const Variant<R>* options);  // as Engine's; options of each layer
};
struct Variants : ByType<VariantFunctions> {
    const char* name;
};

}  // namespace gpulstm

#endif
