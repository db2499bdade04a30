"""The inbox on a real PostgreSQL: nothing lost, nothing twice, in order, and nobody in the way of others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import psycopg
import pytest

from bot.database import Database
from bot.inbox import ENDED_OFTEN, Closed, Delivery, Done, Inbox, Later, Outcome, Parked, Tick, again, parked
from tests.database import Cluster
from tests.examples import NOW


def delivery(number: int, lane: str = "run:480", kind: str = "hook") -> Delivery:
    """The delivery of that number; numbers are their order in time."""
    return Delivery(f"{lane}:{number}", lane, kind, str(number).encode(), NOW + timedelta(seconds=number))


@dataclass
class Worker:
    """Notes what it was given; `outcomes` are what it says, one per call, then Done. `gate` holds it up."""

    calls: list[tuple[str, ...]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def __call__(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        self.calls.append(tuple(one.payload.decode() for one in deliveries))
        self.changed.set()
        await self.gate.wait()
        return [self.outcomes.pop(0) if self.outcomes else Done()] * len(deliveries)

    async def until(self, seen: Callable[[], bool]) -> None:
        """Return once it has been given what makes `seen` true."""
        async with asyncio.timeout(30):
            while not seen():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def running(database: Database, worker: Worker, ticks: Sequence[Tick] = ()) -> AsyncIterator[Inbox]:
    """A started inbox, stopped at the end as by SIGTERM."""
    inbox = Inbox(database, worker, together=frozenset({"hook"}), ticks=ticks)
    await inbox.start()
    try:
        yield inbox
    finally:
        await inbox.stop()


async def undone(database: Database) -> list[str]:
    """The payloads that still wait, in order."""
    async with database.pool.connection() as connection:
        asked = await connection.execute("select payload from delivery where done is null and parked is null order by received")
        return [row[0].decode() for row in await asked.fetchall()]


async def wake_ups(database: Database, many: int) -> list[tuple[str, dict[str, str]]]:
    """The durable wake-ups, once there are so many."""
    async with asyncio.timeout(10):
        while True:
            async with database.pool.connection() as connection:
                asked = await connection.execute(
                    "select queueing_lock, args from procrastinate_jobs where task_name = 'callboard.wake' order by 1"
                )
                jobs = await asked.fetchall()
            if len(jobs) >= many:
                return jobs
            await asyncio.sleep(0.02)


async def settled(database: Database) -> None:
    """Return once nothing waits."""
    async with asyncio.timeout(30):
        while await undone(database):  # noqa: ASYNC110 the database has no event to wait for
            await asyncio.sleep(0.01)


async def test_a_delivery_is_worked_off(database: Database) -> None:
    worker = Worker()
    async with running(database, worker) as inbox:
        new = await inbox.keep(delivery(1))
        await settled(database)

    assert new
    assert worker.calls == [("1",)]


async def test_the_same_delivery_twice_is_kept_once(database: Database) -> None:
    worker = Worker()
    async with running(database, worker) as inbox:
        news = await asyncio.gather(*(inbox.keep(delivery(1)) for _ in range(5)))
        await settled(database)
        again = await inbox.keep(delivery(1))

    assert sorted([*news, again]) == [False] * 5 + [True]
    assert worker.calls == [("1",)]


async def test_events_that_wait_become_one_call(database: Database) -> None:
    worker = Worker()
    worker.gate.clear()
    async with running(database, worker) as inbox:
        await inbox.keep(delivery(1))
        await worker.until(lambda: len(worker.calls) == 1)
        await asyncio.gather(*(inbox.keep(delivery(number)) for number in (4, 2, 3)))
        worker.gate.set()
        await settled(database)

    assert worker.calls == [("1",), ("2", "3", "4")]


async def test_clicks_are_worked_off_one_by_one_in_order(database: Database) -> None:
    worker = Worker()
    worker.gate.clear()
    async with running(database, worker) as inbox:
        await asyncio.gather(*(inbox.keep(delivery(number, "person:U0ADA0001", "click")) for number in (1, 2, 3)))
        worker.gate.set()
        await settled(database)

    assert worker.calls == [("1",), ("2",), ("3",)]


async def test_a_lane_that_is_stuck_is_in_nobodys_way(database: Database) -> None:
    worker = Worker()
    worker.gate.clear()
    async with running(database, worker) as inbox:
        await inbox.keep(delivery(1, "run:1"))
        await inbox.keep(delivery(2, "run:2"))

        await worker.until(lambda: len(worker.calls) == 2)

        worker.gate.set()
    assert sorted(worker.calls) == [("1",), ("2",)]


async def test_what_cannot_be_done_now_is_tried_again(database: Database) -> None:
    worker = Worker(outcomes=[Later(0.05, "Azure DevOps does not answer."), Later(0.0, "Azure DevOps does not answer.")])
    async with running(database, worker) as inbox:
        await inbox.keep(delivery(1))
        await settled(database)

    assert worker.calls == [("1",), ("1",), ("1",)]


async def test_what_is_given_up_is_parked_and_lets_others_pass(database: Database) -> None:
    worker = Worker(outcomes=[Parked("beef", "A handler raised KeyError.")])
    async with running(database, worker) as inbox:
        await inbox.keep(delivery(1))
        await worker.until(lambda: len(worker.calls) == 1)
        await inbox.keep(delivery(2))
        await settled(database)
        given_up = await parked(database)

    assert worker.calls == [("1",), ("2",)]
    assert [(one.reference, one.lane, one.problem) for one in given_up] == [("beef", "run:480", "A handler raised KeyError.")]


async def test_a_parked_delivery_can_be_put_back(database: Database) -> None:
    first = Worker(outcomes=[Parked("beef", "A handler raised KeyError.")])
    async with running(database, first) as inbox:
        await inbox.keep(delivery(1))
        await settled(database)
        found = (await again(database, "beef"), await again(database, "beef"))

    second = Worker()
    async with running(database, second):
        await settled(database)

    assert found == (True, False)
    assert second.calls == [("1",)]


async def test_evidence_is_kept_and_never_worked_off(database: Database) -> None:
    worker = Worker()
    async with running(database, worker) as inbox:
        await inbox.keep(delivery(1), Done())
        await inbox.keep(delivery(2), Parked("feed", "The event names no run."))
        given_up = await parked(database)

    assert worker.calls == []
    assert [one.reference for one in given_up] == ["feed"]


async def test_a_delivery_survives_the_end_of_the_process_that_took_it(database: Database) -> None:
    killed = Worker()
    killed.gate.clear()
    inbox = Inbox(database, killed, together=frozenset({"hook"}))
    await inbox.start()
    await inbox.keep(delivery(1))
    await killed.until(lambda: len(killed.calls) == 1)
    await inbox.stop(seconds=0)

    worker = Worker()
    async with running(database, worker):
        await settled(database)

    assert worker.calls == [("1",)]


async def test_a_delivery_that_keeps_ending_the_bot_is_parked(database: Database) -> None:
    worker = Worker()
    async with running(database, worker) as inbox:
        worker.gate.clear()
        await inbox.keep(delivery(1))
        await worker.until(lambda: len(worker.calls) == 1)
        await inbox.stop(seconds=0)
    async with database.pool.connection() as connection:
        await connection.execute("update delivery set begun = %s", (ENDED_OFTEN,))

    after = Worker()
    async with running(database, after) as inbox:
        await settled(database)
        given_up = await parked(database)

    assert after.calls == []
    assert [one.lane for one in given_up] == ["run:480"]


async def test_a_delivery_that_ended_the_bot_is_taken_alone(database: Database) -> None:
    killed = Worker()
    killed.gate.clear()
    inbox = Inbox(database, killed, together=frozenset({"hook"}))
    await inbox.start()
    await inbox.keep(delivery(1))
    await killed.until(lambda: len(killed.calls) == 1)
    await inbox.keep(delivery(2))
    await inbox.stop(seconds=0)

    worker = Worker()
    async with running(database, worker):
        await settled(database)

    assert worker.calls == [("1",), ("2",)]


async def test_two_replicas_never_work_on_one_lane_at_once(database: Database, postgres: Cluster) -> None:
    other = Database(database.url)
    await other.open()
    worker = Worker()
    worker.gate.clear()
    async with running(database, worker) as one, running(other, worker) as two:
        await one.keep(delivery(1))
        await worker.until(lambda: len(worker.calls) == 1)
        await two.keep(delivery(2))
        before = list(worker.calls)
        worker.gate.set()
        await settled(database)
    await other.close()

    assert before == [("1",)]
    assert worker.calls == [("1",), ("2",)]


async def test_a_lane_is_woken_durably_with_what_was_kept(database: Database) -> None:
    worker = Worker()
    async with running(database, worker) as inbox:
        await inbox.keep(delivery(1))
        await inbox.keep(delivery(2))
        await settled(database)
        jobs = await wake_ups(database, 1)

    assert jobs == [("lane:run:480", {"lane": "run:480"})]


async def test_a_wake_up_that_is_queued_already_is_enough(database: Database) -> None:
    async with running(database, Worker()) as inbox:
        await inbox.keep(delivery(1))
        await wake_ups(database, 1)

    worker = Worker()
    async with running(database, worker) as inbox:
        await asyncio.gather(inbox.keep(delivery(2)), inbox.keep(delivery(3, "run:481")))
        await settled(database)
        jobs = await wake_ups(database, 2)

    assert [lock for lock, _ in jobs] == ["lane:run:480", "lane:run:481"]
    assert sorted(worker.calls) == [("2",), ("3",)]


async def test_nothing_is_kept_before_the_start_or_after_the_end(database: Database) -> None:
    inbox = Inbox(database, Worker(), together=frozenset())
    with pytest.raises(Closed):
        await inbox.keep(delivery(1))
    await inbox.start()
    await inbox.stop()

    with pytest.raises(Closed):
        await inbox.keep(delivery(1))


async def test_a_database_that_went_away_is_found_again(database: Database) -> None:
    worker = Worker()
    async with running(database, worker) as inbox:
        await inbox.keep(delivery(1))
        await settled(database)
        with psycopg.connect(database.url, autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
            )

        await inbox.keep(delivery(2))
        await worker.until(lambda: len(worker.calls) == 2)

    assert worker.calls == [("1",), ("2",)]


async def test_hostile_text_fails_nobody_else(database: Database) -> None:
    worker = Worker()
    async with running(database, worker) as inbox:
        await asyncio.gather(inbox.keep(delivery(1, "run:\0")), inbox.keep(delivery(2)))
        await settled(database)

    assert sorted(worker.calls) == [("1",), ("2",)]


async def test_a_tick_runs_on_one_replica(database: Database) -> None:
    ticked = asyncio.Event()

    async def tick() -> None:
        ticked.set()

    async with running(database, Worker(), ticks=[Tick("sample", "* * * * * *", tick)]), asyncio.timeout(30):
        await ticked.wait()


async def test_a_lock_is_held_once_and_given_back(database: Database, postgres: Cluster) -> None:
    other = Database(database.url)
    async with database.locks.hold("lane:1") as mine, database.locks.hold("lane:1") as again_mine, other.locks.hold("lane:1") as theirs:
        before = (mine, again_mine, theirs)

    async with other.locks.hold("lane:1") as theirs:
        after = theirs
    await other.locks.close()

    assert before == (True, False, False)
    assert after


async def test_many_locks_asked_for_at_once_are_all_given_back(database: Database) -> None:
    names = [f"lane:{number}" for number in range(20)]

    async def held(name: str) -> bool:
        async with database.locks.hold(name) as mine:
            return mine

    first = await asyncio.gather(*(held(name) for name in names))

    async with database.pool.connection() as connection:
        row = await (await connection.execute("select count(*) from pg_locks where locktype = 'advisory'")).fetchone()
    assert first == [True] * 20
    assert row == (0,)
