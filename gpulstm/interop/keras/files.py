"""What Keras saves, as plain descriptions of layers: `.keras` archives and `.weights.h5` files.  Keras is not imported.

Nothing in a file is executed or followed: layers are known by the names of their classes alone, links and data outside
the file are refused.  What a file announces is added up and compared with its length before any of it is read: weights
that were never written, or one block of them under many names, take no room in a file and all the room in memory.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpulstm import validate
from gpulstm.arrays import files
from gpulstm.errors import ConfigError, InteropError, missing_extra

LIMIT = 2**26  # bytes that packed weights may take beyond the length of their file
_CONFIG_BYTES = 2**24
_ENTRIES = 10_000  # groups and arrays of a file; a layer has about seven
_DEPTH = 8  # of groups below a layer
_NAMES = 200  # characters of the name of a group
_NESTED = 50  # lists and dicts within one another in a node of a functional model
_KINDS = {
    "bidirectional": "Bidirectional",
    "dense": "Dense",
    "gru": "GRU",
    "lstm": "LSTM",
    "simple_rnn": "SimpleRNN",
    "time_distributed": "TimeDistributed",
}
_MASK_OPERATIONS = ("NotEqual", "Any")
_CELLS = {"lstm_cell": "LSTM", "gru_cell": "GRU", "simple_rnn_cell": "SimpleRNN"}


@dataclass
class Described:
    """A Keras layer: the name of its class, its config (empty where a file has none), its weights in Keras's order."""

    kind: str
    config: dict[str, Any] = field(default_factory=dict)
    weights: list[np.ndarray] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.kind} layer {self.config['name']!r}" if "name" in self.config else f"{self.kind} layer"


def chain(config: Mapping[str, Any]) -> list[Described]:
    """The layers of a model's config, in the order of the data, without their weights.

    Raises:
        InteropError: the model is no chain: a layer has several inputs, or is used twice.
    """
    layers: list[Described] = []
    before, masks = None, set()
    for entry in _layers(config):
        layer = Described(entry["class_name"], dict(entry["config"]))
        if layer.kind in _MASK_OPERATIONS:  # what a functional model has next to a Masking layer, to make its mask
            masks.add(layer.config.get("name"))
            continue
        nodes = entry.get("inbound_nodes")
        if nodes:
            if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
                raise InteropError(f"the {layer} has nodes of another version of Keras, expected one of Keras 3")
            options = [dict(validate.mapping("kwargs", node.get("kwargs", {}))) for node in nodes]
            from_masks = {name for option in options for name in _histories(option.pop("mask", None))}
            sources = sorted(
                {*_histories([node.get("args") for node in nodes]), *_histories(options), *(from_masks - masks)}
            )
            if len(nodes) != 1 or sources != [before]:
                raise InteropError(f"the {layer} reads {', '.join(sources) or 'nothing'}: expected a chain of layers")
        before = layer.config.get("name")
        layers.append(layer)
    if not layers:
        raise InteropError("the model has no layers")
    return layers


def _layers(config: Any) -> list[Mapping[str, Any]]:
    """The descriptions of a model's layers, each with a class and a config."""
    entries = config.get("layers") if isinstance(config, Mapping) else None
    if not isinstance(entries, Sequence):
        raise InteropError("the model's config has no list of layers")
    for entry in entries:
        whole = isinstance(entry, Mapping) and isinstance(entry.get("class_name"), str)
        if not whole or not isinstance(entry.get("config"), Mapping):
            raise InteropError("the model's config does not describe its layers")
    return list(entries)


def _histories(value: Any, depth: int = 0) -> Iterator[str]:
    """The names of all layers whose results a node of a functional model refers to."""
    if depth > _NESTED:
        raise InteropError(f"a node of the model is nested more than {_NESTED} deep")
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            inner = value.get("config")
            history = inner.get("keras_history") if isinstance(inner, Mapping) else None
            if not isinstance(history, Sequence) or not history or not isinstance(history[0], str):
                raise InteropError("a node of the model does not say which layer it reads")
            yield history[0]
        else:
            for part in value.values():
                yield from _histories(part, depth + 1)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for part in value:
            yield from _histories(part, depth + 1)


