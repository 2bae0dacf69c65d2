// Sizes of this processor's caches, and what the engine decides from them.
#ifndef GPULSTM_CPU_CACHES_H
#define GPULSTM_CPU_CACHES_H

namespace gpulstm {

// Bytes of the first-level data cache and of the second-level cache of one core, and of the third-level cache (0:
// none).
struct Caches {
    long first, second, third;
    const char* source;  // "sysconf", "/sys", "assumed" or "given"
};

// Read when first asked for: from /sys/devices/system/cpu/cpu0/cache, else from sysconf (on x86 that is CPUID), else
// assumed as 32 KiB, 512 KiB and 0.
const Caches& caches();
void give_caches(long first, long second, long third);

// What a step reads, and from where.  A panel of weights is read once for each tile of rows: from the second level, in
// blocks that stay there next to the rows, their sums and the next block.  All weights of a thread are read once a
// step: from the second level where they fill three quarters of it at most, else from the third, where only many rows
// pay for the way.  What is taken ahead for several steps may fill a quarter of the second level.
struct CacheModel {
    long block;     // bytes of a panel's weights that are used by all tiles before the next ones
    long resident;  // bytes of weights that stay in the second-level cache
    long ahead;     // bytes of the input's products that are taken ahead
};
CacheModel cache_model();

}  // namespace gpulstm

#endif
