"""Losses: gradients against central differences, values against their formulas, weights, quantiles that never cross."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tolerance import FORWARD

from gpulstm import losses
from gpulstm.arrays import native
from gpulstm.arrays.backend import Backend
from gpulstm.arrays.devices import resolve, to_host
from gpulstm.errors import ConfigError, DeviceError, DTypeError, ShapeError

SHAPE = (3, 4, 2)  # B, horizon, targets
ALL = [
    losses.MSE(),
    losses.MAE(),
    losses.Huber(delta=0.7),
    losses.Pinball(quantiles=(0.1, 0.5, 0.8)),
    losses.GaussianNLL(),
    losses.GaussianNLL(floor=0.3),
    losses.SoftmaxCrossEntropy(classes=4),
]
IDS = [f"{loss.name}-{index}" for index, loss in enumerate(ALL)]


def sample(loss: losses.Loss, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`raw` and `target` in float64, away from the kinks of the loss."""
    if isinstance(loss, losses.SoftmaxCrossEntropy):
        return rng.normal(size=(*SHAPE, loss.outputs)), rng.integers(0, loss.classes, SHAPE).astype(float)
    target = rng.normal(size=SHAPE)
    error = rng.choice([-1.0, 1.0], (*SHAPE, loss.outputs)) * rng.uniform(0.05, 0.6, (*SHAPE, loss.outputs))
    error[0] *= 4  # these lie on the straight arms of Huber's loss
    return target[..., None] + error, target


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", ALL, ids=IDS)
def test_gradient_equals_central_differences(
    loss: losses.Loss, weighted: bool, backend: Backend, rng: np.random.Generator
) -> None:
    raw, target = sample(loss, rng)
    weight = rng.uniform(0.5, 2.0, SHAPE) * (rng.random(SHAPE) > 0.3) if weighted else None
    moved = None if weight is None else backend.from_host(weight)
    value, draw = loss(backend.from_host(raw), backend.from_host(target), moved)
    assert value.shape == () and value.dtype == np.float64
    assert backend.owns(value) and backend.owns(draw)
    step, numeric = 1e-5, np.empty_like(raw)
    for index in np.ndindex(raw.shape):
        ahead, behind = raw.copy(), raw.copy()
        ahead[index] += step
        behind[index] -= step
        numeric[index] = (float(loss(ahead, target, weight)[0]) - float(loss(behind, target, weight)[0])) / (2 * step)
    np.testing.assert_allclose(to_host(draw), numeric, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(to_host(value), loss(raw, target, weight)[0], rtol=1e-13)


@pytest.mark.usefixtures("no_native")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", ALL, ids=IDS)
def test_gradient_without_native_code(loss: losses.Loss, weighted: bool, rng: np.random.Generator) -> None:
    test_gradient_equals_central_differences(loss, weighted, resolve("cpu"), rng)


def both(loss: losses.Loss, *arguments: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The loss by the native pass, on every instruction set of this machine, and (the last) by NumPy."""
    module, results = native.load(), []
    assert module is not None
    best = module.instruction_set()
    for isa in module.instruction_sets():
        module.use(isa)
        results.append(loss(*arguments))
    module.use(best)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "load", lambda: None)
        results.append(loss(*arguments))
    return results


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", [loss for loss in ALL if type(loss) in losses._FUSED], ids=lambda loss: loss.name)
def test_the_native_pass_agrees_with_numpy(loss: losses.Loss, dtype: str, rng: np.random.Generator) -> None:
    """Many targets and few, weights that broadcast, holes, arrays that are not contiguous, zero errors, wild numbers.

    NumPy computes in float64: in float32 it is the less exact of the two where a Gaussian's scale is small.
    """
    for shape in ((1, 1, 1), (3, 4, 2), (70, 24, 2)):
        raw = (3 * rng.normal(size=(*shape, loss.outputs))).astype(dtype)
        target = rng.normal(size=shape).astype(dtype)
        raw[0, 0, 0, 0] = target[0, 0, 0]
        raw[0, -1, -1] = 200.0
        raw[-1, -1, -1] = -200.0
        weight = (rng.uniform(0.5, 2, shape) * (rng.random(shape) > 0.3)).astype(dtype)
        weight[-1, 0, 0] = 1.0
        turned = np.asfortranarray(raw), np.asfortranarray(target)
        cases = [(raw, target), (raw, np.where(weight > 0, target, np.nan), weight), (*turned, weight[:, :1])]
        for arguments in cases:
            *ours, _ = both(loss, *arguments)
            value, slope = both(loss, *(array.astype("float64") for array in arguments))[-1]
            near = {"rtol": FORWARD[dtype], "atol": FORWARD[dtype] * abs(slope).max()}
            for results, gradient in ours:
                assert results.dtype == gradient.dtype == dtype and results.shape == ()
                np.testing.assert_allclose(results, value, rtol=FORWARD[dtype])
                np.testing.assert_allclose(gradient, slope, **near)
                np.testing.assert_array_equal(gradient, ours[0][1])


@pytest.mark.parametrize("loss", ALL[:6], ids=IDS[:6])
def test_a_nan_comes_out_of_the_native_pass(loss: losses.Loss, rng: np.random.Generator) -> None:
    raw, target = sample(loss, rng)
    raw[1, 2, 1, 0] = np.nan
    *ours, (value, slope) = both(loss, raw, target)
    for results, gradient in ours:
        assert np.isnan(results) and np.isnan(value)
        np.testing.assert_array_equal(np.isnan(gradient), np.isnan(slope))


def test_a_loss_defined_elsewhere_is_asked_itself(rng: np.random.Generator) -> None:
    """The native pass of MSE knows nothing of a subclass that costs something else."""

    class Half(losses.MSE):
        def _each(self, xp, z, y):
            cost, slope = super()._each(xp, z, y)
            return cost / 2, slope / 2

    raw, target = sample(losses.MSE(), rng)
    (value, slope), (twice, double) = Half()(raw, target), losses.MSE()(raw, target)
    np.testing.assert_allclose(2 * value, twice, rtol=1e-14)
    np.testing.assert_allclose(2 * slope, double, rtol=1e-14)


@pytest.mark.parametrize("loss", ALL, ids=IDS)
def test_missing_targets_count_for_nothing(loss: losses.Loss, rng: np.random.Generator) -> None:
    raw, target = sample(loss, rng)
    weight = np.ones(SHAPE)
    weight[1], weight[2, 0] = 0, 0
    holed = np.where(weight > 0, target, np.nan)
    value, draw = loss(raw, holed, weight)
    assert np.all(draw[weight == 0] == 0)
    kept = weight > 0
    alone, slope = loss(raw[kept][:, None, None], target[kept][:, None, None])
    np.testing.assert_allclose(value, alone, rtol=1e-13)
    np.testing.assert_allclose(draw[kept], slope[:, 0, 0], rtol=1e-13)
    nothing, zeros = loss(raw, np.full(SHAPE, np.nan), np.zeros(SHAPE))
    assert nothing == 0 and not zeros.any()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("loss", ALL, ids=IDS)
def test_dtypes_are_kept(loss: losses.Loss, dtype: str, backend: Backend, rng: np.random.Generator) -> None:
    raw, target = sample(loss, rng)
    exact, slope = loss(raw.astype(dtype).astype(float), target)
    value, draw = loss(backend.from_host(raw, dtype), backend.from_host(target, "float32"))
    assert draw.dtype == dtype and value.dtype == np.float32
    tolerance = FORWARD[dtype]
    np.testing.assert_allclose(float(to_host(value)), exact, rtol=1e-5)
    np.testing.assert_allclose(to_host(draw), slope, rtol=tolerance, atol=tolerance / 10)


def test_values_by_hand() -> None:
    target, raw = np.array([[[1.0, -2.0]]]), np.array([[[[4.0], [-2.5]]]])
    assert losses.MSE()(raw, target)[0] == pytest.approx((9 + 0.25) / 2)
    assert losses.MAE()(raw, target)[0] == pytest.approx((3 + 0.5) / 2)
    assert losses.Huber(delta=1.0)(raw, target)[0] == pytest.approx((1.0 * (3 - 0.5) + 0.125) / 2)
    two = np.array([[[[0.0, 3.0]]]])
    pinball = losses.Pinball(quantiles=(0.2, 0.9))(two, np.array([[[1.0]]]))[0]
    assert pinball == pytest.approx((0.2 * 1.0 + 0.1 * 2.0) / 2)
    gauss = losses.GaussianNLL(floor=1e-3)(np.array([[[[0.5, 0.0]]]]), np.array([[[1.0]]]))[0]
    scale = math.log(2) + 1e-3
    assert gauss == pytest.approx(0.5 * math.log(2 * math.pi) + math.log(scale) + 0.5 * (0.5 / scale) ** 2)
    soft = losses.SoftmaxCrossEntropy(classes=3)(np.array([[[[1000.0, 999.0, 0.0]]]]), np.array([[[1]]]))[0]
    assert soft == pytest.approx(1 + math.log1p(math.exp(-1)))


def test_far_out_numbers_stay_finite() -> None:
    raw = np.array([[[[0.0, -800.0]], [[0.0, 800.0]]]])
    value, draw = losses.GaussianNLL()(raw, np.array([[[1e-4], [1.0]]]))
    assert np.isfinite(value) and np.isfinite(draw).all()
    value, draw = losses.SoftmaxCrossEntropy()(raw, np.array([[[1], [0]]]))
    assert np.isfinite(value) and np.isfinite(draw).all()


def test_the_right_constant_has_no_slope() -> None:
    """The mean, the median and the quantiles of a sample are where the losses named after them are least."""
    sample = np.random.default_rng(3).exponential(size=4001)
    target = sample[:, None, None]
    for loss, best in [(losses.MSE(), sample.mean()), (losses.MAE(), np.median(sample))]:
        _, draw = loss(np.full((4001, 1, 1, 1), best), target)
        assert abs(draw.sum()) < 1e-12
    levels = (0.1, 0.5, 0.9)
    raw = np.broadcast_to(np.quantile(sample, levels), (4001, 1, 1, 3)).copy()
    _, draw = losses.Pinball(quantiles=levels)(raw, target)
    assert np.abs(draw.sum(axis=(0, 1, 2))).max() < 1 / 4001


def test_a_class_that_is_not_there_makes_the_loss_nan(backend: Backend) -> None:
    loss = losses.SoftmaxCrossEntropy(classes=3)
    for wrong in (-1, 3):
        target = backend.from_host(np.array([[[0], [wrong]]]))
        value, _ = loss(backend.from_host(np.zeros((1, 2, 1, 3))), target)
        assert np.isnan(to_host(value))


@given(arrays(np.float64, (2, 3, 1, 3), elements=st.floats(-1e3, 1e3)))
@settings(max_examples=50, deadline=None)
def test_quantiles_never_cross(raw: np.ndarray) -> None:
    results = losses.Pinball().predict(raw)["quantiles"]
    assert np.all(np.diff(results, axis=-1) >= 0)
    np.testing.assert_array_equal(np.sort(raw, axis=-1), results)
    normal = losses.GaussianNLL(quantiles=(0.05, 0.5, 0.95)).predict(raw[..., :2])
    assert np.all(np.diff(normal["quantiles"], axis=-1) > 0)
    np.testing.assert_allclose(normal["quantiles"][..., 1], normal["mean"], rtol=1e-12, atol=1e-12)


def test_levels_come_as_any_sequence() -> None:
    for levels in ([0.1, 0.5], (0.1, 0.5), np.array([0.1, 0.5])):
        loss = losses.Pinball(quantiles=levels)
        assert loss.quantiles == loss.levels == (0.1, 0.5) and type(loss.quantiles[0]) is float
    assert losses.MSE().levels == () and losses.GaussianNLL(quantiles=[0.5]).levels == (0.5,)


def test_predictions(backend: Backend) -> None:
    raw = backend.from_host(np.array([[[[1.0, 0.0]]]]))
    results = losses.GaussianNLL(floor=1e-3).predict(raw, quantiles=(0.975,))
    scale = math.log(2) + 1e-3
    assert {name: value.shape for name, value in results.items()} == {
        "mean": (1, 1, 1),
        "scale": (1, 1, 1),
        "quantiles": (1, 1, 1, 1),
    }
    assert float(results["quantiles"][0, 0, 0, 0]) == pytest.approx(1 + 1.959963984540054 * scale, rel=1e-12)
    assert "quantiles" not in losses.GaussianNLL().predict(raw)
    soft = losses.SoftmaxCrossEntropy(classes=2).predict(raw)["probabilities"]
    np.testing.assert_allclose(to_host(soft).sum(axis=-1), 1, rtol=1e-12)
    assert to_host(losses.MSE().predict(raw[..., :1])["mean"]).item() == 1.0


@pytest.mark.parametrize("loss", ALL, ids=IDS)
def test_config_round_trip(loss: losses.Loss) -> None:
    assert losses.from_config(loss.config()) == loss


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.Huber(delta=0), "delta is 0, expected a finite number above 0"),
        (lambda: losses.Pinball(quantiles=()), "quantiles is empty"),
        (lambda: losses.Pinball(quantiles=(0.5, 0.1)), "rise strictly"),
        (
            lambda: losses.Pinball(quantiles=(0.5, 1.0)),
            r"quantiles\[1\] is 1.0, expected a finite number above 0 and be",
        ),
        (lambda: losses.Pinball(quantiles=0.5), "quantiles is 0.5, expected a sequence"),
        (lambda: losses.GaussianNLL(floor=-1), "floor is -1"),
        (lambda: losses.SoftmaxCrossEntropy(classes=1), "classes is 1, expected a whole number of at least 2"),
        (lambda: losses.from_config({"name": "mxe"}), "loss is 'mxe', expected one of: mse, mae"),
        (lambda: losses.from_config({"name": "huber", "width": 1}), "loss 'huber' has no option 'width'"),
    ],
)
def test_bad_options(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_bad_arrays() -> None:
    loss, raw, target = losses.MSE(), np.zeros((2, 3, 1, 1)), np.zeros((2, 3, 1))
    with pytest.raises(ShapeError, match=r"raw has shape .* expected \(B, horizon, targets, 1\) for the loss 'mse'"):
        loss(np.zeros((2, 3, 1, 2)), target)
    with pytest.raises(ShapeError, match=r"target has shape \(2, 3\)"):
        loss(raw, np.zeros((2, 3)))
    with pytest.raises(ShapeError, match=r"weight has shape \(3, 3, 1\), expected one that broadcasts to \(2, 3, 1\)"):
        loss(raw, target, np.ones((3, 3, 1)))
    with pytest.raises(ShapeError, match="at least one target"):
        loss(raw[:0], target[:0])
    with pytest.raises(DTypeError, match="raw has dtype int64"):
        loss(raw.astype(int), target)
    with pytest.raises(ShapeError, match="raw has shape"):
        losses.Pinball().predict(raw)


@pytest.mark.cuda
def test_arrays_of_two_devices_are_refused() -> None:
    with pytest.raises(DeviceError, match="different devices: cpu, cuda:0"):
        losses.MSE()(resolve("cuda").zeros((1, 1, 1, 1), "float32"), np.zeros((1, 1, 1)))
