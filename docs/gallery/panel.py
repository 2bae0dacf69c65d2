# %% [markdown]
# # A panel: life expectancy in 142 countries
#
# Many short series in one table: twelve values each, five years apart, from Gapminder as plotly ships them (`pip
# install plotly`). The continent stays the same within a series, so it is a static covariate; a text becomes one
# column a value by itself. Two steps, ten years, are forecast.

# %%
import matplotlib.pyplot as plt
import numpy as np
import plotly.data

import gpulstm as gl
from gpulstm.plots import style

table = plotly.data.gapminder()[["country", "continent", "year", "lifeExp"]]
forecaster = gl.Forecaster(horizon=2, test=2, device="cpu", seed=0)
forecaster.fit(table, target="lifeExp", static="continent", time="year", series="country", progress=False)
print(forecaster.summary())

# %% [markdown]
# The last two values of each country were kept: what would the forecasts of 1997 have been worth?

# %%
result = forecaster.backtest()
print(result.verdict())
errors = {name: result.errors(series=at)["model"]["MAE"] for at, name in enumerate(result.names)}
worst = sorted(errors, key=errors.__getitem__)[-3:]
print("least foreseen:", ", ".join(f"{name} ({errors[name]:.1f} years)" for name in worst))

# %% [markdown]
# Three countries where nothing happened, and the three above, where something did.

# %%
chosen = ["Brazil", "Egypt", "Japan", *worst]
plt.rcParams.update(style.STYLE)
figure, grid = plt.subplots(2, 3, figsize=(10, 5.4), sharex=True, sharey=True)
for axes, name in zip(grid.flat, chosen, strict=True):
    row = result.names.index(name)
    own = table[table["country"] == name]
    axes.plot(own["year"], own["lifeExp"], color=style.BLACK, marker="o", markersize=3, label="observed")
    low, middle, high = np.moveaxis(result.quantiles[row, :, 0], -1, 0)
    axes.fill_between(result.index[row], low, high, color=style.BLUE, alpha=0.18, linewidth=0, label="80 % interval")
    axes.plot(result.index[row], middle, color=style.BLUE, linewidth=2, label="median")
    axes.set_title(name)
grid[0, 0].set_ylabel("life expectancy (years)")
grid[1, 0].set_ylabel("life expectancy (years)")
grid[0, 0].legend(loc="lower right")
figure.suptitle("Forecasts of 2002 and 2007, made in 1997", x=0.01, ha="left")
figure.savefig("panel.png")
