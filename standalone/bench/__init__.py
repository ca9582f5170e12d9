"""Benchmarks of `python launch.py bench`: what control costs, in CPU seconds and in one process with its yardstick."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Run the cases that `argv` asks for; 0 when every goal is met, 1 when one is not, 2 for wrong arguments."""
    from .cli import run

    return run(argv)
