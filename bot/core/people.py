"""People, as Azure DevOps and Slack name them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, a group, or a service identity known to Azure DevOps; `email` is the unique name where there is one."""

    name: str
    email: str | None = None
    id: str | None = None
    group: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the Slack workspace, read at the moment of the click.

    `groups` are the user groups they belong to, `ado_groups` the names of their Azure DevOps groups, where anybody asked for them.
    """

    id: str
    name: str
    email: str | None = None
    guest: bool = False
    bot: bool = False
    deleted: bool = False
    groups: frozenset[str] = frozenset()
    ado_groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody's Entra account, which they linked to their Slack account by signing in; `tenant` and `oid` name it for good.

    `since` is when they last signed in, where that matters; it makes no other account.
    """

    tenant: str
    oid: str
    name: str
    username: str
    since: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asked for a run, as far as anybody knows: the Slack user id is there where they asked in Slack."""

    name: str
    slack: str | None = None
    email: str | None = None
