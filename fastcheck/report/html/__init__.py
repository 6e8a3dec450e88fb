"""The report as a page with pictures."""
