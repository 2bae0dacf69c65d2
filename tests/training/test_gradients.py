"""The gradient of a batch as one unit: that of network and loss, its norm, and the weights of missing targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from runs import network, windows

from gpulstm.losses import MSE
from gpulstm.training.gradients import GradientPass


def test_gradients_and_loss_are_those_of_network_and_loss() -> None:
    net, loss = network(), MSE()
    batch = windows().gather(np.arange(8), net.backend)
    grads = net.params.like()
    result = GradientPass(net, loss, grads)(batch.x, batch.target)
    assert net.calls == 1
    net.calls = 0
    raw, _, tape = net.forward(batch.x, training=True)
    value, draw = loss(raw, batch.target)
    expected = net.backward(tape, draw)
    np.testing.assert_array_equal(grads.flat, expected.flat)
    assert float(result.value) == float(value)
    assert float(result.norm) == pytest.approx(float(np.linalg.norm(expected.flat)), rel=1e-12)
    assert (float(result.scale), result.amount, result.state) == (1.0, None, None)


def test_gradients_of_the_pass_before_are_replaced() -> None:
    net = network()
    grads, data = net.params.like(), windows()
    gradients = GradientPass(net, MSE(), grads)
    batch = data.gather(np.arange(8), net.backend)
    gradients(batch.x, batch.target)
    first = grads.flat.copy()
    net.calls = 0
    gradients(batch.x, batch.target)
    np.testing.assert_array_equal(grads.flat, first)


def test_a_norm_above_the_limit_scales_down_to_it() -> None:
    net = network()
    batch = windows().gather(np.arange(8), net.backend)
    free = GradientPass(net, MSE(), net.params.like())(batch.x, batch.target)
    net.calls = 0
    limit = float(free.norm) / 4
    bound = GradientPass(net, MSE(), net.params.like(), clip_norm=limit)(batch.x, batch.target)
    assert float(bound.norm) == float(free.norm)
    assert float(bound.norm) * float(bound.scale) == pytest.approx(limit, rel=1e-6)


def test_the_amount_is_that_of_the_observed_targets() -> None:
    net = network()
    batch = windows(missing=True).gather(np.arange(8), net.backend)
    assert batch.weight is not None
    result = GradientPass(net, MSE(), net.params.like())(batch.x, batch.target, weight=batch.weight)
    assert result.amount is not None
    assert 0 < float(result.amount) == batch.weight.sum() < batch.target.size


def test_it_knows_whose_pass_it_is() -> None:
    net, loss, grads = network(), MSE(), network().params.like()
    gradients = GradientPass(net, loss, grads, 0.5, "sqrt")
    own: tuple[Any, ...] = (net, loss, grads, 0.5, "sqrt")
    assert gradients.is_of(*own)
    for index, other in enumerate((network(), MSE(), grads.like(), 0.25, None)):
        assert not gradients.is_of(*own[:index], other, *own[index + 1 :])


def test_on_the_cpu_no_pass_is_a_graph() -> None:
    net = network()
    text = GradientPass(net, MSE(), net.params.like()).explain(6, 8)
    assert text == "none: the model is on the CPU"
