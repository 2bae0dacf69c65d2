"""PyTorch, live: random configurations forward and backward, packed sequences, training side by side."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import interop_torch
import numpy as np
import pytest
import torch
import torch_cases
from safetensors.torch import save_file

import gpulstm as gl
from gpulstm.interop import from_torch, to_torch
from gpulstm.losses import MSE
from gpulstm.model.network import Network
from gpulstm.optimizers import Adam

SEED = int(os.environ.get("GPULSTM_PEER_SEED", secrets.randbelow(2**31)))  # set it to repeat a run
COUNT = 200


@pytest.mark.parametrize("lengths", [False, True], ids=["all", "lengths"])
def test_random_configurations(lengths: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """200 layers each without and with `lengths` (PyTorch: PackedSequence): results and all gradients to 1e-10."""
    rng = np.random.default_rng([SEED, lengths])
    worst, kinds = 0.0, {"lstm": 0, "gru": 0, "rnn": 0}
    for case in range(COUNT):
        options = torch_cases.random_options(rng)
        module = torch_cases.make(options, seed=case)
        steps, batch = int(rng.integers(1, 9)), int(rng.integers(1, 6))
        inputs = torch_cases.data(module, rng, steps, batch, lengths)
        layer = from_torch(module, device="cpu")
        message = f"GPULSTM_PEER_SEED={SEED}, case {case}: {options}, T={steps}, B={batch}"
        try:
            error = interop_torch.compare(interop_torch.run(layer, inputs), torch_cases.run(module, inputs), 1e-10)
        except AssertionError as found:
            raise AssertionError(message) from found
        worst, kinds[options["cell"]] = max(worst, error), kinds[options["cell"]] + 1
    with capsys.disabled():
        print(f"\nPyTorch {torch.__version__}: seed {SEED}, {kinds}, lengths {lengths}: largest error {worst:.1e}")


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN], ids=["lstm", "gru", "rnn"])
def test_ten_training_steps_side_by_side(kind: type[torch.nn.RNNBase]) -> None:
    """The same network, data and Adam in both: the losses of ten steps and the weights after them, to 1e-10.

    PyTorch has a second bias that does what the first does, and Adam moves both, so that their sum goes twice as far;
    here the second one is held still, but for the part of the GRU's that the reset gate multiplies.
    """
    torch.manual_seed(SEED)

    class Forecaster(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = kind(3, 8, 2, bidirectional=True, dtype=torch.float64)
            self.head = torch.nn.Linear(16, 4, dtype=torch.float64)
            own = torch.zeros(self.rnn.weight_hh_l0.shape[0], dtype=torch.float64)
            own[16:24] = kind is torch.nn.GRU
            for name, weight in self.rnn.named_parameters():
                if "bias_hh" in name:
                    weight.data *= own
                    weight.register_hook(lambda gradient: gradient * own)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(x)[0][-1])

    theirs = Forecaster()
    ours = from_torch(theirs, device="cpu")
    assert isinstance(ours, Network)
    rng = np.random.default_rng(SEED)
    optimizer, mine, loss = torch.optim.Adam(theirs.parameters(), lr=0.02), Adam(), MSE()
    mine.init(ours.params)
    for step in range(10):
        x, target = rng.normal(size=(12, 5, 3)), rng.normal(size=(5, 4))
        optimizer.zero_grad()
        their_loss = torch.nn.functional.mse_loss(theirs(torch.tensor(x)), torch.tensor(target))
        their_loss.backward()
        optimizer.step()
        raw, _, tape = ours.forward(x, training=True)
        value, draw = loss(raw, target[:, :, None])
        mine.step(ours.params, ours.backward(tape, draw), rate=0.02)
        assert float(value) == pytest.approx(their_loss.item(), rel=1e-10), f"step {step}, seed {SEED}"
    expected = {name: value.numpy() for name, value in theirs.state_dict().items()}
    interop_torch.compare(to_torch(ours), expected, 1e-10)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_state_dict_goes_back_into_pytorch(cell: str, tmp_path: Path) -> None:
    kinds = {"lstm": (gl.LSTM, torch.nn.LSTM), "gru": (gl.GRU, torch.nn.GRU), "rnn": (gl.RNN, torch.nn.RNN)}
    more = {"proj_size": 3} if cell == "lstm" else {}
    ours = kinds[cell][0](3, 5, 2, bidirectional=True, dtype="float64", device="cpu", seed=4, **more)
    theirs = kinds[cell][1](3, 5, 2, bidirectional=True, dtype=torch.float64, **more)
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in to_torch(ours).items()})
    x = np.random.default_rng(SEED).normal(size=(6, 2, 3))
    np.testing.assert_allclose(ours(x)[0], theirs(torch.tensor(x))[0].detach().numpy(), atol=1e-12)
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    again = from_torch(tmp_path / "model.safetensors", device="cpu")
    np.testing.assert_array_equal(again.params.flat, ours.params.flat)


def test_what_a_module_says_comes_along() -> None:
    with pytest.warns(UserWarning, match="batch_first=True"):
        layer = from_torch(torch.nn.RNN(2, 3, 2, nonlinearity="relu", dropout=0.25, batch_first=True), device="cpu")
    assert (layer.spec.nonlinearity, layer.spec.dropout, layer.spec.dtype) == ("relu", 0.25, "float32")
    cell = from_torch(torch.nn.LSTMCell(2, 3), device="cpu")
    assert (cell.spec.cell, cell.spec.num_layers) == ("lstm", 1)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    torch.save(torch.nn.LSTM(2, 3).state_dict(), tmp_path / "model.safetensors")  # the ending does not help
    with pytest.raises(gl.errors.InteropError, match=r"safetensors\.torch\.save_file"):
        from_torch(tmp_path / "model.safetensors")


def test_bfloat16_is_refused_by_name() -> None:
    with pytest.raises(gl.errors.DTypeError, match="weight_ih_l0 has dtype bfloat16"):
        from_torch(torch.nn.LSTM(2, 3, dtype=torch.bfloat16), device="cpu")
