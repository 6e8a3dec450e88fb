"""Which components are checked, and what a sample covers."""
