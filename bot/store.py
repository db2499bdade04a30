"""What the bot remembers besides its inbox and board: operations, the audit trail, the runs it looks after. SQL, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from bot.core.audit import Entry, Recorded, canonical, line
from bot.core.references import Ref, Thing
from bot.database import Database
from bot.ports import Operation

KEEP_DAYS = 200  # a little longer than the board keeps messages: a card is not drawn anew because its mark was forgotten


class SqlStore:
    """`bot.ports.Store` on PostgreSQL; `workspace` says which Slack team the audit trail is written for."""

    def __init__(self, database: Database, workspace: Callable[[], str] = lambda: "") -> None:
        self._pool = database.pool
        self._workspace = workspace

    async def offer(self, operation: Operation) -> Operation:
        """Remember an operation that awaits its confirmation; returns the earlier one where the id is known."""
        async with self._pool.connection() as connection:
            await connection.execute(
                """
                insert into operation (id, kind, person, subject, state, detail, created, result)
                values (%s, %s, %s, %s, %s, %s, %s, %s) on conflict (id) do nothing
                """,
                (
                    operation.id,
                    operation.kind,
                    operation.person,
                    operation.subject,
                    operation.state,
                    Jsonb(dict(operation.detail)),
                    operation.created,
                    operation.result,
                ),
            )
        known = await self.operation(operation.id)
        return known or operation

    async def operation(self, id: str) -> Operation | None:
        """The operation of that id."""
        async with self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute("select * from operation where id = %s", (id,))
            row = await cursor.fetchone()
        return _operation(row) if row else None

    async def advance(self, id: str, *, of: tuple[str, ...], to: str, result: str = "") -> bool:
        """Move an operation from one of the states `of` to another; False where it stands elsewhere."""
        async with self._pool.connection() as connection:
            moved = await connection.execute(
                "update operation set state = %s, result = %s, changed = now() where id = %s and state = any(%s)",
                (to, result, id, list(of)),
            )
        return moved.rowcount == 1

    async def operations_of(self, kind: str, subject: str | None = None, *, states: tuple[str, ...] = ()) -> tuple[Operation, ...]:
        """The operations of a kind, about a subject or about anything, in one of the states if any are named, oldest first."""
        async with self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                """
                select * from operation
                where kind = %(kind)s and (%(subject)s::text is null or subject = %(subject)s) and (%(any)s or state = any(%(states)s))
                order by created, id
                """,
                {"kind": kind, "subject": subject, "any": not states, "states": list(states)},
            )
            return tuple(_operation(row) for row in await cursor.fetchall())

    async def record(self, entry: Entry) -> None:
        """Append to the audit trail: PostgreSQL numbers and chains the line, in one statement and one trip."""
        correlation = str(structlog.contextvars.get_contextvars().get("delivery", ""))
        written = line(entry, workspace=self._workspace(), correlation=correlation)
        async with self._pool.connection() as connection:
            await connection.execute("select audit_append(%s)", (canonical(written),))

    async def trail(self, *, subject: str = "", model: str = "", person: str = "", limit: int) -> tuple[Recorded, ...]:
        """The newest lines of the audit trail, newest first: of a subject and everything below it, of a model, of a person."""
        async with self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                """
                select * from audit
                where (%(subject)s::text = '' or subject = %(subject)s or starts_with(subject, %(subject)s || '/'))
                and (%(model)s::text = '' or model = %(model)s or subject = %(about)s or starts_with(subject, %(about)s || '/'))
                and (%(person)s::text = '' or person = %(person)s)
                order by id desc limit %(limit)s
                """,
                {"subject": subject, "model": model, "about": f"model/{model}", "person": person, "limit": limit},
            )
            return tuple(Recorded(**row) for row in await cursor.fetchall())

    async def watch(self, ref: Ref, *, final: bool) -> None:
        """Remember a run or release that has a card, and whether its card needs no more looking after."""
        async with self._pool.connection() as connection:
            await connection.execute(
                """
                insert into watched (thing, id, final) values (%s, %s, %s)
                on conflict (thing, id) do update set final = excluded.final where watched.final <> excluded.final
                """,
                (ref.thing.value, ref.id, final),
            )

    async def watched(self) -> tuple[Ref, ...]:
        """The runs and releases whose cards are not final, oldest first."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute("select thing, id from watched where not final order by since, id")).fetchall()
        return tuple(Ref(Thing(thing), number) for thing, number in rows)

    async def final(self, refs: tuple[Ref, ...]) -> frozenset[Ref]:
        """Those of the runs and releases whose cards are final."""
        async with self._pool.connection() as connection:
            asked = await connection.execute(
                """
                select thing, id from watched join unnest(%s::text[], %s::bigint[]) as asked (thing, id) using (thing, id) where final
                """,
                ([ref.thing.value for ref in refs], [ref.id for ref in refs]),
            )
            return frozenset(Ref(Thing(thing), number) for thing, number in await asked.fetchall())

    async def tidy(self) -> None:
        """Forget operations that nobody has touched for so long that their cards are forgotten, too. The audit trail stays."""
        async with self._pool.connection() as connection:
            await connection.execute("delete from operation where changed < now() - make_interval(days => %s)", (KEEP_DAYS,))


def _operation(row: DictRow) -> Operation:
    return Operation(
        id=row["id"],
        kind=row["kind"],
        person=row["person"],
        subject=row["subject"],
        state=row["state"],
        detail=row["detail"],
        created=row["created"],
        result=row["result"],
    )
