"""Members that forecast together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpulstm.forecast.bands import Bands
from gpulstm.forecast.ensemble import Ensemble
from gpulstm.forecast.panel import Panel, Seasons, View
from gpulstm.forecast.setup import Setup


@dataclass
class Always:
    """A member that says one number."""

    value: float
    asked: int = 0

    @property
    def name(self) -> str:
        return str(self.value)

    def forecast(self, view: View) -> np.ndarray:
        self.asked += len(view)
        return np.full((len(view), view.horizon), self.value)


PANEL = Panel.of(np.arange(20.0), np.array([0, 10, 20]))
BANDS = Bands(np.ones((2, 1)), np.ones(2, int), np.zeros(2))


def ensemble(weights: list[float], series_weights: np.ndarray | None = None) -> Ensemble:
    setup = Setup(2, Seasons(), 4, 8, 4)
    return Ensemble(setup, [Always(1.0), Always(5.0)], np.array(weights), BANDS, series_weights)


def test_the_median_is_the_weighted_mean_of_the_members() -> None:
    mixed = ensemble([0.75, 0.25])
    view = mixed.view(PANEL, np.array([8, 18]))
    assert view.horizon == 2
    assert mixed.median(view).tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_a_member_without_weight_is_not_asked() -> None:
    mixed = ensemble([1.0, 0.0])
    mixed.median(mixed.view(PANEL, np.array([8])))
    assert [member.asked for member in mixed.members] == [1, 0]


def test_weights_differ_from_series_to_series() -> None:
    mixed = ensemble([0.5, 0.5], np.array([[1.0, 0.0], [0.0, 1.0]]))
    view = mixed.view(PANEL, np.array([8, 18, 18]), horizon=1)
    assert mixed.median(view, np.array([0, 1, -1]))[:, 0].tolist() == [1.0, 5.0, 3.0]  # the last was not fitted
    assert [member.asked for member in mixed.members] == [2, 2]


def test_a_width_for_each_origin() -> None:
    mixed = ensemble([1.0, 0.0])
    width = mixed.width(mixed.view(PANEL, np.array([8, 18])))
    assert width.tolist() == [1.0, 1.0]


def test_half_a_band_is_no_wider_than_what_the_window_ranges_over() -> None:
    mixed = ensemble([1.0, 0.0])
    mixed.bands = Bands(np.full((2, 1), 40.0), np.ones(2, int), np.zeros(2))  # errors of a jump, in widths before it
    view = mixed.view(PANEL, np.array([8, 18]))
    np.testing.assert_allclose(mixed.width(view) * mixed.bands.half(0.8).max(), 7.0)