# -- reading ---------------------------------------------------------------------------------------------------------
def read(path: str | os.PathLike[str], limit: int = LIMIT) -> list[Described]:
    """The layers of a `.keras` archive or a `.weights.h5` file, with their weights.

    Args:
        path: the file, or a pipe.
        limit: bytes of weights that a packed file may unpack to beyond its own length.

    Raises:
        InteropError: the file is neither, is damaged, refers to data outside of it, or announces more than it holds.
        ConfigError: there is no such file.
        MissingExtraError: h5py is not installed.
    """
    with files.opened(path, InteropError, missing=ConfigError, seekable=True) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        with files.damaged(f"{path} is damaged", InteropError):
            try:
                if file.read(4) == b"PK\x03\x04":
                    return _read_archive(file, str(path), size + limit)
                with _open(file, str(path)) as weights:
                    return _described(_Weights(weights, str(path), size + limit))
            except (OSError, RuntimeError) as error:  # how h5py tells of what it stumbles over
                raise InteropError(f"{path} is damaged: {error}") from error


def _read_archive(file: BinaryIO, name: str, most: int) -> list[Described]:
    for member in ("config.json", "model.weights.h5"):
        if member not in _names(file, name):
            raise InteropError(f"{name} is no .keras archive: it has no {member}")
    config = files.parse_json(_member(file, name, "config.json", _CONFIG_BYTES), f"config.json in {name}", InteropError)
    if not isinstance(config, dict) or config.get("class_name") not in ("Sequential", "Functional"):
        kind = config.get("class_name") if isinstance(config, dict) else type(config).__name__
        raise InteropError(f"{name} holds a {kind}, expected a Sequential or Functional model")
    layers = chain(config.get("config", {}))
    if _written_by(file, name).startswith("2."):
        of_keras_2(layers)
    packed = io.BytesIO(_member(file, name, "model.weights.h5", most))
    with _open(packed, name) as weights:
        read = _Weights(weights, name, most)
        used: dict[str, int] = {}
        for layer in layers:
            group = _snake(layer.kind)
            count = used.get(group, 0)
            used[group] = count + 1
            layer.weights = read.below(f"layers/{group}_{count}" if count else f"layers/{group}")
    return layers


