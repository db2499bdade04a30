"""People, as Azure DevOps and Slack name them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody (or a service identity) known to Azure DevOps; `email` is the unique name where there is one."""

    name: str
    email: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the Slack workspace, read at the moment of the click; `groups` are the user groups they belong to."""

    id: str
    name: str
    email: str | None = None
    guest: bool = False
    bot: bool = False
    deleted: bool = False
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asked for a run, as far as anybody knows: the Slack user id is there where they asked in Slack."""

    name: str
    slack: str | None = None
    email: str | None = None
