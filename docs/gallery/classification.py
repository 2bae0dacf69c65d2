# %% [markdown]
# # Sequence classification: digits, read line by line
#
# scikit-learn ships 1797 pictures of digits, 8 x 8 pixels. An LSTM reads each from top to bottom, a line a time step,
# and a dense layer tells the digit from its last state. There is no automatic differentiation: `forward` keeps a
# tape, `backward` takes it, so the whole of training stands in the loop.

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gpulstm as gl
from gpulstm.losses import SoftmaxCrossEntropy
from gpulstm.optimizers import AdamW
from gpulstm.plots import style

images, labels = load_digits(return_X_y=True)
sequences = (images.reshape(-1, 8, 8) / 16).astype("float32").transpose(1, 0, 2)  # (time, batch, features)
train, test = train_test_split(np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=0)

lstm, head, loss = gl.LSTM(8, 64, device="cpu", seed=0), gl.Dense(64, 10, device="cpu", seed=0), SoftmaxCrossEntropy(10)
optimizers = {part: AdamW() for part in (lstm, head)}
for part, optimizer in optimizers.items():
    optimizer.init(part.params)

order, losses = np.random.default_rng(0), []
for _ in range(15):
    for rows in np.array_split(order.permutation(train), len(train) // 64):
        x = sequences[:, rows]
        last, _, tape = lstm.forward(x, outputs="last")
        value, slope = loss(head(last)[:, None, None], labels[rows][:, None, None].astype("float32"))
        dlast, head_grads = head.backward(last, slope[:, 0, 0])
        _, _, lstm_grads = lstm.backward(tape, dlast)
        optimizers[lstm].step(lstm.params, lstm_grads, rate=5e-3)
        optimizers[head].step(head.params, head_grads, rate=5e-3)
        losses.append(float(value))

# %%
last, _, _ = lstm.forward(sequences[:, test], training=False, outputs="last")
told = head(last).argmax(-1)
print(f"{100 * (told == labels[test]).mean():.1f} % of {len(test)} pictures that training did not see")

# %% [markdown]
# When does it know? The same dense layer after every line: hardly before the last two, where the digits differ most.

# %%
states, _ = lstm(sequences[:, test])
right = [100 * (head(state).argmax(-1) == labels[test]).mean() for state in states]

plt.rcParams.update(style.STYLE)
figure, (left, middle) = plt.subplots(1, 2, figsize=(10, 4))
left.plot(losses, color=style.BLUE)
left.set(xlabel="step", ylabel="cross-entropy (nats)", title="Training")
middle.plot(range(1, 9), right, color=style.BLUE, marker="o")
middle.set(xlabel="lines read", ylabel="told right (%)", title="Digits told after so many lines", ylim=(0, 105))
figure.savefig("classification.png")
assert right[-1] > 90
