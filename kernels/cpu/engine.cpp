// Everything that is compiled once per instruction set; GPULSTM_ISA names the one at hand.
#include "backward.h"
#include "stack.h"
#include "stream.h"

#define GPULSTM_NAME_OF(x) #x
#define GPULSTM_NAME(x) GPULSTM_NAME_OF(x)

namespace gpulstm {
namespace GPULSTM_ISA {

template <typename R>
constexpr EngineFunctions<R> all() {
#if defined(__AMX_TILE__)
    if constexpr (sizeof(R) == 8)
        return {};  // it has no matrix unit: see `functions` in module.cpp
    else
#endif
        return {Vec<R>::LANES, forward<R>, backward<R>, working_room<R>, stack_forward<R>, make_stream<R>};
}

extern const Engine engine;
const Engine engine = {{all<float>(), all<double>()}, GPULSTM_NAME(GPULSTM_ISA)};

}  // namespace GPULSTM_ISA
}  // namespace gpulstm
