"""Differences of a function that is a black box: components, directions, the needle."""
