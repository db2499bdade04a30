"""Lanes: work that has a name, done by one worker at a time, in this process and among replicas; asked for as often as anybody likes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import psycopg
from psycopg_pool import PoolTimeout

from bot.database import Locks

log = logging.getLogger(__name__)

ELSEWHERE = 1.0  # seconds until a lane is tried again that another replica works on: it may have looked before our part was there
NO_DATABASE = 2.0

Work = Callable[[str], Awaitable[float | None]]
"""Do the next piece of a lane's work. Returns None where nothing is left, else the seconds until there is more: 0.0 is at once."""


def _never(_: str) -> float:
    return 0.0


class Lanes:
    """Runs `work` for every name that is poked, at most `at_once` at a time. Nothing is remembered here: a lost poke must be harmless.

    A lane that has just been worked on rests for `rest(name)` seconds: what comes in a burst is then done together, its first at once.
    """

    def __init__(self, kind: str, locks: Locks, work: Work, *, at_once: int, rest: Callable[[str], float] = _never) -> None:
        self._kind = kind
        self._locks = locks
        self._work = work
        self._rest = rest
        self._slots = asyncio.Semaphore(at_once)
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._waiting: dict[str, asyncio.TimerHandle] = {}
        self._resting: set[str] = set()
        self._open = False

    def open(self) -> None:
        """Work from now on."""
        self._open = True

    def poke(self, name: str) -> None:
        """See to a lane: at once, or once more where it is being worked on."""
        if not self._open:
            return
        if waiting := self._waiting.pop(name, None):
            waiting.cancel()
        if name in self._busy or name in self._resting:
            self._again.add(name)
            return
        self._busy[name] = task = asyncio.create_task(self._run(name), name=f"{self._kind} {name}")
        task.add_done_callback(lambda done: self._ended(name, done))

    def later(self, name: str, seconds: float) -> None:
        """Poke a lane after so many seconds, instead of whatever it was waiting for."""
        if waiting := self._waiting.pop(name, None):
            waiting.cancel()
        if self._open:
            self._waiting[name] = asyncio.get_running_loop().call_later(seconds, self.poke, name)

    async def close(self, seconds: float) -> None:
        """Begin nothing new, let what has begun end within so many seconds, and cut off what has not."""
        self._open = False
        for waiting in self._waiting.values():
            waiting.cancel()
        self._waiting.clear()
        if not self._busy:
            return
        _, late = await asyncio.wait(self._busy.values(), timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _run(self, name: str) -> None:
        try:
            async with self._slots, self._locks.hold(f"{self._kind}:{name}") as mine:
                if not mine:
                    self.later(name, ELSEWHERE)
                    return
                while self._open:
                    self._again.discard(name)
                    seconds = await self._work(name)
                    if seconds and name not in self._again:
                        self.later(name, seconds)
                        return
                    if seconds is None and name not in self._again:
                        return
                    if self._rest(name):
                        self._again.add(name)
                        return
        except (psycopg.OperationalError, PoolTimeout) as error:
            log.warning("%s %s waits for the database: %s", self._kind, name, error)
            self.later(name, NO_DATABASE)

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        del self._busy[name]
        if not task.cancelled() and (error := task.exception()):
            log.error("%s %s was left for the sweep", self._kind, name, exc_info=error)
            self._again.discard(name)
        if self._open and (rest := self._rest(name)):
            self._resting.add(name)
            asyncio.get_running_loop().call_later(rest, self._rested, name)
        else:
            self._rested(name)

    def _rested(self, name: str) -> None:
        self._resting.discard(name)
        if name in self._again:
            self._again.discard(name)
            self.poke(name)
