"""The schema: made once, cheap to check, and complete."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
from alembic.config import Config
from alembic.script import ScriptDirectory
from procrastinate.schema import SchemaManager

import bot.migrations
from bot.migrations import HEAD, migrate, revision
from bot.migrations.versions.r0001_first import PROCRASTINATE
from tests.database import Cluster


def test_head_is_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(bot.migrations.__file__).parent))
    config.set_main_option("path_separator", "os")

    heads = ScriptDirectory.from_config(config).get_heads()

    assert heads == [HEAD]


def test_every_migration_of_the_queue_engine_is_in_a_revision_of_ours() -> None:
    newest = max(path.name for path in Path(SchemaManager.get_migrations_path()).glob("*.sql"))

    assert newest == PROCRASTINATE, "procrastinate changed its schema: write a revision that applies what is new"


def test_an_empty_database_gets_every_table(postgres: Cluster) -> None:
    url = postgres.empty()

    migrate(url)

    with psycopg.connect(url) as connection:
        assert revision(connection) == HEAD
        tables = {row[0] for row in connection.execute("select tablename from pg_tables where schemaname = 'public'")}
    assert {"delivery", "card", "attachment", "operation", "audit", "watched", "procrastinate_jobs"} <= tables
    postgres.drop(url)


async def test_replicas_that_start_together_do_not_collide(postgres: Cluster) -> None:
    url = postgres.empty()

    await asyncio.gather(*(asyncio.to_thread(migrate, url) for _ in range(3)))

    with psycopg.connect(url) as connection:
        assert revision(connection) == HEAD
    postgres.drop(url)
