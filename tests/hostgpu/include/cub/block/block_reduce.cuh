// What CuPy's reduction kernels take from CUB: the reduction of a block's values, in a tree, for thread 0.
#pragma once
namespace cub {
enum BlockReduceAlgorithm { BLOCK_REDUCE_RAKING_COMMUTATIVE_ONLY, BLOCK_REDUCE_RAKING, BLOCK_REDUCE_WARP_REDUCTIONS };
template <class T, int X, BlockReduceAlgorithm A = BLOCK_REDUCE_WARP_REDUCTIONS, int Y = 1, int Z = 1> struct BlockReduce {
  static constexpr int threads = X * Y * Z;
  struct TempStorage { alignas(T) unsigned char bytes[threads * sizeof(T)]; };
  T* part;
  BlockReduce(TempStorage& storage) : part((T*)storage.bytes) {}
  template <class Op> T Reduce(const T& value, Op op, int valid = threads) {
    const int i = (int)hg_linear_tid();
    part[i] = value;
    for (int half = threads > 1 ? 1 << (31 - __builtin_clz(threads - 1)) : 0; half; half /= 2) {
      __syncthreads();
      if (i < half && i + half < valid && i + half < threads) part[i] = op(part[i], part[i + half]);
    }
    __syncthreads();
    return part[0];
  }
  template <int N, class Op> T Reduce(T (&values)[N], Op op) {
    T own = values[0];
    for (int i = 1; i < N; ++i) own = op(own, values[i]);
    return Reduce(own, op);
  }
};
}
