"""Pictures of plain arrays; what a forecaster gave back is drawn by `forecast.pictures`."""
