"""Threads for requests that wait for each other, beside the 40 of the server's own pool."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread

COUNT = 512
"""More than wait at once; those beyond wait without a thread, in their order."""
_limiters: WeakKeyDictionary[Any, anyio.CapacityLimiter] = WeakKeyDictionary()


def waiting(function: Callable[..., Any]) -> Callable[..., Any]:
    """A handler that may wait in the queue of jobs: 40 of them in the server's own pool would stop every other answer,
    that of "interrupt" too."""

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        loop = asyncio.get_running_loop()
        if loop not in _limiters:
            _limiters[loop] = anyio.CapacityLimiter(COUNT)
        return await anyio.to_thread.run_sync(functools.partial(function, *args, **kwargs), limiter=_limiters[loop])

    # FastAPI evaluates annotations where the handler was written, which `wraps` does not carry over
    call.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
    return call
