"""Approvals: what Azure DevOps waits for, and who may say yes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from bot.core.people import Person


class Answer(StrEnum):
    """What a person decides, in the words of the approvals API."""

    APPROVE = "approved"
    REJECT = "rejected"


class ApprovalState(StrEnum):
    """Where an approval stands."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    CANCELED = "canceled"
    TIMED_OUT = "timedOut"
    SKIPPED = "skipped"
    DEFERRED = "deferred"


@dataclass(frozen=True, slots=True)
class ApprovalStep:
    """One approver's part: who is asked, and who answered, when and why."""

    assigned: Person
    state: ApprovalState
    actual: Person | None = None
    comment: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    """One approval of one attempt of one stage of one run."""

    id: str
    run_id: int
    stage: str
    attempt: int
    environment: str
    state: ApprovalState
    created: datetime
    steps: tuple[ApprovalStep, ...] = ()
    minimum: int = 0
    instructions: str = ""

    @property
    def decided(self) -> ApprovalStep | None:
        """The newest step that somebody answered."""
        answered = [step for step in self.steps if step.actual is not None]
        return max(answered, key=lambda step: step.at.timestamp() if step.at else 0.0, default=None)


@dataclass(frozen=True, slots=True)
class Allowed:
    """The person may."""


@dataclass(frozen=True, slots=True)
class Denied:
    """The person may not; `reason` is a sentence that says what to do next."""

    reason: str


Decision = Allowed | Denied
