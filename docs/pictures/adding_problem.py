"""Draws adding_problem.png: a task that needs long memory, learned by the LSTM and not by the plain RNN.

A sequence of 100 steps has two features: a number drawn from [0, 1) and a mark.  The mark is 1 at two steps, one in the
first half and one in the second, and 0 elsewhere; the target is the sum of the two marked numbers (Hochreiter &
Schmidhuber 1997, section 5.4, in the form of Le, Jaitly & Hinton 2015, arXiv:1504.00941, section 4.1).  Who always
answers 1 has the mean squared error 1/6 = 0.167, the variance of the target; to do better, a number has to be carried
over some fifty steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from style import BLACK, BLUE, FOLDER, ORANGE, pyplot, save

from gpulstm.engines.spec import StackSpec
from gpulstm.losses import MSE
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.optimizers import Adam, clip_scale

BASELINE = 1 / 6  # variance of the sum of two independent uniform numbers: 2 * 1/12


@dataclass(frozen=True)
class Setting:
    """The task and how it is trained; the same for both cells.

    Args:
        length: T, steps of a sequence.
        hidden: H.
        batch: sequences a training step.
        steps: training steps, each on fresh sequences.
        rate: of Adam.
        clip: bound of the gradient's norm.
        seed: of weights and data.
    """

    length: int = 100
    hidden: int = 32
    batch: int = 64
    steps: int = 800
    rate: float = 1e-2
    clip: float = 1.0
    seed: int = 0


def sequences(rng: np.random.Generator, length: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Random sequences x `(length, rows, 2)` float32 and their targets `(rows,)`."""
    x = np.zeros((length, rows, 2), np.float32)
    x[:, :, 0] = rng.random((length, rows))
    every = np.arange(rows)
    first, second = rng.integers(0, length // 2, rows), rng.integers(length // 2, length, rows)
    x[first, every, 1] = x[second, every, 1] = 1.0
    return x, x[first, every, 0] + x[second, every, 0]


def train(cell: str, setting: Setting) -> tuple[Network, np.ndarray]:
    """Train one layer of `cell` ("lstm" or "rnn") and a dense head; the network and the loss of each step."""
    stack = StackSpec(cell, 2, setting.hidden)
    network = Network(NetworkConfig(stack), device="cpu", seed=setting.seed)
    rng, loss, optimizer = np.random.default_rng(setting.seed), MSE(), Adam()
    optimizer.init(network.params)
    losses = np.empty(setting.steps)
    for step in range(setting.steps):
        x, target = sequences(rng, setting.length, setting.batch)
        raw, _, tape = network.forward(x, training=True)
        losses[step], draw = loss(raw, target[:, None, None])
        grads = network.backward(tape, draw)
        optimizer.step(network.params, grads, rate=setting.rate, scale=clip_scale(grads, setting.clip)[1])
    return network, losses


def error(network: Network, setting: Setting, rows: int = 1000) -> float:
    """Mean squared error on `rows` sequences that training did not see."""
    x, target = sequences(np.random.default_rng((setting.seed, 1)), setting.length, rows)
    raw, _, _ = network.forward(x)
    return float(np.mean((raw[:, 0, 0, 0] - target) ** 2))


def draw(losses: Mapping[str, np.ndarray], folder: Path = FOLDER) -> Path:
    """The losses of `train` by cell, as means over 20 steps."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(7, 3.2))
    for (cell, values), color, dash in zip(losses.items(), (BLUE, ORANGE), ("-", "--"), strict=True):
        means = values.reshape(-1, 20).mean(axis=1)
        axes.semilogy(20 * np.arange(1, len(means) + 1), means, dash, color=color, label=cell.upper(), lw=2)
    axes.axhline(BASELINE, color=BLACK, lw=1, ls=":", label="always answering 1")
    axes.set(xlabel="training step", ylabel="mean squared error", xlim=(0, None), ylim=(5e-4, 0.5))
    ticks = (0.001, 0.01, 0.1)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_title("The adding problem over 100 steps")
    axes.legend(loc="lower left")
    return save(figure, "adding_problem.png", folder)


if __name__ == "__main__":
    draw({cell: train(cell, Setting())[1] for cell in ("lstm", "rnn")})
