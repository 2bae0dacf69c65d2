"""A linear map from the window to the whole horizon, found in closed form.

Source: Hoerl & Kennard (1970), "Ridge regression", Technometrics 12(1); as a forecaster Zeng et al. (2023), "Are
transformers effective for time series forecasting?", AAAI 37.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpulstm.forecast.members.passes import in_passes
from gpulstm.forecast.members.space import Scaled, Space
from gpulstm.forecast.panel import View

PASS = 32  # windows of a product
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)


class Moments:
    """`F'F` and `F'R` of weighted windows, solved for any penalty.

    Args:
        inputs: F `(N, d)`.
        residual: R `(N, H)`, NaN where not observed: such a row counts for none of its steps.
        weight: `(N,)` of each window, or None for ones.
    """

    def __init__(self, inputs: np.ndarray, residual: np.ndarray, weight: np.ndarray | None = None) -> None:
        whole = ~np.isnan(residual).any(axis=1)
        share = whole.astype(np.float64) if weight is None else weight * whole
        weighted = inputs * share[:, None]
        self.count = float(share.sum())
        self.square = weighted.T @ inputs
        self.cross = weighted.T @ np.where(whole[:, None], residual, 0.0)
        self._eigen: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def __sub__(self, other: Moments) -> Moments:
        part = Moments.__new__(Moments)
        part.count = self.count - other.count
        part.square, part.cross, part._eigen = self.square - other.square, self.cross - other.cross, None
        return part

    def solve(self, penalty: float) -> np.ndarray:
        """`(F'F/N + penalty d I)^-1 F'R/N` with d the mean of the diagonal of `F'F/N`: `(d, H)`."""
        count = max(self.count, 1e-12)
        if self._eigen is None:
            values, vectors = np.linalg.eigh(self.square / count)
            self._eigen = np.maximum(values, 0.0), vectors, vectors.T @ (self.cross / count)
        values, vectors, right = self._eigen
        mean = max(float(np.trace(self.square)) / count / len(values), 1e-300)
        return vectors @ (right / (values + penalty * mean)[:, None])


@dataclass(frozen=True, eq=False)
class Ridge:
    """A fitted linear member.

    Args:
        space: how it sees windows.
        weights: `(d, H)`.
        penalty: that the weights were found with.
    """

    space: Space
    weights: np.ndarray
    penalty: float

    @property
    def name(self) -> str:
        """As tables of members show it."""
        return f"ridge {self.space.name}"

    def forecast(self, view: View) -> np.ndarray:
        """Medians `(N, H)` in the units of the series."""
        view = self.space.view(view)
        scaled = self.space.scaled(view)
        return view.back(scaled.base + scaled.scale * self.added(scaled))

    def added(self, scaled: Scaled) -> np.ndarray:
        """What the linear map adds to the base `(N, H)`, in the windows' scale."""
        return in_passes(lambda inputs: [inputs @ self.weights], PASS, PASS, scaled.inputs)[0]
