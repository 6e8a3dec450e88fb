"""Right gradients in every precision, made with plain NumPy."""
