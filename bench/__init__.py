"""Benchmarks: each compares with something else in the same run, and prints ratios."""
