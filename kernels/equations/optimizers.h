// One element's step of each optimizer, for CUDA (NVRTC) and for a host C++ compiler.
// The same operations in the same order as gpulstm/optimizers.py; T is float or double.
//
//   w           the weight, changed in place
//   g           the gradient, already multiplied by the clipping scale
//   velocity, mean, square, average    the moments, changed in place
//
// Coefficients that hold for a whole step (bias corrections and the like) come from the host, computed once in double.
#ifndef GPULSTM_OPTIMIZERS_H
#define GPULSTM_OPTIMIZERS_H

#ifndef GL_INLINE
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define GL_INLINE __device__ __forceinline__
#else
#define GL_INLINE static inline
#endif
#endif

#if !defined(__CUDACC__) && !defined(__CUDACC_RTC__)
#include <cmath>
using std::sqrt;
#endif

template <typename T, bool MOMENTUM, bool NESTEROV>
GL_INLINE void gl_sgd(T& w, T& velocity, T g, T rate, T decay, T momentum) {
    g += decay * w;
    if (MOMENTUM) {
        velocity = velocity * momentum + g;
        g = NESTEROV ? g + momentum * velocity : velocity;
    }
    w -= rate * g;
}

template <typename T, bool MOMENTUM, bool CENTERED>
GL_INLINE void gl_rmsprop(T& w, T& square, T& average, T& velocity, T g, T rate, T decay, T keep, T take, T epsilon,
                          T momentum) {
    g += decay * w;
    square = square * keep + g * g * take;
    T spread = square;
    if (CENTERED) {
        average += (g - average) * take;
        spread = square - average * average;
        spread = spread > T(0) ? spread : T(0);  // a variance; rounding can take it below zero
    }
    g = g / (sqrt(spread) + epsilon);
    if (MOMENTUM) {
        velocity = velocity * momentum + g;
        g = velocity;
    }
    w -= rate * g;
}

// Adam and AdamW: `shrink` is 1 for Adam, `decay` is 0 for AdamW.
template <typename T>
GL_INLINE void gl_adam(T& w, T& mean, T& square, T g, T shrink, T decay, T take1, T keep2, T take2, T rate, T root,
                       T epsilon) {
    w *= shrink;
    g += decay * w;
    mean += (g - mean) * take1;
    square = square * keep2 + g * g * take2;
    w -= rate * (mean / (sqrt(square) / root + epsilon));
}

#endif
