"""Ray's own command line in its locked environment: `python launch.py ray start --head`, `status`, `stop` ..."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """As Ray's `ray`; a head starts without the dashboard, whose packages the lock has not."""
    arguments = list(argv)
    given = any(argument.startswith("--include-dashboard") for argument in arguments)
    if "--head" in arguments and not given:
        arguments.append("--include-dashboard=false")
    sys.argv = ["ray", *arguments]
    return importlib.import_module("ray.scripts.scripts").main() or 0
