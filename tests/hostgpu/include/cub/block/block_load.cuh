// What CuPy's reduction kernels take from CUB: each thread's consecutive values of a tile.
#pragma once
namespace cub {
enum BlockLoadAlgorithm { BLOCK_LOAD_DIRECT, BLOCK_LOAD_STRIPED, BLOCK_LOAD_VECTORIZE, BLOCK_LOAD_TRANSPOSE, BLOCK_LOAD_WARP_TRANSPOSE, BLOCK_LOAD_WARP_TRANSPOSE_TIMESLICED };
template <class T, int X, int N, BlockLoadAlgorithm A = BLOCK_LOAD_DIRECT, int Y = 1, int Z = 1> struct BlockLoad {
  struct TempStorage { char nothing; };
  BlockLoad(TempStorage&) {}
  BlockLoad() {}
  template <class From, class To> void Load(From from, To (&values)[N]) { for (int i = 0; i < N; ++i) values[i] = from[hg_linear_tid() * N + i]; }
  template <class From, class To, class Other> void Load(From from, To (&values)[N], int valid, Other other) {
    for (int i = 0; i < N; ++i) { const int at = (int)hg_linear_tid() * N + i; if (at < valid) values[i] = from[at]; else values[i] = other; }
  }
};
}
