"""Reporting of swallowed exceptions: printed, and kept for whoever wants to look at them."""

from __future__ import annotations

import sys
import textwrap
import traceback

MAX_RECORDS = 50
exception_records: list[dict[str, str]] = []
"""Newest last: {"message", "exception", "traceback"}; at most `MAX_RECORDS`."""


class WrongRequest(ValueError):
    """A job that asks for what cannot be; answered with this status over HTTP, where the real host has 500."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.status_code = 422
        self.detail = problem


def record_exception(message: str = "") -> None:
    """Remember the exception being handled, if there is one."""
    kind, exception, trace = sys.exc_info()
    if kind is None:
        return
    text = "".join(traceback.format_exception(kind, exception, trace))
    exception_records.append({"message": message, "exception": f"{kind.__name__}: {exception}", "traceback": text})
    del exception_records[:-MAX_RECORDS]


def report(message: str, *, exc_info: bool = False) -> None:
    """Print `message` to stderr, with the traceback of the current exception when `exc_info` is set."""
    record_exception(message)
    text = textwrap.indent(message, "*** ", lambda _: True)
    if exc_info:
        text += "\n" + textwrap.indent(traceback.format_exc(), "    ") + "\n---"
    print(text, file=sys.stderr)


def display(e: Exception, task: str, *, full_traceback: bool = False) -> None:
    """Print an exception that happened while doing `task`."""
    record_exception(task)
    print(f"{task or 'error'}: {type(e).__name__}", file=sys.stderr)
    frames = traceback.TracebackException.from_exception(e)
    if full_traceback:
        frames.stack.extend(traceback.extract_stack()[:-1])
    print(*frames.format(), sep="", file=sys.stderr)


def print_error_explanation(message: str) -> None:
    lines = message.strip().split("\n")
    width = max(map(len, lines))
    print("=" * width, *lines, "=" * width, sep="\n", file=sys.stderr)


def run(code, task: str) -> None:
    """Call `code()`; an exception is displayed, not raised."""
    try:
        code()
    except Exception as e:  # noqa: BLE001 - the host's rule: start-up tasks must not stop the start
        display(e, task)
