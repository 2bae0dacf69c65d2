"""The history of a run: its columns, and its CSV that reads back as the same rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from runs import windows

from gpulstm import losses
from gpulstm.engines.spec import StackSpec
from gpulstm.errors import DataError
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.training.callbacks import Callback
from gpulstm.training.history import COLUMNS, History
from gpulstm.training.trainer import Trainer


def trainer(*callbacks: Callback, **options: Any) -> Trainer:
    net = Network(NetworkConfig(StackSpec("rnn", 1, 3, dtype="float64"), horizon=2), device="cpu", seed=0)
    return Trainer(
        net, losses.MSE(), **{"epochs": 3, "batch_size": 8, "callbacks": callbacks, "log_every": 2, **options}
    )


def test_history_as_columns_and_csv(tmp_path: Path) -> None:
    run = trainer()
    history = run.fit(windows())
    columns = history.columns()
    assert tuple(columns) == COLUMNS and len(history) == 3
    assert columns["epoch"] == [1, 2, 3] and columns["step"] == [5, 10, 15] and columns["rate"] == [1e-3] * 3
    assert all(math.isnan(value) for value in columns["validation_loss"])
    assert all(value > 0 for name in ("train_loss", "gradient_norm", "seconds") for value in columns[name])
    history.to_csv(tmp_path / "h.csv")
    again = History.from_csv(tmp_path / "h.csv")
    assert again.rows == history.rows  # floats come back bit for bit, None as None
    assert isinstance(again.rows[0]["epoch"], int) and again.rows[0]["validation_loss"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,value\n1,2\n", r"has the columns \['time', 'value'\], expected epoch, step"),
        ("", "has the columns None"),
        (",".join(COLUMNS) + "\n1,2,many,4,5,6,7\n", "is no history of a training run: could not convert .* 'many'"),
        (",".join(COLUMNS) + "\n1,2\n", "is no history of a training run"),
        (None, "there is no file"),
    ],
)
def test_bad_history_files(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "h.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        History.from_csv(path)


def test_what_a_checkpoint_keeps_of_it() -> None:
    history = History([dict.fromkeys(COLUMNS, 1.0)], "epochs", best_epoch=1, best_loss=0.5, restored=True)
    again = History(**history.state())
    assert (again.rows, again.best_epoch, again.best_loss) == (history.rows, 1, 0.5)
    assert (again.stopped, again.restored) == ("", False)  # a run that goes on has not ended
