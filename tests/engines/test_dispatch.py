"""Who serves a call, and that a slow one is not taken without a word."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import gpulstm as gl
from gpulstm.engines import dispatch


@pytest.fixture
def unsaid() -> None:
    dispatch._warn_once.cache_clear()


def test_the_first_large_call_without_native_code_warns_once(no_native: None, unsaid: None) -> None:
    model = gl.LSTM(64, 256, device="cpu")
    with pytest.warns(RuntimeWarning, match="NumPy computes this layer.*no native code.*pip install"):
        assert "engine: reference" in str(model.explain(100, 32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.explain(200, 32)
        gl.GRU(64, 256, device="cpu").explain(100, 32)


def test_small_calls_and_those_that_were_asked_for_do_not_warn(no_native: None, unsaid: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gl.LSTM(3, 4, device="cpu")(np.zeros((5, 2, 3)))
        gl.LSTM(64, 256, device="cpu", engine="reference").explain(100, 32)
