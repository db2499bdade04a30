"""The rules of approvals: who may answer, and what an answer does. No clock, no storage.

https://learn.microsoft.com/azure/devops/pipelines/process/approvals
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sandbox.azure_devops.records import Approval, ApprovalStep, Assigned, Check
from sandbox.names import ADO_GROUPS, PEOPLE, Character

OPEN = ("pending", "uninitiated", "deferred")


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody decides: `status` is `approved`, `rejected` or `deferred` (approved from `until` on), or to whom they hand it over."""

    id: str
    status: str = ""
    comment: str = ""
    until: datetime | None = None
    to: str = ""


class Denied(Exception):
    """The answer is refused; `key` is the service's error type and `status` the HTTP status."""

    def __init__(self, status: int, key: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.key = key


def ask(check: Check, run: int, stage: str, attempt: int, at: datetime) -> Approval:
    """The approval that a check asks for; the approvers are those of this moment."""
    one_by_one = check.execution_order == "inSequence"
    steps = [
        ApprovalStep(who, order, "uninitiated", None) if one_by_one and order > 1 else ApprovalStep(who, order, "pending", at)
        for order, who in enumerate(check.approvers, 1)
    ]
    return Approval(
        run=run,
        stage=stage,
        attempt=attempt,
        environment=check.environment,
        instructions=check.instructions,
        execution_order=check.execution_order,
        minimum=check.minimum,
        requester_excluded=check.requester_excluded,
        steps=steps,
        blocked=list(check.blocked),
        expires=at + timedelta(minutes=check.timeout),
        created=at,
        modified=at,
    )


def mine_of(approval: Approval, who: Character) -> tuple[int, ...]:
    """The orders of the steps that are this person's: their own first, then those of their groups."""
    own = [step.order for step in approval.steps if step.approver == who.oid]
    groups = {group.oid for group in ADO_GROUPS if who.oid in group.members}
    return (*own, *(step.order for step in approval.steps if step.approver in groups))


def refusal(approval: Approval, who: Character, requester: str) -> Denied | None:
    """Why this person may not answer now; None if they may."""
    mine = [step for step in approval.steps if step.order in mine_of(approval, who)]
    answered = any(step.actual == who.oid for step in approval.steps)
    if not mine and not answered:
        return _forbidden(f"{who.name} is not an approver of this check and may not answer it.")
    if who.oid in approval.blocked or (approval.requester_excluded and who.oid == requester):
        return _forbidden(f"{who.name} requested this run, and its requester may not approve it.")
    if approval.status not in OPEN or answered:
        return _closed(approval)
    if all(step.status == "uninitiated" for step in mine):
        return Denied(400, "ApprovalBadRequestException", f"It is not yet the turn of {who.name}: approvals are given in sequence.")
    if not any(step.status == "pending" for step in mine):
        return _closed(approval)
    return None


def decide(approval: Approval, who: Character, answer: Answer, requester: str, at: datetime) -> None:
    """Write the answer into the approval. Raises Denied."""
    if denied := refusal(approval, who, requester):
        raise denied
    if answer.to:
        _hand_over(approval, who, answer, requester, at)
        return
    if answer.status not in {"approved", "rejected", "deferred"}:
        raise Denied(400, "ApprovalBadRequestException", f"An approval cannot be set to '{answer.status}' by its approver.")
    if answer.status == "deferred" and (answer.until is None or answer.until <= at):
        raise Denied(400, "ApprovalBadRequestException", "An approval is deferred to a time to come.")
    step = _pending(approval, who)
    step.status, step.actual, step.comment, step.deferred = answer.status, who.oid, answer.comment, answer.until
    step.modified, step.modified_by = at, who.oid
    approval.modified = at
    if answer.status == "rejected":
        close(approval, "rejected", at)
    elif answer.status == "approved":
        _go_on(approval, at)


def take_effect(approval: Approval, at: datetime) -> bool:
    """Let the yes of those who deferred it count once its time has come; whether any did."""
    waits = approval.steps if approval.status in OPEN else []
    due = [step for step in waits if step.status == "deferred" and step.deferred is not None and step.deferred <= at]
    for step in due:
        step.status, step.modified, approval.modified = "approved", at, at
        _go_on(approval, at)
    return bool(due)


def next_effect(approval: Approval) -> datetime | None:
    """When the next deferred yes counts."""
    times = [step.deferred for step in approval.steps if step.status == "deferred" and step.deferred]
    return min(times) if times and approval.status in OPEN else None


def _go_on(approval: Approval, at: datetime) -> None:
    """After a yes: the end, or the turn of whoever comes next."""
    given = sum(step.status == "approved" for step in approval.steps)
    if given >= (approval.minimum or len(approval.steps)):
        close(approval, "approved", at)
    elif following := next((step for step in approval.steps if step.status == "uninitiated"), None):
        following.status, following.initiated = "pending", at


def _hand_over(approval: Approval, who: Character, answer: Answer, requester: str, at: datetime) -> None:
    """Give one's own part to somebody else. Subscribers hear nothing: the service documents no event for it."""
    known = {member.oid for member in PEOPLE if not member.guest} | {group.oid for group in ADO_GROUPS}
    if answer.to not in known:
        raise Denied(400, "ApprovalBadRequestException", "The specified identities are invalid.")
    if any(step.approver == answer.to for step in approval.steps):
        raise Denied(400, "ApprovalBadRequestException", "They are an approver of this check already.")
    if answer.to in approval.blocked or (approval.requester_excluded and answer.to == requester):
        raise _forbidden("The requester of the run may not approve it.")
    step = _pending(approval, who)
    step.history.append(Assigned(step.approver, who.oid, at, answer.comment))
    step.approver, step.modified, step.modified_by = answer.to, at, who.oid
    approval.modified = at


def _pending(approval: Approval, who: Character) -> ApprovalStep:
    by_order = {step.order: step for step in approval.steps}
    return next(by_order[order] for order in mine_of(approval, who) if by_order[order].status == "pending")


def close(approval: Approval, status: str, at: datetime) -> None:
    """End the approval: `approved`, `rejected`, `canceled` or `timedOut`; the steps nobody answered end with it."""
    approval.status, approval.modified = status, at
    rest = status if status in {"canceled", "timedOut"} else "skipped"
    for step in approval.steps:
        if step.status in OPEN:
            step.status, step.modified = rest, at


def permissions(approval: Approval, who: Character, requester: str) -> str:
    """What the caller may do with it, in the words of `$expand=permissions`."""
    return "view" if refusal(approval, who, requester) else "view, update, reassign"


def _forbidden(message: str) -> Denied:
    return Denied(403, "ApprovalUnauthorizedException", message)


def _closed(approval: Approval) -> Denied:
    return Denied(400, "ApprovalAlreadyCompletedException", f"The approval {approval.id} is already completed: it is {approval.status}.")
