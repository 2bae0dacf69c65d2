// Layers with options, compiled once per instruction set (GPULSTM_ISA).
#include "variant_backward.h"
#include "variant_stream.h"

#define GPULSTM_NAME_OF(x) #x
#define GPULSTM_NAME(x) GPULSTM_NAME_OF(x)

namespace gpulstm {
namespace GPULSTM_ISA {

extern const Variants variants;
const Variants variants = {GPULSTM_NAME(GPULSTM_ISA), variant_saved_row<float>, variant_saved_row<double>,
                           variant_room<float>,       variant_room<double>,     variant_forward<float>,
                           variant_forward<double>,   variant_backward<float>,  variant_backward<double>,
                           variant_stream<float>,     variant_stream<double>};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm
