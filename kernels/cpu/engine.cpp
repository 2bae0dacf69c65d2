// Everything that is compiled once per instruction set; GPULSTM_ISA names the one at hand.
#include "backward.h"
#include "stack.h"
#include "stream.h"

#define GPULSTM_NAME_OF(x) #x
#define GPULSTM_NAME(x) GPULSTM_NAME_OF(x)

namespace gpulstm {
namespace GPULSTM_ISA {

#if defined(__AMX_TILE__)
#define GPULSTM_DOUBLE(function) nullptr  // it has no matrix unit: see `engine_of` in module.cpp
#else
#define GPULSTM_DOUBLE(function) function<double>
#endif

extern const Engine engine;
const Engine engine = {GPULSTM_NAME(GPULSTM_ISA),
                       Vec<float>::LANES,
                       Vec<double>::LANES,
                       forward<float>,
                       GPULSTM_DOUBLE(forward),
                       backward<float>,
                       GPULSTM_DOUBLE(backward),
                       working_room<float>,
                       GPULSTM_DOUBLE(working_room),
                       stack_forward<float>,
                       GPULSTM_DOUBLE(stack_forward),
                       make_stream<float>,
                       GPULSTM_DOUBLE(make_stream)};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm
