"""The libraries that this package is measured against, each in one function: the same stack of LSTMs, built its way.

A function takes the task (see `worker.main`) and the arrays of the problem (see `problem`), and gives a `Made`.  Each
uses its library as its own documentation advises for speed: everything that can be prepared is prepared before the
first call.  This file runs in environments that hold a peer and not this package: at its top it imports the standard
library and NumPy, and a peer's library only inside its function.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]
_PACKAGES = {"PyTorch": "torch", "JAX": "jax", "ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}
Task = dict[str, Any]


class Made(NamedTuple):
    """A contender that is ready.

    Attributes:
        call: what is timed.
        wait: returns when what `call` began has ended.
        outputs: computes the case once and gives its results as host arrays, by the names of `problem`.
        plan: what runs, in a few words.
        kept: what must live as long as it does.
    """

    call: Callable[[], object]
    wait: Callable[[], object]
    outputs: Callable[[], Arrays]
    plan: str
    kept: object = None


def nothing() -> None:
    """The wait for a call that has ended when it returns."""


def missing(library: str) -> RuntimeError:
    """The error of a peer that is not installed."""
    return RuntimeError(f"{library} is not installed for {sys.executable}; run: pip install {_PACKAGES[library]}")


def _stepwise(
    once: Callable[[Any, Any], tuple[Any, Any]],
    x: Any,
    zeros: Any,
    host: Callable[[Any], np.ndarray],
    plan: str,
    wait: Callable[[], object] = nothing,
) -> Made:
    """A stream of a library whose call is `y, state = once(row, state)`: the time of a step, and the outputs of all."""
    state = zeros

    def step() -> None:
        nonlocal state
        _, state = once(x[:1], state)

    def stream() -> Arrays:
        end, steps = zeros, []
        for row in x:
            y, end = once(row[None], end)
            steps.append(host(y[0]))
        return {"y": np.stack(steps)}

    return Made(step, wait, stream, plan)


# -- PyTorch ---------------------------------------------------------------------------------------------------------
def torch(task: Task, arrays: Arrays) -> Made:
    """PyTorch's `nn.LSTM`, on CUDA with or without TF32 as asked."""
    try:
        import torch
    except ImportError as error:
        raise missing("PyTorch") from error

    case, device = task["case"], task["device"]
    if device != "cpu" and not torch.cuda.is_available():
        raise RuntimeError("this PyTorch finds no CUDA device")
    if task["threads"]:
        torch.set_num_threads(task["threads"])
    if case["kind"] == "memory":
        return _torch_memory(torch, case, task["setting"])
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = task["tf32"]
    layer = torch.nn.LSTM(case["inputs"], case["hidden"], case["layers"])
    layer.load_state_dict({name: torch.from_numpy(value) for name, value in torch_weights(arrays).items()})
    layer = layer.to(device)
    if task["quantize"]:
        quantized = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(layer), {torch.nn.LSTM}, torch.qint8)
        layer = quantized[0]
    x = torch.from_numpy(arrays["x"]).to(device)
    plan = f"torch.nn.LSTM {torch.__version__}, {torch.get_num_threads()} threads{', TF32' if task['tf32'] else ''}"
    wait: Callable[[], object] = torch.cuda.synchronize if device != "cpu" else nothing

    def host(value: Any) -> np.ndarray:
        return value.detach().cpu().numpy()

    if case["kind"] == "step":

        def once(row: Any, state: Any) -> Any:
            with torch.inference_mode():
                return layer(row, state)

        return _stepwise(once, x, None, host, plan, wait)
    if case["kind"] == "inference":
        layer.eval()

        def infer() -> Any:
            with torch.inference_mode():
                return layer(x)[0]

        return Made(infer, wait, lambda: {"y": host(infer())}, plan)
    x.requires_grad_()
    dy = torch.from_numpy(arrays["dy"]).to(device)
    weights = [x, *layer.parameters()]

    def train() -> Any:
        return torch.autograd.grad(layer(x)[0], weights, dy)

    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-6)

    def update() -> None:
        optimizer.zero_grad(set_to_none=True)
        x.grad = None
        layer(x)[0].backward(dy)
        optimizer.step()

    def gradients() -> Arrays:
        dx, *results = map(host, train())
        result = {"y": host(layer(x)[0]), "dx": dx}
        for index in range(case["layers"]):
            w_x, w_h, b, _ = results[4 * index : 4 * index + 4]  # its two biases have one gradient
            result |= {f"dW_x_l{index}": w_x.T, f"dW_h_l{index}": w_h.T, f"db_l{index}": b}
        return result

    return Made(update if case["kind"] == "update" else train, wait, gradients, plan)


