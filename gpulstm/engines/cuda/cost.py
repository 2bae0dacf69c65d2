"""A model of what each form costs on a card: launches, bytes, arithmetic, how well the blocks fill the card.

The formulae are written out in docs/cuda-engine.md, beside predictions for two cards.  It is a model on paper: its
constants come from data sheets and public figures, none was measured by this project.  It has to order the forms, not
to know their times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.gemm import Tile, blocks, choose_tile, efficiency, is_tensor
from gpulstm.engines.cuda import persistent

HOST_KERNEL = 5e-6  # seconds of the host for a kernel launch, driver included
HOST_BLAS = 9e-6  # for a cuBLAS call
GAP = 1.2e-6  # of the device between two kernels that depend on each other
BARRIER = 1.5e-6  # of a barrier across the grid
FILL = 1.0e-6  # from a block's first load to its first sum, and from its last sum to its last store
BLAS = 0.75  # of the peak, on a full multiprocessor; tiles: products.efficiency
RESIDENT = {"shared": 0.35, "registers": 0.45, 16: 0.15, 32: 0.2}  # by where weights lie; on tensor cores by rows
BANKS = 128  # bytes of shared memory that a multiprocessor reads or writes in a clock
SIZE = {"float16": 2, "float32": 4, "float64": 8}


@dataclass(frozen=True)
class Card:
    """What the model knows of a card.

    Attributes:
        name: for tables.
        processors: multiprocessors.
        clock: in Hz.
        fma: multiply-adds of a multiprocessor in a clock, by kind: "float32", "float64", "tensor" (float16).
        memory: bytes a second.
        cache: bytes a second out of the L2 cache, of the whole card.
        shared: bytes of shared memory that a block may ask for.
        registers: that a block may have.
        capability: compute capability times ten.
        cooperative: whether all blocks of a launch can be on the card at once.
    """

    name: str
    processors: int
    clock: float
    fma: dict[str, float]
    memory: float
    cache: float
    shared: int
    registers: int
    capability: int
    cooperative: bool = True

    def rate(self, kind: str) -> float:
        """Multiply-adds a second of one multiprocessor."""
        return self.fma[kind] * self.clock


# Data sheets: H100 SXM (NVIDIA H100 white paper, 2022) and GeForce RTX 4090 (NVIDIA Ada white paper, 2022); the L2
# bandwidths are public microbenchmarks' orders of magnitude.
H100 = Card(
    "H100 SXM", 132, 1.755e9, {"float32": 128, "float64": 64, "tensor": 2048}, 3.35e12, 5.5e12, 232448, 65536, 90
)
RTX4090 = Card(
    "RTX 4090", 128, 2.52e9, {"float32": 128, "float64": 2, "tensor": 512}, 1.008e12, 5.0e12, 101376, 65536, 89
)


def card(backend: CupyBackend) -> Card:
    """The card at hand, from what the driver says of it."""
    attributes = backend.xp.cuda.Device(backend.index).attributes
    clock = 1e3 * attributes["ClockRate"]
    capability = backend.capability
    single = 64.0 if capability in (70, 72, 75, 80) else 128.0
    tensor = {70: 512.0, 72: 512.0, 75: 512.0, 80: 1024.0, 90: 2048.0, 100: 4096.0}.get(capability, 512.0)
    double = single / max(1, attributes["SingleToDoublePrecisionPerfRatio"])
    # two transfers a clock, as DDR memory does; 32 bytes a clock and multiprocessor from L2
    memory = 2e3 * attributes["MemoryClockRate"] * attributes["GlobalMemoryBusWidth"] / 8
    return Card(
        backend.device_name,
        backend.processors,
        clock,
        {"float32": single, "float64": double, "tensor": tensor},
        max(memory, 1e9),
        32.0 * clock * backend.processors,
        backend.shared_memory,
        attributes["MaxRegistersPerBlock"],
        capability,
        bool(attributes["CooperativeLaunch"]),
    )


@dataclass(frozen=True)
class Layer:
    """The sizes of one layer and direction: T, B, I, H, gates and the dtype's name."""

    steps: int
    batch: int
    inputs: int
    hidden: int
    gates: int
    dtype: str

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return SIZE[self.dtype]


def product(card: Card, tile: Tile, rows: int, columns: int, inner: int, dtype: str) -> float:
    """Seconds of the device for a product in tiles: waves of blocks, each bound by arithmetic or by reading."""
    across, down = blocks(tile, rows, columns)
    waves = math.ceil(across * down / card.processors)
    kind = "tensor" if is_tensor(tile) else "float64" if dtype == "float64" else "float32"
    rate = card.rate(kind) / (2 if is_tensor(tile) and dtype == "float32" else 1)  # TF32 has half the rate
    arithmetic = tile[0] * tile[1] * inner / (rate * efficiency(tile))
    reading = (tile[0] + tile[1]) * inner * SIZE[dtype] * card.processors / card.cache
    return FILL + waves * max(arithmetic, reading)


