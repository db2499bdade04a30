"""What the bot remembers besides its inbox and board: operations, the audit trail, the runs it looks after. SQL, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from bot.core.approvals import Decision, Denied
from bot.database import Database
from bot.ports import Operation

KEEP_DAYS = 200  # a little longer than the board keeps messages: a card is not drawn anew because its mark was forgotten


class SqlStore:
    """`bot.ports.Store` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._pool = database.pool

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

    async def record(self, person: str, action: str, subject: str, decision: Decision, detail: Mapping[str, str]) -> None:
        """Append to the audit trail."""
        reason = decision.reason if isinstance(decision, Denied) else ""
        async with self._pool.connection() as connection:
            await connection.execute(
                "insert into audit (person, action, subject, allowed, reason, detail) values (%s, %s, %s, %s, %s, %s)",
                (person, action, subject, not isinstance(decision, Denied), reason, Jsonb(dict(detail))),
            )

    async def watch(self, run_id: int, pipeline_id: int, *, final: bool) -> None:
        """Remember a run that has a card, and whether its card needs no more looking after."""
        async with self._pool.connection() as connection:
            await connection.execute(
                """
                insert into watched_run (run_id, pipeline_id, final) values (%s, %s, %s)
                on conflict (run_id) do update set final = excluded.final where watched_run.final <> excluded.final
                """,
                (run_id, pipeline_id, final),
            )

    async def watched(self) -> tuple[int, ...]:
        """The runs whose cards are not final, oldest first."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute("select run_id from watched_run where not final order by run_id")).fetchall()
        return tuple(row[0] for row in rows)

    async def final(self, run_ids: tuple[int, ...]) -> frozenset[int]:
        """Those of the runs whose cards are final."""
        async with self._pool.connection() as connection:
            asked = await connection.execute("select run_id from watched_run where final and run_id = any(%s)", (list(run_ids),))
            return frozenset(row[0] for row in await asked.fetchall())

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
