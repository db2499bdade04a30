"""The audit trail becomes a chain of hashes that PostgreSQL itself only appends to; what was written before is its beginning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

import psycopg
from alembic import op
from psycopg.rows import DictRow, dict_row

from bot.core.redaction import redact

revision = "0003"
down_revision = "0002"

TABLE = (
    "alter table audit rename to audit_before",
    """
    create table audit (
        id bigint primary key,
        at timestamptz not null,
        workspace text not null,
        person text not null,
        tenant text not null,
        oid text not null,
        username text not null,
        action text not null,
        subject text not null,
        model text not null,
        allowed boolean not null,
        reason text not null,
        why text not null,
        before jsonb not null,
        after jsonb not null,
        correlation text not null,
        hash text not null
    )
    """,
    "create index audit_subject on audit (subject text_pattern_ops)",
    "create index audit_model on audit (model, id)",
    "create index audit_person on audit (person, id)",
    # One statement, so one trip: the lock is kept until it is committed, and whoever waited for it sees what was written under it.
    """
    create function audit_append(line text, moment timestamptz default null) returns bigint language plpgsql as $$
    declare
        content jsonb := line::jsonb;
        last_id bigint;
        last_hash text;
    begin
        perform pg_advisory_xact_lock(hashtextextended('audit', 0));
        select id, hash into last_id, last_hash from audit order by id desc limit 1;
        last_id := coalesce(last_id, 0) + 1;
        last_hash := coalesce(last_hash, repeat('0', 64));
        moment := coalesce(moment, clock_timestamp());
        last_hash := encode(
            sha256(
                convert_to(
                    '{"at":"' || to_char(moment at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') || '+00:00","id":' || last_id
                    || ',"line":' || line || ',"previous":"' || last_hash || '"}',
                    'UTF8'
                )
            ),
            'hex'
        );
        insert into audit
        select last_id, moment, filled.workspace, filled.person, filled.tenant, filled.oid, filled.username, filled.action, filled.subject,
            filled.model, filled.allowed, filled.reason, filled.why, filled.before, filled.after, filled.correlation, last_hash
        from jsonb_populate_record(null::audit, content) as filled;
        return last_id;
    end
    $$
    """,
)
GUARD = (
    """
    create function audit_is_append_only() returns trigger language plpgsql as $$
    begin
        raise exception 'The audit trail is only appended to: % is refused.', tg_op using errcode = 'insufficient_privilege';
    end
    $$
    """,
    """
    create trigger audit_is_append_only before update or delete or truncate on audit
    for each statement execute function audit_is_append_only()
    """,
    "drop table audit_before",
)


def upgrade() -> None:
    """Make the table, append what there is in its order, and shut the table against everything but appending."""
    # The driver itself: functions have percent signs and colons that nobody must expand.
    driver = cast("psycopg.Connection", op.get_bind().connection.driver_connection)
    for change in TABLE:
        driver.execute(change)
    with driver.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute("select * from audit_before order by id").fetchall():
            driver.execute("select audit_append(%s, %s)", (_line(row), row["at"]))
    for change in GUARD:
        driver.execute(change)


def _line(row: DictRow) -> str:
    """A line of the first schema in the form that is hashed; what a later release does to that form does not change history."""
    detail = dict(row["detail"])
    why, model, before, after = (detail.pop(name, empty) for name, empty in (("why", ""), ("model", ""), ("before", {}), ("after", {})))
    line = {
        "workspace": "",
        "person": row["person"],
        "tenant": "",
        "oid": "",
        "username": "",
        "action": row["action"],
        "subject": redact(row["subject"]),
        "model": model,
        "allowed": row["allowed"],
        "reason": redact(row["reason"]),
        "why": redact(why),
        "before": _facts(before),
        "after": _facts({**after, **detail}),  # the very first lines had nothing but details
        "correlation": "",
    }
    return json.dumps(line, sort_keys=True, separators=(",", ":"))


def _facts(facts: Mapping[str, object]) -> dict[str, str]:
    return {name: redact(f"{name}={value}").removeprefix(f"{name}=") for name, value in facts.items()}
