# %% [markdown]
# # On the GPU: CuPy in, PyTorch out, nothing copied
#
# **This page needs an NVIDIA GPU, CuPy and PyTorch.** An LSTM stands in the middle of a pipeline: CuPy makes the
# input, the layer works on CuPy's stream, and PyTorch takes the result by DLPack, which hands over the memory and
# copies nothing.

# %%
import cupy
import numpy as np
import torch

import gpulstm as gl


def to_torch(array):
    """A tensor over the memory of a CuPy array; by way of the host where PyTorch sees no GPU."""
    return torch.from_dlpack(array if torch.cuda.is_available() else cupy.asnumpy(array))


def to_cupy(tensor):
    """The way back."""
    return cupy.from_dlpack(tensor) if torch.cuda.is_available() else cupy.asarray(tensor.numpy())


lstm = gl.LSTM(3, 32, num_layers=2, device="cuda", seed=0)
seconds = cupy.arange(64, dtype="float32")[:, None, None] / 8
x = cupy.sin(seconds * cupy.asarray([1.0, 2.0, 3.0]) + cupy.linspace(0, 6, 16)[None, :, None])  # (64, 16, 3)
y, state, tape = lstm.forward(x.astype("float32"))
print(type(y).__module__, y.shape, y.dtype)

# %% [markdown]
# PyTorch reads the outputs, puts a head and a loss on them, and gives back the gradient, which goes into `backward`:
# an LSTM of this package inside a model of PyTorch.

# %%
outputs = to_torch(y).clone().requires_grad_()
head = torch.nn.Linear(32, 1, device=outputs.device)
target = to_torch(cupy.roll(x[..., :1], -1, axis=0).astype("float32"))
loss = torch.nn.functional.mse_loss(head(outputs), target)
loss.backward()
dx, _, grads = lstm.backward(tape, to_cupy(outputs.grad))
print(f"loss {loss.item():.3f}, norm of the gradient {float(cupy.linalg.norm(grads.flat)):.3f}")
assert bool(cupy.isfinite(grads.flat).all())

# %%
import matplotlib.pyplot as plt  # noqa: E402 - the picture, from the host

from gpulstm.plots import style  # noqa: E402

plt.rcParams.update(style.STYLE)
figure, axes = plt.subplots(figsize=(8, 3.6))
picture = axes.imshow(np.abs(cupy.asnumpy(dx)[:, :, 0].T), aspect="auto", cmap="cividis")
axes.grid(visible=False)
axes.set(xlabel="time step", ylabel="row of the batch", title="How much the loss depends on each input")
figure.colorbar(picture, label="|gradient|")
figure.savefig("pipeline.png")
