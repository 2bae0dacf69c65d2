"""A file of choices that were measured on a card, which the planner takes before those of its cost model.

`gpulstm bench --suite cuda --write-tuning PATH` writes it, `GPULSTM_CUDA_TUNING=PATH` names it.  It is JSON:

    {"gpulstm_cuda_tuning": 1, "entries": [{"card": "...", "cell": "lstm", "dtype": "float32", "batch": 64,
      "inputs": 64, "hidden": 256, "layers": 2, "directions": 1, "training": true,
      "form": "fused", "graph": true, "wavefront": false, "steps": 100, "milliseconds": {"fused, graph": 1.9}}]}

`steps` and `milliseconds` say what was measured; a choice holds for every T, as the bits of a sequence must not depend
on how it is cut.  An entry of another card is not used, and `explain` says so.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpulstm.arrays import files
from gpulstm.engines.spec import Call
from gpulstm.errors import ConfigError

TUNING = "GPULSTM_CUDA_TUNING"
KEY = "gpulstm_cuda_tuning"
VERSION = 1
FORMS = ("first", "fused", "persistent")
SHAPE: dict[str, type] = {
    "card": str,
    "cell": str,
    "dtype": str,
    "batch": int,
    "inputs": int,
    "hidden": int,
    "layers": int,
    "directions": int,
    "training": bool,
}
CHOICE: dict[str, type] = {"form": str, "graph": bool, "wavefront": bool}

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Tuned:
    """A choice from the file: the form, whether it is replayed as a graph, and whether as a wavefront."""

    path: str
    form: str
    graph: bool
    wavefront: bool


def find(call: Call, card: str) -> Tuned | str | None:
    """The choice for a call, why there is none in the file that is named, or None where none is named.

    Raises:
        ConfigError: the file cannot be read or is none of this kind.
    """
    path = os.environ.get(TUNING)
    if not path:
        return None
    entries = load(path)
    wanted = shape_of(call, card)
    found = entries.get(tuple(wanted.values()))
    if found is not None:
        return Tuned(path, found["form"], found["graph"], found["wavefront"])
    same = [key[0] for key in entries if key[1:] == tuple(wanted.values())[1:]]
    if same:
        return f"{path} has this shape for {', '.join(map(repr, same))}, the card is {card!r}"
    return f"{path} has no entry for this shape"


def shape_of(call: Call, card: str) -> dict[str, Any]:
    """What an entry is found by."""
    spec = call.spec
    numbers = (call.batch, spec.input_size, spec.hidden_size, spec.num_layers, spec.directions)
    return dict(zip(SHAPE, (card, spec.cell, spec.dtype, *numbers, call.training), strict=True))


def load(path: str | os.PathLike[str]) -> Mapping[tuple[Any, ...], Entry]:
    """The entries of a file by what they are found by.

    Raises:
        ConfigError: the file cannot be read or is none of this kind.
    """
    try:
        state = os.stat(path)
    except OSError as error:
        raise ConfigError(f"the tuning file {str(path)!r} cannot be read: {error.strerror}") from error
    return _load(str(path), state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=8)
def _load(path: str, changed: int, size: int) -> Mapping[tuple[Any, ...], Entry]:
    document = files.parse_json(files.read(path, ConfigError), f"the tuning file {path!r}", ConfigError)
    version = document.get(KEY) if isinstance(document, dict) else None
    if version != VERSION or not isinstance(document.get("entries"), list):
        raise ConfigError(
            f"the file {path!r} is no tuning file of version {VERSION}, expected one that "
            "`gpulstm bench --suite cuda --write-tuning` wrote"
        )
    found = {}
    for number, entry in enumerate(document["entries"]):
        for name, kind in {**SHAPE, **CHOICE}.items():
            value = entry.get(name) if isinstance(entry, dict) else None
            if type(value) is not kind or (name == "form" and value not in FORMS):
                wanted = f"one of {', '.join(FORMS)}" if name == "form" else f"a value of type {kind.__name__}"
                raise ConfigError(f"entry {number} of the tuning file {path!r} has {name} {value!r}, expected {wanted}")
        found[tuple(entry[name] for name in SHAPE)] = entry
    return found


def save(path: str | os.PathLike[str], entries: Mapping[tuple[Any, ...], Entry]) -> None:
    """Write a file that `load` reads."""
    document = {KEY: VERSION, "entries": list(entries.values())}
    files.write(path, (json.dumps(document, indent=1) + "\n").encode(), ConfigError)
