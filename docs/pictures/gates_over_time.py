"""Draws gates_over_time.png: what the gates of a small trained LSTM do over three years of a real series.

A network of one LSTM layer with six units learns to forecast weekly carbon dioxide at Mauna Loa 26 weeks ahead.  Then
one window that it was not trained on goes through the cell step by step, and the gates of one unit are drawn.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from style import BLACK, BLUE, FOLDER, GREEN, ORANGE, PURPLE, SKY, VERMILION, pyplot, save

from gpulstm.data import datasets
from gpulstm.engines.cells import make_cell
from gpulstm.engines.spec import StackSpec, State
from gpulstm.losses import MSE
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.optimizers import Adam, clip_scale

CONTEXT, HORIZON, UNITS, STEPS = 156, 26, 6, 400


def train(windows: np.ndarray, seed: int = 0) -> Network:
    """A network that reads `(T, B, 1)` and forecasts the weeks after, trained on windows `(N, context + horizon)`."""
    config = NetworkConfig(StackSpec("lstm", 1, UNITS, dtype="float64"), horizon=HORIZON)
    network, optimizer, loss = Network(config, device="cpu", seed=seed), Adam(), MSE()
    optimizer.init(network.params)
    draw = np.random.default_rng(seed)
    for step in range(STEPS):
        batch = windows[draw.integers(len(windows), size=32)]
        raw, _, tape = network.forward(batch[:, :CONTEXT].T[:, :, None], training=True)
        _, slope = loss(raw, batch[:, CONTEXT:, None])
        grads = network.backward(tape, slope)
        _, scale = clip_scale(grads, 1.0)
        optimizer.step(network.params, grads, rate=0.02 * (1 - step / STEPS), scale=scale)
    return network


def walk(network: Network, x: np.ndarray) -> dict[str, np.ndarray]:
    """The gates and states `(T, H)` of the LSTM layer over one sequence `(T,)`, by the reference cell, step by step."""
    stack = network.rnn
    cell = make_cell(np, stack.spec)
    params = {name.removesuffix("_l0"): value for name, value in stack.params.items()}
    a, _ = cell.input(params, x[:, None, None])
    state = State(np.zeros((1, UNITS)), np.zeros((1, UNITS)))
    rows: dict[str, list[np.ndarray]] = {name: [] for name in "ifgoch"}
    for a_t in a:
        state, (i, f, g, o, *_) = cell.step(params, a_t, state.h, state)
        for name, value in zip("ifgoch", (i, f, g, o, state.c, state.h), strict=True):
            rows[name].append(value[0])
    return {name: np.array(values) for name, values in rows.items()}


def draw(folder: Path = FOLDER) -> Path:
    """Train, walk through a window after the training part, and draw the unit whose c varies most."""
    plt = pyplot()
    from matplotlib import dates

    series = datasets.co2()
    values = series.filled()[:, 0]
    cut = int(len(values) * 0.8)
    windows = np.lib.stride_tricks.sliding_window_view(values, CONTEXT + HORIZON)
    windows = (windows - windows[:, :CONTEXT].mean(axis=1, keepdims=True)) / 3.0
    network = train(windows[: cut - CONTEXT - HORIZON])
    start = cut + 4
    found = walk(network, windows[start, :CONTEXT])
    unit = int(found["c"].std(axis=0).argmax())
    weeks = series.time[start : start + CONTEXT]

    figure, (data, gates, memory) = plt.subplots(3, 1, figsize=(7, 5.2), sharex=True)
    data.plot(weeks, values[start : start + CONTEXT], color=BLACK)
    data.set(ylabel="CO2 (ppm)", title="the series: three years of weekly values, not trained on")
    for name, text, color, dash in (
        ("f", "forget f", BLUE, "-"),
        ("i", "input i", GREEN, "--"),
        ("o", "output o", PURPLE, "-."),
        ("g", "candidate g", ORANGE, ":"),
    ):
        gates.plot(weeks, found[name][:, unit], color=color, ls=dash, label=text)
    gates.set(ylim=(-1.05, 1.05), title=f"gates and candidate of one unit (of {UNITS})")
    memory.plot(weeks, found["c"][:, unit], color=VERMILION, label="long memory c")
    memory.plot(weeks, found["h"][:, unit], color=SKY, ls="--", label="short memory h")
    memory.set(title="its state")
    memory.xaxis.set_major_locator(dates.MonthLocator(bymonth=(1, 7)))
    memory.xaxis.set_major_formatter(dates.DateFormatter("%b %Y"))
    for axes in (gates, memory):
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save(figure, "gates_over_time.png", folder)


if __name__ == "__main__":
    draw()
