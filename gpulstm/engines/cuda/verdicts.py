"""Which form of the CUDA engine is right, and which fastest, on the card at hand: found out on it, and kept in a file.

The first time a kind of problem is met on a device, each form that may serve it is checked against the plainest on a
small problem, and then timed at the size itself (`trial.py`).  A form that disagrees or fails is not used on that
device again.  The file is JSON, in the user's cache folder (`file`), and meant to be read:

    {"gpulstm_cuda_verdicts": 1, "devices": {"NVIDIA H100, driver 12090, CUDA 12090, CuPy 14.2.0, gpulstm 0.1 (5e9b)": {
      "right": ["fused lstm float32"], "wrong": {"persistent lstm float32": "dx is 3.1e-01 off"},
      "choices": {"lstm float32 B=64 I=64 H=256 layers=2 directions=1 training": {
        "way": "fused, graph", "milliseconds": {"fused, graph": 1.9, "fused": 4.4}}}}}}

The same file gives the same choices, so the same bits; without it they are made again, and may differ.
`GPULSTM_CUDA_VERIFY=0` leaves the choice to the thresholds of `planner.py`, `again` makes each one afresh.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpulstm.arrays import files
from gpulstm.arrays.checkpoint import package_version
from gpulstm.arrays.cupy_backend import CupyBackend
from gpulstm.arrays.kernel_source import digest
from gpulstm.arrays.variables import variables
from gpulstm.engines.spec import Call
from gpulstm.errors import ConfigError

VERIFY = "GPULSTM_CUDA_VERIFY"
PLAINEST = "first"  # what the other forms are checked against
KEY, VERSION = "gpulstm_cuda_verdicts", 1


class Way(NamedTuple):
    """A way to compute a call: the form, whether it is replayed as a graph, and whether with layers side by side."""

    form: str
    graph: bool
    wavefront: bool = False

    def __str__(self) -> str:
        return ", ".join([self.form, *["graph"][: self.graph], *["wavefront"][: self.wavefront]])


class FormFailed(RuntimeError):
    """A form cannot be launched."""


class Trial(NamedTuple):
    """How ways are tried.

    Attributes:
        check: why a form is wrong, in a few words, or None; raises MemoryError where there is none for it.
        seconds: what a way takes at the size itself; raises FormFailed, and MemoryError as above.
    """

    check: Callable[[str], str | None]
    seconds: Callable[[Way], float]


class Choice(NamedTuple):
    """The way for a call, and how it was chosen, in a few words."""

    way: Way
    remark: str


class Verdicts:
    """What is known of one device; read from the file, and written to it.

    Args:
        device: name of the card and versions.
        path: of the file, or None to keep nothing.
    """

    def __init__(self, device: str, path: Path | None) -> None:
        self.device, self.path = device, path
        self.lock = threading.RLock()  # one trial at a time
        self.wrong: dict[str, str] = {}
        self.right: set[str] = set()
        self.choices: dict[str, dict[str, Any]] = {}
        self._unwritten = ""  # why the file could not be written
        if path is not None:
            self._take(_read(path).get(device, {}))

    def choose(self, call: Call, label: str, ways: Sequence[Way], trial: Trial) -> Choice:
        """The fastest of the ways that are right, found out now if it is not known.

        Args:
            call: whose kind it is.
            label: the dtype as the products take it.
            ways: by the thresholds, the best guess first.
            trial: how to find out.
        """
        kind, remark = kind_of(call, label), f"found on this card{self._unwritten}"
        with self.lock:
            chosen = self._known(kind, call, label, ways)
            if chosen is not None:
                return Choice(chosen, f"{self._times(kind)}, {remark}")
            kept = True
            for form in dict.fromkeys(way.form for way in ways):
                kept &= self._check(form, call, label, trial)
            times, complete = self._timed(ways, call, label, trial)
            right = [way for way in ways if not self.refusal(way.form, call, label)]
            if not right:
                return Choice(Way(PLAINEST, graph=False), "every other form is wrong on this card")
            if not times:
                return Choice(right[0], "by the thresholds, as there was no memory to time it")
            best = min(times, key=lambda way: times[way])
            self.choices[kind] = {
                "way": str(best),
                "milliseconds": {str(way): round(1e3 * seconds, 4) for way, seconds in times.items()},
            }
            if complete and kept:
                self._save()
            return Choice(best, f"{self._times(kind)}, {remark}")

    def refusal(self, form: str, call: Call, label: str) -> str | None:
        """Why a form is not used on this device, or None."""
        return self.wrong.get(_name(form, call, label))

    def forget(self) -> None:
        """Find everything out again; what has been found since stays."""
        self.wrong, self.right, self.choices = {}, set(), {}

    def document(self) -> dict[str, Any]:
        """What is known, as the file has it."""
        return {"right": sorted(self.right), "wrong": dict(self.wrong), "choices": dict(self.choices)}

    def adopt(self, document: Mapping[str, Any]) -> None:
        """Know what another process found out, and nothing else: the ranks of a run follow rank 0's verdicts."""
        with self.lock:
            self.forget()
            self._take(document)

    def _take(self, document: Mapping[str, Any]) -> None:
        self.right |= set(document.get("right", ()))
        self.wrong.update(document.get("wrong", {}))
        self.choices.update(document.get("choices", {}))

    def _known(self, kind: str, call: Call, label: str, ways: Sequence[Way]) -> Way | None:
        name = self.choices.get(kind, {}).get("way")
        return next((w for w in ways if str(w) == name and not self.refusal(w.form, call, label)), None)

    def _check(self, form: str, call: Call, label: str, trial: Trial) -> bool:
        """Find out whether a form is right; False where there was no memory to."""
        name = _name(form, call, label)
        if form == PLAINEST or name in self.right or name in self.wrong:
            return True
        try:
            reason = trial.check(form)
        except MemoryError:
            return False
        if reason is None:
            self.right.add(name)
            return True
        self._condemn(form, call, label, reason)
        return True

    def _condemn(self, form: str, call: Call, label: str, reason: str) -> None:
        """A form is not used on this device again."""
        self.right.discard(_name(form, call, label))
        self.wrong[_name(form, call, label)] = reason
        self._save()  # now: what comes next may not come to an end
        warnings.warn(
            f"the {form!r} form of the CUDA engine is not used for {call.spec.cell} in {label} on {self.device}: "
            f"{reason}; {VERIFY}=again checks it again",
            RuntimeWarning,
            stacklevel=2,
        )

    def _timed(self, ways: Sequence[Way], call: Call, label: str, trial: Trial) -> tuple[dict[Way, float], bool]:
        """Seconds of each way that is right, and whether all found memory."""
        times, complete = {}, True
        for way in ways:
            if self.refusal(way.form, call, label):
                continue
            try:
                times[way] = trial.seconds(way)
            except MemoryError:
                complete = False
            except FormFailed as error:
                self._condemn(way.form, call, label, str(error))
        return {way: took for way, took in times.items() if not self.refusal(way.form, call, label)}, complete

    def _times(self, kind: str) -> str:
        times = self.choices[kind]["milliseconds"]
        return ", ".join(f"{way} {milliseconds:.3g} ms" for way, milliseconds in times.items())

    def _save(self) -> None:
        if self.path is None:
            return
        devices = _read(self.path)  # another process may have written since
        before = devices.get(self.device, {})
        document = self.document()
        choices = {**before.get("choices", {}), **document["choices"]}
        devices[self.device] = {**document, "choices": choices}
        text = json.dumps({KEY: VERSION, "devices": devices}, indent=1, sort_keys=True) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            files.write(self.path, text.encode(), ConfigError)
        except ConfigError as error:
            self._unwritten = f" ({error})"
        except OSError as error:
            self._unwritten = f" ({self.path} cannot be written: {error.strerror})"


