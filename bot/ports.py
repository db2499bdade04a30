"""What handlers may ask of the outside world, as Protocols, and the `Bot` record that carries them.

Every method may raise the errors of `bot.core.errors`; nothing else gets out of an edge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from bot.core.approvals import Answer, Approval
from bot.core.audit import Entry, Recorded
from bot.core.models import ModelVersion
from bot.core.people import Account, Member, Person
from bot.core.references import Ref
from bot.core.runs import Failure, Order, Run
from bot.core.team import Team
from bot.messages.kit import Home, Message


class Pipelines(Protocol):
    """Azure DevOps, looked at: runs, releases, approvals, artifacts."""

    async def run(self, run_id: int) -> Run:
        """The run with all its stages, as it is now. Raises Gone."""
        ...

    async def recent(self, pipeline_id: int, since: datetime) -> tuple[Run, ...]:
        """Runs queued since then, newest first, without their stages."""
        ...

    async def release(self, release_id: int) -> Run:
        """The classic release with all its stages, as it is now. Raises Gone."""
        ...

    async def recent_releases(self, definition_id: int, since: datetime) -> tuple[Run, ...]:
        """Releases made since then, newest first, with their stages."""
        ...

    async def failure(self, run: Run) -> Failure | None:
        """Why the run or release failed: the first failed step, its first error, the end of its log, failing tests."""
        ...

    async def artifact(self, run_id: int, name: str) -> Mapping[str, bytes]:
        """The files of a published artifact by their path inside it; empty while it is not there. Raises Gone where the run is not."""
        ...

    async def attached(self, release: Run, stage: str) -> Mapping[str, bytes]:
        """The smoke tests that the last attempt of a release's stage has attached to its tasks, by their names."""
        ...

    async def approvals(self, run: Run) -> tuple[Approval, ...]:
        """Every approval the run or release has asked for, decided ones too."""
        ...

    async def pending_approvals(self) -> tuple[Approval, ...]:
        """Every approval of the project that waits, of runs and of releases."""
        ...

    async def started(self, pipeline_id: int, token: str, since: datetime) -> Run | None:
        """The run that carries this token, if it exists."""
        ...

    async def deployed(self, pipeline_id: int, stage: str, before: int) -> tuple[int, ...]:
        """The pipeline's runs below this number whose stage has succeeded, newest first; of the last ones only."""
        ...

    async def redeployable(self, definition_id: int, stage: str, before: int) -> tuple[int, ...]:
        """The definition's releases below this number whose stage has succeeded, newest first; of the last ones only."""
        ...

    async def groups_of(self, person: Person) -> frozenset[str]:
        """The names of the project's groups that somebody belongs to."""
        ...

    async def people(self, named: str) -> tuple[Person, ...]:
        """The people whom Azure DevOps knows by this name or e-mail address."""
        ...


class Hands(Pipelines, Protocol):
    """Azure DevOps under one identity, which may write, too. Writes go out once and are never repeated by the edge.

    A person's identity reaches no further than what it is asked for: approvals are read under it, all else as the bot.
    Each may raise Refused, Gone, Uncertain where the answer was lost, and SignInNeeded where the identity is not accepted any more.
    """

    async def me(self) -> Person:
        """Whom Azure DevOps takes this identity for. Raises Refused where it is nobody there, or lacks a licence."""
        ...

    async def start(self, order: Order) -> Run:
        """Queue a run."""
        ...

    async def decide(self, approval: Approval, answer: Answer, comment: str) -> Approval:
        """Answer an approval; returns what Azure DevOps then says."""
        ...

    async def defer(self, approval: Approval, until: datetime, comment: str) -> Approval:
        """Approve from that time on; returns what Azure DevOps then says."""
        ...

    async def reassign(self, approval: Approval, to: Person, comment: str) -> Approval:
        """Hand this identity's part of an approval to somebody else; returns what Azure DevOps then says."""
        ...

    async def retry(self, run_id: int, stage: str, *, everything: bool = False) -> None:
        """Run the failed jobs of a stage again, or all of them."""
        ...

    async def redeploy(self, release_id: int, stage: str, comment: str) -> None:
        """Deploy a stage of a release once more; its approvals are asked for again."""
        ...

    async def cancel(self, run_id: int) -> None:
        """Stop a run."""
        ...


@dataclass(frozen=True, slots=True)
class Acting:
    """Somebody at work in Azure DevOps: `me` is whom Azure DevOps takes them for, `account` what they signed in with.

    In the service-identity mode there is no account, and `me` is the bot.
    """

    pipelines: Hands
    me: Person
    account: Account | None = None


