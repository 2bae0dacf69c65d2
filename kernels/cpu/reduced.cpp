// Inference with weights in int8 and bfloat16, compiled once per instruction set (GPULSTM_ISA).
#include "reduced.h"

#include "stack.h"
#include "stream.h"

#define GPULSTM_NAME_OF(x) #x
#define GPULSTM_NAME(x) GPULSTM_NAME_OF(x)

namespace gpulstm {

#if defined(GPULSTM_REDUCED_UNITS)  // instructions that AVX-512 may have or not have
namespace avx512_vnni {
extern const ReducedTiles int8_tiles;
}
namespace avx512_bf16 {
extern const ReducedTiles bfloat16_tiles;
}
#endif

namespace GPULSTM_ISA {

extern const ReducedTiles int8_tiles, bfloat16_tiles;

const ReducedTiles& reduced_tiles(Precision precision) {
#if defined(GPULSTM_REDUCED_UNITS)
    static const bool vnni = __builtin_cpu_supports("avx512vnni"), bf16 = __builtin_cpu_supports("avx512bf16");
    if (precision == Precision::int8 ? vnni : bf16)
        return precision == Precision::int8 ? avx512_vnni::int8_tiles : avx512_bf16::bfloat16_tiles;
#endif
    return precision == Precision::int8 ? int8_tiles : bfloat16_tiles;
}

static bool reduced_forward(const ForwardCall<float>& call, int threads, Split split) {
    return forward_by<float, ForwardOnReduced>(call, threads, split);
}

static bool reduced_stack(const StackCall<float>& s, int threads) {
    return stack_by<float, ForwardOnReduced>(s, threads, reduced_forward);
}

extern const Reduced reduced;
const Reduced reduced = {GPULSTM_NAME(GPULSTM_ISA), reduced_tiles, reduced_forward, reduced_stack,
                         stream_by<float, ForwardOnReduced>};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm
