"""Benchmarks: commands that print one figure each, with what it is measured against."""
