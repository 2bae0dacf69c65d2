"""Runs saved and gone on from: bit for bit, from any step, on the other device; other runs refused."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import Call, interrupt, make, numbers, windows
from variables import SetVariable

from gpulstm import optimizers
from gpulstm.arrays import checkpoint
from gpulstm.arrays.devices import to_host
from gpulstm.engines.cuda import planner
from gpulstm.errors import CheckpointError, TrainingError
from gpulstm.training.callbacks import CheckpointEvery, EarlyStopping
from gpulstm.training.trainer import Trainer


@pytest.fixture(autouse=True)
def _terminal() -> Iterator[None]:
    """Ctrl-C as a program in a terminal finds it, also where the runner of the tests has set it otherwise."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop", "adamw"])
def test_going_on_from_a_checkpoint_is_bit_identical(optimizer: str, validated: bool, tmp_path: Path) -> None:
    """6 epochs == 3 epochs + save + load into new objects + 3 epochs."""
    options = {"momentum": 0.9} if optimizer == "sgd" else {}
    data, judge = windows(missing=True), windows(30) if validated else None

    def fresh(**more: Any) -> Trainer:
        return make(optimizer=optimizers.from_config({"name": optimizer, **options}), **more)

    whole = fresh()
    whole.fit(data, judge)
    half = fresh(epochs=3, extra={"scaler": [1.5, 2.0]})
    half.fit(data, judge)
    half.save(tmp_path / "run")
    rest = fresh()
    for weights in rest.network.params.values():
        weights[...] = 7  # nothing of this may be left
    rest.restore(tmp_path / "run")
    assert rest.extra == {"scaler": [1.5, 2.0]}
    rest.fit(data, judge)
    assert numbers(rest) == numbers(whole)
    half.epochs = 6
    half.fit(data, judge)
    assert numbers(half) == numbers(whole)


@pytest.mark.parametrize("step", [1, 4, 5, 8, 13])
def test_going_on_from_the_middle_of_an_epoch_is_bit_identical(step: int, tmp_path: Path) -> None:
    """Ctrl-C after a step, and steps 5 and so on are the last of an epoch: there the validation is still to be done."""
    data, judge = windows(), windows(30)
    whole = make(epochs=3)
    whole.fit(data, judge)
    assert whole.step == 15
    cut = make(epochs=3, callbacks=[EarlyStopping(patience=50), Call(step, lambda run: interrupt())])
    history = cut.fit(data, judge)
    assert history.stopped == "interrupted" and cut.step == step
    cut.save(tmp_path / "run")
    rest = make(epochs=3)
    rest.restore(tmp_path / "run")
    assert rest.epoch * 5 + rest.batch == step
    rest.fit(data, judge)
    assert numbers(rest) == numbers(whole)
    cut.fit(data, judge)  # or in the same process
    assert numbers(cut)["weights"] == numbers(whole)["weights"]
    assert numbers(cut)["rows"] == numbers(whole)["rows"]


def test_checkpoints_on_the_way(tmp_path: Path) -> None:
    data = windows()
    saver = CheckpointEvery(tmp_path / "e{epoch}-s{step}", epochs=2, steps=7)
    whole = make(callbacks=[saver, EarlyStopping(patience=50)], epochs=4)  # the saver is told last all the same
    whole.fit(data, data)
    names = {"e1-s7", "e2-s10", "e2-s14", "e4-s20"}
    assert set(os.listdir(tmp_path)) == names
    for name in names:
        rest = make(epochs=4)
        rest.restore(tmp_path / name)
        rest.fit(data, data)
        results, expected = numbers(rest), numbers(whole)
        expected["callbacks"] = expected["callbacks"][:1]
        assert results == expected, name


def test_a_checkpoint_moves_between_devices(device: str, tmp_path: Path) -> None:
    """Saved on one device and gone on from on the other: the same run, to rounding."""
    data = windows()
    other = "cpu" if device == "cuda" else device
    first = make(device, epochs=1)
    first.fit(data, data)
    first.save(tmp_path / "run")
    runs = []
    for one in (device, other):
        rest = make(one, epochs=2)
        rest.restore(tmp_path / "run")
        assert rest.network.backend.device.startswith(one)
        rest.fit(data, data)
        runs.append(to_host(rest.network.params.flat))
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-9, atol=1e-11)


@pytest.mark.cuda
def test_a_run_that_goes_on_in_another_form_says_so(tmp_path: Path, set_variable: SetVariable) -> None:
    """The form is no part of a run's identity: same run, to rounding; nothing is said where it is the same form."""
    data, results = windows(dtype="float32"), []
    set_variable(planner.FORM, "fused")
    first = make("cuda", "float32", epochs=1)
    first.fit(data, data)
    first.save(tmp_path / "run")
    for form in ("fused", "persistent"):
        set_variable(planner.FORM, form)
        rest = make("cuda", "float32", epochs=2)
        rest.restore(tmp_path / "run")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            rest.fit(data, data)
        sentences = [str(one.message) for one in said]
        assert len(sentences) == (form != "fused"), sentences
        assert all("computed in the fused form with" in sentence for sentence in sentences)
        assert all("and goes on in the persistent form with" in sentence for sentence in sentences)
        results.append(to_host(rest.network.params.flat))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-3, atol=1e-5)


def test_other_runs_are_refused(tmp_path: Path) -> None:
    trainer = make(epochs=1)
    trainer.fit(windows())
    trainer.save(tmp_path / "run")
    before = to_host(trainer.network.params.flat).tobytes()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"batch_size": 16}, "its batch_size is 8, here it is 16"),
        ({"seed": 9}, "its seed is 3, here it is 9"),
        ({"clip_norm": None}, "its clip_norm is 0.5, here it is None"),
        ({"dtype": "float32"}, "its network.stack.dtype is 'float64', here it is 'float32'"),
        ({"optimizer": optimizers.Adam(beta1=0.5)}, "its optimizer.beta1 is 0.9, here it is 0.5"),
        ({"schedule": 0.1}, "its schedule.base is None, here it is 0.1"),
    ]
    for options, message in cases:
        other = make(**options)
        with pytest.raises(CheckpointError, match=message):
            other.restore(tmp_path / "run")
    arrays, meta = checkpoint.load(tmp_path / "run")
    short = {name: value for name, value in arrays.items() if name != "weights.head.b"}
    reshaped = {**arrays, "weights.head.b": np.zeros(9)}
    for values, message in ((short, "'head.b' is in only one of the two"), (reshaped, r"'head.b' is float64 \(9,\)")):
        checkpoint.save(tmp_path / "odd", values, meta)
        with pytest.raises(CheckpointError, match=f"belongs to another model: parameter {message}"):
            trainer.restore(tmp_path / "odd")
    checkpoint.save(tmp_path / "odd", {}, {"kind": "forecaster"})
    with pytest.raises(CheckpointError, match="holds 'forecaster', expected the checkpoint of a training run"):
        trainer.restore(tmp_path / "odd")
    assert to_host(trainer.network.params.flat).tobytes() == before


def test_other_windows_within_an_epoch_are_refused() -> None:
    trainer = make(callbacks=[Call(2, lambda run: run.stop("enough"))])
    assert trainer.fit(windows()).stopped == "enough"
    with pytest.raises(TrainingError, match="stands within an epoch over 33 windows, train has 53"):
        trainer.fit(windows(60))
