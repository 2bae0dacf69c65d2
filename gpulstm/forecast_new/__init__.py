"""Forecasts: what the members say, how they are mixed, and how sure the mixture is."""
