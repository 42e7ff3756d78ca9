"""Delays and loops, on a clock that is handed in."""
