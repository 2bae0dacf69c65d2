"""Callbacks and the history: bar, CSV, TensorBoard, checkpoints; silence, interruption, mistakes."""

from __future__ import annotations

import builtins
import io
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpulstm import losses
from gpulstm.data.windows import WindowSet
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import CheckpointError, ConfigError, MissingExtraError, TrainingError
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.training.callbacks import Callback, CheckpointEvery, EarlyStopping, HistoryCSV, Progress, TensorBoard
from gpulstm.training.history import History
from gpulstm.training.trainer import Trainer


def windows() -> WindowSet:
    """33 windows, 5 batches of up to 8."""
    return WindowSet(np.sin(np.arange(40.0))[:, None], np.array([0, 40]), context=6, horizon=2)


def trainer(*callbacks: Callback, **options: Any) -> Trainer:
    net = Network(NetworkConfig(StackSpec("rnn", 1, 3, dtype="float64"), horizon=2), device="cpu", seed=0)
    return Trainer(
        net, losses.MSE(), **{"epochs": 3, "batch_size": 8, "callbacks": callbacks, "log_every": 2, **options}
    )


def test_callbacks_hear_everything_in_order() -> None:
    heard: list[str] = []

    class Ear(Callback):
        def __init__(self, name: str, last: bool) -> None:
            self.name, self.last = name, last

        def __getattribute__(self, event: str) -> Any:
            if not event.startswith("on_"):
                return super().__getattribute__(event)
            return lambda run, *values: heard.append(f"{self.name} {event[3:]} {run.step}")

    trainer(Ear("b", True), Ear("a", False), epochs=1).fit(windows(), windows())
    assert [line for line in heard if line.startswith("a")] == [
        "a start 0", "a step 1", "a log 2", "a step 2", "a step 3", "a log 4", "a step 4", "a log 5", "a step 5",
        "a epoch 5", "a stop 5",
    ]  # fmt: skip
    assert heard[0::2] == [line.replace("b", "a") for line in heard[1::2]]


def test_bar_and_its_silence(capfd: pytest.CaptureFixture[str]) -> None:
    shown = io.StringIO()
    trainer(Progress(file=shown)).fit(windows(), windows())
    drawn = shown.getvalue().split("\r")
    assert any("/15" in line and "epoch 3/3" in line and "validation 0." in line for line in drawn)
    assert drawn[-1] == "" and not drawn[-2].strip() and "\n" not in shown.getvalue()  # it ends quietly: nothing stays
    trainer(Progress(enabled=False)).fit(windows())
    trainer().fit(windows())
    assert capfd.readouterr() == ("", "")
    trainer(Progress()).fit(windows())
    out, err = capfd.readouterr()
    assert out == "" and "/15" in err


def test_early_stopping_without_validation() -> None:
    run = trainer(EarlyStopping(patience=2, min_delta=1e-3), epochs=50, schedule=1e-12)  # next to no progress
    assert len(run.fit(windows())) < 50
    assert run.history.stopped == "early stopping"


def test_csv_survives_whatever_ends_the_run(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"

    class Fall(Callback):
        def on_step(self, run: Any) -> None:
            if run.step == 12:
                raise RuntimeError("the power went")

    run = trainer(HistoryCSV(path), Fall())
    with pytest.raises(RuntimeError, match="the power went"):
        run.fit(windows(), windows())
    assert History.from_csv(path).rows == run.history.rows
    assert [row["epoch"] for row in run.history.rows] == [1, 2]
    assert run.history.stopped == "failed"
    header, *lines = path.read_text().splitlines()
    assert header == "epoch,step,train_loss,validation_loss,rate,gradient_norm,seconds" and len(lines) == 2


def scalars_of(path: Path) -> dict[tuple[str, int], float]:
    """The scalars in an event file: records of length, CRC, protobuf message, CRC."""
    from tensorboardX.proto.event_pb2 import Event

    results, data, at = {}, path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack("<Q", data[at : at + 8])
        event = Event.FromString(data[at + 12 : at + 12 + length])
        for value in event.summary.value:
            results[value.tag, event.step] = value.simple_value
        at += 16 + length
    return results


def test_tensorboard(tmp_path: Path) -> None:
    history = trainer(TensorBoard(tmp_path / "tb")).fit(windows(), windows())
    (path,) = (tmp_path / "tb").iterdir()
    tags = {
        "loss/train": "train_loss",
        "loss/validation": "validation_loss",
        "rate": "rate",
        "gradient_norm": "gradient_norm",
    }
    expected = {(tag, row["step"]): row[column] for row in history.rows for tag, column in tags.items()}
    results = scalars_of(path)
    assert results.keys() == expected.keys()
    for key, value in expected.items():
        assert results[key] == pytest.approx(value, rel=1e-6)


def test_tensorboard_missing_says_which_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("tensorboardX"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"TensorBoard log needs tensorboardX, .* pip install tensorboardX"):
        TensorBoard(tmp_path)


def test_no_optional_library_is_loaded_before_it_is_used() -> None:
    code = "import sys, gpulstm.training; print(sorted({'tqdm', 'tensorboardX', 'safetensors'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_mistakes_are_found_before_any_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="patience is 0, expected a whole number of at least 1"):
        EarlyStopping(patience=0)
    with pytest.raises(ConfigError, match="min_delta is -1"):
        EarlyStopping(min_delta=-1)
    with pytest.raises(ConfigError, match="epochs is 0"):
        CheckpointEvery(tmp_path / "run", epochs=0)
    for callback, error, message in (
        (CheckpointEvery(tmp_path / "no" / "run"), ConfigError, "but there is no folder .*no'"),
        (HistoryCSV(tmp_path / "no" / "h.csv"), CheckpointError, "h.csv cannot be written: No such file"),
    ):
        run = trainer(Progress(file=io.StringIO()), callback)
        with pytest.raises(error, match=message):
            run.fit(windows())
        assert run.step == 0
    with pytest.raises(CheckpointError, match=r"the state of the callback 'early_stopping' has the entries \['x'\]"):
        EarlyStopping().restore({"x": 1})


def test_a_failed_run_writes_no_last_checkpoint(tmp_path: Path) -> None:
    data = windows()
    data.values[30] = np.nan
    run = trainer(CheckpointEvery(tmp_path / "run"))
    with pytest.raises(TrainingError, match="not finite"):
        run.fit(data)
    assert not (tmp_path / "run").exists()
    run = trainer(CheckpointEvery(tmp_path / "run"))
    run.fit(windows())
    assert (tmp_path / "run").exists()
