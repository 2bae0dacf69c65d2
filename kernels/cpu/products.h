// Which products a pass takes: those of the vector registers, or where it pays those of a matrix unit.
#ifndef GPULSTM_CPU_PRODUCTS_H
#define GPULSTM_CPU_PRODUCTS_H

#include <type_traits>

#include "backward_vectors.h"
#include "forward_vectors.h"
#include "weights_vectors.h"

#if defined(__AMX_BF16__) && defined(__AMX_TILE__)
#include "backward_tiles.h"
#include "forward_tiles.h"
#include "weights_tiles.h"
#endif

namespace gpulstm {
namespace GPULSTM_ISA {

template <typename R>
struct OnVectors {
    typedef ForwardOnVectors<R> Forward;
    typedef BackwardOnVectors<R> Backward;
    typedef InputsOnVectors<R> Inputs;
};

#if defined(__AMX_BF16__) && defined(__AMX_TILE__)

template <typename R>
struct OnTiles {
    typedef ForwardOnTiles<R> Forward;
    typedef BackwardOnTiles<R> Backward;
    typedef InputsOnTiles<R> Inputs;
};

// Calls f(policies) for steps of so many rows of the batch: a choice by the batch alone, that depends neither on time
// nor on threads.
template <typename R, typename F>
static auto with_products(long rows, F f) {
    return Amx<R>::pays(rows) ? f(OnTiles<R>()) : f(OnVectors<R>());
}
// The same for dx of so many columns.
template <typename R, typename F>
static auto with_input_products(long columns, F f) {
    return columns > 16 ? f(OnTiles<R>()) : f(OnVectors<R>());
}
template <typename R>
using WeightProducts = WeightsOnTiles<R>;

#else

template <typename R, typename F>
static auto with_products(long, F f) {
    return f(OnVectors<R>());
}
template <typename R, typename F>
static auto with_input_products(long, F f) {
    return f(OnVectors<R>());
}
template <typename R>
using WeightProducts = WeightsOnVectors<R>;

#endif

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
