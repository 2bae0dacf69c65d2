"""Every reader of foreign files, as one call: what a file may do to it is the package's own error, or a result."""

from __future__ import annotations

import gzip
import json
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import native_calls
import numpy as np

import gpulstm as gl
from gpulstm import losses, optimizers, schedules
from gpulstm.arrays import files
from gpulstm.engines.cuda import verdicts
from gpulstm.engines.spec import Call, StackSpec
from gpulstm.errors import ConfigError, DataError
from gpulstm.forecast.config import ForecasterConfig
from gpulstm.interop import from_keras, from_onnx, from_torch
from gpulstm.model.network import NetworkConfig
from gpulstm.training.trainer import Trainer


def forecaster(path: Path) -> object:
    return gl.Forecaster.load(path, device="cpu").predict()


def training_run(path: Path) -> object:
    network = gl.Network(NetworkConfig(StackSpec("lstm", 1, 3), horizon=2), device="cpu")
    trainer = Trainer(network, losses.MSE(), optimizers.Adam(), schedules.OnPlateau(1e-3), epochs=9, batch_size=4)
    return trainer.restore(path)


def torch_dict(path: Path) -> object:
    return from_torch(path, device="cpu")


def keras(path: Path) -> object:
    return from_keras(path, device="cpu")


def onnx(path: Path) -> object:
    net = from_onnx(path, device="cpu")
    if all(value.name in net.graph.weights or value.shape is not None for value in net.inputs):
        shapes = {value.name: [one if isinstance(one, int) else 2 for one in value.shape or ()] for value in net.inputs}
        if all(np.prod(shape, dtype=float) < 2**16 for shape in shapes.values()):
            inputs = {value.name: np.ones(shapes[value.name], value.dtype or "float32") for value in net.inputs}
            net.run(inputs)
    return net


def table(path: Path) -> object:
    from gpulstm.data.loading import load_series

    return load_series(path, target="y")


def configs(path: Path) -> object:
    """JSON of a network, an optimizer, a schedule, a loss and options, as checkpoints hold them."""
    meta: Any = files.parse_json(files.read(path, DataError), str(path), DataError)
    if not isinstance(meta, Mapping):
        raise ConfigError("no named values")
    makers: dict[str, Callable[[Any], object]] = {
        "network": NetworkConfig.from_dict,
        "optimizer": optimizers.from_config,
        "schedule": schedules.from_config,
        "options": lambda options: ForecasterConfig.from_dict(options, "cpu"),
    }
    with files.damaged("the config is damaged", ConfigError):
        return [makers[name](meta[name]) for name in makers if name in meta]


def cuda_verdicts(path: Path) -> object:
    """The file of the CUDA engine's verdicts, read and asked for a choice."""
    call = Call(StackSpec("lstm", 3, 4), "cuda:0", 2, 3, True)
    ways = [verdicts.Way("first", graph=False), verdicts.Way("fused", graph=True)]
    trial = verdicts.Trial(lambda form: None, lambda way: float(way.graph))
    return verdicts.Verdicts("card", path).choose(call, "float32", ways, trial)


def study(path: Path) -> object:
    """The database of a search for options, with a further trial."""
    from gpulstm.forecast.tune import check_database, tune

    check_database(path)

    def make(config: ForecasterConfig) -> Any:
        return types.SimpleNamespace(
            config=config,
            fit=lambda *args, **more: None,
            members=None,
            history=types.SimpleNamespace(best_loss=config.learning_rate, stopped="epochs"),
        )

    series: Any = None  # which nothing is fitted on
    return tune(make, ForecasterConfig(), series, trials=1, storage=f"sqlite:///{path}")


def native(path: Path) -> object:
    """A call of the native module, whose arguments the file's bytes choose."""
    return native_calls.call(path.read_bytes())


TABLE = "time,y\n" + "".join(f"2024-01-{day:02d},{day}\n" for day in range(1, 29))

READERS: dict[str, Callable[[Path], object]] = {
    "forecaster": forecaster,
    "training_run": training_run,
    "torch_dict": torch_dict,
    "keras": keras,
    "weights_h5": keras,
    "onnx": onnx,
    "csv": table,
    "packed": table,
    "parquet": table,
    "workbook": table,
    "configs": configs,
    "verdicts": cuda_verdicts,
    "study": study,
    "native": native,
}
ENDS = {
    "forecaster": ".safetensors",
    "training_run": ".safetensors",
    "torch_dict": ".safetensors",
    "keras": ".keras",
    "weights_h5": ".weights.h5",
    "onnx": ".onnx",
    "csv": ".csv",
    "packed": ".csv.gz",
    "parquet": ".parquet",
    "workbook": ".xlsx",
    "configs": ".json",
    "verdicts": ".json",
    "study": ".db",
    "native": ".bin",
}


def whole(name: str, folder: Path) -> Path:
    """A file that the reader takes."""
    from gpulstm.interop import to_keras, to_onnx, to_torch

    path = folder / f"whole{ENDS[name]}"
    if name == "forecaster":
        options: dict[str, Any] = {"horizon": 2, "context": 4, "hidden_size": 3, "num_layers": 1, "epochs": 1}
        model = gl.Forecaster(**options, members=("network",), device="cpu")
        model.fit(np.sin(np.arange(40.0)), progress=False).save(path)
    elif name == "training_run":
        network = gl.Network(NetworkConfig(StackSpec("lstm", 1, 3), horizon=2), device="cpu")
        Trainer(network, losses.MSE(), optimizers.Adam(), schedules.OnPlateau(1e-3), batch_size=4).save(path)
    elif name == "torch_dict":
        to_torch(gl.LSTM(2, 3, device="cpu"), path)
    elif name == "weights_h5":
        to_keras(gl.LSTM(2, 3, device="cpu"), path)
    elif name == "keras":
        path.write_bytes((Path(__file__).parents[1] / "golden" / "interop_keras.keras").read_bytes())
    elif name == "onnx":
        to_onnx(gl.LSTM(2, 3, device="cpu"), path)
    elif name == "configs":
        config = {"network": NetworkConfig(StackSpec("lstm", 1, 3)).to_dict(), "optimizer": optimizers.Adam().config()}
        config |= {"schedule": schedules.OnPlateau(1e-3).config(), "options": ForecasterConfig().to_dict()}
        path.write_text(json.dumps(config))
    elif name == "verdicts":
        known = verdicts.Verdicts("card", path)
        known.right, known.wrong = {"fused lstm float32"}, {"persistent lstm float32": "dx is 3.1e-01 off"}
        kind = verdicts.kind_of(Call(StackSpec("lstm", 3, 4), "cuda:0", 2, 3, True), "float32")
        known.choices[kind] = {"way": "fused, graph", "milliseconds": {"fused, graph": 1.9, "first": 4.4}}
        known._save()
    elif name == "study":
        import optuna

        path.unlink(missing_ok=True)
        storage = f"sqlite:///{path}"
        search = optuna.create_study(study_name="gpulstm", storage=storage, direction="minimize")
        search.add_trial(optuna.trial.create_trial(value=1.0))
    elif name == "native":
        path.write_bytes(bytes(range(256)))
    elif name == "csv":
        path.write_text(TABLE)
    elif name == "packed":
        path.write_bytes(gzip.compress(TABLE.encode()))
    elif name == "workbook":
        import pandas as pd

        pd.DataFrame({"y": np.arange(30.0)}).to_excel(path, index=False)
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"y": np.arange(30.0)}), path)
    return path
