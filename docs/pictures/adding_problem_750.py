"""Draws adding_problem_750.png: the adding problem at 750 steps, with and without chrono initialization.

The task of `adding_problem.py` at the length of Arjovsky, Shah & Bengio 2016 (arXiv:1511.06464, section 4.2), and of
Tallec & Ollivier 2018 (arXiv:1804.11188), who start the gates so that units forget over 2 to T steps (`chrono`).
Both runs are the same but for those biases: forget bias 1, or chrono with T_max = 750.  They go on side by side, each
in a process of its own with one thread, until it has had `--minutes` of processor time: what else the machine does then
changes how long it takes, and not how many steps there are.

    python docs/pictures/adding_problem_750.py                   # trains both, writes the CSV and the picture
    python docs/pictures/adding_problem_750.py --draw            # draws from the CSV

The curves in adding_problem_750.csv are as they came; both runs were stopped after nine minutes of processor time.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from adding_problem import BASELINE, Setting, sequences
from style import BLACK, BLUE, FOLDER, ORANGE, pyplot, save

from gpulstm.engines.spec import StackSpec
from gpulstm.losses import MSE
from gpulstm.model.network import Network, NetworkConfig
from gpulstm.optimizers import Adam, clip_scale

STARTS = {"forget bias 1": None, "chrono": 750}
SETTING = Setting(length=750, hidden=64, batch=50, steps=100_000, rate=2e-3, clip=1.0, seed=0)
EVERY = 20  # steps of which a point of the curve is the mean
CURVES = FOLDER / "adding_problem_750.csv"

Curve = list[tuple[int, float, float]]  # step, seconds of processor time, mean loss of the last steps


def train(chrono: int | None, seconds: float, setting: Setting = SETTING) -> Iterator[tuple[int, float, float]]:
    """Train one LSTM for so many seconds of processor time or all steps; the points of its curve."""
    stack = StackSpec("lstm", 2, setting.hidden)
    network = Network(NetworkConfig(stack, chrono=chrono), device="cpu", seed=setting.seed)
    rng, loss, optimizer = np.random.default_rng(setting.seed), MSE(), Adam()
    optimizer.init(network.params)
    begun, recent, grads = time.process_time(), [], network.params.like()
    for step in range(1, setting.steps + 1):
        x, target = sequences(rng, setting.length, setting.batch)
        raw, _, tape = network.forward(x, training=True)
        value, draw = loss(raw, target[:, None, None])
        recent.append(float(value))
        grads.flat[...] = 0
        assert tape is not None
        network.backward(tape, draw, grads)
        optimizer.step(network.params, grads, rate=setting.rate, scale=clip_scale(grads, setting.clip)[1])
        passed = time.process_time() - begun
        if step % EVERY == 0:
            yield step, passed, float(np.mean(recent))
            recent.clear()
        if passed > seconds:
            return


def write(curves: Mapping[str, Curve], path: Path = CURVES) -> None:
    """Keep the curves."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("start", "step", "seconds", "loss"))
        for name, curve in curves.items():
            writer.writerows((name, step, f"{passed:.1f}", f"{loss:.5f}") for step, passed, loss in curve)


def read(path: Path = CURVES) -> dict[str, Curve]:
    """What `write` kept."""
    curves: dict[str, Curve] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            curves.setdefault(row["start"], []).append((int(row["step"]), float(row["seconds"]), float(row["loss"])))
    return curves


def draw(curves: Mapping[str, Curve], folder: Path = FOLDER) -> Path:
    """Loss over training steps."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(7, 3.2))
    for (name, curve), color, dash in zip(curves.items(), (ORANGE, BLUE), ("--", "-"), strict=True):
        steps, _, losses = zip(*curve, strict=True)
        axes.plot(steps, losses, dash, color=color, lw=1.5, label=f"{name}, {curve[-1][1] / 60:.0f} minutes")
    axes.axhline(BASELINE, color=BLACK, lw=1, ls=":", label="always answering 1")
    axes.set(
        xlabel=f"training step ({SETTING.batch} sequences)", ylabel="mean squared error", xlim=(0, None), ylim=(0, 0.4)
    )
    axes.set_title("The adding problem over 750 steps")
    axes.legend()
    return save(figure, "adding_problem_750.png", folder)


def side_by_side(minutes: float) -> dict[str, Curve]:
    """Train both, a process with one thread each, and read their curves."""
    alone = {**os.environ, "GPULSTM_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--minutes", str(minutes), "--start"]
    running = [subprocess.Popen([*command, name], env=alone) for name in STARTS]
    ended = [process.wait() for process in running]
    if any(ended):
        raise RuntimeError("a run has failed, its message is above")
    curves = {}
    for name in STARTS:
        curves |= read(curve_of(name))
        curve_of(name).unlink()
    return curves


def curve_of(name: str) -> Path:
    """Where a run that goes on leaves its curve, point by point."""
    return CURVES.with_name(f"{CURVES.stem}_{name.replace(' ', '_')}.csv")


def main() -> None:
    """Train both, or draw what was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of processor time, of each run")
    parser.add_argument("--draw", action="store_true", help="draw from the CSV, without training")
    parser.add_argument("--start", choices=list(STARTS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.start:
        curve: Curve = []
        for point in train(STARTS[given.start], 60 * given.minutes):
            curve.append(point)
            write({given.start: curve}, curve_of(given.start))
            print(f"{given.start}: step {point[0]}, {point[1]:.0f} s, loss {point[2]:.4f}", flush=True)
        return
    if not given.draw:
        write(side_by_side(given.minutes))
    draw(read())


if __name__ == "__main__":
    main()
