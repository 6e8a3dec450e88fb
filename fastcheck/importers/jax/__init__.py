"""JAX models and their gradients."""
