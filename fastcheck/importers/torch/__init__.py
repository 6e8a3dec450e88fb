"""PyTorch models and their gradients."""
