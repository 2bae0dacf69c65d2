# %% [markdown]
# # Streaming: one row a time, the state kept
#
# Values arrive one by one and each needs an answer at once. `stream` keeps the layers' state between calls, so a new
# row costs one step, not a whole window; the results are those of one pass over all rows.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import gpulstm as gl
from gpulstm import datasets
from gpulstm.plots import style

table = pd.read_csv(datasets.path("seattle_weather"), parse_dates=["date"])
day, weather = table["date"].to_numpy(), table[["temp_max", "temp_min", "wind"]].to_numpy("float32")
rows = ((weather - weather.mean(0)) / weather.std(0))[:, None]  # (time, 1, features)

lstm = gl.LSTM(3, 64, num_layers=2, device="cpu", seed=0)
step = lstm.stream(batch_size=1)
outputs = np.stack([step(row).copy() for row in rows])
whole, _ = lstm(rows)
print("largest difference from one pass over all rows below 1e-5:", bool(np.abs(outputs - whole).max() < 1e-5))

# %% [markdown]
# The state can be kept and put back: after a restart the stream goes on where it was.

# %%
first = lstm.stream(batch_size=1)
for row in rows[:1000]:
    first(row)
second = lstm.stream(batch_size=1)
second.state = first.state
assert all(np.array_equal(second(row), output) for row, output in zip(rows[1000:], outputs[1000:], strict=True))

# %% [markdown]
# A fitted forecaster streams too, `forecaster.stream()`: `update` takes a row and gives the next forecast.

# %%
forecaster = gl.Forecaster(horizon=7, members=("simple", "ridge"), device="cpu").fit(weather[:-60, 0], progress=False)
live = forecaster.stream()
tomorrow = [float(live.update(row).mean[0, 0, 0]) for row in weather[-60:, :1]]

plt.rcParams.update(style.STYLE)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
for unit, color in zip((0, 20, 40), style.CYCLE, strict=False):
    left.plot(day[-365:], outputs[-365:, 0, unit], color=color, label=f"unit {unit}")
left.set(ylabel="output", title="The last year, step by step\n")
right.plot(day[-60:], weather[-60:, 0], color=style.BLACK, label="observed")
right.plot(day[-60:] + np.timedelta64(1, "D"), tomorrow, color=style.BLUE, label="forecast the day before")
right.set(ylabel="highest temperature (°C)", title="Two months, streamed\n")
for axes, shown in ((left, day[-365:]), (right, day[-60:])):
    style.time_axis(axes, shown)
    style.legend_above(axes)
figure.savefig("streaming.png")
