"""Approvals: what Azure DevOps waits for, and who may say yes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from bot.core.people import Person
from bot.core.references import Ref, Thing


class Answer(StrEnum):
    """What a person decides, in the words of the approvals API."""

    APPROVE = "approved"
    REJECT = "rejected"


class Order(StrEnum):
    """In which order approvers are asked."""

    ANY = "anyOrder"
    SEQUENCE = "inSequence"


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
    """One approver's part: who is asked (a person or a group), and who answered, when and why.

    `turn` is False while others have to answer first; `until` is when a deferred approval takes effect.
    """

    assigned: Person
    state: ApprovalState
    actual: Person | None = None
    comment: str = ""
    at: datetime | None = None
    turn: bool = True
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    """One approval of one attempt of one stage of one run or release.

    `minimum` is how many have to approve, 0 for all. `mine` says whether the identity that read it may answer; None where nobody said.
    """

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
    thing: Thing = Thing.RUN
    order: Order = Order.ANY
    blocked: tuple[Person, ...] = ()
    mine: bool | None = None
    post: bool = False  # asked for after the deployment: classic releases only

    @property
    def ref(self) -> Ref:
        """The run or release it belongs to."""
        return Ref(self.thing, self.run_id)

    @property
    def approved_by(self) -> tuple[Person, ...]:
        """Who has approved so far."""
        return tuple(step.actual for step in self.steps if step.actual is not None and step.state is ApprovalState.APPROVED)

    @property
    def left(self) -> int:
        """How many more have to approve."""
        return max((self.minimum or max(len(self.steps), 1)) - len(self.approved_by), 0)

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
