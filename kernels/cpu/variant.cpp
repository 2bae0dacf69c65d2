// Layers with options, compiled once per instruction set (GPULSTM_ISA).
#include "variant_backward.h"
#include "variant_stream.h"

#define GPULSTM_NAME_OF(x) #x
#define GPULSTM_NAME(x) GPULSTM_NAME_OF(x)

namespace gpulstm {
namespace GPULSTM_ISA {

template <typename R>
constexpr VariantFunctions<R> all() {
    return {variant_saved_row<R>, variant_room<R>, variant_forward<R>, variant_backward<R>, variant_stream<R>};
}

extern const Variants variants;
const Variants variants = {{all<float>(), all<double>()}, GPULSTM_NAME(GPULSTM_ISA)};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm
