// Whole-sequence products and sums as kernels of this project, for a CUDA graph: CuPy refuses cuBLAS in a capture.
//
// Compiled for one choice of macros: GL_T, GL_R, GL_TA, GL_TB, GL_SHAPE (tile.cuh), or with GL_TENSOR (tensor.cuh).
// Under GL_SPLIT the depth is shared by blocks, for products of few sums: parts first, then their sums in a fixed
// order.
#include "cuda/tile.cuh"

#ifdef GL_TENSOR
#include "cuda/tensor.cuh"

typedef GlTensorTile<GL_T, GL_SHAPE> Tile;
#else
typedef GlTile<GL_T, GL_R, 4, GL_SHAPE> Tile;
#endif

typedef GlMatrix<GL_T> Matrix;

#ifdef GL_SPLIT
// Part z of op(A) op(B), over `depth` (a multiple of every tile's) of K: partial [parts][M][N].  Grid: (N / BN, M / BM,
// parts).
extern "C" __global__ void __launch_bounds__(Tile::threads, 1)
    gpulstm_gemm_part(const GL_T* a, const GL_T* b, GL_R* partial, long long M, long long N, long long K,
                      long long pitch_a, long long pitch_b, long long depth) {
    __shared__ alignas(32) unsigned char shared[Tile::bytes];
    const int m0 = blockIdx.y * Tile::BM, n0 = blockIdx.x * Tile::BN;
    const int k0 = (int)(blockIdx.z * depth), end = k0 + depth < K ? (int)(k0 + depth) : (int)K;
    const Matrix whole_a = GL_TA ? gl_matrix(a, pitch_a, end, (int)M) : gl_matrix(a, pitch_a, (int)M, end);
    const Matrix whole_b = GL_TB ? gl_matrix(b, pitch_b, (int)N, end) : gl_matrix(b, pitch_b, end, (int)N);
    Tile tile;
    tile.product<GL_TA, GL_TB>(GL_TA ? gl_from_row(whole_a, k0) : gl_from_column(whole_a, k0),
                               GL_TB ? gl_from_column(whole_b, k0) : gl_from_row(whole_b, k0), m0, n0, end - k0,
                               shared);
    constexpr int count = Tile::out;
    tile.finish<count>(shared, true, [&](int row, int column, const GL_R* sums) {
        const long long m = m0 + row, n = n0 + column;
        if (m >= M) return;
        for (int j = 0; j < count && n + j < N; ++j) partial[(blockIdx.z * M + m) * N + n + j] = sums[j];
    });
}

// C = the sum of its parts (+ C), both of `size` elements.  One thread an element.
extern "C" __global__ void gpulstm_gemm_sum(const GL_R* partial, GL_T* c, long long size, long long parts,
                                            long long accumulate) {
    const long long at = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (at >= size) return;
    GL_R total = partial[at];
    for (long long part = 1; part < parts; ++part) total += partial[part * size + at];
    c[at] = (GL_T)(accumulate ? (GL_R)c[at] + total : total);
}
#else
template <typename T, typename R, int COUNT>
struct GlStoreC {
    T* c;
    const T* bias;
    long long pitch, m0, n0, M, N;
    bool accumulate;

    GL_INLINE void operator()(int row, int column, const R* sums) const {
        long long m = m0 + row, n = n0 + column;
        if (m >= M) return;
        for (int j = 0; j < COUNT && n + j < N; ++j) {
            R value = sums[j] + (bias ? (R)bias[n + j] : R(0));
            T* to = c + m * pitch + n + j;
            *to = (T)(accumulate ? (R)*to + value : value);
        }
    }
};

// C [M][N] = op(A) op(B) (+ bias of the columns) (+ C).  Grid: (N / BN, M / BM).
extern "C" __global__ void __launch_bounds__(Tile::threads, 1)
    gpulstm_gemm(const GL_T* a, const GL_T* b, GL_T* c, const GL_T* bias, long long M, long long N, long long K,
                 long long pitch_a, long long pitch_b, long long pitch_c, long long accumulate) {
    __shared__ alignas(32) unsigned char shared[Tile::bytes];
    const int m0 = blockIdx.y * Tile::BM, n0 = blockIdx.x * Tile::BN;
    Tile tile;
    tile.product<GL_TA, GL_TB>(GL_TA ? gl_matrix(a, pitch_a, (int)K, (int)M) : gl_matrix(a, pitch_a, (int)M, (int)K),
                               GL_TB ? gl_matrix(b, pitch_b, (int)N, (int)K) : gl_matrix(b, pitch_b, (int)K, (int)N),
                               m0, n0, (int)K, shared);
    constexpr int count = Tile::out;
    tile.finish<count>(shared, true, GlStoreC<GL_T, GL_R, count>{c, bias, pitch_c, m0, n0, M, N, accumulate != 0});
}
#endif
