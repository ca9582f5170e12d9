"""Threads of our own for handlers.

Servers run plain handlers in a pool of 40 threads, and a host's jobs wait for each other in them: with 40 jobs queued
nothing else is answered. What must be answered at any time is therefore a coroutine, and what takes time runs here.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary


class Threads:
    """At most `count` calls at a time; further ones wait in their order without a thread."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._limiters: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    async def run(self, call: Callable[[], Any]) -> Any:
        """What `call` returns, called in one of the threads; what it raises is raised."""
        import anyio
        import anyio.to_thread

        loop = asyncio.get_running_loop()
        if loop not in self._limiters:  # a limiter belongs to the loop it was made in
            self._limiters[loop] = anyio.CapacityLimiter(self._count)
        return await anyio.to_thread.run_sync(call, limiter=self._limiters[loop])

    def handler(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` as a handler that needs none of the server's own threads."""

        @functools.wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self.run(functools.partial(function, *args, **kwargs))

        # the server evaluates annotations where the handler was written, which `wraps` does not carry over
        call.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
        return call
