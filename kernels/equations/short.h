// tanh and the logistic function for numbers that are stored in 16 bits: two approximations of the special function
// unit each.  Their error, less than 5e-7, is nothing next to the rounding that follows; `tanhf` would take three times
// as many instructions.  Include before gates.h.
#ifndef GPULSTM_SHORT_H
#define GPULSTM_SHORT_H

#include "equations/inline.h"

#define GPULSTM_OWN_TANH

// 1 / (1 + 2^x); 0 for large x.
GL_INLINE float gl_falling(float x) { return __fdividef(1.0f, 1.0f + exp2f(x)); }
GL_INLINE float gl_tanh(float x) { return 1.0f - 2.0f * gl_falling(2.885390082f * x); }  // 2 / ln 2
GL_INLINE float gl_sigmoid(float x) { return gl_falling(-1.442695041f * x); }            // 1 / ln 2

#endif
