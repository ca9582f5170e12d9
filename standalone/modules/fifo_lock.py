"""A lock that serves waiting threads in the order of their arrival. Not re-entrant."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class FIFOLock:
    """Mutual exclusion, first come first served. A second acquire by the holder waits for ever."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._held = False

    def acquire(self, blocking: bool = True) -> bool:
        with self._guard:
            if not self._held:
                self._held = True
                return True
            if not blocking:
                return False
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()
        return True

    def release(self) -> None:
        with self._guard:
            if not self._held:
                raise RuntimeError("release of a lock that is not held")
            if self._waiting:
                self._waiting.popleft().release()  # ownership passes on, the lock stays held
            else:
                self._held = False

    def locked(self) -> bool:
        return self._held

    def __enter__(self) -> FIFOLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
