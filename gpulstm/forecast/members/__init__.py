"""Who forecasts: simple forecasts, a ridge, and small networks, behind one protocol."""
