"""Benchmarks of `python launch.py bench`: what control costs, in CPU seconds and in one process with its yardstick."""
