// One time step of a layer in one launch: a tile of the recurrent product, the gates on its sums.
//
// Compiled for one choice of macros: GL_T, GL_R (storage and computing type), GL_CELL, GL_SHAPE (six numbers,
// tile.cuh), or with GL_TENSOR five (tensor.cuh); with GL_ONLY_FORWARD or GL_ONLY_BACKWARD one kernel alone.  Grid:
// (columns / BN, rows / BM) of the product, one block a tile.
#include "cuda/step.cuh"

#ifdef GL_TENSOR
#include "cuda/tensor.cuh"

typedef GlTensorTile<GL_T, GL_SHAPE> Forward;
typedef Forward Backward;
#else
typedef GlTile<GL_T, GL_R, GL_CELL == GL_GRU ? 3 : 4, GL_SHAPE> Forward;
typedef GlTile<GL_T, GL_R, 4, GL_SHAPE> Backward;
#endif

#ifndef GL_ONLY_BACKWARD
// h_t from h_{t-1}: the product is (B, H) (H, G*H).
extern "C" __global__ void __launch_bounds__(Forward::threads, 1)
    gpulstm_forward(GlForward<GL_T, GL_R> a, long long t) {
    __shared__ alignas(32) unsigned char shared[Forward::bytes];
    const int m0 = blockIdx.y * Forward::BM, n0 = blockIdx.x * Forward::BN, K = (int)a.units;
    Forward tile;
    tile.product<false, false>(gl_forward_operand<GL_CELL>(a, t), gl_matrix(a.packed, a.pitch, K, (int)a.pitch), m0, n0,
                               K, shared);
    constexpr int count = GlGates<GL_CELL>::wide > (int)Forward::out ? GlGates<GL_CELL>::wide : (int)Forward::out;
    tile.finish<count>(shared, true, GlForwardStep<GL_T, GL_R, GL_CELL, count>{a, t, (unsigned)m0, (unsigned)n0});
}
#endif

#ifndef GL_ONLY_FORWARD
// The gates' gradients of step t, from those of the step that came after it in the layer's order (`after`, -1 for
// none): the product is (B, G*H) (G*H, H).
extern "C" __global__ void __launch_bounds__(Backward::threads, 1)
    gpulstm_backward(GlBackward<GL_T, GL_R> a, long long t, long long after) {
    __shared__ alignas(32) unsigned char shared[Backward::bytes];
    const int m0 = blockIdx.y * Backward::BM, n0 = blockIdx.x * Backward::BN;
    const int K = (int)(GlGates<GL_CELL>::count * a.units);
    Backward tile;
    if (after >= 0)
        tile.product<false, false>(gl_backward_operand<GL_CELL>(a, after),
                                   gl_matrix(a.packed, a.pitch, K, (int)a.pitch), m0, n0, K, shared);
    constexpr int count = Backward::out;
    tile.finish<count>(shared, after >= 0,
                       GlBackwardStep<GL_T, GL_R, GL_CELL, count>{a, t, (unsigned)m0, (unsigned)n0});
}
#endif
