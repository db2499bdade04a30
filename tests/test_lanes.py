"""Lanes: one worker per name, and the rest between two pieces of work. On a real PostgreSQL, which holds the locks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bot.database import Database
from bot.lanes import Lanes


class Desk:
    """Work that arrives by name, in pieces; each call does one piece and takes a moment."""

    def __init__(self) -> None:
        self.left: dict[str, int] = {}
        self.calls: list[str] = []
        self.at_once = 0
        self.most_at_once = 0

    async def work(self, name: str) -> float | None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.005)
        self.at_once -= 1
        if not self.left.get(name):
            return None
        self.left[name] -= 1
        self.calls.append(name)
        return 0.0

    async def idle(self) -> None:
        """Return once nothing is left."""
        async with asyncio.timeout(20):
            while any(self.left.values()):  # noqa: ASYNC110 the desk has no event to wait for
                await asyncio.sleep(0.005)


@asynccontextmanager
async def lanes(database: Database, desk: Desk, rest: float = 0.0) -> AsyncIterator[Lanes]:
    """Lanes that are open for the time of the block; those whose name begins with `run:` rest."""
    opened = Lanes("test", database.locks, desk.work, at_once=8, rest=lambda name: rest if name.startswith("run:") else 0.0)
    opened.open()
    yield opened
    await opened.close(5)


async def test_a_lane_is_worked_on_until_nothing_is_left_by_one_worker(database: Database) -> None:
    desk = Desk()
    desk.left = {"person:ada": 5}

    async with lanes(database, desk) as here:
        for _ in range(10):
            here.poke("person:ada")
        await desk.idle()

    assert desk.calls == ["person:ada"] * 5
    assert desk.most_at_once == 1


async def test_a_lane_that_rests_does_one_piece_at_a_time_and_forgets_none(database: Database) -> None:
    desk = Desk()
    desk.left = {"run:480": 3, "person:ada": 3}

    async with lanes(database, desk, rest=0.2) as here:
        here.poke("run:480")
        here.poke("person:ada")
        await desk.idle()

    assert desk.calls.count("run:480") == 3
    assert desk.calls[:4].count("person:ada") == 3


async def test_nothing_begins_once_lanes_are_closed(database: Database) -> None:
    desk = Desk()

    async with lanes(database, desk) as here:
        pass
    desk.left = {"run:480": 1}
    here.poke("run:480")
    await asyncio.sleep(0.05)

    assert desk.calls == []
