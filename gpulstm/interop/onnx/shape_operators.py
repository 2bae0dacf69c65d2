"""ONNX's operators that move values about: shapes, cutting and joining, constants."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpulstm.arrays.backend import Array
from gpulstm.errors import InteropError
from gpulstm.interop.onnx.graph import Node
from gpulstm.interop.onnx.operators import Context, axis_of, operator


@operator("Shape", "start end")
def _shape(context: Context, node: Node, x: Array) -> np.ndarray:
    return np.array(x.shape[slice(node.get("start", 0), node.get("end"))], np.int64)


@operator("Size")
def _size(context: Context, node: Node, x: Array) -> np.ndarray:
    return np.array(x.size, np.int64)


@operator("Reshape", "allowzero", inputs=(2, 2), host=(1,))
def _reshape(context: Context, node: Node, x: Array, shape: np.ndarray) -> Array:
    extents = [int(extent) for extent in shape]
    if not node.get("allowzero", 0):
        extents = [x.shape[axis] if not extent and axis < x.ndim else extent for axis, extent in enumerate(extents)]
    if any(extent < -1 for extent in extents) or extents.count(-1) > 1:
        raise InteropError(f"the {node} asks for shape {extents}, expected extents with at most one -1")
    return x.reshape(extents)


@operator("Flatten", "axis")
def _flatten(context: Context, node: Node, x: Array) -> Array:
    axis = node.get("axis", 1)
    if not -x.ndim <= axis <= x.ndim:
        raise InteropError(f"the {node} names axis {axis} of a value of rank {x.ndim}")
    cut = axis + x.ndim if axis < 0 else axis
    return x.reshape(int(np.prod(x.shape[:cut], dtype=np.int64)), int(np.prod(x.shape[cut:], dtype=np.int64)))


@operator("Transpose", "perm")
def _transpose(context: Context, node: Node, x: Array) -> Array:
    order = node.get("perm", list(range(x.ndim))[::-1])
    if sorted(order) != list(range(x.ndim)):
        raise InteropError(f"the {node} has perm {order}, expected an order of {x.ndim} axes")
    return context.xp.transpose(x, order)


@operator("Squeeze", "axes", inputs=(1, 2), host=(1,))
def _squeeze(context: Context, node: Node, x: Array, axes: np.ndarray | None = None) -> Array:
    chosen = node.get("axes") if axes is None else axes.tolist()
    if chosen is None:
        chosen = [axis for axis, extent in enumerate(x.shape) if extent == 1]
    removed = tuple(axis_of(node, axis, x.ndim) for axis in chosen)
    if any(x.shape[axis] != 1 for axis in removed):
        raise InteropError(
            f"the {node} removes axes {list(removed)} of a value of shape {x.shape}, expected extents of 1"
        )
    return context.xp.squeeze(x, removed)


@operator("Unsqueeze", "axes", inputs=(1, 2), host=(1,))
def _unsqueeze(context: Context, node: Node, x: Array, axes: np.ndarray | None = None) -> Array:
    chosen = node.get("axes", []) if axes is None else axes.reshape(-1).tolist()
    rank = x.ndim + len(chosen)
    if rank > 32:
        raise InteropError(f"the {node} makes a value of rank {rank}, expected at most 32")
    return context.xp.expand_dims(x, tuple(axis_of(node, axis, rank) for axis in chosen))


@operator("Expand", inputs=(2, 2), host=(1,))
def _expand(context: Context, node: Node, x: Array, shape: np.ndarray) -> Array:
    extents = [int(extent) for extent in shape]
    if any(extent < 0 for extent in extents):
        raise InteropError(f"the {node} asks for shape {extents}")
    result = np.broadcast_shapes(x.shape, tuple(extents)) if max(extents, default=0) < 2**40 else tuple(extents)
    context.room(node, result, x.dtype.itemsize)
    return context.xp.broadcast_to(x, result)


@operator("Tile", inputs=(2, 2), host=(1,))
def _tile(context: Context, node: Node, x: Array, repeats: np.ndarray) -> Array:
    counts = [int(count) for count in repeats]
    if len(counts) != x.ndim or any(count < 0 for count in counts):
        raise InteropError(f"the {node} repeats {counts} times a value of rank {x.ndim}")
    context.room(node, (extent * count for extent, count in zip(x.shape, counts, strict=True)), x.dtype.itemsize)
    return context.xp.tile(x, counts)


@operator("Constant", "value value_float value_floats value_int value_ints", inputs=(0, 0))
def _constant(context: Context, node: Node) -> np.ndarray:
    if len(node.attributes) != 1:
        raise InteropError(f"the {node} has {len(node.attributes)} values, expected one")
    name, value = next(iter(node.attributes.items()))
    return value if name == "value" else np.array(value, np.float32 if "float" in name else np.int64)


@operator("ConstantOfShape", "value", host=(0,))
def _constant_of_shape(context: Context, node: Node, shape: np.ndarray) -> Array:
    value = node.get("value", np.zeros(1, np.float32))
    extents = [int(extent) for extent in shape]
    if any(extent < 0 for extent in extents) or value.size != 1:
        raise InteropError(f"the {node} asks for shape {extents} of {value.size} values, expected one value")
    context.room(node, extents, value.dtype.itemsize)
    xp = context.backend.xp if value.dtype.kind == "f" else np
    return xp.full(extents, value.reshape(()).item(), dtype=value.dtype)


@operator("Range", inputs=(3, 3), host=(0, 1, 2))
def _range(context: Context, node: Node, start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> np.ndarray:
    first, last, step = (value.reshape(()).item() for value in (start, limit, delta))
    if not step:
        raise InteropError(f"the {node} has a step of 0")
    context.room(node, (max(0, int((last - first) / step) + 1),), start.dtype.itemsize)
    return np.arange(first, last, step, dtype=start.dtype)


@operator("Concat", "axis", inputs=(1, 2**20))
def _concat(context: Context, node: Node, *values: Array) -> Array:
    axis = axis_of(node, node.get("axis", 0), values[0].ndim)
    return context.xp.concatenate(values, axis=axis)


@operator("Split", "axis split num_outputs", inputs=(1, 2), outputs=2**20, host=(1,))
def _split(context: Context, node: Node, x: Array, split: np.ndarray | None = None) -> tuple[Array, ...]:
    axis, count = axis_of(node, node.get("axis", 0), x.ndim), len(node.outputs)
    sizes = node.get("split") if split is None else split.tolist()
    if sizes is None:
        part = -(-x.shape[axis] // count)
        sizes = [max(0, min(part, x.shape[axis] - part * index)) for index in range(count)]
    if len(sizes) != count or sum(sizes) != x.shape[axis] or any(size < 0 for size in sizes):
        raise InteropError(f"the {node} splits {x.shape[axis]} into {sizes} for {count} outputs")
    return tuple(context.xp.split(x, np.cumsum(sizes)[:-1].tolist(), axis=axis))


@operator("Slice", "starts ends axes", inputs=(1, 5), host=(1, 2, 3, 4))
def _slice(
    context: Context,
    node: Node,
    x: Array,
    starts: Any = None,
    ends: Any = None,
    axes: Any = None,
    steps: Any = None,
) -> Array:
    first, last = (
        node.get(key) if value is None else value.tolist() for key, value in (("starts", starts), ("ends", ends))
    )
    chosen = node.get("axes", list(range(len(first or [])))) if axes is None else axes.tolist()
    by = [1] * len(chosen) if steps is None else steps.tolist()
    if first is None or last is None or not len(first) == len(last) == len(chosen) == len(by) or 0 in by:
        raise InteropError(f"the {node} has starts {first}, ends {last}, axes {chosen} and steps {by}")
    cut = [slice(None)] * x.ndim
    for start, end, axis, step in zip(first, last, chosen, by, strict=True):
        number = axis_of(node, axis, x.ndim)
        cut[number] = _bounds(start, end, step, x.shape[number])
    return x[tuple(cut)]


def _bounds(start: int, end: int, step: int, extent: int) -> slice:
    """ONNX's bounds as Python's: with a negative step an end before the first element means up to it."""
    start, end = (bound + extent if bound < 0 else bound for bound in (start, end))
    if step > 0:
        return slice(min(max(start, 0), extent), min(max(end, 0), extent), step)
    start, end = min(max(start, -1), extent - 1), min(max(end, -1), extent - 1)
    if start < 0:
        return slice(0, 0, step)
    return slice(start, None if end < 0 else end, step)


@operator("Gather", "axis", inputs=(2, 2))
def _gather(context: Context, node: Node, x: Array, indices: Array) -> Array:
    axis = axis_of(node, node.get("axis", 0), x.ndim)
    _check_indices(node, indices, x.shape[axis])
    context.room(node, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype.itemsize)
    return context.xp.take(x, indices, axis=axis)


@operator("GatherElements", "axis", inputs=(2, 2))
def _gather_elements(context: Context, node: Node, x: Array, indices: Array) -> Array:
    axis = axis_of(node, node.get("axis", 0), x.ndim)
    _check_indices(node, indices, x.shape[axis])
    return context.xp.take_along_axis(x, indices, axis=axis)


def _check_indices(node: Node, indices: Array, extent: int) -> None:
    if indices.dtype.kind not in "iu":
        raise InteropError(f"the {node} has indices of dtype {indices.dtype}, expected integers")
    if indices.size and not -extent <= int(indices.min()) <= int(indices.max()) < extent:
        raise InteropError(f"the {node} has indices outside of {-extent} to {extent - 1}")


@operator("Pad", "mode pads value", inputs=(1, 4), host=(1, 2, 3))
def _pad(
    context: Context,
    node: Node,
    x: Array,
    pads: Any = None,
    value: Any = None,
    axes: Any = None,
) -> Array:
    sizes = node.get("pads", []) if pads is None else pads.tolist()
    chosen = list(range(x.ndim)) if axes is None else [axis_of(node, axis, x.ndim) for axis in axes.tolist()]
    modes = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}
    mode = modes.get(node.get("mode", "constant"))
    if mode is None or len(sizes) != 2 * len(chosen) or any(size < 0 for size in sizes):
        raise InteropError(f"the {node} pads {sizes} on axes {chosen} with mode {node.get('mode')!r}")
    width = [(0, 0)] * x.ndim
    for index, axis in enumerate(chosen):
        width[axis] = (sizes[index], sizes[index + len(chosen)])
    context.room(node, (extent + sum(pair) for extent, pair in zip(x.shape, width, strict=True)), x.dtype.itemsize)
    fill = node.get("value", 0.0) if value is None else value.reshape(()).item()
    more = {"constant_values": fill} if mode == "constant" else {}
    return context.xp.pad(x, width, mode=mode, **more)


@operator("ReverseSequence", "batch_axis time_axis", inputs=(2, 2))
def _reverse_sequence(context: Context, node: Node, x: Array, lengths: Array) -> Array:
    xp, batch, time = context.xp, node.get("batch_axis", 1), node.get("time_axis", 0)
    if {batch, time} != {0, 1} or x.ndim < 2 or lengths.shape != (x.shape[batch],):
        raise InteropError(
            f"the {node} has axes {batch} and {time} and {lengths.shape} lengths for a value of {x.shape}"
        )
    x = x if time == 0 else xp.swapaxes(x, 0, 1)
    step = xp.arange(x.shape[0])[:, None]
    order = xp.where(step < lengths[None, :], lengths[None, :] - 1 - step, step)
    turned = x[order, xp.arange(x.shape[1])[None, :]]
    return turned if time == 0 else xp.swapaxes(turned, 0, 1)
