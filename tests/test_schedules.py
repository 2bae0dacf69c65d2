"""Schedules: rates against PyTorch's, shape by hand, state that survives a save, mistakes named."""

from __future__ import annotations

import numpy as np
import pytest
from paths import GOLDEN_FOLDER
from safetensors.numpy import load_file

from gpulstm import schedules
from gpulstm.errors import CheckpointError, ConfigError

GOLDEN = load_file(GOLDEN_FOLDER / "optimizers.safetensors")
RATE = 0.05


def test_step_as_in_pytorch() -> None:
    schedule = schedules.Step(base=RATE, every=7, factor=0.3)
    np.testing.assert_allclose([schedule.rate(step) for step in range(30)], GOLDEN["step-rates"], rtol=1e-12)


def test_cosine_as_in_pytorch_then_level() -> None:
    schedule = schedules.Cosine(base=RATE, steps=25, floor=0.004)
    np.testing.assert_allclose([schedule.rate(step) for step in range(26)], GOLDEN["cosine-rates"], rtol=1e-12)
    assert schedule.rate(25) == schedule.rate(10_000) == pytest.approx(0.004, abs=1e-15)


@pytest.mark.parametrize("cooldown", [0, 3])
def test_plateau_as_in_pytorch(cooldown: int) -> None:
    schedule = schedules.OnPlateau(base=RATE, factor=0.5, patience=2, threshold=1e-2, cooldown=cooldown, floor=0.002)
    results = []
    for loss in GOLDEN["plateau-losses"]:
        results.append(schedule.rate(0))
        schedule.observe(float(loss))
    expected = GOLDEN[f"plateau-rates-{cooldown}"]
    np.testing.assert_allclose(results, expected, rtol=1e-12)
    assert len(set(expected)) > 2  # the losses do make it fall


def test_warm_up_rises_straight_and_hands_over() -> None:
    schedule = schedules.WarmUp(inner=schedules.Step(base=1.0, every=2, factor=0.5), steps=4)
    results = [schedule.rate(step) for step in range(9)]
    np.testing.assert_allclose(results, [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 0.5, 0.5, 0.25], rtol=1e-12)
    assert [schedule.rate(step) for step in range(9)] == results  # pure


def test_nan_is_no_progress() -> None:
    schedule = schedules.OnPlateau(base=1.0, patience=1)
    for loss in (float("nan"), float("nan"), 1.0):
        schedule.observe(loss)
    assert schedule.rate(0) == 0.5
    assert schedule.scalars()["best"] == 1.0


def test_plateau_goes_on_from_its_state() -> None:
    losses = [3.0, 2.0, 2.0, 2.0, 2.5, 2.6, 1.0, 1.0, 1.0, 1.0, 1.0]
    whole = schedules.WarmUp(inner=schedules.OnPlateau(base=1.0, patience=1, cooldown=1), steps=2)
    for loss in losses[:4]:
        whole.observe(loss)
    other = schedules.from_config(whole.config())
    assert other.scalars() != whole.scalars()
    other.restore(whole.scalars())
    for loss in losses[4:]:
        whole.observe(loss)
        other.observe(loss)
        assert whole.rate(99) == other.rate(99)
        assert whole.scalars() == other.scalars()
    assert whole.rate(99) < 1.0


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.Constant(0.1),
        schedules.Step(every=3),
        schedules.Cosine(steps=9),
        schedules.OnPlateau(patience=0),
        schedules.WarmUp(schedules.WarmUp(schedules.Cosine(steps=5), 3), 4),
    ],
    ids=lambda schedule: schedule.name,
)
def test_config_round_trip(schedule: schedules.Schedule) -> None:
    again = schedules.from_config(schedule.config())
    assert again == schedule
    assert [again.rate(step) for step in range(20)] == [schedule.rate(step) for step in range(20)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.Constant(0), "base is 0, expected a finite number above 0"),
        (lambda: schedules.Constant(float("nan")), "base is nan"),
        (lambda: schedules.Constant("fast"), "base is 'fast'"),
        (lambda: schedules.Step(every=0), "every is 0, expected a whole number of at least 1"),
        (lambda: schedules.Step(factor=1.5), "factor is 1.5, expected a finite number above 0 and at most 1"),
        (lambda: schedules.Cosine(steps=2.5), "steps is 2.5"),
        (
            lambda: schedules.Cosine(base=0.1, floor=0.2),
            "floor is 0.2, expected a finite number at least 0 and at most",
        ),
        (lambda: schedules.OnPlateau(factor=1), "factor is 1, expected"),
        (lambda: schedules.OnPlateau(patience=-1), "patience is -1, expected a whole number of at least 0"),
        (lambda: schedules.WarmUp(inner=0.1), "inner is 0.1, expected a schedule"),
        (lambda: schedules.from_config({"name": "linear"}), "schedule is 'linear', expected one of: constant, step"),
    ],
)
def test_bad_options(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_state_of_another_schedule_is_refused() -> None:
    with pytest.raises(
        CheckpointError, match=r"the state of the schedule 'constant' has the entries .*, expected none"
    ):
        schedules.Constant().restore(schedules.OnPlateau().scalars())
