// What one number of the head costs and its slope, for each pointwise loss.  The native passes of the CPU and the
// kernels of a GPU are made of these; the same formulas as gpulstm/losses.py.  T is float or double.
//
//   z       the number of the head (m and r of a Gaussian), y the target
//   slope   set to the derivative of the cost with respect to z
//
// A NaN in z or y comes out in the cost.
#ifndef GPULSTM_LOSSES_H
#define GPULSTM_LOSSES_H

#include "equations/inline.h"

#ifndef __CUDACC_RTC__  // which knows them without a header
#include <cmath>

using std::exp;
using std::fabs;
using std::log;
#endif

template <typename T>
GL_INLINE T gl_mse(T z, T y, T& slope) {
    T error = z - y;
    slope = T(2) * error;
    return error * error;
}

template <typename T>
GL_INLINE T gl_mae(T z, T y, T& slope) {
    T error = z - y;
    slope = error > T(0) ? T(1) : error < T(0) ? T(-1) : error;
    return fabs(error);
}

template <typename T>
GL_INLINE T gl_huber(T z, T y, T delta, T& slope) {
    T error = z - y;
    slope = error > delta ? delta : error < -delta ? -delta : error;
    return slope * (error - T(0.5) * slope);
}

// One level, whose forecast costs `rise` for each unit above the target and `fall` for each below: (1 - level) / P and
// level / P where the loss is the mean over P levels.
template <typename T>
GL_INLINE T gl_pinball(T z, T y, T rise, T fall, T& slope) {
    T error = y - z;
    slope = T(error < T(0)) * rise - T(error > T(0)) * fall;
    return -(slope * error);
}

// The scale is softplus(r) + floor; both come from exp(-|r|), which cannot overflow.
template <typename T>
GL_INLINE T gl_gaussian(T m, T r, T y, T floor, T& slope_m, T& slope_r) {
    T small = exp(-fabs(r)), whole = T(1) + small;
    T rest = log(whole) - ((whole - T(1)) - small) / whole;  // log(1 + small), with what rounding took from `whole`
    T scale = (r > T(0) ? r : T(0)) + rest + floor;
    T sigmoid = (r > T(0) ? T(1) : small) / whole;  // the slope of softplus
    T standard = (y - m) / scale;
    slope_m = -standard / scale;
    slope_r = (T(1) - standard * standard) / scale * sigmoid;
    return log(scale) + T(0.5) * standard * standard + T(0.918938533204672741780);  // log(2 pi) / 2
}

// Of `classes` numbers z, y the true class; an index that is none gives NaN.  The largest z is taken off before exp.
template <typename T>
GL_INLINE T gl_softmax(const T* z, T y, long classes, T* slope) {
    T most = z[0], sum = T(0), cost = sum / sum;
    for (long p = 1; p < classes; ++p) most = z[p] > most ? z[p] : most;
    for (long p = 0; p < classes; ++p) sum += slope[p] = exp(z[p] - most);
    const T whole = log(sum);
    for (long p = 0; p < classes; ++p) {
        const bool hit = T(p) == y;
        if (hit) cost = whole - (z[p] - most);
        slope[p] = slope[p] / sum - T(hit);
    }
    return cost;
}

#endif
