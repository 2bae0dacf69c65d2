// One element's step of each optimizer, for CUDA (NVRTC) and for a host C++ compiler.
// The same operations in the same order as gpulstm/optimizers.py; T is float or double.
//
//   weight      changed in place
//   gradient    already multiplied by the clipping scale
//   velocity, mean, square, average    the moments, changed in place
//
// Coefficients that hold for a whole step (bias corrections and the like) come from the host, computed once in double.
#ifndef GPULSTM_OPTIMIZERS_H
#define GPULSTM_OPTIMIZERS_H

#include "equations/inline.h"

#if !defined(__CUDACC__) && !defined(__CUDACC_RTC__)
#include <cmath>
using std::sqrt;
#endif

template <typename T, bool MOMENTUM, bool NESTEROV>
GL_INLINE void gl_sgd(T& weight, T& velocity, T gradient, T learning_rate, T weight_decay, T momentum) {
    gradient += weight_decay * weight;
    if (MOMENTUM) {
        velocity = velocity * momentum + gradient;
        gradient = NESTEROV ? gradient + momentum * velocity : velocity;
    }
    weight -= learning_rate * gradient;
}

// alpha: the share of the mean square that stays.
template <typename T, bool MOMENTUM, bool CENTERED>
GL_INLINE void gl_rmsprop(T& weight, T& square, T& average, T& velocity, T gradient, T learning_rate, T weight_decay,
                          T alpha, T one_minus_alpha, T epsilon, T momentum) {
    gradient += weight_decay * weight;
    square = square * alpha + gradient * gradient * one_minus_alpha;
    T variance = square;
    if (CENTERED) {
        average += (gradient - average) * one_minus_alpha;
        variance = square - average * average;
        variance = variance > T(0) ? variance : T(0);  // rounding can take it below zero
    }
    gradient = gradient / (sqrt(variance) + epsilon);
    if (MOMENTUM) {
        velocity = velocity * momentum + gradient;
        gradient = velocity;
    }
    weight -= learning_rate * gradient;
}

// Adam, where weight_factor is 1, and AdamW, where weight_decay is 0.  step_size: the learning rate over the bias
// correction of the mean; root_correction: the square root of the bias correction of the mean square.
template <typename T>
GL_INLINE void gl_adam(T& weight, T& mean, T& square, T gradient, T weight_factor, T weight_decay, T one_minus_beta1,
                       T beta2, T one_minus_beta2, T step_size, T root_correction, T epsilon) {
    weight *= weight_factor;
    gradient += weight_decay * weight;
    mean += (gradient - mean) * one_minus_beta1;
    square = square * beta2 + gradient * gradient * one_minus_beta2;
    weight -= step_size * (mean / (sqrt(square) / root_correction + epsilon));
}

#endif
