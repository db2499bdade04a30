"""The first schema: procrastinate's, the inbox, the board, and what the bot remembers."""

from __future__ import annotations

from typing import cast

import psycopg
from alembic import op
from procrastinate.schema import SchemaManager

revision = "0001"
down_revision = None

PROCRASTINATE = "03.04.00_50_post_add_retry_failed_job_procedure.sql"
"""The newest of procrastinate's own migrations that this revision contains; each later one becomes a revision here."""

TABLES = (
    """
    create table delivery (
        id bigint generated always as identity primary key,
        key text not null unique,
        lane text not null,
        kind text not null,
        payload bytea not null,
        received timestamptz not null,
        due timestamptz not null default now(),
        attempts integer not null default 0,
        begun integer not null default 0,
        done timestamptz,
        parked timestamptz,
        reference text,
        problem text
    )
    """,
    "create index delivery_waiting on delivery (lane, received, id) where done is null and parked is null",
    "create index delivery_done on delivery (done) where done is not null",
    "create index delivery_parked on delivery (parked) where parked is not null",
    "create sequence reading",
    """
    create table card (
        id bigint generated always as identity primary key,
        channel text not null,
        subject text not null,
        under text,
        message jsonb not null,
        reading bigint not null default 0,
        wanted bigint not null default 1,
        shown bigint not null default 0,
        ts text,
        intent timestamptz,
        generation integer not null default 0,
        replaces text not null default '',
        plain boolean not null default false,
        called timestamptz,
        due timestamptz not null default now(),
        attempts integer not null default 0,
        problem text,
        touched timestamptz not null default now(),
        unique (channel, subject)
    )
    """,
    "create index card_behind on card (due) where shown < wanted",
    "create index card_under on card (channel, under) where ts is null",
    """
    create table attachment (
        id bigint generated always as identity primary key,
        channel text not null,
        subject text not null,
        under text not null,
        name text not null,
        title text not null,
        content bytea,
        file text,
        intent timestamptz,
        shown boolean not null default false,
        due timestamptz not null default now(),
        attempts integer not null default 0,
        problem text,
        unique (channel, subject)
    )
    """,
    "create index attachment_behind on attachment (due) where not shown",
    """
    create table operation (
        id text primary key,
        kind text not null,
        person text not null,
        subject text not null,
        state text not null,
        detail jsonb not null,
        created timestamptz not null,
        result text not null default '',
        changed timestamptz not null default now()
    )
    """,
    """
    create table audit (
        id bigint generated always as identity primary key,
        at timestamptz not null default now(),
        person text not null,
        action text not null,
        subject text not null,
        allowed boolean not null,
        reason text not null,
        detail jsonb not null
    )
    """,
    """
    create table watched_run (
        run_id bigint primary key,
        pipeline_id bigint not null,
        final boolean not null,
        since timestamptz not null default now()
    )
    """,
    "create index watched_run_open on watched_run (run_id) where not final",
)


def upgrade() -> None:
    """Make every table."""
    # The driver itself: procrastinate's functions are many statements in one text, with percent signs that nobody must expand.
    driver = cast("psycopg.Connection", op.get_bind().connection.driver_connection)
    driver.execute(SchemaManager.get_schema())
    for table in TABLES:
        op.execute(table)
