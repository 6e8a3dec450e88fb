"""The reference backward pass and the embedded example."""
