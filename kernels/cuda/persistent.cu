// All time steps of a layer in one launch: the recurrent weights stay in shared memory, the grid meets once a step.
//
// Compiled for one choice of macros: GL_T, GL_R, GL_CELL, GL_SHAPE.  A block owns BN columns of the packed weights for
// the whole sequence and works through its share of the rows in every step; the blocks that own all columns are a
// group, and each group has the rows of its own.  Launched cooperatively, grid: (groups * panels).  What other blocks
// wrote before the barrier is read after it through ordinary loads, never through the read-only cache.
#include <cooperative_groups.h>

#include "cuda/step.cuh"

typedef GlShape<GL_SHAPE> Shape;
typedef GlShared<GL_T, GL_R, Shape, true> Layout;

extern __shared__ __align__(16) unsigned char gl_dynamic[]; // the tiles, then the resident weights

GL_INLINE GL_T* gl_resident() { return (GL_T*)(gl_dynamic + (Layout::bytes + 15) / 16 * 16); }

// This block's columns of the packed weights [K][pitch] into shared memory, [K][BN].
GL_INLINE void gl_load_resident(const GL_T* packed, long long pitch, int K, int n0) {
    GlMatrix<GL_T> weights = gl_matrix(packed, pitch, K, (int)pitch);
    for (int quad = threadIdx.x; quad < K * (Shape::BN / 4); quad += Shape::threads) {
        int k = quad / (Shape::BN / 4), column = quad % (Shape::BN / 4) * 4;
        *(GlFour<GL_T>*)(gl_resident() + k * Shape::BN + column) = gl_fetch(weights, k, n0 + column);
    }
    __syncthreads();
}

// A grid smaller than it was asked for would leave columns out: CuPy shrinks one that does not fit, with a warning.
GL_INLINE void gl_check_grid(long long panels, long long groups) {
    if (gridDim.x != panels * groups) __trap();
}

extern "C" __global__ void __launch_bounds__(Shape::threads, 1)
    gpulstm_forward_all(GlForward<GL_T, GL_R> a, long long steps, long long panels, long long groups) {
    gl_check_grid(panels, groups);
    const int n0 = (int)(blockIdx.x % panels) * Shape::BN, group = (int)(blockIdx.x / panels), K = (int)a.units;
    gl_load_resident(a.packed, a.pitch, K, n0);
    for (long long i = 0; i < steps; ++i) {
        const long long t = a.reverse ? steps - 1 - i : i;
        for (int m0 = group * Shape::BM; m0 < a.rows; m0 += (int)groups * Shape::BM) {
            GL_R acc[Shape::TM][Shape::TG][4] = {};
            gl_product<GL_T, GL_R, Shape, false, false, GL_CELL == GL_GRU ? 3 : 4, true>(
                acc, gl_forward_operand<GL_CELL>(a, t), gl_matrix(a.packed, a.pitch, K, (int)a.pitch), m0, n0, K,
                gl_dynamic, gl_resident());
            gl_finish<GL_R, Shape>(acc, gl_dynamic, GlForwardStep<GL_T, GL_R, GL_CELL>{a, t, m0, n0});
        }
        if (i + 1 < steps) cooperative_groups::this_grid().sync();
    }
}

extern "C" __global__ void __launch_bounds__(Shape::threads, 1)
    gpulstm_backward_all(GlBackward<GL_T, GL_R> a, long long steps, long long panels, long long groups) {
    gl_check_grid(panels, groups);
    const int n0 = (int)(blockIdx.x % panels) * Shape::BN, group = (int)(blockIdx.x / panels);
    const int K = (int)(GlGates<GL_CELL>::count * a.units);
    gl_load_resident(a.packed, a.pitch, K, n0);
    long long after = -1;
    for (long long i = 0; i <= steps; ++i) {
        const long long t = i == steps ? -1 : a.reverse ? i : steps - 1 - i;
        for (int m0 = group * Shape::BM; m0 < a.rows; m0 += (int)groups * Shape::BM) {
            GL_R acc[Shape::TM][Shape::TG][4] = {};
            if (after >= 0)
                gl_product<GL_T, GL_R, Shape, false, false, 4, true>(
                    acc, gl_backward_operand<GL_CELL>(a, after), gl_matrix(a.packed, a.pitch, K, (int)a.pitch), m0, n0,
                    K, gl_dynamic, gl_resident());
            gl_finish<GL_R, Shape>(acc, gl_dynamic, GlBackwardStep<GL_T, GL_R, GL_CELL>{a, t, m0, n0});
        }
        if (i < steps) cooperative_groups::this_grid().sync();
        after = t;
    }
}
