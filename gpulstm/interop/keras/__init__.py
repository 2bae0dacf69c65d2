"""Keras models and weights in and out; Keras itself is not needed."""
