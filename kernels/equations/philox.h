// Philox4x32-10 (Salmon et al. 2011): four random words from a 128-bit counter and a 64-bit key.
// The same integers as gpulstm/arrays/random.py, for CUDA (NVRTC) and for a host C++ compiler.
#ifndef GPULSTM_PHILOX_H
#define GPULSTM_PHILOX_H

#include "equations/inline.h"

GL_INLINE void gl_philox(unsigned int c0, unsigned int c1, unsigned int c2, unsigned int c3, unsigned int k0,
                         unsigned int k1, unsigned int out[4]) {
    for (int round = 0; round < 10; ++round) {
        unsigned long long p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
        unsigned int n0 = (unsigned int)(p1 >> 32) ^ c1 ^ k0, n2 = (unsigned int)(p0 >> 32) ^ c3 ^ k1;
        c1 = (unsigned int)p1;
        c3 = (unsigned int)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

#endif
