"""The long run: `python -m tests.fuzz --calls 10000 [--seed 1] [--port P]`, against a server of its own or a given one.

Call n of a seed is the same request in every run: `--only n` repeats it. Faults go to --faults as lines of JSON.
"""

from __future__ import annotations

import argparse
import collections
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

from .grammar import Request, job_schemas, request
from .oracle import Answer, Oracle
from .server import call, served, swallowed

HANG = 120.0


class Run:
    """Counts of one run."""

    def __init__(self, port: int, options: argparse.Namespace, log: Path | None) -> None:
        self._port = port
        self._log = log
        self._told = 0
        self._options = options
        self.statuses: collections.Counter[str] = collections.Counter()
        self.faults: list[dict[str, Any]] = []
        self._oracle = Oracle(self._send, options.slow)
        self._schema = job_schemas(call(port, Request("GET", "/openapi.json"), HANG).json())

    def _send(self, made: Request) -> Answer:
        return call(self._port, made, HANG)

    def one(self, number: int) -> str:
        """Makes call `number`; what was wrong with it."""
        made = request(Random(f"{self._options.seed}:{number}"), self._schema)
        answer = self._send(made)
        self.statuses[f"{made.path.split('?')[0]} {answer.status}"] += 1
        wrong = self._oracle.judge(made, answer)
        if wrong:
            self._fault(number, made, wrong)
        return wrong

    def unchanged(self, number: int) -> None:
        """Notes where the uncontrolled pictures are no longer what they were, and what the host has swallowed."""
        wrong = self._oracle.unchanged()
        if wrong:
            self._fault(number, None, wrong)
        told = swallowed(self._log)
        for line in told[self._told :]:
            self._fault(number, None, f"swallowed before this call: {line}")
        self._told = len(told)

    def _fault(self, number: int, made: Request | None, wrong: str) -> None:
        self.faults.append({"call": number, "wrong": wrong})
        said = "" if made is None else json.dumps(made.body)[:20_000]
        line = json.dumps({"call": number, "wrong": wrong, "path": made and made.path, "body": said})
        with Path(self._options.faults).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(f"call {number}: {wrong[:300]}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, help="of a running server; by default one is started")
    parser.add_argument("--every", type=int, default=500, help="calls between comparisons of the uncontrolled pictures")
    parser.add_argument("--slow", type=float, default=60.0, help="seconds a call may take")
    parser.add_argument("--faults", default="fuzz-faults.jsonl")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server ends too
    if options.port:
        return _run(options.port, options, None)
    with tempfile.TemporaryDirectory() as data, served(Path(data)) as (port, log):
        return _run(port, options, log)


def _run(port: int, options: argparse.Namespace, log: Path | None) -> int:
    run = Run(port, options, log)
    numbers = [options.only] if options.only is not None else range(options.first, options.first + options.calls)
    began = time.monotonic()
    for done, number in enumerate(numbers, 1):
        run.one(number)
        if done % options.every == 0 or done == len(numbers):
            run.unchanged(number)
            print(f"{done} calls, {len(run.faults)} faults, {time.monotonic() - began:.0f} s", flush=True)
    print(json.dumps(run.statuses, indent=1, sort_keys=True))
    print(f"{len(numbers)} calls, {len(run.faults)} faults")
    return bool(run.faults)


if __name__ == "__main__":
    sys.exit(main())
