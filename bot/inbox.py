"""The inbox: what was sent to us, kept once, answered at once, and worked off in order. The only module that knows the queue engine.

Truth is the table `delivery`. The process that accepts a delivery works its lane at once; procrastinate carries what has to happen even
if that process is gone: a wake-up for the lane, a sweep, the timers. A wake-up that is lost or comes twice costs time, never a delivery;
so it is queued after the sender has had its answer.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

import procrastinate
import psycopg
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from procrastinate.jobs import Job, Status
from psycopg.rows import class_row
from psycopg_pool import PoolTimeout

from bot.database import Database
from bot.lanes import Lanes

log = logging.getLogger(__name__)

BATCH = 256  # deliveries in one commit, or in one call of the handlers
LANES_AT_ONCE = 32
ANSWER_FIRST = 0.002  # seconds: the sender is answered before the work on its delivery takes the processor
WAKE_AFTER = 10  # seconds: the accepting process has had its chance by then
ARM_EVERY = 0.5  # seconds: lanes of one burst are armed together
SWEEP = "* * * * * */15"  # procrastinate's sixth field is seconds
TIDY = "17 * * * *"
KEEP_DAYS = 7
ENDED_OFTEN = 5  # a delivery during which the bot died so often is parked


class Closed(Exception):
    """The inbox cannot keep anything at present: the sender shall try again."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Something that was sent to us, as it came. `key` tells it from its repetitions; what shares a `lane` is worked off in order."""

    key: str
    lane: str
    kind: str
    payload: bytes
    received: datetime
    attempts: int = 0
    begun: int = 0
    id: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """The delivery needs no more work."""


@dataclass(frozen=True, slots=True)
class Later:
    """Try again after so many seconds."""

    after: float
    problem: str


@dataclass(frozen=True, slots=True)
class Parked:
    """Give up until somebody looks at it; `reference` is what people are told."""

    reference: str
    problem: str


