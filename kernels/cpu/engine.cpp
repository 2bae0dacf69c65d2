// Everything that is compiled once per instruction set; GPULSTM_ISA names the one at hand.
#include "backward.h"
#include "stack.h"
#include "stream.h"

#define GPULSTM_NAME_OF(x) #x
#define GPULSTM_NAME(x) GPULSTM_NAME_OF(x)

namespace gpulstm {
namespace GPULSTM_ISA {

extern const Engine engine;
const Engine engine = {GPULSTM_NAME(GPULSTM_ISA),
                       Vec<float>::LANES,
                       Vec<double>::LANES,
                       forward<float>,
                       forward<double>,
                       backward<float>,
                       backward<double>,
                       working_room<float>,
                       working_room<double>,
                       stack_forward<float>,
                       stack_forward<double>,
                       make_stream<float>,
                       make_stream<double>};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm
