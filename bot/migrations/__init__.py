"""The schema and its history: Alembic's, imported only where there is something to do (it costs half a second)."""

from __future__ import annotations

from pathlib import Path

import psycopg

HEAD = "0004"
"""The revision this code needs; a test holds it against `versions/`."""

_LOCK = 7_270_915  # any number: replicas that start together take turns


def migrate(url: str) -> None:
    """Bring the database to HEAD; two cheap queries where it is there already. Replicas do not collide."""
    with psycopg.connect(url, autocommit=True) as connection:
        if revision(connection) == HEAD:
            return
        connection.execute("select pg_advisory_lock(%s)", (_LOCK,))
        if revision(connection) != HEAD:
            _upgrade(url)


def revision(connection: psycopg.Connection) -> str | None:
    """The revision the database is at, None where it is empty."""
    there = connection.execute("select to_regclass('alembic_version')").fetchone()
    if there is None or there[0] is None:
        return None
    row = connection.execute("select version_num from alembic_version").fetchone()
    return str(row[0]) if row else None


def _upgrade(url: str) -> None:
    from alembic import command  # noqa: PLC0415 see the module's docstring
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    command.upgrade(config, "head")
