// Tensor cores: fragments of 16 x 16 sums, loaded from and stored to shared memory, in the instructions of the PTX ISA
// (9.7, "Warp-level matrix instructions using wmma").
//
// What <mma.h> offers, as far as it is needed here: that header asks for one which comes with nvcc alone, and kernels
// are compiled where there is no nvcc.  The simulator has a <mma.h> of its own.
#ifndef GPULSTM_WMMA_CUH
#define GPULSTM_WMMA_CUH

#include "equations/inline.h"

#ifdef HOSTGPU
#include <mma.h>

namespace gl_wmma = nvcuda::wmma;
#else
#include <cuda_fp16.h>

namespace gl_wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major };
namespace precision {
struct tf32;
}

// T: what is multiplied; K: the depth, 16 for half and 8 for TF32.  Which lane holds which element is not defined.
template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment;

template <class Use, class Layout>
struct fragment<Use, 16, 16, 16, __half, Layout> {
    enum : int { num_elements = 8 };
    unsigned int x[8];
};

template <class Use, class Layout>
struct fragment<Use, 16, 16, 8, precision::tf32, Layout> {
    enum : int { num_elements = 4 };
    float x[4];
};

template <int K>
struct fragment<accumulator, 16, 16, K, float, void> {
    enum : int { num_elements = 8 };
    float x[8];
};

GL_INLINE unsigned int address(const void* shared) { return (unsigned int)__cvta_generic_to_shared(shared); }

GL_INLINE float __float_to_tf32(float value) {
    unsigned int bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return __uint_as_float(bits);
}

template <int K>
GL_INLINE void fill_fragment(fragment<accumulator, 16, 16, K, float>& f, float value) {
#pragma unroll
    for (int i = 0; i < 8; ++i) f.x[i] = value;
}

#define GL_WMMA_LOAD(USE, LETTER, LAYOUT, NAME)                                                                    \
    GL_INLINE void load_matrix_sync(fragment<USE, 16, 16, 16, __half, LAYOUT>& f, const __half* at,                \
                                    unsigned int pitch) {                                                          \
        asm volatile("wmma.load." LETTER ".sync.aligned." NAME                                                     \
                     ".m16n16k16.shared.f16 {%0, %1, %2, %3, %4, %5, %6, %7}, [%8], %9;"                           \
                     : "=r"(f.x[0]), "=r"(f.x[1]), "=r"(f.x[2]), "=r"(f.x[3]), "=r"(f.x[4]), "=r"(f.x[5]),         \
                       "=r"(f.x[6]), "=r"(f.x[7])                                                                  \
                     : "r"(address(at)), "r"(pitch)                                                                \
                     : "memory");                                                                                  \
    }                                                                                                              \
    GL_INLINE void load_matrix_sync(fragment<USE, 16, 16, 8, precision::tf32, LAYOUT>& f, const float* at,         \
                                    unsigned int pitch) {                                                          \
        unsigned int x[4];                                                                                         \
        asm volatile("wmma.load." LETTER ".sync.aligned." NAME ".m16n16k8.shared.tf32 {%0, %1, %2, %3}, [%4], %5;" \
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])                                              \
                     : "r"(address(at)), "r"(pitch)                                                                \
                     : "memory");                                                                                  \
        for (int i = 0; i < 4; ++i) f.x[i] = __uint_as_float(x[i]);                                                \
    }
GL_WMMA_LOAD(matrix_a, "a", row_major, "row")
GL_WMMA_LOAD(matrix_b, "b", row_major, "row")
GL_WMMA_LOAD(matrix_b, "b", col_major, "col")
#undef GL_WMMA_LOAD

#define GL_WMMA_SUMS(f) \
    "+f"(f.x[0]), "+f"(f.x[1]), "+f"(f.x[2]), "+f"(f.x[3]), "+f"(f.x[4]), "+f"(f.x[5]), "+f"(f.x[6]), "+f"(f.x[7])
#define GL_WMMA_MULTIPLY(LAYOUT, NAME)                                                                            \
    GL_INLINE void multiply(fragment<accumulator, 16, 16, 16, float>& d, const unsigned int (&a)[8],              \
                            const unsigned int (&b)[8], LAYOUT*) {                                                \
        asm("wmma.mma.sync.aligned.row." NAME                                                                     \
            ".m16n16k16.f32.f32 {%0, %1, %2, %3, %4, %5, %6, %7}, "                                               \
            "{%8, %9, %10, %11, %12, %13, %14, %15}, {%16, %17, %18, %19, %20, %21, %22, %23}, "                  \
            "{%0, %1, %2, %3, %4, %5, %6, %7};"                                                                   \
            : GL_WMMA_SUMS(d)                                                                                     \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]), "r"(a[6]), "r"(a[7]), "r"(b[0]),  \
              "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(b[4]), "r"(b[5]), "r"(b[6]), "r"(b[7]));                       \
    }                                                                                                             \
    GL_INLINE void multiply(fragment<accumulator, 16, 16, 8, float>& d, const float (&a)[4], const float (&b)[4], \
                            LAYOUT*) {                                                                            \
        asm("wmma.mma.sync.aligned.row." NAME                                                                     \
            ".m16n16k8.f32.tf32.tf32.f32 {%0, %1, %2, %3, %4, %5, %6, %7}, "                                      \
            "{%8, %9, %10, %11}, {%12, %13, %14, %15}, {%0, %1, %2, %3, %4, %5, %6, %7};"                         \
            : GL_WMMA_SUMS(d)                                                                                     \
            : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),                 \
              "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])),                 \
              "r"(__float_as_uint(b[2])), "r"(__float_as_uint(b[3])));                                            \
    }
GL_WMMA_MULTIPLY(row_major, "row")
GL_WMMA_MULTIPLY(col_major, "col")
#undef GL_WMMA_MULTIPLY

// d = a b + c, where c is d.
template <int K, class T, class Layout>
GL_INLINE void mma_sync(fragment<accumulator, 16, 16, K, float>& d,
                        const fragment<matrix_a, 16, 16, K, T, row_major>& a,
                        const fragment<matrix_b, 16, 16, K, T, Layout>& b,
                        const fragment<accumulator, 16, 16, K, float>&) {
    multiply(d, a.x, b.x, (Layout*)nullptr);
}

template <int K>
GL_INLINE void store_matrix_sync(float* at, const fragment<accumulator, 16, 16, K, float>& f, unsigned int pitch,
                                 layout_t) {
#define GL_WMMA_STORE(SHAPE)                                                                                \
    asm volatile("wmma.store.d.sync.aligned.row." SHAPE                                                     \
                 ".shared.f32 [%0], {%1, %2, %3, %4, %5, %6, %7, %8}, %9;" ::"r"(address(at)),              \
                 "f"(f.x[0]), "f"(f.x[1]), "f"(f.x[2]), "f"(f.x[3]), "f"(f.x[4]), "f"(f.x[5]), "f"(f.x[6]), \
                 "f"(f.x[7]), "r"(pitch)                                                                    \
                 : "memory")
    if constexpr (K == 16)
        GL_WMMA_STORE("m16n16k16");
    else
        GL_WMMA_STORE("m16n16k8");
#undef GL_WMMA_STORE
}
#undef GL_WMMA_SUMS

}  // namespace gl_wmma
#endif

#endif
