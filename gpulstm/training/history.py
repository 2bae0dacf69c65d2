"""What a training run leaves behind: one row per epoch, and how it ended."""

from __future__ import annotations

import csv
import io
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpulstm import validate
from gpulstm.arrays import files
from gpulstm.errors import ConfigError, DataError

Row = dict[str, int | float | None]

COLUMNS = ("epoch", "step", "train_loss", "validation_loss", "rate", "gradient_norm", "seconds")


@dataclass
class History:
    """The epochs of a run.

    Attributes:
        rows: one dict per epoch: `epoch` (from 1), `step` (optimizer steps so far), `train_loss` (the mean over the
            epoch's batches, as the weights changed), `validation_loss` (None without a validation set), `rate` (of the
            epoch's last step), `gradient_norm` (mean over the epoch, before clipping) and `seconds`.
        stopped: why the run ended: "epochs" (all done), "early stopping", "interrupted" (Ctrl-C), "failed", or the word
            that a callback gave; empty while it runs.
        best_epoch: the epoch with the lowest validation loss (training loss without a validation set), or None.
        best_loss: that loss, or None.
        restored: whether the network now has the weights of that epoch.
    """

    rows: list[Row] = field(default_factory=list)
    stopped: str = ""
    best_epoch: int | None = None
    best_loss: float | None = None
    restored: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def columns(self) -> dict[str, list[float]]:
        """The rows by column, NaN for None, as `gpulstm.plots.history` draws them."""
        return {name: [_float(row[name]) for row in self.rows] for name in COLUMNS}

    def plot(self, axes: Any = None) -> Any:
        """Draw the losses over the epochs on matplotlib axes, new ones by default, which are returned.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        from gpulstm.plots.axes import history_on

        return history_on(axes, self.columns())

    def _repr_html_(self) -> str:
        cells = [[f"{value:.5g}" for value in values] for values in self.columns().values()]
        head = "".join(f"<th>{name}</th>" for name in COLUMNS)
        rows = "".join("<tr>" + "".join(f"<td>{one}</td>" for one in row) + "</tr>" for row in zip(*cells, strict=True))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the rows as a CSV with a header, an empty cell for None; the file is replaced in one step.

        Raises:
            CheckpointError: the file cannot be written.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        files.write(path, text.getvalue().encode())

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str]) -> History:
        """The rows that `to_csv` wrote; how the run ended is not in the file.

        Raises:
            DataError: the file is not there or is no such CSV.
        """
        path = Path(path)
        try:
            with path.open(encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file)
                if tuple(reader.fieldnames or ()) != COLUMNS:
                    raise DataError(f"{path} has the columns {reader.fieldnames}, expected {', '.join(COLUMNS)}")
                rows = [{name: _number(name, row[name]) for name in COLUMNS} for row in reader]
        except FileNotFoundError:
            raise DataError(f"there is no file {path}") from None
        except (ValueError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path} is no history of a training run: {error}") from error
        return cls(rows)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"rows": self.rows, "best_epoch": self.best_epoch, "best_loss": self.best_loss}

    @classmethod
    def restore(cls, state: Any) -> History:
        """The history that `state` described.

        Raises:
            ConfigError: an entry is missing or unknown, or is no number.
        """
        saved = validate.mapping("history", state)
        if saved.keys() != {"rows", "best_epoch", "best_loss"} or not isinstance(saved["rows"], list):
            raise ConfigError(f"history has the entries {sorted(saved)}, expected a list of rows, and the best epoch")
        for number, row in enumerate(saved["rows"], start=1):
            if not isinstance(row, dict) or row.keys() != set(COLUMNS):
                raise ConfigError(f"row {number} of the history has not the columns {', '.join(COLUMNS)}")
            for name, cell in row.items():
                if cell is not None:
                    validate.real(f"{name} in row {number} of the history", cell)
        best, loss = saved["best_epoch"], saved["best_loss"]
        return cls(
            [dict(row) for row in saved["rows"]],
            best_epoch=None if best is None else validate.count("best_epoch", best),
            best_loss=None if loss is None else validate.real("best_loss", loss),
        )


def _float(value: int | float | None) -> float:
    return math.nan if value is None else float(value)


def _number(name: str, cell: str) -> int | float | None:
    if cell == "":
        return None
    return int(cell) if name in ("epoch", "step") else float(cell)