Outcome = Done | Later | Parked
Work = Callable[[Sequence[Delivery]], Awaitable[Sequence[Outcome]]]
"""Works off deliveries of one lane, one outcome each; several only where they came one after the other and are of a kind in `together`."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Something to run again and again, on one replica at a time; `cron` has five fields, or six with seconds."""

    name: str
    cron: str
    run: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A parked delivery, for people."""

    reference: str
    kind: str
    lane: str
    problem: str
    parked: datetime


class Inbox:
    """Keeps deliveries, works off lanes, runs ticks."""

    def __init__(
        self,
        database: Database,
        work: Work,
        *,
        together: frozenset[str],
        rest: Callable[[str], float] = lambda _: 0.0,
        ticks: Sequence[Tick] = (),
    ) -> None:
        self._database = database
        self._work = work
        self._together = together
        self._engine = procrastinate.App(connector=procrastinate.PsycopgConnector())
        self._wake_up = self._engine.task(name="callboard.wake", queue="callboard")(self._woken)
        for tick in (Tick("sweep", SWEEP, self._sweep), Tick("tidy", TIDY, self._tidy), *ticks):
            self._register(tick)
        self._arriving: list[tuple[Delivery, Outcome | None, asyncio.Future[bool]]] = []
        self._arrived = asyncio.Event()
        self._writing: psycopg.AsyncConnection | None = None
        self._unarmed: set[str] = set()
        self._armed: dict[str, float] = {}
        self._lanes = Lanes("lane", database.locks, self._work_off, at_once=LANES_AT_ONCE, rest=rest)
        self._tasks: list[asyncio.Task[None]] = []
        self._open = False

    # Keeping

    async def keep(self, delivery: Delivery, outcome: Outcome | None = None) -> bool:
        """Keep a delivery for good; False where it was there already. One that has its outcome is only kept as evidence. Raises Closed."""
        if not self._open:
            raise Closed("Callboard is starting or stopping.")
        kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if "\0" in delivery.key or "\0" in delivery.lane:  # PostgreSQL's text has none; one such key must not fail the others in its commit
            delivery = replace(delivery, key=delivery.key.replace("\0", ""), lane=delivery.lane.replace("\0", ""))
        self._arriving.append((delivery, outcome, kept))
        self._arrived.set()
        return await kept

    async def _write(self) -> None:
        """One writer: requests that wait while it commits share the next commit."""
        while self._open or self._arriving:
            await self._arrived.wait()
            self._arrived.clear()
            while self._arriving:
                batch, self._arriving = self._arriving[:BATCH], self._arriving[BATCH:]
                try:
                    new = await self._commit([(delivery, outcome) for delivery, outcome, _ in batch])
                except (psycopg.Error, ConnectorException, TimeoutError) as error:
                    log.warning("The inbox cannot keep anything: %s", error)
                    for _, _, kept in batch:
                        if not kept.done():
                            kept.set_exception(Closed("The database does not answer."))
                    continue
                for delivery, outcome, kept in batch:
                    if not kept.done():
                        kept.set_result(delivery.key in new)
                    if delivery.key in new and outcome is None:
                        self._unarmed.add(delivery.lane)
                        asyncio.get_running_loop().call_later(ANSWER_FIRST, self._lanes.poke, delivery.lane)
                    new.discard(delivery.key)  # the others in this commit are its repetitions

    async def _commit(self, batch: Sequence[tuple[Delivery, Outcome | None]]) -> set[str]:
        """Keep the batch in one statement; the keys that were new. What may have been kept before counts as new."""
        # Sorted: replicas that keep the same keys at once wait for each other instead of deadlocking.
        rows = sorted(batch, key=lambda row: row[0].key)
        for attempt in itertools.count(1):
            try:
                async with asyncio.timeout(5):
                    new = await _insert(await self._writer(), rows)
            except TimeoutError:
                if self._writing is not None:
                    await self._writing.close()  # nobody knows where it stands
                raise
            except psycopg.OperationalError as error:
                if attempt == 3:
                    raise
                log.info("The inbox writes again: %s", error)
            else:
                return new if attempt == 1 else {delivery.key for delivery, _ in rows}
        raise AssertionError

    async def _writer(self) -> psycopg.AsyncConnection:
        if self._writing is None or self._writing.closed:
            self._writing = await psycopg.AsyncConnection.connect(self._database.url, autocommit=True, application_name="callboard-inbox")
        return self._writing

    async def _arm(self) -> None:
        """Queue a wake-up for every lane that has none; the sender does not wait for that, and the sweep covers the moment between."""
        while self._open:
            await asyncio.sleep(ARM_EVERY)
            now = time.monotonic()
            lanes = sorted(lane for lane in self._unarmed if self._armed.get(lane, 0.0) < now)
            self._unarmed.clear()
            if not lanes:
                continue
            try:
                await self._defer([self._wake_job(lane) for lane in lanes])
            except (psycopg.Error, ConnectorException, PoolTimeout) as error:
                log.warning("%d lanes are left to the sweep: %s", len(lanes), error)
                continue
            # A second less: what is kept under an old wake-up must be committed before that is taken up.
            self._armed = {lane: until for lane, until in self._armed.items() if until > now} | dict.fromkeys(lanes, now + WAKE_AFTER - 1)

    async def _defer(self, jobs: Sequence[Job]) -> None:
        """Queue the wake-ups at once; one by one where another replica, or we before a restart, queued some of them."""
        async with self._database.pool.connection() as connection:
            try:
                async with connection.transaction():
                    await self._engine.job_manager.batch_defer_jobs_async(list(jobs), connection=connection)
            except AlreadyEnqueued:
                for job in jobs:
                    with suppress(AlreadyEnqueued):
                        async with connection.transaction():
                            await self._engine.job_manager.batch_defer_jobs_async([job], connection=connection)

    def _wake_job(self, lane: str) -> Job:
        waking = self._wake_up.configure(queueing_lock=f"lane:{lane}", schedule_in={"seconds": WAKE_AFTER}, task_kwargs={"lane": lane})
        return waking.job

    # Working

    async def _work_off(self, lane: str) -> float | None:
        match await self._take(lane):
            case float(seconds):
                return seconds
            case []:
                return None
            case batch:
                await self._settle(batch, await self._worked(batch))
                return 0.0

    async def _worked(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        try:
            return await self._work(batch)
        except (psycopg.OperationalError, PoolTimeout):  # no fault of the delivery's
            async with self._database.pool.connection() as connection:
                await connection.execute("update delivery set begun = begun - 1 where id = any(%s)", ([one.id for one in batch],))
            raise

    async def _take(self, lane: str) -> list[Delivery] | float:
        """The next deliveries of a lane to be worked off together, or how many seconds its first one has to wait."""
        async with self._database.pool.connection() as connection:
            async with connection.cursor(row_factory=class_row(_Waiting)) as cursor:
                await cursor.execute(
                    """
                    select key, lane, kind, payload, received, attempts, begun, id, extract(epoch from due - now())::float8 as wait
                    from delivery where lane = %s and done is null and parked is null order by received, id limit %s
                    """,
                    (lane, BATCH),
                )
                waiting = await cursor.fetchall()
            if not waiting:
                return []
            if waiting[0].wait > 0:
                return waiting[0].wait
            if waiting[0].begun >= ENDED_OFTEN:
                reference = secrets.token_hex(4)
                log.error("A delivery of lane %s ended the bot %d times and is parked: reference %s", lane, ENDED_OFTEN, reference)
                await _settle(connection, waiting[0].id, Parked(reference, f"The bot ended {ENDED_OFTEN} times while it worked on this."))
                return await self._take(lane)
            batch = _together(waiting, self._together)
            await connection.execute("update delivery set begun = begun + 1 where id = any(%s)", ([one.id for one in batch],))
        return batch

    async def _settle(self, batch: Sequence[Delivery], outcomes: Sequence[Outcome]) -> None:
        done = [delivery.id for delivery, outcome in zip(batch, outcomes, strict=True) if isinstance(outcome, Done)]
        async with self._database.pool.connection() as connection:
            if done:
                await connection.execute("update delivery set done = now(), attempts = attempts + 1, begun = 0 where id = any(%s)", (done,))
            for delivery, outcome in zip(batch, outcomes, strict=True):
                if not isinstance(outcome, Done):
                    await _settle(connection, delivery.id, outcome)

    # What happens even if this process does not

    def _register(self, tick: Tick) -> None:
        async def run(timestamp: int) -> None:
            async with self._database.locks.hold(f"tick:{tick.name}") as mine:
                if mine and self._open:
                    await tick.run()

        name = f"callboard.tick.{tick.name}"
        task = self._engine.task(name=name, queue="callboard", queueing_lock=name)(run)
        self._engine.periodic(cron=tick.cron)(task)

    async def _woken(self, lane: str) -> None:
        self._armed.pop(lane, None)
        self._lanes.poke(lane)

    async def _sweep(self) -> None:
        """Poke every lane that has waited for too long, and put away jobs whose worker died: nothing depends on them."""
        for lane in await self._behind("and received < now() - interval '5 seconds'"):
            self._lanes.poke(lane)
        for job in await self._engine.job_manager.get_stalled_jobs(seconds_since_heartbeat=30):
            await self._engine.job_manager.finish_job(job, status=Status.FAILED, delete_job=True)

    async def _behind(self, condition: str = "") -> list[str]:
        query = f"select distinct lane from delivery where done is null and parked is null and due <= now() {condition}"  # noqa: S608 ours
        async with self._database.pool.connection() as connection:
            return [row[0] for row in await (await connection.execute(query.encode())).fetchall()]

    async def _tidy(self) -> None:
        async with self._database.pool.connection() as connection:
            await connection.execute("delete from delivery where done < now() - make_interval(days => %s)", (KEEP_DAYS,))
        await self._engine.job_manager.delete_old_jobs(1, include_failed=True, include_cancelled=True, include_aborted=True)

    # Life

    async def start(self) -> None:
        """Open for deliveries, and go on with what waits."""
        await self._engine.open_async(pool=self._database.pool)
        self._open = True
        self._lanes.open()
        self._tasks = [
            asyncio.create_task(self._write(), name="inbox writer"),
            asyncio.create_task(self._arm(), name="inbox wake-ups"),
            asyncio.create_task(self._run_engine(), name="queue engine"),
        ]
        for lane in await self._behind():
            self._lanes.poke(lane)

    async def _run_engine(self) -> None:
        """Run procrastinate's worker; it ends when its connection does."""
        while self._open:
            try:
                await self._engine.run_worker_async(
                    queues=["callboard"],
                    name="callboard",
                    concurrency=8,
                    delete_jobs="always",
                    install_signal_handlers=False,
                    shutdown_graceful_timeout=5,
                )
            except (ConnectorException, psycopg.Error) as error:
                log.warning("The queue engine starts again: %s", error)
            await asyncio.sleep(1)

    async def stop(self, seconds: float = 10) -> None:
        """Keep nothing new, finish what is under way, leave the rest where it is: it will be found there."""
        self._open = False
        self._arrived.set()
        for task in self._tasks[1:]:  # the writer ends by itself once nobody waits for it
            task.cancel()
        await self._lanes.close(seconds)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        if self._writing is not None:
            await self._writing.close()


