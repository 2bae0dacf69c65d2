// One time step of a layer in one launch: a tile of the recurrent product, the gates on its registers.
//
// Compiled for one choice of macros: GL_T, GL_R (storage and computing type), GL_CELL, GL_SHAPE (six numbers, tile.cuh).
// Grid: (columns / BN, rows / BM) of the product, one block a tile.
#include "cuda/step.cuh"

typedef GlShape<GL_SHAPE> Shape;

// h_t from h_{t-1}: the product is (B, H) (H, G*H).
extern "C" __global__ void __launch_bounds__(Shape::threads) gpulstm_forward(GlForward<GL_T, GL_R> a, long long t) {
    __shared__ alignas(16) unsigned char shared[GlShared<GL_T, GL_R, Shape, false>::bytes];
    GL_R acc[Shape::TM][Shape::TG][4] = {};
    const int m0 = blockIdx.y * Shape::BM, n0 = blockIdx.x * Shape::BN, K = (int)a.units;
    gl_product<GL_T, GL_R, Shape, false, false, GL_CELL == GL_GRU ? 3 : 4, false>(
        acc, gl_forward_operand<GL_CELL>(a, t), gl_matrix(a.packed, a.pitch, K, (int)a.pitch), m0, n0, K, shared, nullptr);
    gl_finish<GL_R, Shape>(acc, shared, GlForwardStep<GL_T, GL_R, GL_CELL>{a, t, m0, n0});
}

// The gates' gradients of step t, from those of the step that came after it in the layer's order (`after`, -1 for none):
// the product is (B, G*H) (G*H, H).
extern "C" __global__ void __launch_bounds__(Shape::threads)
    gpulstm_backward(GlBackward<GL_T, GL_R> a, long long t, long long after) {
    __shared__ alignas(16) unsigned char shared[GlShared<GL_T, GL_R, Shape, false>::bytes];
    GL_R acc[Shape::TM][Shape::TG][4] = {};
    const int m0 = blockIdx.y * Shape::BM, n0 = blockIdx.x * Shape::BN, K = (int)(GlGates<GL_CELL>::count * a.units);
    if (after >= 0)
        gl_product<GL_T, GL_R, Shape, false, false, 4, false>(acc, gl_backward_operand<GL_CELL>(a, after),
                                                              gl_matrix(a.packed, a.pitch, K, (int)a.pitch), m0, n0, K,
                                                              shared, nullptr);
    gl_finish<GL_R, Shape>(acc, shared, GlBackwardStep<GL_T, GL_R, GL_CELL>{a, t, m0, n0});
}
