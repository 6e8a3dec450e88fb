"""What is checked: θ, the network, the batch, and the user's own functions."""
