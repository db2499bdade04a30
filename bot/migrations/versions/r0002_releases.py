"""Cards of classic releases are looked after, too; operations are found by what they are about."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

CHANGES = (
    """
    create table watched (
        thing text not null,
        id bigint not null,
        final boolean not null,
        since timestamptz not null default now(),
        primary key (thing, id)
    )
    """,
    "insert into watched (thing, id, final, since) select 'run', run_id, final, since from watched_run",
    "drop table watched_run",
    "create index watched_open on watched (since, id) where not final",
    "create index operation_about on operation (kind, subject)",
)


def upgrade() -> None:
    """Make room for releases, and keep the runs that are looked after."""
    for change in CHANGES:
        op.execute(change)