def _torch_memory(torch: Any, case: Task, setting: str) -> Made:
    """Training steps whose loss looks at the last output alone; after a step of a model of one unit."""
    torch.set_flush_denormal(setting == "flush")
    torch.manual_seed(0)
    small = torch.nn.LSTM(1, 1)
    small(torch.zeros(2, 1, 1))[0].sum().backward()
    layer = torch.nn.LSTM(case["inputs"], case["hidden"], case["layers"])
    x = torch.randn(case["steps"], case["batch"], case["inputs"])
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-6)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        layer(x)[0][-1].backward(torch.full((case["batch"], case["hidden"]), 1e-3))
        optimizer.step()

    return Made(train, nothing, dict, f"torch.nn.LSTM {torch.__version__}, {torch.get_num_threads()} threads")


def torch_weights(arrays: Arrays) -> Arrays:
    """Weights `W_x_l0 (I, 4H)`, ... as `nn.LSTM` names and lays them out; the gates have the same order."""
    weights = {}
    for index in range(sum(name.startswith("W_h_l") for name in arrays)):
        w_x, w_h, b = (arrays[f"{name}_l{index}"] for name in ("W_x", "W_h", "b"))
        weights[f"weight_ih_l{index}"] = np.ascontiguousarray(w_x.T)
        weights[f"weight_hh_l{index}"] = np.ascontiguousarray(w_h.T)
        weights[f"bias_ih_l{index}"], weights[f"bias_hh_l{index}"] = b.copy(), np.zeros_like(b)
    return weights


# -- JAX -------------------------------------------------------------------------------------------------------------
def jax(task: Task, arrays: Arrays) -> Made:
    """JAX: one compiled function, a `lax.scan` a layer, with the input product of all steps before it."""
    try:
        import jax
        import jax.numpy as jnp
    except ImportError as error:
        raise missing("JAX") from error

    case = task["case"]
    weights = [
        tuple(jnp.asarray(arrays[f"{name}_l{index}"]) for name in ("W_x", "W_h", "b"))
        for index in range(case["layers"])
    ]
    x = jnp.asarray(arrays["x"])
    plan = f"jax.lax.scan under jit, {jax.__version__}, XLA with {task['threads'] or 'its own number of'} threads"

    def network(weights: Any, x: Any, states: Any) -> Any:
        ends = []
        for (w_x, w_h, b), state in zip(weights, states, strict=True):

            def step(state: Any, z: Any, w_h: Any = w_h) -> Any:
                h, c = state
                i, f, g, o = jnp.split(z + h @ w_h, 4, axis=-1)
                c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
                h = jax.nn.sigmoid(o) * jnp.tanh(c)
                return (h, c), h

            end, x = jax.lax.scan(step, state, x @ w_x + b)
            ends.append(end)
        return x, ends

    zero = jnp.zeros((case["batch"], case["hidden"]), jnp.float32)
    zeros = [(zero, zero)] * case["layers"]
    if case["kind"] == "step":
        compiled = jax.jit(network)

        def once(row: Any, states: Any) -> Any:
            y, states = compiled(weights, row, states)
            return y.block_until_ready(), states

        return _stepwise(once, x, zeros, np.asarray, plan)

    def outputs(weights: Any, x: Any) -> Any:
        return network(weights, x, zeros)[0]

    forward = jax.jit(outputs)

    def infer() -> Any:
        return forward(weights, x).block_until_ready()

    if case["kind"] == "inference":
        return Made(infer, nothing, lambda: {"y": np.asarray(infer())}, plan)
    dy = jnp.asarray(arrays["dy"])
    backward = jax.jit(lambda weights, x, dy: jax.vjp(outputs, weights, x)[1](dy))

    def train() -> Any:
        return jax.block_until_ready(backward(weights, x, dy))

    def gradients() -> Arrays:
        results, dx = train()
        result = {"y": np.asarray(infer()), "dx": np.asarray(dx)}
        for index, layer in enumerate(results):
            result |= {f"d{name}_l{index}": np.asarray(d) for name, d in zip(("W_x", "W_h", "b"), layer, strict=True)}
        return result

    return Made(train, nothing, gradients, plan)


