"""Nasty networks with right and wrong gradients; nothing here imports fastcheck."""
