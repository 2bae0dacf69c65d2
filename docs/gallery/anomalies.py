# %% [markdown]
# # Anomaly detection: days that nobody could foresee
#
# A forecaster that knows how sure it is also says what is odd: a value outside a band of 98 %. One day ahead, over
# the last year of Seattle's temperatures; about two days in a hundred lie outside by chance alone.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import gpulstm as gl
from gpulstm import datasets
from gpulstm.plots import style

table = pd.read_csv(datasets.path("seattle_weather"))
faulty = table.copy()
broken = {"2015-03-10": 31.0, "2015-07-21": 2.0, "2015-11-02": -11.0}  # what a broken thermometer might say
for day, value in broken.items():
    faulty.loc[faulty["date"] == day, "temp_max"] = value

forecaster = gl.Forecaster(horizon=1, quantiles=(0.01, 0.5, 0.99), test=365, device="cpu", seed=0)
forecaster.fit(table, target="temp_max", time="date", progress=False)

# %% [markdown]
# The backtest forecasts each day from all days before it. A day is odd if it lies outside its band; the score is how
# far, in widths of the band. The day after a fault is odd too: its forecast began at a wrong value.

# %%
result = forecaster.backtest(forecaster.read(faulty), stride=1)
low, middle, high = np.moveaxis(result.quantiles[:, 0, 0], -1, 0)
value, day = result.actual[:, 0, 0], result.index[:, 0].astype("datetime64[D]")
score = np.maximum(low - value, value - high) / (high - low)
odd = np.flatnonzero(score > 0)
print(f"{len(odd)} of {len(day)} days outside the band of 98 %; the oddest:")
for at in odd[np.argsort(-score[odd])][:6]:
    print(day[at], f"{value[at]:5.1f} °C, expected {low[at]:.1f} to {high[at]:.1f}")
assert set(broken) <= {str(day[at]) for at in odd}

# %%
plt.rcParams.update(style.STYLE)
figure, axes = plt.subplots(figsize=(10, 4.5))
axes.fill_between(day, low, high, color=style.BLUE, alpha=0.18, linewidth=0, label="98 % interval, a day ahead")
axes.plot(day, value, color=style.BLACK, linewidth=0.9, label="observed")
axes.plot(day[odd], value[odd], "o", color=style.VERMILION, label="outside")
axes.set_ylabel("highest temperature (°C)")
figure.suptitle("Seattle in 2015, with three faults put in", x=0.01, ha="left")
style.time_axis(axes, day)
style.legend_above(axes)
figure.savefig("anomalies.png")
