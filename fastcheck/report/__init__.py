"""Reports: plain data and its renderings. Strings come out; nothing is printed."""

from fastcheck.report.data import Report

__all__ = ["Report"]