@dataclass(frozen=True, slots=True)
class _Waiting(Delivery):
    wait: float = 0.0


def _together(waiting: Sequence[_Waiting], kinds: frozenset[str]) -> list[Delivery]:
    """The first delivery, and those right after it that may share its work. One that ended the bot before is taken alone."""
    first = waiting[0]
    if first.kind not in kinds or first.begun:
        return [first]
    batch: list[Delivery] = []
    for one in waiting:
        if one.kind != first.kind or one.begun or one.wait > 0:
            break
        batch.append(one)
    return batch


async def _insert(connection: psycopg.AsyncConnection, rows: Sequence[tuple[Delivery, Outcome | None]]) -> set[str]:
    inserted = await connection.execute(
        """
        insert into delivery (key, lane, kind, payload, received, done, parked, reference, problem)
        select key, lane, kind, payload, received,
            case when done then now() end, case when reference is not null then now() end, reference, problem
        from unnest(%b::text[], %b::text[], %b::text[], %b::bytea[], %b::timestamptz[], %b::boolean[], %b::text[], %b::text[])
            as sent (key, lane, kind, payload, received, done, reference, problem)
        on conflict (key) do nothing returning key
        """,
        (
            [delivery.key for delivery, _ in rows],
            [delivery.lane for delivery, _ in rows],
            [delivery.kind for delivery, _ in rows],
            [delivery.payload for delivery, _ in rows],
            [delivery.received for delivery, _ in rows],
            [isinstance(outcome, Done) for _, outcome in rows],
            [outcome.reference if isinstance(outcome, Parked) else None for _, outcome in rows],
            [outcome.problem if isinstance(outcome, Parked) else None for _, outcome in rows],
        ),
    )
    return {row[0] for row in await inserted.fetchall()}


