# %% [markdown]
# # A character model: Python's own manual
#
# An LSTM reads text a character at a time and learns what comes next. The text is the part of Python's reference that
# `help()` shows, which every Python has. Training goes over it in 32 places at once, 64 characters a step, and
# carries the state on from step to step.

# %%
import math
from pydoc_data.topics import topics

import matplotlib.pyplot as plt
import numpy as np

import gpulstm as gl
from gpulstm.losses import SoftmaxCrossEntropy
from gpulstm.optimizers import AdamW, clip_scale
from gpulstm.plots import style

text = "".join(character for character in "\n".join(topics.values()) if character.isascii())[:300_000]
alphabet = sorted(set(text))
codes = np.searchsorted(alphabet, list(text))
lanes = codes[: len(codes) // 32 * 32].reshape(32, -1).T  # (time, 32): each lane a stretch of the text
one_hot = np.eye(len(alphabet), dtype="float32")

lstm, head = gl.LSTM(len(alphabet), 128, device="cpu", seed=0), gl.Dense(128, len(alphabet), device="cpu", seed=0)
loss, optimizers = SoftmaxCrossEntropy(len(alphabet)), {part: AdamW(weight_decay=0) for part in (lstm, head)}
for part, optimizer in optimizers.items():
    optimizer.init(part.params)

state, bits = None, []
for number in range(400):
    begin = number * 64 % (len(lanes) - 65)
    x, following = one_hot[lanes[begin : begin + 64]], lanes[begin + 1 : begin + 65]
    y, state, tape = lstm.forward(x, state)
    value, slope = loss(head(y).reshape(-1, 1, 1, len(alphabet)), following.reshape(-1, 1, 1).astype("float32"))
    dy, head_grads = head.backward(y, slope.reshape(64, 32, -1))
    _, _, lstm_grads = lstm.backward(tape, dy)
    rate = 1e-2 * (1 - number / 400)
    for part, grads in ((lstm, lstm_grads), (head, head_grads)):
        _, scale = clip_scale(grads, max_norm=1.0)
        optimizers[part].step(part.params, grads, rate=rate, scale=scale)
    bits.append(float(value) / math.log(2))
print(f"{bits[0]:.2f} bits a character at first, {np.mean(bits[-20:]):.2f} at the end")

# %% [markdown]
# Let it write: each character is drawn from what it expects, and read as the next input.

# %%
draw, step, written = np.random.default_rng(1), lstm.stream(batch_size=1), "The "
for place in range(300):
    read = written[place]
    logits = head(step(one_hot[[alphabet.index(read)]]))[0].astype("float64") / 0.7
    if place + 1 == len(written):
        chances = np.exp(logits - logits.max())
        written += alphabet[draw.choice(len(alphabet), p=chances / chances.sum())]
print(written)

# %%
plt.rcParams.update(style.STYLE)
figure, axes = plt.subplots(figsize=(8, 4))
axes.plot(bits, color=style.BLUE)
axes.set(xlabel="step", ylabel="bits a character", title="Learning to spell", ylim=(0, None))
figure.savefig("characters.png")
assert np.mean(bits[-20:]) < 0.6 * bits[0]
