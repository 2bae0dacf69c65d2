"""ONNX's backend interface (`onnx.backend.base.Backend`), so that its test runner and tools can drive this library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpulstm.arrays.cupy_backend import cuda_missing
from gpulstm.arrays.devices import resolve, to_host
from gpulstm.interop.onnx.net import OnnxNet, from_onnx
from gpulstm.interop.onnx.proto import package


def make_backend(engine: str | None = None) -> Any:
    """The backend class for ONNX's tools.

    Args:
        engine: force an engine for the recurrent operators; None chooses.

    Returns:
        A class derived from `onnx.backend.base.Backend`.  Its `prepare(model, device)` takes the devices "CPU", "CUDA"
        and "CUDA:N"; what that gives has `run(inputs)`, which takes and gives NumPy arrays.

    Raises:
        MissingExtraError: the onnx package is not installed.
    """
    package()
    from onnx.backend.base import Backend, BackendRep

    class Prepared(BackendRep):
        """A model ready to run."""

        def __init__(self, net: OnnxNet) -> None:
            self.net = net

        def run(self, inputs: Any, **options: Any) -> tuple[Any, ...]:
            """Outputs on the host, from inputs on the host: an array, a sequence, or a dict by name."""
            backend = self.net.backend

            def move(value: Any) -> Any:
                value = np.asarray(value)
                return backend.from_host(value) if value.dtype.kind == "f" else value

            if isinstance(inputs, dict):
                values: Any = {name: move(value) for name, value in inputs.items()}
            else:
                values = [move(value) for value in ([inputs] if isinstance(inputs, np.ndarray) else inputs)]
            return tuple(to_host(value) for value in self.net.run(values))

    class GpulstmBackend(Backend):
        """This library as an ONNX backend."""

        @classmethod
        def prepare(cls, model: Any, device: str = "CPU", **options: Any) -> Prepared:
            """A model, checked and ready to run on "CPU", "CUDA" or "CUDA:N"."""
            return Prepared(from_onnx(model, device=device.lower(), engine=engine))

        @classmethod
        def run_node(
            cls, node: Any, inputs: Any, device: str = "CPU", outputs_info: Sequence[Any] | None = None, **options: Any
        ) -> tuple[Any, ...]:
            """One node on the inputs given."""
            from onnx import helper, numpy_helper

            arrays = {name: np.asarray(value) for name, value in zip(filter(None, node.input), inputs, strict=True)}
            kinds = [helper.make_tensor_value_info(name, numpy_helper.from_array(value).data_type, value.shape)
                     for name, value in arrays.items()]  # fmt: skip
            results = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
            model = helper.make_model(helper.make_graph([node], "node", kinds, results))
            return cls.prepare(model, device).run(arrays)

        @classmethod
        def supports_device(cls, device: str) -> bool:
            """Whether a device can be used here."""
            kind, _, index = device.partition(":")
            if kind == "CPU":
                return True
            return kind == "CUDA" and cuda_missing() is None and resolve(f"cuda:{index or 0}") is not None

    return GpulstmBackend
