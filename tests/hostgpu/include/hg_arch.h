// Included behind the prelude: what a capability does not have (it has no place in the precompiled header).
#if __CUDA_ARCH__ < 800
#pragma GCC poison __reduce_add_sync __reduce_min_sync __reduce_max_sync __reduce_and_sync __reduce_or_sync __reduce_xor_sync
#endif
