// All time steps of a layer in one launch: the recurrent weights stay in registers and shared memory, the grid meets
// once a step.
//
// Compiled for one choice of macros: GL_T, GL_R, GL_CELL, GL_WORK, GL_SHAPE (six numbers, resident.cuh), or with
// GL_TENSOR seven (resident_tensor.cuh).  A block owns BN columns of the packed weights for the whole sequence and
// works through its share of the rows in every step; the blocks that own all columns are a group, and each group has
// rows of its own.  Launched cooperatively, grid: (groups * panels).  A launch takes steps first..last-1 of the pass,
// all of them where nothing bounds its time; the backward pass has one more, for the gradient of the initial state.
//
// What one block reads of another's is h (forward) or the gates' gradients (backward).  They are written with ordinary
// stores, the barrier of the grid makes them visible, and every step writes them to a place of its own, which no block
// has read before.
//
// Under GL_COUNTERS a block waits for those of its group alone: each counts its steps up in `arrived`.
#include <cooperative_groups.h>

#include "cuda/resident.cuh"
#include "cuda/step.cuh"

#ifdef GL_TENSOR
#include "cuda/resident_tensor.cuh"

typedef GlResidentTensor<GL_T, GL_SHAPE> Forward;
typedef Forward Backward;
#else
typedef GlResident<GL_T, GL_R, GL_CELL == GL_GRU ? 3 : 4, GL_SHAPE> Forward;
typedef GlResident<GL_T, GL_R, 4, GL_SHAPE> Backward;
#endif

static_assert(Forward::work == GL_WORK, "who launches this must know how much shared memory it takes");

extern __shared__ __align__(32) unsigned char gl_dynamic[];  // the work of a product, then the resident weights

// Between two steps.  What a block wrote before is visible to the blocks that have passed.
#ifdef GL_COUNTERS
#define GL_BARRIER_PARAMETER , unsigned int* arrived  // [groups], zero at the start
#define GL_BARRIER GlBarrier{arrived + group, (unsigned int)panels, 0}

struct GlBarrier {
    enum : long long {
        patience = 1 << 24
    };  // looks at the counter, each some hundred nanoseconds: then something is wrong
    unsigned int* arrived;
    unsigned int blocks, passed;

    GL_INLINE void sync() {
        passed += blocks;
#ifdef HOSTGPU  // whose blocks take turns at the barrier of the grid alone
        cooperative_groups::this_grid().sync();
#else
        __syncthreads();  // all of the block's stores come before the release
        if (threadIdx.x == 0) {
            unsigned int seen = 0;
            asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(arrived) : "memory");
            for (long long looks = 0; seen < passed; ++looks) {
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(arrived) : "memory");
                if (looks > patience) __trap();
            }
        }
        __syncthreads();  // and all of its loads after the acquire
#endif
    }
};
#else
#define GL_BARRIER_PARAMETER
#define GL_BARRIER cooperative_groups::this_grid()
#endif

// A grid smaller than it was asked for would leave columns out: CuPy shrinks one that does not fit, with a warning.
GL_INLINE void gl_check_grid(long long panels, long long groups) {
    if (gridDim.x != panels * groups) __trap();
}

#ifndef GL_ONLY_BACKWARD
extern "C" __global__ void __launch_bounds__(Forward::threads, 1)
    gpulstm_forward_all(GlForward<GL_T, GL_R> a, long long steps, long long panels, long long groups, long long first,
                        long long last GL_BARRIER_PARAMETER) {
    enum : int { at_once = GlGates<GL_CELL>::wide };
    gl_check_grid(panels, groups);
    const int n0 = (int)(blockIdx.x % panels) * Forward::BN, group = (int)(blockIdx.x / panels), K = (int)a.units;
    auto barrier = GL_BARRIER;
    Forward weights;
    weights.load(gl_matrix(a.packed, a.pitch, K, (int)a.pitch), n0, K, gl_dynamic);
    const int rows = (int)a.rows, begin = group * Forward::BM, next = (int)groups * Forward::BM;
    const GL_T* h = gl_forward_operand<GL_CELL>(a, a.reverse ? steps - 1 - first : first).at + (long long)begin * K;
    int whole = Forward::Stage::whole(h, K);  // then it is so at every step
    long long step = (a.reverse ? -1 : 1) * a.rows * K, stride = (long long)next * K;
    gl_keep(step);
    gl_keep(stride);
    gl_keep(whole);
    for (int i = (int)first; i < (int)last; ++i, h += step) {
        const int t = a.reverse ? (int)steps - 1 - i : i;
        const GL_T* from = h;
        for (int m0 = begin; m0 < rows; m0 += next, from += stride) {
            weights.product(from, rows - m0, K, whole, gl_dynamic);
            weights.finish<at_once>(gl_dynamic, true,
                                    GlForwardStep<GL_T, GL_R, GL_CELL, at_once>{a, t, (unsigned)m0, (unsigned)n0});
        }
        if (i + 1 < (int)last) barrier.sync();
    }
}
#endif

#ifndef GL_ONLY_FORWARD
extern "C" __global__ void __launch_bounds__(Backward::threads, 1)
    gpulstm_backward_all(GlBackward<GL_T, GL_R> a, long long steps, long long panels, long long groups, long long first,
                         long long last GL_BARRIER_PARAMETER) {
    gl_check_grid(panels, groups);
    const int n0 = (int)(blockIdx.x % panels) * Backward::BN, group = (int)(blockIdx.x / panels);
    const int K = (int)(GlGates<GL_CELL>::count * a.units);
    auto barrier = GL_BARRIER;
    Backward weights;
    weights.load(gl_matrix(a.packed, a.pitch, K, (int)a.pitch), n0, K, gl_dynamic);
    const int rows = (int)a.rows, begin = group * Backward::BM, next = (int)groups * Backward::BM;
    // of the step before, which the first one has not
    const GL_T* du = gl_backward_operand<GL_CELL>(a, a.reverse ? first - 1 : steps - first).at + (long long)begin * K;
    int whole = Backward::Stage::whole(du, K);  // then it is so at every step
    long long step = (a.reverse ? 1 : -1) * a.rows * K, stride = (long long)next * K;
    gl_keep(step);
    gl_keep(stride);
    gl_keep(whole);
    for (int i = (int)first; i < (int)last; ++i, du += step) {
        const int t = i == (int)steps ? -1 : a.reverse ? i : (int)steps - 1 - i;
        const GL_T* from = du;
        for (int m0 = begin; m0 < rows; m0 += next, from += stride) {
            if (i > 0) weights.product(from, rows - m0, K, whole, gl_dynamic);
            weights.finish<1>(gl_dynamic, i > 0,
                              GlBackwardStep<GL_T, GL_R, GL_CELL, 1>{a, t, (unsigned)m0, (unsigned)n0});
        }
        if (i + 1 < (int)last) barrier.sync();
    }
}
#endif