async def _settle(connection: psycopg.AsyncConnection, id: int, outcome: Outcome) -> None:
    match outcome:
        case Done():
            await connection.execute("update delivery set done = now(), attempts = attempts + 1, begun = 0 where id = %s", (id,))
        case Later(after, problem):
            await connection.execute(
                """
                update delivery set due = now() + make_interval(secs => %s), problem = %s, attempts = attempts + 1, begun = 0 where id = %s
                """,
                (after, problem, id),
            )
        case Parked(reference, problem):
            await connection.execute(
                "update delivery set parked = now(), reference = %s, problem = %s, attempts = attempts + 1, begun = 0 where id = %s",
                (reference, problem, id),
            )


# For people


async def parked(database: Database) -> list[GivenUp]:
    """What was given up, newest first."""
    async with database.pool.connection() as connection, connection.cursor(row_factory=class_row(GivenUp)) as cursor:
        await cursor.execute("select reference, kind, lane, problem, parked from delivery where parked is not null order by parked desc")
        return await cursor.fetchall()


async def count_parked(database: Database) -> int:
    """How many deliveries were given up."""
    async with database.pool.connection() as connection:
        row = await (await connection.execute("select count(*) from delivery where parked is not null")).fetchone()
    return row[0] if row else 0


async def recall(database: Database, key: str) -> Delivery | None:
    """A delivery that was kept, by its key."""
    async with database.pool.connection() as connection, connection.cursor(row_factory=class_row(Delivery)) as cursor:
        await cursor.execute("select key, lane, kind, payload, received, attempts, begun, id from delivery where key = %s", (key,))
        return await cursor.fetchone()


async def again(database: Database, reference: str) -> bool:
    """Put a parked delivery back, for the next sweep; False where no delivery has that reference."""
    async with database.pool.connection() as connection:
        found = await connection.execute(
            "update delivery set parked = null, attempts = 0, begun = 0, due = now() where reference = %s and parked is not null",
            (reference,),
        )
    return found.rowcount > 0