# -- ONNX: ONNX Runtime and OpenVINO -----------------------------------------------------------------------------------
def onnx_graph(case: Task, arrays: Arrays) -> bytes:
    """The stack as ONNX `LSTM` nodes, float32, all sizes fixed.

    Input `x (T, B, I)`, output `y (T, B, H)`; a step also has `h0, c0, h1, ...` in and `h0_out, ...` out, each
    `(1, B, H)`.

    Source: operator LSTM of opset 14 (onnx.ai): W (D, 4H, I), R (D, 4H, H), B (D, 8H), gates in the order i, o, f, c.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    hidden, batch, single = case["hidden"], case["batch"], case["kind"] == "step"
    steps = 1 if single else case["steps"]
    nodes, constants = [], [numpy_helper.from_array(np.array([1], np.int64), "direction")]

    def value(name: str, *shape: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    inputs, outputs, before = [value("x", steps, batch, case["inputs"])], [value("y", steps, batch, hidden)], "x"
    for index in range(case["layers"]):
        w_x, w_h, b = (_iofc(arrays[f"{name}_l{index}"], hidden) for name in ("W_x", "W_h", "b"))
        values = {"W": w_x.T[None], "R": w_h.T[None], "B": np.concatenate([b, np.zeros_like(b)])[None]}
        constants += [
            numpy_helper.from_array(np.ascontiguousarray(part), f"{name}{index}") for name, part in values.items()
        ]
        initializers, ends = [], []
        if single:
            initializers, ends = [f"h{index}", f"c{index}"], [f"h{index}_out", f"c{index}_out"]
            inputs += [value(name, 1, batch, hidden) for name in initializers]
            outputs += [value(name, 1, batch, hidden) for name in ends]
        after = "y" if index == case["layers"] - 1 else f"y{index}"
        names = [before, f"W{index}", f"R{index}", f"B{index}", *(["", *initializers] if initializers else [])]
        nodes.append(helper.make_node("LSTM", names, [f"all{index}", *ends], hidden_size=hidden))
        nodes.append(helper.make_node("Squeeze", [f"all{index}", "direction"], [after]))
        before = after
    graph = helper.make_graph(nodes, "lstm", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    checker.check_model(model)
    return model.SerializeToString()


def _iofc(value: np.ndarray, hidden: int) -> np.ndarray:
    """The last axis from the gate order i, f, g, o to ONNX's i, o, f, c."""
    i, f, g, o = (value[..., gate * hidden : (gate + 1) * hidden] for gate in range(4))
    return np.concatenate([i, o, f, g], axis=-1)


