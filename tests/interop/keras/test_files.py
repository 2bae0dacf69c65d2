"""Files of Keras: read as recorded, written, and what is refused of damaged and hostile ones."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from keras_models import GOLDEN, turned
from paths import GOLDEN_FOLDER

import gpulstm as gl
from gpulstm.errors import ConfigError, InteropError
from gpulstm.interop import KerasNet, from_keras, to_keras
from gpulstm.model.network import Network


@pytest.mark.parametrize("name", ["interop_keras.keras", "interop_keras.weights.h5"])
def test_recorded_files(name: str, device: str) -> None:
    net = from_keras(GOLDEN_FOLDER / name, device=device)
    assert isinstance(net, KerasNet)
    x = gl.to_device(turned(GOLDEN["model/x"]), device)
    np.testing.assert_allclose(gl.to_host(net(x)[0]), GOLDEN["model/y"], rtol=1e-5, atol=1e-6)
    network = net.trainable((1, 3, 1))
    assert isinstance(network, Network)
    assert (network.config.targets, network.config.stack.num_layers, network.config.stack.cell) == (3, 2, "gru")
    assert network.config.stack.dropout == (pytest.approx(0.2) if name.endswith(".keras") else 0.0)
    np.testing.assert_allclose(gl.to_host(network.forward(x)[0])[:, 0, :, 0], GOLDEN["model/y"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_weights_file_there_and_back(tmp_path: Path, bidirectional: bool) -> None:
    stack = gl.LSTM(3, 4, 12, bidirectional=bidirectional, device="cpu", seed=6)  # lstm_10 comes after lstm_9
    to_keras(stack, tmp_path / "model.weights.h5")
    net = from_keras(tmp_path / "model.weights.h5", device="cpu")
    np.testing.assert_array_equal(net.trainable().params.flat, stack.params.flat)  # type: ignore[union-attr]


def archive(path: Path, **parts: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in parts.items():
            file.writestr({"config": "config.json", "weights": "model.weights.h5"}[name], data)
    return path


def test_damaged_files(tmp_path: Path) -> None:
    for name in ("interop_keras.keras", "interop_keras.weights.h5"):
        whole = (GOLDEN_FOLDER / name).read_bytes()
        for cut in (0, 10, len(whole) // 2, len(whole) - 30):
            path = tmp_path / name
            path.write_bytes(whole[:cut])
            with pytest.raises(InteropError):
                from_keras(path, device="cpu")
    with pytest.raises(ConfigError, match="there is no file"):
        from_keras(tmp_path / "none.keras")
    empty = io.BytesIO()
    with h5py.File(empty, "w"):
        pass
    for parts, message in (
        ({"config": b"{}"}, r"is no \.keras archive: it has no model\.weights\.h5"),
        ({"weights": b""}, r"is no \.keras archive: it has no config\.json"),
        ({"config": b"{", "weights": b""}, "is damaged"),
        ({"config": b"[]", "weights": b""}, "holds a list, expected a Sequential or Functional model"),
        ({"config": b'{"class_name": "Mine"}', "weights": b""}, "holds a Mine, expected a Sequential"),
    ):
        with pytest.raises(InteropError, match=message):
            from_keras(archive(tmp_path / "model.keras", **parts))
    (tmp_path / "empty.weights.h5").write_bytes(empty.getvalue())
    with pytest.raises(InteropError, match="it has no group 'layers'"):
        from_keras(tmp_path / "empty.weights.h5")


def test_data_outside_of_a_file_is_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["data"] = np.arange(4.0)
    (tmp_path / "raw").write_bytes(np.arange(4.0).tobytes())
    for kind in ("external link", "soft link", "external storage", "virtual"):
        path = tmp_path / "model.weights.h5"
        with h5py.File(path, "w") as file:
            group = file.create_group("layers/lstm/cell/vars")
            if kind == "external link":
                group["0"] = h5py.ExternalLink(str(secret), "/data")
            elif kind == "soft link":
                group["0"] = h5py.SoftLink("/layers/lstm")
            elif kind == "external storage":
                group.create_dataset("0", (4,), "f8", external=[(str(tmp_path / "raw"), 0, 32)])
            else:
                layout = h5py.VirtualLayout((4,), "f8")
                layout[:] = h5py.VirtualSource(str(secret), "data", (4,))
                group.create_virtual_dataset("0", layout)
        with pytest.raises(InteropError, match=r"has a link at layers/lstm/cell/vars/0, which is|data outside of it"):
            from_keras(path)


def test_weights_files_that_do_not_say_enough(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.h5"
    for groups, message in (
        (("conv1d",), "has a layer 'conv1d', expected some of bidirectional, dense"),
        (("lstm/cell", "gru/cell"), r"holds gru and lstm layers and not their order; save the model as a \.keras"),
        (("bidirectional/forward_layer/cell",), "does not say which layer 'layers/bidirectional' wraps"),
    ):
        with h5py.File(path, "w") as file:
            for group in groups:
                file[f"layers/{group}/vars/0"] = np.zeros((2, 8))
        with pytest.raises(InteropError, match=message):
            from_keras(path)
