"""Who is signed in to Entra, and who is about to be."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

CHANGES = (
    """
    create table account (
        workspace text not null,
        person text not null,
        tenant text not null,
        oid text not null,
        name text not null,
        username text not null,
        tokens bytea not null,
        since timestamptz not null default now(),
        primary key (workspace, person),
        unique (workspace, tenant, oid)
    )
    """,
    """
    create table signin (
        id text primary key,
        workspace text not null,
        person text not null,
        delivery text not null,
        state text not null,
        secret bytea not null,
        proof text not null default '',
        created timestamptz not null default now()
    )
    """,
    "create index signin_of on signin (workspace, person)",
)


def upgrade() -> None:
    """Make both tables."""
    for change in CHANGES:
        op.execute(change)
