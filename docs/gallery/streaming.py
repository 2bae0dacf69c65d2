# %% [markdown]
# # Streaming: one row a time, the state kept
#
# Values arrive one by one and each needs an answer at once. `stream` keeps the layers' state between calls, so a new
# row costs one step, not a whole window; the results are those of one pass over all rows.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import gpulstm as gl
from gpulstm import datasets
from gpulstm.plots import figures

weather = pd.read_csv(datasets.path("seattle_weather"))[["temp_max", "temp_min", "wind"]].to_numpy("float32")
rows = ((weather - weather.mean(0)) / weather.std(0))[:, None]  # (time, 1, features)

lstm = gl.LSTM(3, 64, num_layers=2, device="cpu", seed=0)
step = lstm.stream(batch_size=1)
outputs, seconds = [], []
for row in rows:
    begin = time.perf_counter()
    outputs.append(step(row).copy())
    seconds.append(time.perf_counter() - begin)
whole, _ = lstm(rows)
assert np.allclose(np.stack(outputs), whole, atol=1e-5)

# %% [markdown]
# The other way would be to read the last 64 rows again for every new one.

# %%
again = []
for end in range(64, 264):
    begin = time.perf_counter()
    lstm(rows[end - 64 : end])
    again.append(time.perf_counter() - begin)
print(f"a step of the stream is {np.median(again) / np.median(seconds):.0f} times as fast as a window of 64 rows")

# %% [markdown]
# A fitted forecaster streams too, `forecaster.stream()`: `update` takes a row and gives the next forecast.

# %%
forecaster = gl.Forecaster(horizon=7, members=("simple", "ridge"), device="cpu").fit(weather[:-60, 0], progress=False)
live = forecaster.stream()
tomorrow = [float(live.update(row).mean[0, 0, 0]) for row in weather[-60:, :1]]

plt.rcParams.update(figures.STYLE)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
left.hist(
    [np.array(seconds) * 1e6, np.array(again) * 1e6],
    bins=np.geomspace(1, 2000, 40),
    label=["step", "window of 64 rows"],
    color=[figures.BLUE, figures.VERMILLION],
)
left.set(xscale="log", xlabel="time of a call (µs)", ylabel="calls", title="A step and a window")
left.legend()
right.plot(range(1, 61), weather[-60:, 0], color=figures.BLACK, label="observed")
right.plot(range(2, 62), tomorrow, color=figures.BLUE, label="forecast the day before")
right.set(xlabel="day", ylabel="highest temperature (°C)", title="Two months, streamed")
right.legend()
figure.savefig("streaming.png")
