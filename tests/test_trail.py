"""The audit trail on a real PostgreSQL: one unbroken chain, whoever writes; and every change by hand is found."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import structlog
from alembic import command
from alembic.config import Config
from psycopg.types.json import Jsonb

import bot.migrations
from bot.core.approvals import Allowed, Denied
from bot.core.audit import Break, Entry, Whole, Why
from bot.database import Database, DatabaseProblem
from bot.doctor import audit_trail
from bot.ports import Store
from bot.store import SqlStore
from bot.trail import export, verify
from tests.database import Cluster
from tests.examples import ACCOUNTS, ADA, ALAN, GRACE
from tests.outside import EVIL
from tests.test_settings import GOOD

ROOT = Path(__file__).parent.parent
APPROVED = Entry(
    GRACE.id,
    "approved",
    "run/480/approval/a1",
    Allowed(),
    why="Fits",
    account=ACCOUNTS[GRACE.id],
    model="diabetes",
    before={"state": "pending"},
    after={"state": "approved"},
)
MAKE_ROOM = ["update audit set id = -id where id > 2", "update audit set id = 1 - id where id < 0"]
FORGE = """
    insert into audit
    select 3, at, workspace, person, tenant, oid, username, action, subject, model, allowed, reason, 'forged',
        before, after, correlation, hash
    from audit where id = 2
