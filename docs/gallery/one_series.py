# %% [markdown]
# # One series: carbon dioxide, a year ahead
#
# Weekly measurements at Mauna Loa since 1958 come with the package. The last six years are kept for the comparison,
# the rest is for the fit; horizon, season and windows are found in the data, but for the year that is asked for.

# %%
import gpulstm as gl
from gpulstm import datasets

series = datasets.co2()
forecaster = gl.Forecaster(horizon=52, test=6 * 52, device="cpu", seed=0)
forecaster.fit(series, progress=False)
print(forecaster.summary())

# %% [markdown]
# Is it any good? The backtest forecasts from many weeks of those six years and compares with forecasts that need no
# model. MASE below 1 is better than last year's values again.

# %%
result = forecaster.backtest()
print(result.verdict())

# %% [markdown]
# Now fit again with the newest rows, and forecast the year that follows. `forecast.to_csv(path)` writes the same
# numbers.

# %%
whole = gl.Forecaster(horizon=52, test=0, device="cpu", seed=0).fit(series, progress=False)
forecast = whole.predict()
axes = forecast.plot(series, title="Carbon dioxide at Mauna Loa, a year ahead", label="CO2 (ppm)")
axes.figure.savefig("one_series.png")
