"""Weak scaling on the CPU: a training step by 2 ranks with 64 rows each, next to one rank with 64, here and by PyTorch.

    GPULSTM_PEERS_PYTHON=.venv-peers/bin/python python tools/weak_scaling.py [--ranks 1 2] [--rounds 3] [--parts]

An LSTM of 256 units over 64 steps of 8 features, a head, Adam, float32, one thread a rank.  PyTorch's are processes of
DistributedDataParallel over gloo.  All take turns on one machine and say the median of their steps; the smallest of all
rounds counts.  `--parts` prints where the time of a step goes and how many bytes the ranks exchange.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

STEPS, WARM = 12, 3
T, B, INPUTS, HIDDEN = 64, 64, 8, 256


def series() -> np.ndarray:
    """`(rows, INPUTS)` float32."""
    return np.random.default_rng(0).normal(size=(4000, INPUTS)).astype(np.float32)


def own(parts: bool) -> None:
    """One rank of this package."""
    from gpulstm.arrays.launch import place
    from gpulstm.arrays.threads import set_num_threads
    from gpulstm.data.windows import WindowSet
    from gpulstm.engines.spec import StackSpec
    from gpulstm.losses import MSE
    from gpulstm.model.network import Network, NetworkConfig
    from gpulstm.optimizers import Adam
    from gpulstm.training.callbacks import Callback
    from gpulstm.training.trainer import Trainer

    set_num_threads(1)
    size = place().size
    network = Network(NetworkConfig(StackSpec("lstm", INPUTS, HIDDEN)), device="cpu")
    values = series()
    data = WindowSet(values, np.array([0, len(values)]), context=T, horizon=1, targets=1, past=INPUTS - 1)
    times, spent, sent = [], defaultdict[str, float](float), 0

    class Clock(Callback):
        def on_step(self, run: Any) -> None:
            times.append(time.perf_counter())
            if run.step == WARM:
                spent.clear()
            if run.step == STEPS + WARM:
                run.stop("enough")

    trainer = Trainer(network, MSE(), Adam(), 1e-3, epochs=10, batch_size=B * size, clip_norm=1.0, callbacks=[Clock()])

    def timed(thing: Any, name: str, label: str) -> None:
        function: Callable[..., Any] = getattr(thing, name)

        def clocked(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                spent[label] += time.perf_counter() - began

        object.__setattr__(thing, name, clocked)

    if parts:
        timed(data, "gather", "gather")
        timed(trainer.state.optimizer, "step", "optimizer")
        timed(trainer._steps, "take", "whole step")
        if size > 1:
            timed(trainer.ranks, "all_reduce", "all-reduce")
            timed(trainer.ranks, "agree", "agree")
    trainer.fit(data)
    if place().rank == 0:
        sent = 0 if size == 1 else 4 * (network.params.flat.size + 2)
        each = {name: 1e3 * value / STEPS for name, value in spent.items()}
        print(json.dumps({"ms": 1e3 * float(np.median(np.diff(times[WARM - 1 :]))), "parts": each, "bytes": sent}))


def ddp() -> None:
    """One rank of PyTorch."""
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(INPUTS, HIDDEN), nn.Linear(HIDDEN, 1)

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(x)[0][-1])

    torch.manual_seed(0)
    model: Any = Model()
    if size > 1:
        dist.init_process_group("gloo")
        model = DistributedDataParallel(model)
    optimizer, values = torch.optim.Adam(model.parameters()), torch.from_numpy(series())
    order, back, times = torch.randperm(len(values) - T - 1), torch.arange(T)[:, None], []
    for step in range(STEPS + WARM):
        origins = order[step * B * size % 3000 :][rank * B : (rank + 1) * B]
        x, target = values[back + origins], values[origins + T, :1]
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), target).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        times.append(time.perf_counter())
    if rank == 0:
        print(json.dumps({"ms": 1e3 * float(np.median(np.diff(times[WARM - 1 :])))}))
    if size > 1:
        dist.destroy_process_group()


def run(who: str, ranks: int, parts: bool) -> dict[str, Any]:
    """What the first of so many processes says."""
    base = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if who == "gpulstm":
        from gpulstm.training.launcher import launcher

        start = [*launcher(), "-n", str(ranks)] if ranks > 1 else []
        command = [*start, sys.executable, __file__, "--worker", "gpulstm", *["--parts"][: int(parts)]]
        done = subprocess.run(command, env=base, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout.splitlines()[-1])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = os.environ.get("GPULSTM_PEERS_PYTHON", sys.executable)
    common = {**base, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    common.pop("PYTHONPATH", None)
    workers = [
        subprocess.Popen(
            [python, __file__, "--worker", "ddp"],
            env={**common, "RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for rank in range(ranks)
    ]  # fmt: skip
    outputs = [worker.communicate()[0] for worker in workers]
    return json.loads(outputs[0].splitlines()[-1])


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--worker")
    options = parser.parse_args()
    if options.worker:
        own(options.parts) if options.worker == "gpulstm" else ddp()
        return
    best: dict[tuple[str, int], dict[str, Any]] = {}
    contenders = ["gpulstm"] if options.parts else ["gpulstm", "ddp"]
    for _ in range(options.rounds):
        for who in contenders:
            for ranks in options.ranks:
                timing = run(who, ranks, options.parts)
                if (who, ranks) not in best or timing["ms"] < best[who, ranks]["ms"]:
                    best[who, ranks] = timing
    for (who, ranks), timing in best.items():
        ratio = timing["ms"] / best[who, options.ranks[0]]["ms"]
        line = f"{who:8} {ranks} ranks: {timing['ms']:7.2f} ms a step, {ratio:.3f} times that of {options.ranks[0]}"
        parts = ", ".join(f"{name} {value:.2f} ms" for name, value in timing.get("parts", {}).items())
        print(line + (f"; {parts}; {timing['bytes']} bytes summed" if options.parts else ""))


if __name__ == "__main__":
    main()
