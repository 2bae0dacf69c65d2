"""One of the processes that `ranks` starts: it takes part in a fit, and the first of them leaves the result."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpulstm.arrays.launch import place
from gpulstm.errors import GpulstmError
from gpulstm.forecast import fitted as artifacts
from gpulstm.forecast.fit import Fitting
from gpulstm.forecast.ranks import END, FITTED, JOB, START
from gpulstm.training import launcher
from gpulstm.training.parallel import failed


def main(name: str) -> None:
    """Take part in the fit whose job lies in this folder."""
    folder, first = Path(name), place().rank == 0
    launcher.register()
    fitting: Fitting
    fitting, data = pickle.loads((folder / JOB).read_bytes())
    end: Any
    try:
        if (folder / START).is_file():
            fitting = replace(fitting, earlier=artifacts.load(folder / START, fitting.config.device, None)[1])
        found = fitting.learn(data)
        if first:
            found.fitted.save(folder / FITTED, fitting.config.to_dict(), found.history, found.notes)
        end = found.history
    except GpulstmError as error:
        failed(error)  # all ranks end, unless each has this error
        end = error
    if first:
        (folder / END).write_bytes(pickle.dumps(end))


if __name__ == "__main__":
    main(sys.argv[1])
