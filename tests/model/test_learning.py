"""What the LSTM is for: gradients that reach far back, and a task with long memory that a plain RNN does not learn."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from paths import DOCS

PICTURES = DOCS / "pictures"  # the scripts that draw the same for the documentation
LAGS = (10, 30, 100, 300, 1000)


@pytest.fixture
def gradient_flow(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PICTURES))
    return importlib.import_module("gradient_flow")


@pytest.fixture(scope="module")
def adding_problem() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PICTURES))
        yield importlib.import_module("adding_problem")


@pytest.mark.parametrize("seed", [0, 1])
def test_an_rnn_forgets_geometrically(gradient_flow: ModuleType, seed: int) -> None:
    """tanh has slopes of at most 1, so each step leaves at most 0.9 of it: after 990 more, below 0.9^990 = 5e-46."""
    norms = gradient_flow.gradient_norms(gradient_flow.rnn(0.9), LAGS, seed=seed)
    for nearer, further, steps in zip(norms, norms[1:], np.diff(LAGS), strict=False):
        assert 0 < further < nearer * 0.9**steps


@pytest.mark.parametrize("seed", [0, 1])
def test_an_rnn_with_larger_weights_explodes(gradient_flow: ModuleType, seed: int) -> None:
    norms = gradient_flow.gradient_norms(gradient_flow.rnn(2.0), LAGS, seed=seed)
    assert (np.diff(np.log(norms)) > 0).all()
    assert norms[-1] > 1e20 * norms[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_an_lstm_remembers_for_as_long_as_its_forget_gate_says(gradient_flow: ModuleType, seed: int) -> None:
    """Gates set for 1000 steps: at every lag within a factor of 3 of (1 - 1/1000)^lag, relative to lag 10."""
    norms = gradient_flow.gradient_norms(gradient_flow.lstm(1000.0), LAGS, seed=seed)
    expected = (1 - 1 / 1000) ** (np.array(LAGS) - LAGS[0])
    ratio = norms / norms[0] / expected
    assert ((ratio > 1 / 3) & (ratio < 3)).all(), ratio


def test_an_lstm_with_a_usual_forget_bias_forgets_sooner(gradient_flow: ModuleType) -> None:
    """The belt alone is no promise: at a bias of 1 the gate is about 0.73 and little is left after 1000 steps."""
    norms = gradient_flow.gradient_norms(gradient_flow.lstm(None), LAGS)
    assert norms[-1] < 1e-10 * norms[0]


def test_the_picture_of_the_gradients(gradient_flow: ModuleType, tmp_path: Path) -> None:
    assert gradient_flow.draw(tmp_path).stat().st_size > 10_000


def test_targets_of_the_adding_problem(adding_problem: ModuleType) -> None:
    x, target = adding_problem.sequences(np.random.default_rng(0), 100, 20_000)
    numbers, marks = x[:, :, 0], x[:, :, 1]
    assert (marks[:50].sum(axis=0) == 1).all() and (marks[50:].sum(axis=0) == 1).all()
    np.testing.assert_allclose((numbers * marks).sum(axis=0), target, rtol=1e-6)
    assert abs(np.mean((target - 1) ** 2) - adding_problem.BASELINE) < 0.005


@pytest.mark.slow
def test_the_lstm_solves_the_adding_problem_and_the_rnn_does_not(adding_problem: ModuleType, tmp_path: Path) -> None:
    """Same data, same steps, same optimizer; errors on sequences that training did not see."""
    setting, errors, losses = adding_problem.Setting(), {}, {}
    for cell in ("lstm", "rnn"):
        network, losses[cell] = adding_problem.train(cell, setting)
        errors[cell] = adding_problem.error(network, setting)
    assert errors["lstm"] < 0.01
    assert errors["rnn"] > 0.14
    assert abs(losses["rnn"][-100:].mean() - adding_problem.BASELINE) < 0.03
    assert adding_problem.draw(losses, tmp_path).stat().st_size > 10_000


def test_curves_of_the_adding_problem_at_750_steps(adding_problem: ModuleType, tmp_path: Path) -> None:
    """The script of the long runs in small: it learns, keeps its curves, and both starts see the same sequences."""
    long = importlib.import_module("adding_problem_750")
    small = adding_problem.Setting(length=12, hidden=16, batch=50, steps=200, rate=1e-2)
    curves = {name: list(long.train(chrono and 12, 60, small)) for name, chrono in long.STARTS.items()}
    for curve in curves.values():
        assert [step for step, _, _ in curve] == list(range(20, 201, 20))
        assert curve[-1][2] < 0.1 * curve[0][2]
    assert curves["chrono"] != curves["forget bias 1"]
    assert len(list(long.train(None, 0.0, small))) == 0  # the clock ends it
    long.write(curves, tmp_path / "curves.csv")
    results = long.read(tmp_path / "curves.csv")
    assert list(results) == list(curves)
    np.testing.assert_allclose(results["chrono"], curves["chrono"], atol=0.06)
    assert long.draw(results, tmp_path).stat().st_size > 10_000
