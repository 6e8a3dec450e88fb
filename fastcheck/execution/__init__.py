"""Chunks of work, buffers, journal; independent of gradients."""
