"""The command `info`: what can run on this machine, and why not more."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Callable
from typing import Annotated, Any

import typer

from gpulstm.arrays import native
from gpulstm.arrays.checkpoint import package_version
from gpulstm.arrays.cupy_backend import CupyBackend, cuda_missing, device_count
from gpulstm.arrays.devices import processor, resolve
from gpulstm.arrays.variables import variables
from gpulstm.cli.console import console, polite, table
from gpulstm.engines.dispatch import ENGINES, VARIABLE
from gpulstm.engines.spec import Call, StackSpec
from gpulstm.errors import ConfigError, EngineError
from gpulstm.model.layers import GRU, LSTM, RNN
from gpulstm.model.stack import Recurrent
from gpulstm.validate import parse_shape

CELLS: dict[str, Callable[..., Recurrent]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
EXTRAS = {
    "cuda12 or cuda13": "cupy",
    "plots": "matplotlib",
    "tables": "pyarrow",
    "keras": "h5py",
    "onnx": "onnx",
    "tensorboard": "tensorboardX",
    "peers": "torch",
}


@polite
def info(
    cell: Annotated[str, typer.Option(help="Cell of the plan: lstm, gru or rnn.")] = "lstm",
    shape: Annotated[
        str | None,
        typer.Option(metavar="T,B,I,H,L", help="Show who computes this shape, and why no faster engine does."),
    ] = None,
    device: Annotated[str, typer.Option(help="Device of the plan: auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="Of the plan: float32, float64 or, on CUDA, float16 or bfloat16.")
    ] = "float32",
    bidirectional: Annotated[bool, typer.Option("--bidirectional", help="Plan for both directions.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Version, devices, engines and optional libraries, and the plan for a shape.

    Example: gpulstm info --cell lstm --shape 100,32,8,64,2
    """
    plans = plans_for(cell, shape, device, dtype, bidirectional) if shape else []
    facts = machine_facts()
    if as_json:
        print(json.dumps({**facts, "plans": plans}, indent=1))
        return
    out = console(100)
    out.print(f"gpulstm {facts['version']}   Python {facts['python']}   NumPy {facts['numpy']}")
    out.print(table(["device", "what it is"], facts["devices"].items(), text=2, wrap=1))
    out.print(table(["engine", "state"], facts["engines"], text=2, wrap=1))
    out.print(table(["extra", "library", "state"], facts["extras"], text=3))
    if variables().get(VARIABLE):
        out.print(f"{VARIABLE}={variables()[VARIABLE]} forces that engine")
    for plan in plans:
        out.print(plan)


def machine_facts() -> dict[str, Any]:
    """What `info` shows in addition to the plan."""
    import numpy

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = {"cpu": f"{processor()}, {cores} core{'' if cores == 1 else 's'}"}
    missing = cuda_missing()
    for index in range(device_count()):
        backend = resolve(f"cuda:{index}")
        assert isinstance(backend, CupyBackend)
        memory = backend.xp.cuda.Device(index).mem_info[1] / 2**30
        devices[backend.device] = f"{backend.device_name}, {memory:.1f} GiB, CuPy {backend.xp.__version__}"
    if missing:
        devices["cuda"] = f"not usable: {missing}"
    calls = [Call(StackSpec("lstm", 1, 1), name, 1, 1, False, False) for name in devices if name != "cuda"]
    engines = []
    for engine in ENGINES:
        refused = [engine.supports(call) for call in calls]
        usable = [call.device for call, reason in zip(calls, refused, strict=True) if reason is None]
        reason = missing if missing and engine.name == "cuda" else refused[0]
        state = f"available on {', '.join(usable)}" if usable else f"not available: {reason}"
        engines.append((engine.name, state))
    engines.append(("optimizers, losses", f"on cpu: {native.describe()}"))
    caches = native.describe_caches()
    if caches is not None:
        engines.append(("caches", caches))
    return {
        "version": package_version(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "devices": devices,
        "engines": engines,
        "extras": [(extra, module, _installed(module)) for extra, module in EXTRAS.items()],
    }


def plans_for(cell: str, shape: str, device: str, dtype: str, bidirectional: bool) -> list[str]:
    """The plan of inference and of training, as text.

    Raises:
        ConfigError: no such cell, shape, device or dtype.
    """
    if cell not in CELLS:
        raise ConfigError(f"--cell is {cell!r}, expected one of {', '.join(CELLS)}")
    steps, batch, inputs, hidden, layers = parse_shape(shape)
    layer = CELLS[cell](inputs, hidden, layers, bidirectional=bidirectional, dtype=dtype, device=device)
    return [_plan(layer, steps, batch, training) for training in (False, True)]


def _plan(layer: Recurrent, steps: int, batch: int, training: bool) -> str:
    try:
        return str(layer.explain(steps, batch, training=training))
    except EngineError as error:  # a forced engine may serve the one and not the other
        return f"{'training' if training else 'inference'}: {error}"


def _installed(module: str) -> str:
    if importlib.util.find_spec(module) is None:
        return "not installed"
    try:
        return f"{module} {importlib.metadata.version(module)}"
    except importlib.metadata.PackageNotFoundError:  # another name than the module's: cupy of cupy-cuda12x
        (name, *_) = importlib.metadata.packages_distributions().get(module, [module])  # reads what every package has
        return f"{name} {importlib.metadata.version(name)}"
