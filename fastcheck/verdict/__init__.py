"""From two gradients to a verdict."""