def blas(card: Card, rows: int, columns: int, inner: int, dtype: str) -> float:
    """Seconds of the device for a product by cuBLAS."""
    kind = {"float16": "tensor", "float32": "float32", "float64": "float64"}[dtype]
    arithmetic = rows * columns * inner / (card.rate(kind) * card.processors * BLAS)
    reading = (rows * inner + inner * columns + rows * columns) * SIZE[dtype] / card.cache
    return FILL + max(arithmetic, reading)


def step_first(card: Card, layer: Layer, backward: bool) -> float:
    """One step of the first form: the product by cuBLAS, and the gates' kernel, which reads and writes all gates."""
    width = layer.gates * layer.hidden
    shape = (layer.batch, layer.hidden, width) if backward else (layer.batch, width, layer.hidden)
    gates = 4 * layer.batch * width * layer.size / card.memory
    device = blas(card, *shape, layer.dtype) + FILL + gates + 2 * GAP
    return max(device, HOST_BLAS + HOST_KERNEL)


def step_fused(card: Card, layer: Layer, tile: Tile, backward: bool, recorded: bool = False) -> float:
    """One fused step; recorded in a graph, the host has no part in it."""
    width = layer.hidden * (1 if layer.gates == 1 else 4)
    columns, inner = (layer.hidden, layer.gates * layer.hidden) if backward else (width, layer.hidden)
    gates = 2 * layer.batch * layer.gates * layer.hidden * layer.size / card.memory
    device = GAP + product(card, tile, layer.batch, columns, inner, layer.dtype) + gates
    return device if recorded else max(device, HOST_KERNEL)


def step_persistent(card: Card, layer: Layer, where: persistent.Layout, backward: bool) -> float:
    """One step of the persistent kernel: a barrier, and each block's rows with its weights, which are there already."""
    shape = where.backward if backward else where.forward
    inner = layer.gates * layer.hidden if backward else layer.hidden
    turns = math.ceil(math.ceil(layer.batch / shape.rows) / where.groups)
    numbers = shape.rows * shape.columns
    if shape.tensor:  # TF32 has half the rate
        rate = card.rate("tensor") * RESIDENT[shape.rows] / (2 if layer.dtype == "float32" else 1)
    else:
        held = shape.share(inner)
        rate = card.rate("float32") * (held * RESIDENT["registers"] + (1 - held) * RESIDENT["shared"])
    reading = shape.rows * inner * layer.size * card.processors / card.cache
    sums = 2 * 4 * numbers * shape.slices / (BANKS * card.clock)
    gates = 2 * layer.batch * layer.gates * layer.hidden * layer.size / card.memory
    return BARRIER + FILL + turns * (max(numbers * inner / rate, reading) + sums) + gates


def around(card: Card, layer: Layer, training: bool, own: bool, tensor: bool) -> tuple[float, float]:
    """(device, host) seconds of the whole-sequence products: by cuBLAS, or by this project's kernel within a graph."""
    rows, width = layer.steps * layer.batch, layer.gates * layer.hidden
    shapes = [(rows, width, layer.inputs)]
    if training:
        shapes += [(layer.inputs, width, rows), (layer.hidden, width, rows), (rows, layer.inputs, width)]
    if not own:
        return sum(GAP + blas(card, *shape, layer.dtype) for shape in shapes), HOST_BLAS * len(shapes)
    tiles = [choose_tile(m, n, card.processors, tensor) for m, n, _ in shapes]
    return sum(GAP + product(card, t, *shape, layer.dtype) for t, shape in zip(tiles, shapes, strict=True)), 0.0


def floor(card: Card, layer: Layer, training: bool) -> tuple[float, float]:
    """Seconds that no form can go below: (arithmetic at the peak, bytes of inputs, weights, outputs and tape once)."""
    kind = {"float16": "tensor", "float32": "float32", "float64": "float64"}[layer.dtype]
    width, rows = layer.gates * layer.hidden, layer.steps * layer.batch
    products = rows * width * (layer.inputs + layer.hidden) * (3 if training else 1)
    numbers = rows * (layer.inputs + layer.hidden) + width * (layer.inputs + layer.hidden)
    if training:
        numbers = 2 * numbers + 2 * rows * (width + layer.hidden)
    return products / (card.rate(kind) * card.processors), numbers * layer.size / card.memory
