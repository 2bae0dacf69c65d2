"""A process that another one has started for a fit."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from forecasters import SMALL, wave

from gpulstm import Forecaster
from gpulstm.data.loading import load_series
from gpulstm.errors import DataError
from gpulstm.forecast.fit import Fitting
from gpulstm.forecast.ranks import END, FITTED, JOB, START
from gpulstm.forecast.started import main
from gpulstm.training.history import History


def job(folder: Path, **options: object) -> Fitting:
    fitting = Fitting(Forecaster(**{**SMALL, **options}).config)
    (folder / JOB).write_bytes(pickle.dumps((fitting, load_series(wave()))))
    return fitting


def test_it_leaves_the_model_and_its_history(tmp_path: Path) -> None:
    job(tmp_path)
    main(str(tmp_path))
    alone = Forecaster(**SMALL).fit(wave(), progress=False)
    model = Forecaster.load(tmp_path / FITTED, "cpu")
    np.testing.assert_array_equal(model.predict().mean, alone.predict().mean)
    history = pickle.loads((tmp_path / END).read_bytes())
    assert isinstance(history, History)
    assert [row["train_loss"] for row in history.rows] == [row["train_loss"] for row in alone.history.rows]


def test_it_goes_on_from_what_it_is_given(tmp_path: Path) -> None:
    fitting = job(tmp_path)
    first = fitting.learn(load_series(wave()))
    first.fitted.save(tmp_path / START, fitting.config.to_dict(), first.history, first.notes)
    main(str(tmp_path))
    history = pickle.loads((tmp_path / END).read_bytes())
    assert history.rows[0]["train_loss"] < first.history.rows[-1]["train_loss"]


def test_an_error_is_left_for_the_process_that_asked(tmp_path: Path) -> None:
    job(tmp_path, horizon=140)
    main(str(tmp_path))
    error = pickle.loads((tmp_path / END).read_bytes())
    assert isinstance(error, DataError) and "140" in str(error)
    with pytest.raises(FileNotFoundError):
        (tmp_path / FITTED).stat()