def _name(form: str, call: Call, label: str) -> str:
    return f"{form} {call.spec.cell} {label}"


def kind_of(call: Call, label: str) -> str:
    """What a choice holds for: sizes in steps of at most a half, and any T, as bits must not depend on it."""
    spec = call.spec
    sizes = {"B": _step(call.batch), "I": _step(spec.input_size), "H": _step(spec.hidden_size)}
    words = [spec.cell, label, *(f"{name}={size}" for name, size in sizes.items())]
    words += [f"layers={spec.num_layers}", f"directions={spec.directions}"]
    return " ".join([*words, "training" if call.training else "inference"])


def _step(size: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ..."""
    power = 1 << max(0, (size - 1).bit_length())
    return power * 3 // 4 if power >= 4 and size <= power * 3 // 4 else power


def mode() -> str:
    """GPULSTM_CUDA_VERIFY: "0", "1" (the default) or "again"."""
    value = variables().get(VERIFY, "1")
    if value not in ("0", "1", "again"):
        raise ConfigError(f"{VERIFY} is {value!r}, expected 0, 1 or again")
    return value


@functools.cache
def of(backend: CupyBackend) -> Verdicts:
    """The verdicts of a device, one object for the process."""
    runtime = backend.xp.cuda.runtime
    versions = f"driver {runtime.driverGetVersion()}, CUDA {runtime.runtimeGetVersion()}, CuPy {backend.xp.__version__}"
    own = f"gpulstm {package_version()} ({digest()})"
    device = f"{backend.device_name}, {versions}, {own}"
    verdicts = Verdicts(device, file())
    if mode() == "again":
        verdicts.forget()
    return verdicts


def file() -> Path:
    """Where verdicts are kept: `gpulstm/cuda-verdicts.json` in the user's cache folder."""
    if sys.platform == "win32":
        folder = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Caches"
    else:
        folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "gpulstm" / "cuda-verdicts.json"


def _read(path: Path) -> dict[str, Any]:
    """The devices of a file; none where there is no file.

    Raises:
        ConfigError: it is something else.
    """
    if not path.exists():
        return {}
    what = f"the file of the CUDA engine's verdicts {str(path)!r}"
    document = files.parse_json(files.read(path, ConfigError), what, ConfigError)
    devices = document.get("devices") if isinstance(document, dict) else None
    if not isinstance(devices, dict) or not all(_is_whole(one) for one in devices.values()):
        raise ConfigError(f"{str(path)!r} has no verdicts of the CUDA engine; delete it, and they are found again")
    return dict(devices) if document.get(KEY) == VERSION else {}


def _is_whole(document: Any) -> bool:
    """Whether a device's entry has the kinds of values that `Verdicts.document` gives."""

    def texts(values: Any) -> bool:
        return all(isinstance(one, str) for one in values)

    def chosen(choice: Any) -> bool:
        if not isinstance(choice, dict) or not isinstance(choice.get("way"), str):
            return False
        times = choice.get("milliseconds")
        return isinstance(times, dict) and all(type(one) in (int, float) for one in times.values())

    if not isinstance(document, dict):
        return False
    right, wrong, choices = (document.get(name, kind()) for name, kind in _PARTS.items())
    if not all(isinstance(part, kind) for part, kind in zip((right, wrong, choices), _PARTS.values(), strict=True)):
        return False
    return texts(right) and texts(wrong.values()) and all(chosen(choice) for choice in choices.values())


_PARTS: dict[str, type] = {"right": list, "wrong": dict, "choices": dict}  # of a device's entry
