"""From files and from other programs' objects to a network, a batch and its gradient."""