def _in_buffers(task: Task, arrays: Arrays, new: Callable[..., Any], bound: Callable[..., Any], plan: str) -> Made:
    """A library that runs a graph on bound buffers; the state goes from one set of them to the other and back.

    Args:
        new: a buffer of zeros of a shape, a function that reads it as a NumPy array, and one that fills it from one.
        bound: the graph on buffers by name, as a function that runs it.
    """
    case = task["case"]
    batch, hidden, single = case["batch"], case["hidden"], case["kind"] == "step"
    steps = 1 if single else case["steps"]
    (x, _, put), (y, read, _) = new(steps, batch, case["inputs"]), new(steps, batch, hidden)
    if not single:
        put(arrays["x"])
        whole = bound({"x": x, "y": y})

        def result() -> Arrays:
            whole()
            return {"y": read()}

        return Made(whole, nothing, result, plan)
    names = [f"{part}{index}" for index in range(case["layers"]) for part in "hc"]
    sides = [{name: new(1, batch, hidden)[0] for name in names} for _ in range(2)]
    ends = [{f"{name}_out": buffer for name, buffer in side.items()} for side in sides]
    turns = itertools.cycle([bound({"x": x, "y": y, **sides[at], **ends[1 - at]}) for at in range(2)])

    def step() -> None:
        next(turns)()

    def stream() -> Arrays:
        rows = []
        for row in arrays["x"]:
            put(row[None])
            step()
            rows.append(read()[0].copy())
        return {"y": np.stack(rows)}

    return Made(step, nothing, stream, plan)


def onnxruntime(task: Task, arrays: Arrays) -> Made:
    """ONNX Runtime's CPU provider; inputs, outputs and state stay in bound buffers."""
    try:
        import onnxruntime
    except ImportError as error:
        raise missing("ONNX Runtime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = task["threads"], 1
    graph = _graph(task["case"], arrays)
    if task["quantize"]:
        graph = _dynamic(graph)
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def new(*shape: int) -> Any:
        value = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
        return value, value.numpy, value.update_inplace

    def bound(buffers: dict[str, Any]) -> Callable[[], object]:
        binding = session.io_binding()
        for name in session.get_inputs():
            binding.bind_ortvalue_input(name.name, buffers[name.name])
        for name in session.get_outputs():
            binding.bind_ortvalue_output(name.name, buffers[name.name])
        return lambda: session.run_with_iobinding(binding)

    plan = f"onnxruntime {onnxruntime.__version__}, {task['threads'] or 'its own number of'} threads"
    return _in_buffers(task, arrays, new, bound, plan)


def openvino(task: Task, arrays: Arrays) -> Made:
    """OpenVINO's CPU plugin for latency, float32 held to; inputs, outputs and state stay in given tensors."""
    try:
        import openvino
    except ImportError as error:
        raise missing("OpenVINO") from error
    core = openvino.Core()
    settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": "f32"}
    if task["quantize"]:
        settings["INFERENCE_PRECISION_HINT"] = "bf16"
    if task["threads"]:
        settings["INFERENCE_NUM_THREADS"] = str(task["threads"])
    compiled = core.compile_model(core.read_model(_graph(task["case"], arrays)), "CPU", settings)
    lent: list[Arrays] = []  # a request does not keep the arrays alive that its tensors share

    def new(*shape: int) -> Any:
        array = np.zeros(shape, np.float32)
        return array, lambda: array, lambda value: np.copyto(array, value)

    def bound(buffers: Arrays) -> Callable[[], object]:
        request = compiled.create_infer_request()
        for name, array in buffers.items():
            request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
        lent.append(buffers)
        return lambda: request.infer()

    plan = f"openvino {openvino.__version__}, {task['threads'] or 'its own number of'} threads"
    return _in_buffers(task, arrays, new, bound, plan)._replace(kept=lent)


def _graph(case: Task, arrays: Arrays) -> bytes:
    try:
        return onnx_graph(case, arrays)
    except ImportError as error:
        raise missing("onnx") from error


def _dynamic(graph: bytes) -> bytes:
    """The graph with weights in int8 and activations rounded at run time, by ONNX Runtime's own tool."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="gpulstm-bench-") as folder:
        path = Path(folder, "int8.onnx")
        quantize_dynamic(onnx.load_from_string(graph), path, op_types_to_quantize=["LSTM"], weight_type=QuantType.QInt8)
        return path.read_bytes()


PEERS: dict[str, Callable[[Task, Arrays], Made]] = {
    "torch": torch,
    "jax": jax,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
}
