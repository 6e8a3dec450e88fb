"""Keras models and their gradients."""
