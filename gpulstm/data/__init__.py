"""Tables to series, series to windows and batches."""
