"""PostgreSQL of our own: one owner, an end that nobody has to arrange, and a start after any end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from bot.database import Database, DatabaseProblem, ended_with_us, serve

HOLD = """
import sys
from pathlib import Path
from bot.database import serve
with serve(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    with serve(tmp_path) as url, psycopg.connect(url) as connection:
        connection.execute("create table sample (id integer)")

    with serve(tmp_path) as url, psycopg.connect(url) as connection:
        assert connection.execute("select count(*) from sample").fetchone() == (0,)


def test_one_bot_owns_a_folder_and_others_may_look(tmp_path: Path) -> None:
    with serve(tmp_path) as url:
        with pytest.raises(DatabaseProblem, match="Another Callboard"), serve(tmp_path):
            pass
        with serve(tmp_path, share=True) as same:
            pass

        with psycopg.connect(url) as connection:
            assert (same, connection.execute("select 1").fetchone()) == (url, (1,))


async def test_a_killed_owner_leaves_no_server_and_the_next_one_starts_at_once(tmp_path: Path) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD, str(tmp_path), cwd=Path(__file__).parent.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    url = (await owner.stdout.readline()).decode().strip()
    owner.kill()
    await owner.wait()

    with serve(tmp_path) as again, psycopg.connect(again) as connection:
        alive = connection.execute("select 1").fetchone()

    assert (again, alive) == (url, (1,))
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()


async def test_what_we_watch_is_left_alone_when_we_end_in_good_order() -> None:
    watched = await asyncio.create_subprocess_exec("sleep", "60")

    with ended_with_us(watched.pid):
        pass

    alive = watched.returncode is None
    os.kill(watched.pid, signal.SIGKILL)
    await watched.wait()
    assert alive


async def test_a_database_that_does_not_answer_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(DatabaseProblem, match="does not answer"):
        await Database(f"host={tmp_path} dbname=none").open()