class Identities(Protocol):
    """Who people are in Entra, and what they do there under their own names."""

    async def acting(self, person: str) -> Acting:
        """The Slack user at work in Azure DevOps. Raises SignInNeeded, Refused (no member, no licence), NotNow."""
        ...

    async def account(self, person: str) -> Account | None:
        """The account that the Slack user is signed in with."""
        ...

    async def forget(self, person: str) -> bool:
        """Sign the Slack user out; False where they were not signed in."""
        ...


class Models(Protocol):
    """Azure Machine Learning: the registry and what stands behind it."""

    async def versions(self, model: str) -> tuple[ModelVersion, ...]:
        """Every registered version, newest first; empty for a model nobody has registered."""
        ...

    async def metrics(self, run_id: str) -> Mapping[str, float]:
        """The last value of every metric of an MLflow run. Raises Gone."""
        ...


@dataclass(frozen=True, slots=True)
class Whisper:
    """Where a private answer goes: the `url` Slack gave us, an ephemeral message in the channel, or, without one, a direct message.

    With `replaces` it takes the place of the private message that was clicked.
    """

    person: str
    channel: str
    url: str | None = None
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class File:
    """A picture for a thread, or a file for one person."""

    name: str
    title: str
    content: bytes


class Chat(Protocol):
    """Slack, for handlers: everything lasting goes through the board instead."""

    async def member(self, person: str) -> Member:
        """The person behind a Slack user id, as they are now. Raises Gone."""
        ...

    async def whisper(self, to: Whisper, message: Message) -> None:
        """Tell one person something, best effort."""
        ...

    async def publish(self, person: str, home: Home) -> None:
        """Show one person this on the app's own page, in place of what was there."""
        ...

    async def permalink(self, channel: str, ts: str) -> str:
        """The address of a message. Raises Gone."""
        ...

    async def hand(self, person: str, file: File) -> None:
        """Give one person a file, in the app's direct messages with them. Raises Uncertain where they may have it."""
        ...


class Board(Protocol):
    """One living message per channel and subject, updated in place, at the pace Slack allows."""

    async def show(self, channel: str, subject: str, message: Message, *, under: str | None = None, reading: int = 0) -> None:
        """Make the channel show this message for the subject, in the thread of the subject `under` if given.

        Returns once the wish is kept; the newest wish wins, an unchanged one costs no call. `under` must have been shown before.
        With `reading`, what was read earlier never replaces what was read later.
        """
        ...

    async def reading(self) -> int:
        """A number to take before state is read: it grows, whichever replica asks and whatever its clock says."""
        ...

    async def attach(self, channel: str, subject: str, file: File, *, under: str) -> None:
        """Put a file into the thread of the subject `under`, once per subject."""
        ...

    async def where(self, channel: str, subject: str) -> str | None:
        """The ts of the message for the subject, once it has been posted."""
        ...


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that is to be done once: `id` is also the token that travels inside the request."""

    id: str
    kind: str
    person: str
    subject: str
    state: str  # "offered" -> "doing" -> "done" | "failed" | "dropped"
    detail: Mapping[str, str]
    created: datetime
    result: str = ""


class Store(Protocol):
    """What the bot remembers besides its inbox and board."""

    async def offer(self, operation: Operation) -> Operation:
        """Remember an operation that awaits its confirmation; returns the earlier one where the id is known."""
        ...

    async def operation(self, id: str) -> Operation | None:
        """The operation of that id."""
        ...

    async def advance(self, id: str, *, of: tuple[str, ...], to: str, result: str = "") -> bool:
        """Move an operation from one of the states `of` to another; False where it stands elsewhere."""
        ...

    async def operations_of(self, kind: str, subject: str | None = None, *, states: tuple[str, ...] = ()) -> tuple[Operation, ...]:
        """The operations of a kind, about a subject or about anything, in one of the states if any are named, oldest first."""
        ...

    async def record(self, entry: Entry) -> None:
        """Append to the audit trail."""
        ...

    async def trail(self, *, subject: str = "", model: str = "", person: str = "", limit: int) -> tuple[Recorded, ...]:
        """The newest lines of the audit trail, newest first: of a subject and everything below it, of a model, of a person."""
        ...

    async def watch(self, ref: Ref, *, final: bool) -> None:
        """Remember a run or release that has a card, and whether its card needs no more looking after."""
        ...

    async def watched(self) -> tuple[Ref, ...]:
        """The runs and releases whose cards are not final."""
        ...

    async def final(self, refs: tuple[Ref, ...]) -> frozenset[Ref]:
        """Those of the runs and releases whose cards are final."""
        ...


@dataclass(frozen=True, slots=True)
class Bot:
    """Everything a handler may touch."""

    team: Team
    pipelines: Pipelines
    identities: Identities
    models: Models
    chat: Chat
    board: Board
    store: Store
    now: Callable[[], datetime]
