"""What the bot remembers, on a real PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from bot.core.approvals import Allowed
from bot.core.audit import Entry
from bot.core.references import Ref, Thing
from bot.database import Database
from bot.ports import Operation, Store
from bot.store import SqlStore
from tests.examples import ADA, NOW

RETRAIN = Operation("op-1", "retrain", ADA.id, "diabetes", "offered", {"alpha": "0.5"}, NOW)


def run(id: int) -> Ref:
    return Ref(Thing.RUN, id)


async def test_an_operation_comes_back_as_it_was_offered(database: Database) -> None:
    store: Store = SqlStore(database)

    offered = await store.offer(RETRAIN)

    assert offered == RETRAIN
    assert await store.operation("op-1") == RETRAIN
    assert await store.operation("op-2") is None


async def test_an_operation_offered_twice_stays_the_first(database: Database) -> None:
    store = SqlStore(database)
    await store.offer(RETRAIN)

    again = await store.offer(replace(RETRAIN, person="U0GRACE01", detail={}))

    assert again == RETRAIN


async def test_an_operation_moves_on_once(database: Database) -> None:
    store = SqlStore(database)
    await store.offer(RETRAIN)

    first = await store.advance("op-1", of=("offered",), to="doing")
    second = await store.advance("op-1", of=("offered",), to="doing")
    done = await store.advance("op-1", of=("doing",), to="done", result="run 480")

    assert (first, second, done) == (True, False, True)
    assert await store.operation("op-1") == replace(RETRAIN, state="done", result="run 480")


async def test_an_unknown_operation_does_not_move(database: Database) -> None:
    assert not await SqlStore(database).advance("op-9", of=("offered",), to="doing")


async def test_operations_are_found_by_their_kind_what_they_are_about_and_where_they_stand(database: Database) -> None:
    store: Store = SqlStore(database)
    lock = Operation("op-2", "lock", ADA.id, "prod", "held", {}, NOW)
    later, earlier = replace(lock, id="op-3", created=NOW + timedelta(hours=1), state="released"), replace(lock, id="op-4", subject="qa")
    for operation in (RETRAIN, later, lock, earlier):
        await store.offer(operation)

    assert await store.operations_of("lock") == (lock, earlier, later)
    assert await store.operations_of("lock", "prod") == (lock, later)
    assert await store.operations_of("lock", states=("held",)) == (lock, earlier)
    assert await store.operations_of("lock", "prod", states=("held", "released")) == (lock, later)
    assert await store.operations_of("lock", states=("lost",)) == ()


async def test_runs_are_watched_until_they_are_final(database: Database) -> None:
    store = SqlStore(database)
    await store.watch(run(480), final=False)
    await store.watch(run(481), final=False)

    await store.watch(run(480), final=True)

    assert await store.watched() == (run(481),)
    assert await store.final((run(480), run(481), run(482))) == {run(480)}


async def test_a_retried_run_is_watched_again(database: Database) -> None:
    store = SqlStore(database)
    await store.watch(run(480), final=True)

    await store.watch(run(480), final=False)

    assert await store.watched() == (run(480),)
    assert await store.final((run(480),)) == frozenset()


async def test_operations_of_last_year_are_forgotten_and_what_was_decided_is_not(database: Database) -> None:
    store = SqlStore(database)
    await store.offer(RETRAIN)
    await store.offer(replace(RETRAIN, id="op-2"))
    await store.record(Entry(ADA.id, "retrain", "diabetes", Allowed()))
    async with database.pool.connection() as connection:
        await connection.execute("update operation set changed = now() - interval '1 year' where id = 'op-1'")

    await store.tidy()

    assert await store.operation("op-1") is None
    assert await store.operation("op-2") is not None
    assert len(await store.trail(limit=9)) == 1
