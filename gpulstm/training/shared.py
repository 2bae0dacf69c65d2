"""What the ranks of a run compare before it and hand to one another between its steps."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gpulstm.arrays.backend import Backend
from gpulstm.arrays.checkpoint import package_version
from gpulstm.arrays.devices import to_host
from gpulstm.model.state import map_state, of_parts, parts
from gpulstm.training.callbacks import Callback, Run
from gpulstm.training.parallel import Ranks, rows_of

_GO_ON, _STOP, _SAVE = range(3)  # what ranks tell each other between steps; the largest counts


class Crew:
    """The callbacks of a run, which rank 0 alone has, and what ranks tell each other between two steps.

    Args:
        ranks: of the run.
        callbacks: told of what happens.
        save: the part of a checkpoint that all ranks take.

    Attributes:
        reason: why the run is to end after the present step; empty while it goes on.
    """

    def __init__(self, ranks: Ranks, callbacks: Sequence[Callback], save: Callable[[], object]) -> None:
        self._ranks, self._callbacks, self._save = ranks, callbacks, save
        self.reason = ""
        self._calling = False  # while rank 0 runs callbacks, and the others wait for it

    def tell(self, run: Run, event: str, *values: Any) -> None:
        """Rank 0 tells its callbacks; the others wait for it, and help where a callback saves.

        A Ctrl-C within a callback finds the state whole, and so only stops the run.
        """
        if self._ranks.rank == 0:
            self._calling = self._ranks.size > 1
            for callback in self._callbacks:
                try:
                    getattr(callback, event)(run, *values)
                except KeyboardInterrupt:  # noqa: PERF203
                    run.stop("interrupted")
            self._calling = False
        if event != "on_log":  # "on_step" follows at once
            self.meet()

    def meet(self) -> None:
        """All ranks stop where one of them wants to."""
        while (code := self._ranks.agree(_STOP if self.reason else _GO_ON)) == _SAVE:
            self._save()
        if code == _STOP:
            self.reason = next(filter(None, self._ranks.gather(self.reason)))

    def call_for_save(self) -> None:
        """Before rank 0 saves in a callback: the others take their part."""
        if self._calling:
            self._ranks.agree(_SAVE)


def facts_of(trainer: Any, train: Any, validation: Any) -> dict[str, Any]:
    """What all ranks of a `Trainer`'s run have to have in common, by name."""
    state, backend = trainer.state, trainer.network.backend
    options = {f"option {name}": value for name, value in state.run_config().items() if name != "network"}
    shape = state.network.config.to_dict()
    options |= {f"option {name}": value for name, value in {**shape.pop("stack"), **shape}.items()}
    own = {name: getattr(trainer, name) for name in ("epochs", "memory", "restore_best", "log_every")}
    return {
        "version of gpulstm": package_version(),
        "version of NumPy": np.__version__,
        "kind of device": "cuda" if backend.is_cuda else "cpu",
        "run": trainer.extra.get("member", "training"),
        **options,
        **{f"option {name}": value for name, value in own.items()},
        "step to begin with": (state.epoch, state.batch, state.step),
        "hash of the weights": hash_of(backend.to_host(state.weights.flat)),
        "hash of the training data": hash_of(train),
        "hash of the validation data": hash_of(validation),
    }


def hash_of(value: Any) -> str:
    """A hash of an array, or of all arrays and numbers that an object such as a `WindowSet` holds."""
    digest = hashlib.blake2b(digest_size=8)
    _add(digest, value)
    return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    if hasattr(value, "fingerprint"):
        digest.update(value.fingerprint.encode())
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).view(np.uint8).data if value.size else b"")
    elif hasattr(value, "__dict__"):
        for name in sorted(vars(value)):
            digest.update(name.encode())
            _add(digest, vars(value)[name])
    elif not isinstance(value, Mapping):  # such as a cache of what lies on devices
        digest.update(repr(value).encode())


def gathered(ranks: Ranks, state: Any) -> Any:
    """The network's state for the rows of all ranks, on the host; the state itself where there is one rank."""
    if ranks.size == 1:
        return state
    known = [each for each in ranks.gather([to_host(part) for part in parts(state)]) if each]
    joined = [np.concatenate(part, axis=1) for part in zip(*known, strict=True)]
    return of_parts(joined[0], joined[1] if len(joined) > 1 else None) if joined else None


def own_rows(ranks: Ranks, state: Any, batch: int) -> Any:
    """This rank's rows of the network's state for all of them; None where it has none."""
    if ranks.size == 1 or state is None:
        return state
    rows = rows_of(ranks, batch)
    own = map_state(lambda part: part[:, rows].copy(), state)
    return own if parts(own)[0].shape[1] else None


def follow_verdicts(ranks: Ranks, backend: Backend) -> None:
    """Let all ranks compute in the forms that rank 0 has found to be right and fastest on its card."""
    if ranks.size > 1 and backend.is_cuda:
        from gpulstm.engines.cuda import verdicts

        known = verdicts.of(backend)
        document = ranks.broadcast(known.document() if ranks.rank == 0 else None)
        if ranks.rank:
            known.adopt(document)
