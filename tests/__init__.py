"""The tests of fastcheck, and the oracles that they hold it against."""
