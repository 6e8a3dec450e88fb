"""What must not change unnoticed: the public API and the numbers, kept in two files."""
