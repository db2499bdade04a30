"""The audit trail looked at from outside the running bot: checked, and given out as CSV, for `python -m bot audit` and the doctor."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TextIO

import psycopg
from psycopg.rows import class_row

from bot.core.audit import GENESIS, Break, Recorded, Whole, check, csv_lines
from bot.database import DatabaseProblem
from bot.migrations import migrate

AT_ONCE = 2000  # lines in memory


def verify(url: str, expect: str = GENESIS) -> Whole | Break:
    """Whether the chain holds, and whether the hash `expect` is in it. Raises DatabaseProblem."""
    return check(_rows(url, None), expect)


def export(url: str, out: TextIO, since: datetime | None = None) -> None:
    """Write the lines since then, oldest first, as CSV. Raises DatabaseProblem."""
    out.writelines(csv_lines(_rows(url, since)))


def _rows(url: str, since: datetime | None) -> Iterator[Recorded]:
    """The lines in the order of their numbers, as they were at one moment."""
    try:
        migrate(url)
        with (
            psycopg.connect(url, application_name="callboard-audit") as connection,
            connection.cursor("audit", row_factory=class_row(Recorded)) as cursor,
        ):
            cursor.itersize = AT_ONCE
            cursor.execute("select * from audit where at >= coalesce(%s::timestamptz, '-infinity') order by id", (since,))
            yield from cursor
    except psycopg.OperationalError as error:
        raise DatabaseProblem(f"PostgreSQL does not answer: {error}") from error
