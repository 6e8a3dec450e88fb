"""All numba code: activations, losses, the forward pass, difference propagation. Arrays only."""
