"""What Keras saves, as plain descriptions of layers: `.keras` archives and `.weights.h5` files.  Keras is not imported.

Nothing in a file is executed or followed: layers are known by the names of their classes alone, links and data outside
the file are refused, and sizes are those the file announces before they are read.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpulstm.errors import ConfigError, InteropError, missing_extra

_LARGEST = 2**33  # bytes of weights in an archive
_CONFIG_BYTES = 2**24
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
    found: list[Described] = []
    before, masks = None, set()
    for entry in config.get("layers", ()):
        try:
            layer = Described(str(entry["class_name"]), dict(entry["config"]))
        except (KeyError, TypeError) as error:
            raise InteropError("the model's config does not describe its layers") from error
        if layer.kind in _MASK_OPERATIONS:  # what a functional model has beside a Masking layer, to make its mask
            masks.add(layer.config.get("name"))
            continue
        nodes = entry.get("inbound_nodes")
        if nodes:
            options = [dict(node.get("kwargs", {})) for node in nodes]
            given = {name for option in options for name in _histories(option.pop("mask", None))}
            sources = sorted(
                {*_histories([node.get("args") for node in nodes]), *_histories(options), *(given - masks)}
            )
            if len(nodes) != 1 or sources != [before]:
                raise InteropError(f"the {layer} reads {', '.join(sources) or 'nothing'}: expected a chain of layers")
        before = layer.config.get("name")
        found.append(layer)
    if not found:
        raise InteropError("the model has no layers")
    return found


def _histories(value: Any) -> Iterator[str]:
    """The names of all layers whose results a node of a functional model refers to."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            yield str(value["config"]["keras_history"][0])
        else:
            for part in value.values():
                yield from _histories(part)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for part in value:
            yield from _histories(part)


# -- reading ---------------------------------------------------------------------------------------------------------
def read(path: str | os.PathLike[str]) -> list[Described]:
    """The layers of a `.keras` archive or a `.weights.h5` file, with their weights.

    Raises:
        InteropError: the file is neither, is damaged, or refers to data outside of it.
        ConfigError: there is no such file.
        MissingExtraError: h5py is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    if zipfile.is_zipfile(path):
        return _read_archive(path)
    with _open(path, str(path)) as file:
        return _described(file, str(path))


def _read_archive(path: Path) -> list[Described]:
    try:
        with zipfile.ZipFile(path) as archive:
            parts = {}
            for name, largest in (("config.json", _CONFIG_BYTES), ("model.weights.h5", _LARGEST)):
                if name not in archive.namelist():
                    raise InteropError(f"{path} is no .keras archive: it has no {name}")
                if archive.getinfo(name).file_size > largest:
                    raise InteropError(f"{name} in {path} takes more than {largest} bytes")
                parts[name] = archive.read(name)
        config = json.loads(parts["config.json"])
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        if isinstance(error, InteropError):
            raise
        raise InteropError(f"{path} is damaged: {error}") from error
    if not isinstance(config, dict) or config.get("class_name") not in ("Sequential", "Functional"):
        kind = config.get("class_name") if isinstance(config, dict) else type(config).__name__
        raise InteropError(f"{path} holds a {kind}, expected a Sequential or Functional model")
    layers = chain(config["config"])
    with _open(io.BytesIO(parts["model.weights.h5"]), str(path)) as file:
        used: dict[str, int] = {}
        for layer in layers:
            group = _snake(layer.kind)
            count = used.get(group, 0)
            used[group] = count + 1
            name = f"layers/{group}_{count}" if count else f"layers/{group}"
            layer.weights = _weights(file, name, str(path)) if name in file else []
    return layers


def _described(file: Any, name: str) -> list[Described]:
    """The layers of a weights file, which says their kinds and weights and neither their options nor their order."""
    if "layers" not in file:
        raise InteropError(f"{name} is no .weights.h5 file of Keras 3: it has no group 'layers'")
    found = []
    for group in file["layers"]:
        weights = _weights(file, f"layers/{group}", name)
        if not weights:
            continue
        base, _, number = group.rpartition("_")
        base, number = (base, number) if number.isdigit() else (group, "0")
        if base not in _KINDS:
            raise InteropError(f"{name} has a layer {group!r}, expected some of {', '.join(_KINDS)}")
        layer = Described(_KINDS[base], {}, weights)
        if base == "bidirectional":
            layer.config = {"layer": {"class_name": _cell_of(file, f"layers/{group}", name), "config": {}}}
        found.append((base in ("dense", "time_distributed"), int(number), base, layer))
    kinds = {base for dense, _, base, _ in found if not dense}
    if len(kinds) > 1:
        raise InteropError(
            f"{name} holds {' and '.join(sorted(kinds))} layers and not their order; save the model as a .keras file"
        )
    found.sort(key=lambda entry: entry[:3])
    return [layer for *_, layer in found]


def _cell_of(file: Any, group: str, name: str) -> str:
    place = f"{group}/forward_layer/cell/vars"
    said = file[place].attrs.get("name", "") if place in file else ""
    if said not in _CELLS:
        raise InteropError(f"{name} does not say which layer {group!r} wraps; save the model as a .keras file")
    return _CELLS[said]


def _weights(file: Any, group: str, name: str) -> list[np.ndarray]:
    """The arrays below a group: those of the forward layer first, each in the order of Keras's variables."""
    import h5py

    found: list[tuple[tuple[Any, ...], Any]] = []

    def collect(here: Any, path: tuple[str, ...]) -> None:
        for key in here:
            link = here.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink) or len(path) > 8:
                raise InteropError(f"{name} has a link at {'/'.join((*path, key))}, which is not followed")
            part = here[key]
            if isinstance(part, h5py.Group):
                collect(part, (*path, key))
            elif path[-1:] == ("vars",) and key.isdigit() and isinstance(part, h5py.Dataset):
                if part.external or part.is_virtual or part.size > _LARGEST // part.dtype.itemsize:
                    raise InteropError(f"{name} has data outside of it, or too much, at {'/'.join((*path, key))}")
                found.append((("backward_layer" in path, int(key)), part))

    collect(file[group], ())
    return [np.asarray(part[()]) for _, part in sorted(found, key=lambda entry: entry[0])]


def _open(source: Any, name: str) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise missing_extra("h5py", "keras", "a file of Keras's") from error
    try:
        return h5py.File(source, "r")
    except OSError as error:
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
        raise missing_extra("h5py", "keras", "a file of Keras's") from error
    path = Path(path)
    if not path.name.endswith(".weights.h5"):
        raise ConfigError(f"path is {str(path)!r}, expected a name that ends in .weights.h5, as Keras asks for")
    used: dict[str, int] = {}
    with h5py.File(path, "w") as file:
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
            for place, part in enumerate(parts):
                group = home.create_group(f"{part}vars")
                if part:
                    kind = layer.config["layer"]["class_name"] if layer.kind == "Bidirectional" else layer.kind
                    group.attrs["name"] = f"{_snake(kind)}_cell"
                for index, value in enumerate(layer.weights[place * size : (place + 1) * size]):
                    group.create_dataset(str(index), data=value)
