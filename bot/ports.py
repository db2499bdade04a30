"""What handlers may ask of the outside world, as Protocols, and the `Bot` record that carries them.

Every method may raise the errors of `bot.core.errors`; nothing else gets out of an edge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from bot.core.approvals import Answer, Approval, Decision
from bot.core.models import ModelVersion
from bot.core.people import Member
from bot.core.runs import Failure, Order, Run
from bot.core.team import Team
from bot.messages.kit import Message


class Pipelines(Protocol):
    """Azure DevOps: runs, approvals, artifacts. Writes go out once and are never repeated by the edge."""

    async def run(self, run_id: int) -> Run:
        """The run with all its stages, as it is now. Raises Gone."""
        ...

    async def recent(self, pipeline_id: int, since: datetime) -> tuple[Run, ...]:
        """Runs queued since then, newest first, without their stages."""
        ...

    async def failure(self, run: Run) -> Failure | None:
        """Why the run failed: the first failed step, its first error, the end of its log, failing tests."""
        ...

    async def artifact(self, run_id: int, name: str) -> Mapping[str, bytes]:
        """The files of a published artifact by their path inside it; empty while it is not there."""
        ...

    async def approvals(self, run: Run) -> tuple[Approval, ...]:
        """Every approval the run has asked for, decided ones too."""
        ...

    async def pending_approvals(self) -> tuple[Approval, ...]:
        """Every approval of the project that waits."""
        ...

    async def start(self, order: Order) -> Run:
        """Queue a run. Raises Uncertain where the answer was lost."""
        ...

    async def started(self, pipeline_id: int, token: str, since: datetime) -> Run | None:
        """The run that carries this token, if it exists."""
        ...

    async def decide(self, approval: Approval, answer: Answer, comment: str) -> Approval:
        """Answer an approval; returns what Azure DevOps then says. Raises Refused, Gone, Uncertain."""
        ...

    async def retry(self, run_id: int, stage: str) -> None:
        """Run the failed jobs of a stage again. Raises Refused, Gone, Uncertain."""
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
    """Where a private answer goes: the `url` Slack gave us, or an ephemeral message in the channel.

    With `replaces` it takes the place of the private message that was clicked.
    """

    person: str
    channel: str
    url: str | None = None
    replaces: bool = False


class Chat(Protocol):
    """Slack, for handlers: everything lasting goes through the board instead."""

    async def member(self, person: str) -> Member:
        """The person behind a Slack user id, as they are now. Raises Gone."""
        ...

    async def whisper(self, to: Whisper, message: Message) -> None:
        """Tell one person something, best effort."""
        ...


@dataclass(frozen=True, slots=True)
class File:
    """A picture for a thread."""

    name: str
    title: str
    content: bytes


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

    async def record(self, person: str, action: str, subject: str, decision: Decision, detail: Mapping[str, str]) -> None:
        """Append to the audit trail."""
        ...

    async def watch(self, run_id: int, pipeline_id: int, *, final: bool) -> None:
        """Remember a run that has a card, and whether its card needs no more looking after."""
        ...

    async def watched(self) -> tuple[int, ...]:
        """The runs whose cards are not final."""
        ...

    async def final(self, run_ids: tuple[int, ...]) -> frozenset[int]:
        """Those of the runs whose cards are final."""
        ...


@dataclass(frozen=True, slots=True)
class Bot:
    """Everything a handler may touch."""

    team: Team
    pipelines: Pipelines
    models: Models
    chat: Chat
    board: Board
    store: Store
    now: Callable[[], datetime]
