"""What is used of Keras's layers and models, without Keras, and the layers whose results it recorded."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from paths import GOLDEN_FOLDER
from safetensors import safe_open

with safe_open(GOLDEN_FOLDER / "interop_keras.safetensors", "numpy") as file:
    GOLDEN = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    CONFIGS = json.loads(file.metadata()["cases"])


class Keras:
    """What is used of a Keras layer or model: its class's name, `name`, `get_config()`, `get_weights()`, `layers`."""

    def __init__(self, config: dict[str, Any], weights: list[np.ndarray] = (), layers: list[Any] = ()) -> None:  # type: ignore[assignment]
        self.name, self.config, self.weights, self.layers = config.get("name"), config, list(weights), layers

    def get_config(self) -> dict[str, Any]:
        return json.loads(json.dumps(self.config))

    def get_weights(self) -> list[np.ndarray]:
        return self.weights


def keras(kind: str, config: dict[str, Any], weights: Any = (), layers: Any = ()) -> Any:
    return type(kind, (Keras,), {})(config, weights, layers)


def sequential(*layers: Any, **more: Any) -> Any:
    config = {"layers": [{"class_name": type(layer).__name__, "config": layer.config} for layer in layers], **more}
    return keras("Sequential", config, layers=list(layers))


def recorded(case: str) -> Any:
    said = CONFIGS[case]
    return keras(said["class_name"], said["config"], listed(case, "weight"))


def listed(case: str, kind: str) -> list[np.ndarray]:
    count = sum(name.startswith(f"{case}/{kind}/") for name in GOLDEN)
    return [GOLDEN[f"{case}/{kind}/{index}"] for index in range(count)]


def turned(value: np.ndarray) -> np.ndarray:
    return value.swapaxes(0, 1) if value.ndim == 3 else value


def dense(inputs: int, outputs: int, activation: Any = "linear", name: str = "out") -> Any:
    rng = np.random.default_rng(3)
    weights = [rng.normal(size=(inputs, outputs)), rng.normal(size=outputs)]
    return keras("Dense", {"name": name, "activation": activation}, weights)


LSTM = recorded("lstm")


def lstm(**changes: Any) -> Any:
    weights = changes.pop("weights", LSTM.weights)
    return keras("LSTM", {**LSTM.config, **changes}, weights)


def two_way(**changes: Any) -> Any:
    layer = recorded("two-way")
    return keras("Bidirectional", {**layer.config, **changes}, layer.weights)


STACKS = [case for case in CONFIGS if not any(word in case for word in ("masked", "sum", "mul", "ave", "backwards"))]