"""
REFUSED = Entry(ALAN.id, "retrain", "model/diabetes", Denied("Ask the ml-team."), model="diabetes")


@pytest.fixture
async def store(database: Database) -> SqlStore:
    """A store whose trail has five lines."""
    made = SqlStore(database, lambda: "T0CONTOSO")
    for number in range(5):
        await made.record(Entry(ADA.id, "retry", f"run/48{number}", Allowed(), why=f"try {number}"))
    return made


def by_hand(database: Database, *statements: str) -> None:
    """Do what somebody does who owns the database, and knows of the trigger."""
    with psycopg.connect(database.url) as connection:
        connection.execute("alter table audit disable trigger audit_is_append_only")
        for statement in statements:
            connection.execute(statement.encode())
        connection.execute("alter table audit enable trigger audit_is_append_only")


def broken(database: Database) -> tuple[int, Why]:
    """Where the chain is broken, and why."""
    found = verify(database.url)
    assert isinstance(found, Break)
    return found.line, found.why


async def test_a_line_comes_back_as_it_was_written(database: Database) -> None:
    store: Store = SqlStore(database, lambda: "T0CONTOSO")

    with structlog.contextvars.bound_contextvars(delivery="click:1"):
        await store.record(APPROVED)
    await store.record(REFUSED)

    refused, approved = await store.trail(limit=9)
    assert (approved.id, approved.workspace, approved.correlation) == (1, "T0CONTOSO", "click:1")
    assert (approved.person, approved.username, approved.oid) == (GRACE.id, "grace@contoso.example", ACCOUNTS[GRACE.id].oid)
    assert (approved.before, approved.after, approved.why) == ({"state": "pending"}, {"state": "approved"}, "Fits")
    assert (refused.id, refused.allowed, refused.reason, refused.username) == (2, False, "Ask the ml-team.", "")
    assert abs(datetime.now(UTC) - refused.at) < timedelta(hours=1)


async def test_lines_are_found_by_what_they_are_about(database: Database) -> None:
    store = SqlStore(database)
    for subject, model, person in (
        ("run/48", "diabetes", ADA.id),
        ("run/480", "diabetes", ADA.id),
        ("run/480/stage/train/1", "", GRACE.id),
        ("run/4800", "churn", GRACE.id),
        ("release/480", "", ""),
        ("model/diabetes", "", ADA.id),
        ("model/diabetes/lock", "", ADA.id),
        ("model/%", "", ADA.id),
    ):
        await store.record(Entry(person, "look", subject, Allowed(), model=model))

    assert [line.id for line in await store.trail(subject="run/480", limit=9)] == [3, 2]
    assert [line.id for line in await store.trail(model="diabetes", limit=9)] == [7, 6, 2, 1]
    assert [line.id for line in await store.trail(person=GRACE.id, limit=9)] == [4, 3]
    assert [line.id for line in await store.trail(person=ADA.id, model="diabetes", limit=2)] == [7, 6]
    assert await store.trail(subject="release/48", limit=9) == ()


async def test_postgresql_and_the_core_make_the_same_hash_of_anything(database: Database) -> None:
    store = SqlStore(database, lambda: "T0 <é> 😀")
    for text in (*EVIL, "é", "😀", '"\\"', "\\u0041", "%s {} $1", "\u2028\x7f\x1f", "a\r\n\tb", "=1+1"):
        await store.record(
            Entry(text, text, text, Denied(text), why=text, model=text, before={text: text}, after={"": text, "b": "", "a": text})
        )

    checked = verify(database.url)

    assert isinstance(checked, Whole), checked
    assert checked.count == len(EVIL) + 8


async def test_replicas_that_write_at_once_make_one_chain(database: Database) -> None:
    other = Database(database.url)
    await other.open()
    stores = [SqlStore(database), SqlStore(other)]

    await asyncio.gather(*(stores[number % 2].record(Entry("", "sweep", f"run/{number}", Allowed())) for number in range(50)))

    checked = verify(database.url)
    await other.close()
    assert isinstance(checked, Whole), checked
    assert checked.count == 50
    assert {line.subject for line in await stores[0].trail(limit=99)} == {f"run/{number}" for number in range(50)}


@pytest.mark.parametrize(
    "statement", ["update audit set why = 'x'", "update audit set why = 'x' where false", "delete from audit", "truncate audit"]
)
async def test_postgresql_refuses_everything_but_appending(database: Database, store: SqlStore, statement: str) -> None:
    async with database.pool.connection() as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"The audit trail is only appended to: (UPDATE|DELETE|TRUNCATE) is"):
            await connection.execute(statement.encode())

    assert len(await store.trail(limit=9)) == 5


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("statements", "line", "why"),
    [
        (["update audit set why = 'nothing' where id = 3"], 3, Why.EDITED),
        (["update audit set allowed = false where id = 2"], 2, Why.EDITED),
        (["""update audit set after = '{"x": "y"}' where id = 5"""], 5, Why.EDITED),
        (["update audit set at = at + interval '1 microsecond' where id = 4"], 4, Why.EDITED),
        (["update audit set person = '' where id = 1"], 1, Why.START),
        (["delete from audit where id = 2"], 2, Why.MISSING),
        (["delete from audit where id = 1"], 1, Why.MISSING),
        (["delete from audit where id = 2", "update audit set id = id - 1 where id > 2"], 2, Why.EDITED),
        ([*MAKE_ROOM, FORGE], 3, Why.INSERTED),
    ],
)
async def test_what_is_changed_by_hand_is_found_and_named(database: Database, statements: list[str], line: int, why: Why) -> None:
    by_hand(database, *statements)

    assert broken(database) == (line, why)
    fine, said = await audit_trail(database.url)
    assert not fine
    assert f"Line {line} " in said


async def test_the_end_cut_off_is_found_by_a_hash_kept_elsewhere(database: Database, store: SqlStore) -> None:
    kept = (await store.trail(limit=1))[0].hash
    by_hand(database, "delete from audit where id = 5")

    checked = verify(database.url, kept)

    assert isinstance(checked, Whole)
    assert (checked.count, checked.contains) == (4, False)
    assert (await audit_trail(database.url))[0]


@pytest.mark.usefixtures("store")
async def test_the_trail_is_exported_from_a_day_on(database: Database) -> None:
    by_hand(database, "update audit set at = at - interval '40 days' where id < 3")
    whole, newest = io.StringIO(), io.StringIO()

    export(database.url, whole)
    export(database.url, newest, datetime.now(UTC) - timedelta(days=1))

    assert [row["id"] for row in csv.DictReader(whole.getvalue().splitlines())] == ["1", "2", "3", "4", "5"]
    assert [row["why"] for row in csv.DictReader(newest.getvalue().splitlines())] == ["try 2", "try 3", "try 4"]


def test_a_database_that_is_away_is_said() -> None:
    with pytest.raises(DatabaseProblem, match="does not answer"):
        verify("postgresql://nobody@127.0.0.1:9/nothing?connect_timeout=2")


def test_lines_of_the_first_schema_become_the_beginning_of_the_chain(postgres: Cluster) -> None:
    url = postgres.empty()
    config = Config()
    config.set_main_option("script_location", str(Path(bot.migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    command.upgrade(config, "0002")
    token = "xoxb-" + "1" * 20
    with psycopg.connect(url) as connection:
        for why, detail in (
            ("", {"why": f"é {token}", "model": "diabetes", "before": {}, "after": {"alpha": "0.5"}}),
            ("Ask.", {"run": 480}),
        ):
            connection.execute(
                "insert into audit (person, action, subject, allowed, reason, detail) values ('U1', 'retrain', 'diabetes', %s, %s, %s)",
                (not why, why, Jsonb(detail)),
            )

    command.upgrade(config, "head")

    checked = verify(url)
    assert isinstance(checked, Whole), checked
    with psycopg.connect(url) as connection:
        rows = connection.execute("select id, model, allowed, why, reason, after from audit order by id").fetchall()
    assert rows == [(1, "diabetes", True, "é ***", "", {"alpha": "0.5"}), (2, "", False, "", "Ask.", {"run": "480"})]
    postgres.drop(url)


def said(database: Database, folder: Path, *words: str) -> tuple[int, str, str]:
    """What `python -m bot audit` says about the database: its exit code, and both outputs."""
    environment = {**os.environ, **GOOD, "CALLBOARD_CONFIG": str(ROOT / "callboard.toml"), "CALLBOARD_DATA": str(folder)}
    done = subprocess.run(
        [sys.executable, "-m", "bot", "audit", *words],
        cwd=ROOT,
        env={**environment, "DATABASE_URL": database.url},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


async def test_the_command_line_checks_and_exports(database: Database, store: SqlStore, tmp_path: Path) -> None:
    last = (await store.trail(limit=1))[0]
    file = tmp_path / "audit.csv"

    fine = said(database, tmp_path, "verify", "--expect", last.hash.upper())
    lost = said(database, tmp_path, "verify", "--expect", "ab" * 32)
    exported = said(database, tmp_path, "export", "--since", "2026-01-01", str(file))
    by_hand(database, "update audit set why = 'nothing' where id = 3")
    changed = said(database, tmp_path, "verify")

    assert fine == (0, f"5 lines, from {last.at:%Y-%m-%d} to {last.at:%Y-%m-%d}. The chain holds. Last hash: {last.hash}\n", "")
    assert (lost[0], "no line has the hash abab" in lost[1]) == (1, True)
    assert (exported, len(file.read_text(encoding="utf-8").splitlines())) == ((0, "", ""), 6)
    assert (changed[0], changed[1].startswith("Line 3 was changed: ")) == (1, True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("verify", "--expect", "abc"), "'abc' is no hash: it has 64 hexadecimal digits"),
        (("export", "--since", "yesterday"), "'yesterday' is no date such as 2026-11-01"),
        (("export", "no-such-folder/audit.csv"), "No such file or directory: 'no-such-folder/audit.csv'"),
        ((), "the following arguments are required: verify|export"),
    ],
)
async def test_wrong_words_are_said(database: Database, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    code, _, wrong = said(database, tmp_path, *words)

    assert code == 2
    assert sentence in wrong
