"""Benches: they measure, side by side with peers, and never fail on a time."""
