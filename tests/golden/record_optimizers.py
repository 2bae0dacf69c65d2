"""Record what PyTorch's optimizers and schedules do, for tests/test_optimizers.py and tests/test_schedules.py.

Run with a Python that has PyTorch 2.13 and safetensors:  python tests/golden/record_optimizers.py

Writes optimizers.safetensors next to this file: the first weights `start (37,)`, the gradients `grads (10, 37)`, for
every case of CASES the weights after each of ten steps `<case> (10, 37)`, and the rates and losses of the schedules.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

RATE = 0.05
CASES = {
    "sgd": (torch.optim.SGD, {}),
    "sgd-momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "sgd-nesterov": (torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
    "sgd-decay": (torch.optim.SGD, {"momentum": 0.5, "weight_decay": 0.1}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "rmsprop-momentum": (torch.optim.RMSprop, {"alpha": 0.9, "momentum": 0.7, "weight_decay": 0.1}),
    "rmsprop-centered": (torch.optim.RMSprop, {"alpha": 0.95, "centered": True, "eps": 1e-6}),
    "rmsprop-all": (torch.optim.RMSprop, {"alpha": 0.9, "centered": True, "momentum": 0.6, "weight_decay": 0.05}),
    "adam": (torch.optim.Adam, {}),
    "adam-options": (torch.optim.Adam, {"betas": (0.8, 0.9), "eps": 1e-4, "weight_decay": 0.2}),
    "adamw": (torch.optim.AdamW, {}),
    "adamw-options": (torch.optim.AdamW, {"betas": (0.7, 0.95), "eps": 1e-6, "weight_decay": 0.3}),
}


def plateau_losses() -> np.ndarray:
    """40 losses that fall, stall, get worse and fall again."""
    falling = 2.0 * 0.8 ** np.arange(10)
    return np.concatenate([falling, np.full(12, falling[-1]), falling[-1] * 1.1 ** np.arange(8), falling * 0.05])


def main() -> None:
    """Run all cases and write the file."""
    rng = np.random.default_rng(7)
    start = rng.normal(size=37)
    grads = rng.normal(size=(10, 37)) * np.geomspace(1e-3, 1e2, 37)
    grads[:, 0] = 0.0  # a weight that never gets a gradient
    arrays = {"start": start, "grads": grads}
    for case, (cls, options) in CASES.items():
        weight = torch.nn.Parameter(torch.tensor(start))
        optimizer = cls([weight], lr=RATE, **options)
        after = []
        for grad in grads:
            weight.grad = torch.tensor(grad)
            optimizer.step()
            after.append(weight.detach().numpy().copy())
        arrays[case] = np.stack(after)
    norm = torch.nn.utils.get_total_norm([torch.tensor(grads)])
    arrays["norm"] = norm.numpy()

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    step = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.3)
    arrays["step-rates"] = rates(optimizer, step, 30)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=25, eta_min=0.004)
    arrays["cosine-rates"] = rates(optimizer, cosine, 26)
    for cooldown in (0, 3):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=0.5, patience=2, threshold=1e-2, cooldown=cooldown, min_lr=0.002, eps=0.0
        )
        arrays["plateau-losses"] = plateau_losses()
        values = []
        for loss in arrays["plateau-losses"]:
            values.append(optimizer.param_groups[0]["lr"])
            plateau.step(loss)
        arrays[f"plateau-rates-{cooldown}"] = np.array(values)
    path = Path(__file__).with_name("optimizers.safetensors")
    metadata = {"torch": torch.__version__, "rate": str(RATE), "cases": json.dumps({k: v[1] for k, v in CASES.items()})}
    save_file(arrays, path, metadata=metadata)
    print(path, path.stat().st_size, "bytes")


def rates(optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler, steps: int) -> np.ndarray:
    """The learning rate of each of `steps` steps."""
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return np.array(values)


if __name__ == "__main__":
    warnings.simplefilter("error")
    main()
