// Inference with weights of fewer bits: bfloat16 or int8, packed in groups of 32 bits along k.  Plain structs, no
// instruction set.
//
// bfloat16: two numbers of k a group; weights, and x and h as they enter a product, are rounded to nearest even.
// int8: four numbers of k a group; a weight is q * max|column| / 127 with q from -127 to 127, a number of x or h in the
// same way of its row and step.  Sums are exact then (int32), and products of scales are float32.  x, h, c, gates,
// biases and outputs stay float32.  gpulstm/engines/quantized.py states the same arithmetic in NumPy.
#ifndef GPULSTM_CPU_REDUCED_CALL_H
#define GPULSTM_CPU_REDUCED_CALL_H

#include "layer.h"

namespace gpulstm {

// out[r][slot] = start[slot] + sum over groups g of the products of a[r][g] and w[g][slot], a register a slot, int32 or
// float32.
struct ReducedProduct {
    const char* a;
    long a_row;  // bytes
    const char* w;
    long groups;
    const char* start;  // null for zeros
    char* out;          // rows of four registers
};
typedef void (*ReducedTile)(const ReducedProduct&);

constexpr int REDUCED_ROWS = 6;

// The tiles of one format and instruction set, for panels of 3 and of 4 registers.
struct ReducedTiles {
    const char* name;
    int rows;    // of a tile, at most
    int offset;  // int8: what is added to a number of a to have it unsigned; `start` takes it off again
    int word;    // bytes of a group of a: 4, or 8 where bfloat16 is multiplied as float32, and a is that already
    ReducedTile tile[2][REDUCED_ROWS];
};

// One instruction set's functions; as in `Engine`.
struct Reduced {
    const char* name;
    const ReducedTiles& (*tiles)(Precision);
    bool (*forward)(const ForwardCall<float>&, int threads, Split);
    bool (*stack)(const StackCall<float>&, int threads);
    Stream<float>* (*stream)(const StreamCall<float>&);
};

}  // namespace gpulstm

#endif
