# %% [markdown]
# # Known in advance: temperature with a weather forecast
#
# Some inputs are known for the days ahead: prices, plans, or what a weather service says. Here the highest temperature
# of the day in Seattle is forecast for two weeks, once from the past alone and once with the lowest of each night and
# the rain known, as if their forecast were right.

# %%
import pandas as pd

import gpulstm as gl
from gpulstm import datasets
from gpulstm.plots import style

table = pd.read_csv(datasets.path("seattle_weather"))
past, ahead = table.iloc[:-14], table.iloc[-14:]
options = {"horizon": 14, "test": 365, "device": "cpu", "seed": 0}

without = gl.Forecaster(**options).fit(past, target="temp_max", time="date", progress=False)
known = ["temp_min", "precipitation"]
informed = gl.Forecaster(**options).fit(past, target="temp_max", time="date", future=known, progress=False)
for name, forecaster in {"past alone": without, "nights and rain known": informed}.items():
    print(f"{name:22} MAE {forecaster.backtest().metrics()['model']['MAE']:.2f} °C over the last year")

# %% [markdown]
# Where a fit names `future` columns, a forecast needs their values for the steps ahead, as a table with the same
# names.

# %%
forecast = informed.predict(future=ahead[["date", *known]])
series = informed.read(past)
axes = forecast.plot(series, title="Highest temperature in Seattle, two weeks ahead", label="temperature (°C)")
axes.plot(pd.to_datetime(ahead["date"]), ahead["temp_max"], color=style.BLACK, linestyle=":", label="what came")
style.legend_above(axes)
axes.figure.savefig("weather.png")