def _names(file: BinaryIO, name: str) -> list[str]:
    """The names of the files in an archive."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise InteropError(f"{name} is damaged: {error}") from error


def _member(file: BinaryIO, name: str, member: str, most: int) -> bytes:
    """The unpacked bytes of one file in an archive, at most `most`."""
    described = f"{member} in {name}"
    try:
        with zipfile.ZipFile(file) as archive:
            entry = archive.getinfo(member)
            if entry.file_size > most:
                raise InteropError(f"{described} takes {entry.file_size} bytes, more than the {most} that it may")
            if entry.flag_bits & 1:
                raise InteropError(f"{described} is encrypted")
            with archive.open(entry) as stream:  # gives no more than the announced size, and checks the checksum
                return stream.read(most + 1)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        raise InteropError(f"{described} is damaged: {error}") from error


def _written_by(file: BinaryIO, name: str) -> str:
    """The version of Keras that wrote an archive; empty where it does not say."""
    if "metadata.json" not in _names(file, name):
        return ""
    said = files.parse_json(
        _member(file, name, "metadata.json", _CONFIG_BYTES), f"metadata.json in {name}", InteropError
    )
    return str(said.get("keras_version", "")) if isinstance(said, dict) else ""


def of_keras_2(layers: Sequence[Described]) -> None:
    """Name the one activation in descriptions by Keras 2 that Keras 3 computes otherwise."""
    for layer in layers:
        for config in (layer.config, *(_inner(layer.config, part) for part in ("layer", "backward_layer"))):
            for name in ("activation", "recurrent_activation"):
                if config.get(name) == "hard_sigmoid":
                    config[name] = "hard_sigmoid of Keras 2"


def _inner(config: Mapping[str, Any], part: str) -> dict[str, Any]:
    wrapped = config.get(part)
    inside = wrapped.get("config") if isinstance(wrapped, dict) else None
    return inside if isinstance(inside, dict) else {}


def _described(weights: _Weights) -> list[Described]:
    """The layers of a weights file, which says their kinds and weights and neither their options nor their order."""
    name, layers = weights.name, []
    for group in weights.groups("layers"):
        arrays = weights.below(f"layers/{group}")
        if not arrays:
            continue
        base, _, number = group.rpartition("_")
        base, number = (base, number) if number.isdecimal() and len(number) < 7 else (group, "0")
        if base not in _KINDS:
            raise InteropError(f"{name} has a layer {group!r}, expected some of {', '.join(_KINDS)}")
        layer = Described(_KINDS[base], {}, arrays)
        if base == "bidirectional":
            layer.config = {"layer": {"class_name": _cell_of(weights, f"layers/{group}"), "config": {}}}
        layers.append((base in ("dense", "time_distributed"), int(number), base, layer))
    kinds = {base for dense, _, base, _ in layers if not dense}
    if len(kinds) > 1:
        raise InteropError(
            f"{name} holds {' and '.join(sorted(kinds))} layers and not their order; save the model as a .keras file"
        )
    layers.sort(key=lambda entry: entry[:3])
    return _in_order([layer for dense, *_, layer in layers if not dense], [e[3] for e in layers if e[0]], name)


def _in_order(recurrent: list[Described], dense: list[Described], name: str) -> list[Described]:
    """The layers in the one order that their sizes allow; layers of a kind keep theirs.

    Raises:
        InteropError: the sizes allow several orders, or none.
    """
    orders: list[list[Described]] = []

    def extend(order: list[Described], first: int, second: int) -> None:
        if len(orders) > 1:
            return
        if first == len(recurrent) and second == len(dense):
            orders.append(order)
        for layers, at, after in (
            (recurrent, first, (first + 1, second)),
            (dense, second, (first, second + 1)),
        ):
            if at < len(layers) and (not order or _sizes(order[-1])[1] == _sizes(layers[at])[0]):
                extend([*order, layers[at]], *after)

    extend([], 0, 0)
    if len(orders) > 1:
        raise InteropError(
            f"{name} holds recurrent and dense layers and not their order, and their sizes fit in several; save "
            "the model as a .keras file"
        )
    return orders[0] if orders else [*recurrent, *dense]


def _sizes(layer: Described) -> tuple[int, int]:
    """Features that a layer reads and gives, by the shapes of its weights; (-1, -1) where those do not say it."""
    if not layer.weights or layer.weights[0].ndim != 2:
        return -1, -1
    inputs, width = layer.weights[0].shape
    if layer.kind in ("Dense", "TimeDistributed") or len(layer.weights) < 2 or layer.weights[1].ndim != 2:
        return inputs, width
    return inputs, layer.weights[1].shape[0] * (2 if layer.kind == "Bidirectional" else 1)


def _cell_of(weights: _Weights, group: str) -> str:
    said = weights.attribute(f"{group}/forward_layer/cell/vars", "name")
    if said not in _CELLS:
        raise InteropError(f"{weights.name} does not say which layer {group!r} wraps; save the model as a .keras file")
    return _CELLS[said]


class _Weights:
    """A weights file of which what was read is added up.

    Args:
        file: an open `h5py.File`.
        name: for messages.
        most: bytes that all arrays together may take.
    """

    def __init__(self, file: Any, name: str, most: int) -> None:
        self.file, self.name, self.most = file, name, most
        self.entries, self.bytes = 0, 0

    def groups(self, path: str) -> list[str]:
        """The names of what lies in a group of the file."""
        group = self._at(path)
        if group is None:
            raise InteropError(f"{self.name} is no .weights.h5 file of Keras 3: it has no group {path!r}")
        return [name for name, _ in self._parts(group, (path,))]

    def attribute(self, path: str, name: str) -> str:
        """A text that stands with a group; empty where there is none."""
        group = self._at(path)
        value = "" if group is None else group.attrs.get(name, "")
        return value if isinstance(value, str) else ""

    def below(self, path: str) -> list[np.ndarray]:
        """The arrays below a group: those of the forward layer first, each in the order of Keras's variables."""
        group = self._at(path)
        if group is None:
            return []
        arrays: list[tuple[tuple[bool, int], Any]] = []
        self._collect(group, (path,), arrays)
        arrays.sort(key=lambda entry: entry[0])
        return [np.asarray(part[()]) for _, part in arrays]

    def _collect(self, group: Any, path: tuple[str, ...], arrays: list[tuple[tuple[bool, int], Any]]) -> None:
        if len(path) > _DEPTH:
            raise InteropError(f"{self.name} has groups more than {_DEPTH} deep at {'/'.join(path)}")
        for key, part in self._parts(group, path):
            where = (*path, key)
            if hasattr(part, "keys"):
                self._collect(part, where, arrays)
            elif path[-1] == "vars" and key.isdecimal() and len(key) < 7 and hasattr(part, "dtype"):
                self._count(part, "/".join(where))
                arrays.append((("backward_layer" in path, int(key)), part))

    def _count(self, part: Any, where: str) -> None:
        if part.external or part.is_virtual:
            raise InteropError(f"{self.name} has data outside of it at {where}")
        if part.shape is None or part.dtype.kind not in "fiub":
            raise InteropError(f"{self.name} has {part.dtype} of shape {part.shape} at {where}, expected numbers")
        self.bytes += part.size * part.dtype.itemsize
        if self.bytes > self.most or (part.size and part.id.get_storage_size() == 0):
            raise InteropError(
                f"{self.name} announces more than it holds: {part.size} numbers at {where}, {self.bytes} bytes in all"
            )

    def _parts(self, group: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        """What lies in a group; links that lead elsewhere are refused, and more entries than a model can have."""
        import h5py

        if self.entries + len(group) > _ENTRIES:
            raise InteropError(f"{self.name} has more than {_ENTRIES} groups and arrays")
        for key in group:
            self.entries += 1
            if len(key) > _NAMES:
                raise InteropError(f"{self.name} has a name of {len(key)} characters at {'/'.join(path)}")
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise InteropError(f"{self.name} has a link at {'/'.join((*path, key))}, which is not followed")
            yield key, group[key]

    def _at(self, path: str) -> Any:
        """A group by its path from the root; None where there is nothing."""
        import h5py

        group = self.file
        for name in path.split("/"):
            if not isinstance(group.get(name, getlink=True), (h5py.HardLink, type(None))):
                raise InteropError(f"{self.name} has a link at {path}, which is not followed")
            if name not in group:
                return None
            group = group[name]
            if not isinstance(group, h5py.Group):
                raise InteropError(f"{self.name} has an array at {path}, expected a group")
        return group


def _open(source: Any, name: str) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise missing_extra("h5py", "a file of Keras's") from error
    try:
        return h5py.File(source, "r")
    except (OSError, RuntimeError) as error:
        raise InteropError(f"{name} is not a whole HDF5 file: {error}") from error


def _snake(kind: str) -> str:
    """Keras's way from a class to a name in the file: SimpleRNN -> simple_rnn."""
    name = re.sub(r"\W+", "", kind)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


# -- writing ---------------------------------------------------------------------------------------------------------
def write(path: str | os.PathLike[str], layers: Sequence[Described]) -> None:
    """Write the weights of layers as `load_weights` of a Sequential model with the same layers reads them."""
    try:
        import h5py
    except ImportError as error:
        raise missing_extra("h5py", "a file of Keras's") from error
    path = Path(path)
    if not path.name.endswith(".weights.h5"):
        raise ConfigError(f"path is {str(path)!r}, expected a name that ends in .weights.h5, as Keras asks for")
    used: dict[str, int] = {}
    whole = io.BytesIO()
    with h5py.File(whole, "w") as file:
        file.create_group("vars")
        for layer in layers:
            group = _snake(layer.kind)
            count = used.get(group, 0)
            used[group] = count + 1
            home = file.create_group(f"layers/{group}_{count}" if count else f"layers/{group}")
            parts = [""]
            if layer.kind == "Bidirectional":
                parts = ["forward_layer/cell/", "backward_layer/cell/"]
            elif layer.kind != "Dense":
                parts = ["cell/"]
            size = len(layer.weights) // len(parts)
            for number, part in enumerate(parts):
                group = home.create_group(f"{part}vars")
                if part:
                    kind = layer.config["layer"]["class_name"] if layer.kind == "Bidirectional" else layer.kind
                    group.attrs["name"] = f"{_snake(kind)}_cell"
                for index, value in enumerate(layer.weights[number * size : (number + 1) * size]):
                    group.create_dataset(str(index), data=value)
    files.write(path, whole.getvalue(), InteropError)
