"""Named views into one flat buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mistakes import Mistake, check, lstm, texts

from gpulstm.arrays.backend import Backend
from gpulstm.arrays.params import ALIGNMENT, ParamDict
from gpulstm.errors import ConfigError, DTypeError, ShapeError
from gpulstm.model.layers import LSTM

SHAPES = {"rnn.W": (3, 5), "rnn.b": (5,), "head.W": (5, 2), "head.b": (2,)}


def make(backend: Backend, dtype: str = "float64") -> ParamDict:
    params = ParamDict.allocate(backend, SHAPES, dtype)
    params.load({name: np.arange(np.prod(shape)).reshape(shape) + 1.0 for name, shape in SHAPES.items()})
    return params


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_views_lie_in_the_flat_buffer_on_cache_lines(backend: Backend, dtype: str) -> None:
    params = make(backend, dtype)
    for view in params.values():
        view += 1
    total = sum(float(view.sum()) for view in params.values())
    assert float(params.flat.sum()) == total
    step = ALIGNMENT // np.dtype(dtype).itemsize
    assert params.flat.size % step == 0
    assert params.count == 3 * 5 + 5 + 5 * 2 + 2
    used = backend.to_host(params.flat)
    assert np.count_nonzero(used) == params.count  # the gaps are zero


def test_assignment_copies_into_the_view(backend: Backend) -> None:
    params = make(backend)
    before = params["rnn.b"]
    params["rnn.b"] = np.full(5, 7.0)
    assert params["rnn.b"] is before
    assert float(before.sum()) == 35.0
    assert 7.0 in backend.to_host(params.flat)


def test_sub_shares_memory_and_covers_its_part_only(backend: Backend) -> None:
    params = make(backend)
    rnn, head = params.sub("rnn."), params.sub("head.")
    assert list(rnn) == ["W", "b"]
    rnn.flat[...] = 0
    assert float(params["rnn.W"].sum()) == 0
    assert float(params["head.W"].sum()) == float(head["W"].sum()) > 0
    assert rnn.flat.size + head.flat.size == params.flat.size
    assert len(params.sub("none.")) == 0


def test_like_is_zero_and_apart(backend: Backend) -> None:
    params = make(backend)
    grads = params.like()
    assert grads.shapes == params.shapes
    assert float(abs(grads.flat).sum()) == 0
    grads["head.b"] += 1
    assert float(params["head.b"].sum()) == 3.0
    assert params.like("float32").flat.dtype == np.float32


def test_host_copies_do_not_follow(backend: Backend) -> None:
    params = make(backend)
    copy = params.host()
    params.flat[...] = 0
    assert copy["head.b"].tolist() == [1.0, 2.0]
    params.load(copy)
    assert float(params["head.b"].sum()) == 3.0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rnn.b", np.zeros(4), r"parameter 'rnn.b' has shape \(4,\), expected \(5,\)"),
        ("rnn.x", np.zeros(4), "parameter 'rnn.x' is unknown; there are: rnn.W, rnn.b, head.W, head.b"),
        ("rnn.b", 3.0, r"parameter 'rnn.b' has shape \(\), expected \(5,\)"),
    ],
)
def test_wrong_assignments_are_refused(name: str, value: Any, message: str) -> None:
    params = make(_cpu())
    with pytest.raises(ShapeError, match=message):
        params[name] = value


def test_load_writes_nothing_unless_all_fits() -> None:
    params = make(_cpu())
    before = params.flat.copy()
    values = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    with pytest.raises(ShapeError, match=r"missing \['head.b'\], unknown \['tail'\]"):
        params.load({**{name: value for name, value in values.items() if name != "head.b"}, "tail": np.zeros(1)})
    with pytest.raises(ShapeError, match=r"'head.b' has shape \(3,\)"):
        params.load({**values, "head.b": np.zeros(3)})
    np.testing.assert_array_equal(params.flat, before)


def test_more_numbers_than_any_machine_holds_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"more than 72057594037927936 parameters, which no machine holds"):
        LSTM(1, 2**40, device="cpu")


def test_names_are_fixed() -> None:
    params = make(_cpu())
    for change in (lambda: params.pop("rnn.b"), lambda: params.update({}), lambda: params.clear()):
        with pytest.raises(TypeError, match="names of a ParamDict are fixed"):
            change()
    with pytest.raises(TypeError, match="names of a ParamDict are fixed"):
        del params["rnn.b"]


def _cpu() -> Backend:
    from gpulstm.arrays.devices import resolve

    return resolve("cpu")


PARAMS: dict[Callable[[ParamDict], Any], Mistake] = {
    lambda p: p.__setitem__("b_l0", np.zeros(3)): (ShapeError, r"parameter 'b_l0' has shape \(3,\), expected \(20,\)"),
    lambda p: p.__setitem__("b_l1", np.zeros(20)): (
        ShapeError,
        "parameter 'b_l1' is unknown; there are: W_x_l0, W_h_l0",
    ),
    lambda p: p.__setitem__("b_l0", 0.0): (ShapeError, r"parameter 'b_l0' has shape \(\), expected \(20,\)"),
    lambda p: p.__setitem__("b_l0", np.zeros(20) * 1j): (DTypeError, "parameter 'b_l0' has dtype complex128"),
    lambda p: p.__setitem__("b_l0", np.full(20, "0")): (DTypeError, "parameter 'b_l0' has dtype <U1, expected real"),
    lambda p: p.load({"b_l0": np.zeros(20)}): (ShapeError, r"missing \['W_h_l0', 'W_x_l0'\], unknown none"),
    lambda p: p.load({**p, "W": 1}): (ShapeError, r"parameters do not fit: missing none, unknown \['W'\]"),
    lambda p: p.load({**p, "b_l0": np.zeros(20) * 1j}): (DTypeError, "parameter 'b_l0' has dtype complex128"),
    lambda p: p.load({**p, "W_h_l0": np.ones((20, 5))}): (
        ShapeError,
        r"'W_h_l0' has shape \(20, 5\), expected \(5, 20\)",
    ),
}


@pytest.mark.parametrize(("call", "mistake"), texts(PARAMS))
def test_params(call: Callable[[ParamDict], Any], mistake: Mistake) -> None:
    params = lstm().params
    before = params.flat.copy()
    check(call, mistake, params)
    np.testing.assert_array_equal(params.flat, before)


def test_names_of_params_are_fixed() -> None:
    params = lstm().params
    for change in (lambda: params.pop("b_l0"), lambda: params.update(b_l0=1), params.clear, params.popitem):
        with pytest.raises(TypeError, match="the names of a ParamDict are fixed"):
            change()
    with pytest.raises(TypeError, match="the names of a ParamDict are fixed"):
        del params["b_l0"]
