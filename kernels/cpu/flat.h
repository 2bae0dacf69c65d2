// Passes over flat buffers on the CPU: an optimizer's step, the norm of the gradients, a loss with its gradient.  Plain
// structs, no instruction set.  Nothing here depends on the number of threads or on the instruction set, bit for bit.
#ifndef GPULSTM_CPU_FLAT_H
#define GPULSTM_CPU_FLAT_H

#include "layer.h"

namespace gpulstm {

// One step of an optimizer: all arrays [size].
template <typename R>
struct StepCall {
    R* w;
    const R* g;
    R* moments[3];  // in the order of the function in kernels/equations/optimizers.h; null where these options keep
                    // none
    R scale;        // on the gradient
    R a[8];         // the numbers of the step, in the order of that function
    long size;
    int threads;
};

// A loss over `count` targets: raw and draw [count][outputs], target and weight [count]; weight null for all ones.
template <typename R>
struct LossCall {
    const R *raw, *target, *weight;
    R* draw;
    long count, outputs;
    const R* options;  // huber: delta; pinball: `rise` of each level, then `fall` of each; gaussian: floor
};

// Which elements a dropout keeps, as gpulstm/arrays/random.py defines it: kept [steps][size].
struct KeepCall {
    bool* kept;
    long steps;
    long first, size;                                  // the elements of a step
    unsigned first_step, k0, k1, stream, call, least;  // of Philox's counter and key; the smallest word that is kept
    int threads;
};

// One instruction set's functions.
template <typename R>
struct FlatFunctions {
    // Run the function of that name; false where there is none.
    bool (*step)(const char* function, const StepCall<R>&);
    // Sum of squares, in double, in an order that depends on the size alone.
    double (*squares)(const R*, long size, int threads);
    // Mean cost, weighted, summed in double, into `value`; the gradient of it into draw; false where there is none.
    bool (*loss)(const char* loss, const LossCall<R>&, double& value);
};
struct Flat : ByType<FlatFunctions> {
    const char* name;
    void (*keep)(const KeepCall&);
};

}  // namespace gpulstm

#endif
