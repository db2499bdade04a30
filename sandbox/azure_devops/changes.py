"""Who waits for something to change is woken when anything does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Changes:
    """Wakes those who wait for a condition whenever a record changed; `version` counts the changes."""

    def __init__(self) -> None:
        self.version = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def happened(self) -> None:
        """Something changed."""
        self.version += 1
        for waiting in tuple(self._waiting):
            if not waiting.done():
                waiting.set_result(None)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once the condition holds."""
        while not condition():
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)
