"""Arrays on one device: backends, parameters, products, random masks, checkpoints; nothing recurrent."""
