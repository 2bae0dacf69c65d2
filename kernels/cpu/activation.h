// The activations that a layer may name in place of its own, as gpulstm/engines/activations.py states them: a value,
// and the slope from that value.  `limit` bounds the input first (ONNX's `clip`); where the bound holds the slope is
// zero.
#ifndef GPULSTM_CPU_ACTIVATION_H
#define GPULSTM_CPU_ACTIVATION_H

#include <math.h>

#include "variant_call.h"
#include "vector.h"

namespace gpulstm {
namespace GPULSTM_ISA {

// a where x > y, else b.
template <typename R>
static inline Vec<R> where_greater(Vec<R> x, Vec<R> y, Vec<R> a, Vec<R> b) {
    return Vec<R>(x.v > y.v ? a.v : b.v);
}

template <typename R, typename F>
static inline Vec<R> each_lane(Vec<R> x, F function) {
    R lanes[Vec<R>::LANES];
    x.store(lanes);
    for (R& lane : lanes) lane = function(lane);
    return Vec<R>::load(lanes);
}

template <typename R>
struct Activator {
    typedef Vec<R> V;
    ActivationKind kind;
    R alpha, beta, limit;
    R low, high;  // the values at the bounds of the input, the smaller first

    explicit Activator(const Activation& a, double bound)
        : kind(a.kind), alpha(R(a.alpha)), beta(R(a.beta)), limit(R(bound)) {
        low = high = R(0);
        if (limit <= R(0)) return;
        R lanes[V::LANES];
        plain(V(-limit)).store(lanes);
        low = lanes[0];
        plain(V(limit)).store(lanes);
        high = lanes[0];
        if (low > high) {
            const R swapped = low;
            low = high;
            high = swapped;
        }
    }

    inline V operator()(V z) const { return plain(limit > R(0) ? clamp(z, limit) : z); }

    inline V slope(V y) const {
        const V s = plain_slope(y);
        if (limit <= R(0)) return s;
        const V zero(R(0));
        return where_greater(y, V(low), where_greater(V(high), y, s, zero), zero);
    }

  private:
    inline V plain(V z) const {
        const V zero(R(0)), one(R(1));
        switch (kind) {
            case ActivationKind::sigmoid: return gl_sigmoid(z);
            case ActivationKind::tanh: return gl_tanh(z);
            case ActivationKind::relu: return where_greater(z, zero, z, zero);
            case ActivationKind::softsign: return z / (one + where_greater(z, zero, z, zero - z));
            case ActivationKind::softplus:
                return each_lane<R>(z, [](R x) { return (x > R(0) ? x : R(0)) + log1p(exp(x > R(0) ? -x : x)); });
            case ActivationKind::affine: return V(alpha) * z + V(beta);
            case ActivationKind::leaky_relu: return where_greater(zero, z, V(alpha) * z, z);
            case ActivationKind::thresholded_relu: return where_greater(z, V(alpha), z, zero);
            case ActivationKind::scaled_tanh: return V(alpha) * gl_tanh(V(beta) * z);
            case ActivationKind::hard_sigmoid: {
                const V y = V(alpha) * z + V(beta);
                return where_greater(y, one, one, where_greater(zero, y, zero, y));
            }
            case ActivationKind::elu: {
                const R a = alpha;
                return each_lane<R>(z, [a](R x) { return x >= R(0) ? x : R(a * expm1(x)); });
            }
        }
        return z;
    }
    inline V plain_slope(V y) const {
        const V zero(R(0)), one(R(1));
        switch (kind) {
            case ActivationKind::sigmoid: return y * (one - y);
            case ActivationKind::tanh: return one - y * y;
            case ActivationKind::relu:
            case ActivationKind::thresholded_relu: return where_greater(y, zero, one, zero);
            case ActivationKind::softsign: {
                const V rest = one - where_greater(y, zero, y, zero - y);
                return rest * rest;
            }
            case ActivationKind::softplus: return each_lane<R>(y, [](R x) { return -expm1(-x); });
            case ActivationKind::affine: return V(alpha);
            case ActivationKind::leaky_relu: return where_greater(y, zero, one, V(alpha));
            case ActivationKind::scaled_tanh: {
                if (alpha == R(0)) return zero;
                const V part = y / V(alpha);
                return V(alpha * beta) * (one - part * part);
            }
            case ActivationKind::hard_sigmoid:
                return where_greater(y, zero, where_greater(one, y, V(alpha), zero), zero);
            case ActivationKind::elu: return where_greater(y, zero, one, y + V(alpha));
        }
        return zero;
    }
};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm

#endif
