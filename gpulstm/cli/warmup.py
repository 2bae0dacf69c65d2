"""The command `warmup`: everything that the first calls of a shape on a GPU would compile and find out, beforehand."""

from __future__ import annotations

import time
from typing import Annotated, cast

import numpy as np
import typer

from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.devices import resolve
from gpulstm.arrays.dtypes import is_half
from gpulstm.cli.console import polite, say
from gpulstm.cli.info import CELLS
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import ConfigError
from gpulstm.losses import MSE
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.optimizers import Adam
from gpulstm.training.gradients import GradientPass
from gpulstm.training.mixed_precision import LossScale, masters
from gpulstm.validate import parse_shape

CALLS = 3  # the first piece by piece, the second recorded, the third replayed


@polite
def warmup(
    shape: Annotated[list[str], typer.Option(metavar="T,B,I,H,L", help="A shape to come (may be repeated).")],
    cell: Annotated[str, typer.Option(help="lstm, gru or rnn.")] = "lstm",
    dtype: Annotated[str, typer.Option(help="float32, float64, float16 or bfloat16.")] = "float32",
    device: Annotated[str, typer.Option(help="cuda or cuda:N.")] = "cuda",
    bidirectional: Annotated[bool, typer.Option("--bidirectional", help="Both directions.")] = False,
    inference: Annotated[bool, typer.Option("--inference", help="Without training passes.")] = False,
) -> None:
    """Compile what calls of some shapes need, and find out which form is fastest for them; both are kept for later.

    Example: gpulstm warmup --shape 100,32,8,64,2 --shape 100,256,8,64,2
    """
    if cell not in CELLS:
        raise ConfigError(f"--cell is {cell!r}, expected {', '.join(CELLS)}")
    backend = resolve(device)
    if not backend.is_cuda:
        raise ConfigError(f"--device is {device!r}, expected a CUDA device: nothing is compiled for the cpu")
    cuda = cast(CupyBackend, backend)
    for text in shape:
        started, before = time.perf_counter(), cuda.compiled
        words = prepare(cuda, cell, parse_shape(text), dtype, bidirectional, inference)
        say(f"{words}\n  {cuda.compiled - before} kernels made ready in {time.perf_counter() - started:.1f} s")


def prepare(
    backend: CupyBackend,
    cell: str,
    shape: tuple[int, int, int, int, int],
    dtype: str,
    bidirectional: bool,
    inference: bool,
) -> str:
    """Make the calls of a shape; how they are computed, in words."""
    steps, batch, inputs, hidden, layers = shape
    make = CELLS[cell]
    layer = make(inputs, hidden, layers, bidirectional=bidirectional, dtype=dtype, device=backend.device)
    x = backend.from_host(np.zeros((steps, batch, inputs)), dtype)
    for _ in range(CALLS):
        layer(x)
    if inference:
        backend.synchronize()
        return str(layer.explain(steps, batch))
    spec = StackSpec(layer.spec.cell, inputs, hidden, layers, bidirectional, dtype=dtype)
    network = Network(NetworkConfig(spec), device=backend.device, engine="cuda")
    weights = masters(network.params) if is_half(dtype) else network.params
    grads, optimizer = weights.like(), Adam()
    optimizer.init(weights)
    passes = GradientPass(network, MSE(), grads, 1.0, scale=LossScale(backend) if dtype == "float16" else None)
    x, target = (backend.from_host(np.zeros(size), spec.data_dtype) for size in ((steps, batch, inputs), (batch, 1, 1)))
    for _ in range(CALLS):
        y, _, tape = layer.forward(backend.from_host(np.zeros((steps, batch, inputs)), dtype))
        assert tape is not None
        layer.backward(tape, y)
        del tape
        result = passes(x, target)
        optimizer.step(weights, grads, rate=1e-3, scale=result.scale)
    backend.synchronize()
    return str(layer.explain(steps, batch, training=True))
