"""The native module, which `gpulstm.arrays.native` loads; its source is kernels/cpu/module*.cpp.

Arrays are C-contiguous and of one dtype (float for `*_float`, double for `*_double`; lengths int64).  `cell` is 0 LSTM,
1 GRU, 2 RNN with tanh, 3 RNN with relu; `split` is 0 automatic, 1 rows of the batch, 2 hidden units; `precision` of the
weights is 0 as they are, 1 bfloat16, 2 int8, and 0 for double and where something is saved for a gradient.
"""

from collections.abc import Sequence
from typing import Any

from gpulstm.arrays.backend import Array

def instruction_sets() -> list[str]:
    """Those of this build that this processor has, the best last."""

def instruction_set() -> str:
    """The one in use."""

def use(name: str) -> None:
    """Use another one; what was saved for a gradient under the old one is then of no use."""

def caches() -> tuple[int, int, int, str]:
    """Bytes of the first-level data cache, of the second and third level (0: none), and where they were read."""

def cache_model() -> tuple[int, int, int]:
    """In bytes, from those: a block of a panel's weights, weights that stay in the second level, and what
    is taken ahead of the steps."""

def give_caches(first: int, second: int, third: int) -> None:
    """Decide from these sizes instead."""

def reduced_form(precision: int) -> str:
    """The instructions that multiply weights of a precision other than 0."""

def saved_sizes(cell: int, hidden: int, is_double: bool) -> tuple[int, int]:
    """(width, padded): the last extents of `gates` (T, B, width) and `cells` (T, B, padded)."""

def working_room(cell: int, steps: int, batch: int, inputs: int, hidden: int, is_double: bool, threads: int) -> int:
    """Bytes of working space that `backward_*` of these sizes takes, or `forward_*` where that takes more."""

def forward_float(
    cell: int,
    reverse: bool,
    x: Array,
    w_x: Array,
    w_h: Array,
    b: Array | None,
    b_hn: Array | None,
    h0: Array,
    c0: Array | None,
    mask: Array | None,
    lengths: Array | None,
    y: Array,
    h_end: Array,
    c_end: Array | None,
    gates: Array | None,
    cells: Array | None,
    threads: int,
    split: int,
    precision: int,
    /,
) -> None:
    """Writes y, the ends, and (where given) what a gradient needs."""

def backward_float(
    cell: int,
    reverse: bool,
    x: Array,
    w_x: Array,
    w_h: Array,
    h0: Array,
    c0: Array | None,
    mask: Array | None,
    lengths: Array | None,
    y: Array,
    gates: Array | None,
    cells: Array | None,
    dy: Array,
    dh_end: Array,
    dc_end: Array | None,
    dx: Array,
    dh0: Array,
    dc0: Array | None,
    dw_x: Array,
    dw_h: Array,
    db: Array | None,
    db_hn: Array | None,
    threads: int,
    split: int,
    /,
) -> None:
    """Writes dx, dh0, dc0; adds to dw_x, dw_h, db, db_hn."""

def forward_double(*args: Any) -> None: ...
def backward_double(*args: Any) -> None: ...
def empty_float(shape: tuple[int, ...], /) -> Array:
    """An uninitialized array; its memory is kept for the next one when it is gone."""

def empty_double(shape: tuple[int, ...], /) -> Array: ...

class StackFloat:
    """The weights of a stack in one direction, read again in each call."""

    def __init__(
        self,
        cell: int,
        inputs: int,
        hidden: int,
        w_x: list[Array],
        w_h: list[Array],
        b: list[Array],
        b_hn: list[Array],
        precision: int,
        /,
    ) -> None: ...
    def forward(
        self,
        x: Array,
        h0: Array | None,
        c0: Array | None,
        lengths: Array | None,
        y: Array,
        h_end: Array,
        c_end: Array | None,
        threads: int,
        /,
    ) -> None:
        """x (T, B, I) -> y (T, B, H) and the ends (L, B, H); h0 and c0 None for zeros."""

class StackDouble(StackFloat): ...

class StreamFloat:
    """Packed weights and the state of a stack, one step a call; P is H without a projection."""

    def __init__(
        self,
        cell: int,
        batch: int,
        inputs: int,
        hidden: int,
        w_x: list[Array],
        w_h: list[Array],
        b: list[Array],
        b_hn: list[Array],
        threads: int,
        precision: int,
        /,
    ) -> None: ...
    def step(self, x: Array, y: Array, /) -> None:
        """x (B, I) -> y (B, P)."""

    def read(self, h: Array, c: Array | None, /) -> None:
        """Writes the state to h (L, B, P) and c (L, B, H)."""

    def write(self, h: Array, c: Array | None, /) -> None:
        """Takes the state from h and c."""

class StreamDouble(StreamFloat): ...

def variant_stream_float(
    options: list[Any],
    batch: int,
    inputs: int,
    w_x: list[Array],
    w_h: list[Array],
    b: list[Array],
    b_hn: list[Array],
    threads: int,
    /,
) -> StreamFloat:
    """A stream of layers with options, a `VariantFloat` each; its state is to be written."""

def variant_stream_double(*args: Any) -> StreamDouble: ...

# -- flat buffers, for `gpulstm.optimizers` and `gpulstm.losses`; arrays that do not fit are refused, not converted
def step_float(
    function: str,
    w: Array,
    g: Array,
    moments: Sequence[Array | None],
    scale: float,
    numbers: Sequence[float],
    threads: int,
) -> None:
    """A function of kernels/equations/optimizers.h over all elements of w and the moments, in place; g is
    multiplied by `scale`.

    `function` is its name with template arguments, as "gl_adam<T>"; `numbers` are its coefficients, in order.
    """

def squares_float(x: Array, threads: int) -> float:
    """The sum of squares, in float64, in an order that depends on the size alone."""

def loss_float(
    name: str, raw: Array, target: Array, weight: Array | None, draw: Array, options: Sequence[float]
) -> float:
    """The weighted mean of a loss; its gradient is written to draw.

    raw and draw have P numbers for each of target.  `options`: of "huber" delta, of "gaussian" the floor, of "pinball"
    what a unit above the target costs at each level, then what one below does; of "mse" and "mae" none.
    """

def step_double(*args: Any) -> None: ...
def squares_double(x: Array, threads: int) -> float: ...
def loss_double(*args: Any) -> float: ...
