// Tensor cores: 16 x 8 sums of a warp, by the instructions whose layout the PTX ISA gives (9.7.14: mma, ldmatrix).
//
// With group = lane / 4 and within = lane % 4, a lane holds the sums (group, 2 * within), (group, 2 * within + 1) and
// those eight rows below.  Factors are half, bfloat16, or float rounded to TF32; a fragment is 32 bytes deep, so 16 or
// 8 numbers.  On the simulator each instruction is a function of its <hg_mma.h>.
#ifndef GPULSTM_MMA_CUH
#define GPULSTM_MMA_CUH

#include "equations/inline.h"

#ifdef HOSTGPU
#include <hg_mma.h>
#endif

// Four 8 x 8 matrices of 16-bit numbers (or 8 x 4 of 32-bit ones), or two; `row` is one of their rows, 16 bytes in
// shared memory: lanes 8 i to 8 i + 7 name those of matrix i.  TURNED: transposed, 16-bit numbers alone.
template <bool TURNED>
GL_INLINE void gl_load_matrices(unsigned int (&f)[4], const void* row) {
#ifdef HOSTGPU
    hg_ldmatrix<TURNED>(f, row);
#else
    const unsigned int at = (unsigned int)__cvta_generic_to_shared(row);
    if constexpr (TURNED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3])
                     : "r"(at)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3])
                     : "r"(at)
                     : "memory");
#endif
}

GL_INLINE void gl_load_matrices(unsigned int (&f)[2], const void* row) {
#ifdef HOSTGPU
    hg_ldmatrix<false>(f, row);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(f[0]), "=r"(f[1])
                 : "r"((unsigned int)__cvta_generic_to_shared(row))
                 : "memory");
#endif
}

// c += a b for factors of type T.
template <typename T>
GL_INLINE void gl_mma(float (&c)[4], const unsigned int (&a)[4], unsigned int b0, unsigned int b1) {
#ifdef HOSTGPU
    hg_mma<T>(c, a, b0, b1);
#else
#define GL_MMA(NAME)                                                                                \
    asm("mma.sync.aligned." NAME " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                            \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
    if constexpr (sizeof(T) == 4) {
        GL_MMA("m16n8k8.row.col.f32.tf32.tf32.f32");
    } else {
#if defined(GL_BFLOAT)
        GL_MMA("m16n8k16.row.col.f32.bf16.bf16.f32");
#elif __CUDA_ARCH__ >= 800
        GL_MMA("m16n8k16.row.col.f32.f16.f16.f32");
#else  // half the depth at once
#define GL_HALF_MMA(A0, A1, B)                                                                                 \
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};" \
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                       \
        : "r"(A0), "r"(A1), "r"(B))
        GL_HALF_MMA(a[0], a[1], b0);
        GL_HALF_MMA(a[2], a[3], b1);
#undef GL_HALF_MMA
#endif
    }
#undef GL_MMA
#endif
}

// What the factors of a type are in fragments.
template <typename T>
struct GlFragment {
    enum : int { depth = 32 / (int)sizeof(T), piece = 16 / (int)sizeof(T) };

    // Numbers as tensor cores take them: TF32 is a float whose last bits are rounded away.
    template <int N>
    static GL_INLINE void round(unsigned int (&f)[N]) {
        if constexpr (sizeof(T) == 4) {
#pragma unroll
            for (int i = 0; i < N; ++i) {
#ifdef HOSTGPU
                f[i] = hg_tf32(f[i]);
#else
                asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(f[i]) : "f"(__uint_as_float(f[i])));
#endif
            }
        }
    }

    // A left fragment of 16 rows out of [rows][pitch].
    static GL_INLINE void left(unsigned int (&f)[4], const T* at, int pitch) {
        const int lane = threadIdx.x % 32;
        gl_load_matrices<false>(f, at + lane % 16 * pitch + lane / 16 * piece);
        round(f);
    }

    // The same out of [depth][pitch].
    static GL_INLINE void left_turned(unsigned int (&f)[4], const T* at, int pitch) {
        const int lane = threadIdx.x % 32, group = lane / 4, within = lane % 4;
        if constexpr (sizeof(T) == 2) {
            gl_load_matrices<true>(f, at + (lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * 8);
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) f[i] = __float_as_uint(at[(within + i / 2 * 4) * pitch + group + i % 2 * 8]);
            round(f);
        }
    }

    // Right fragments of two times eight columns out of [columns][pitch].
    static GL_INLINE void right(unsigned int (&f)[4], const T* at, int pitch) {
        const int lane = threadIdx.x % 32;
        gl_load_matrices<false>(f, at + (lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * piece);
        round(f);
    }

    // The same out of [depth][pitch].
    static GL_INLINE void right_turned(unsigned int (&f)[4], const T* at, int pitch) {
        const int lane = threadIdx.x % 32, group = lane / 4, within = lane % 4;
        if constexpr (sizeof(T) == 2) {
            gl_load_matrices<true>(f, at + lane % 16 * pitch + lane / 16 * 8);
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) f[i] = __float_as_uint(at[(within + i % 2 * 4) * pitch + group + i / 2 * 8]);
            round(f);
        }
    }

    // Right fragments of eight columns, N / 2 of them one behind the other in depth, out of [columns][pitch].
    template <int N>
    static GL_INLINE void right_deep(unsigned int (&f)[N], const T* at, int pitch) {
        const int lane = threadIdx.x % 32;
        const T* row = at + lane % 8 * pitch + lane / 8 % N * piece;
        if constexpr (N == 4)
            gl_load_matrices<false>(f, row);
        else
            gl_load_matrices(f, row);
        round(f);
    }
};

// Where a lane holds two neighbors of two rows, four of one: even lanes get those of the upper rows, odd lanes the
// lower.
GL_INLINE void gl_four_neighbors(float (&c)[4]) {
    const bool odd = threadIdx.x & 1;
    const float first = __shfl_xor_sync(0xffffffffu, odd ? c[0] : c[2], 1);
    const float second = __shfl_xor_sync(0xffffffffu, odd ? c[1] : c[3], 1);
    c[0] = odd ? first : c[0];
    c[1] = odd ? second : c[1];
    c[2] = odd ? c[2] : first;
    c[3] = odd ? c[3] : second;
}

// Hand each OUT neighboring sums of a warp's FM x FN tiles to `write(row, column, sums)`; row0, column0: of the first.
template <int OUT, int FM, int FN, class Write>
GL_INLINE void gl_hand_on(float (&sums)[FM][FN][4], int row0, int column0, const Write& write) {
    static_assert(OUT == 1 || OUT == 2 || OUT == 4, "a lane has two neighbors, or four with the next lane's");
    const int lane = threadIdx.x % 32, group = lane / 4, within = lane % 4;
    if constexpr (OUT == 4) {  // all of them before what depends on the row: the warp is together here
#pragma unroll
        for (int i = 0; i < FM; ++i)
#pragma unroll
            for (int j = 0; j < FN; ++j) gl_four_neighbors(sums[i][j]);
    }
#pragma unroll
    for (int i = 0; i < FM; ++i)
#pragma unroll
        for (int j = 0; j < FN; ++j) {
            const int row = row0 + i * 16 + group, column = column0 + j * 8;
            if constexpr (OUT == 4) {
                write(row + lane % 2 * 8, column + within / 2 * 4, sums[i][j]);
            } else {
#pragma unroll
                for (int k = 0; k < 4; k += OUT) write(row + k / 2 * 8, column + within * 2 + k % 2, sums[i][j] + k);
            }
        }
}

#endif
