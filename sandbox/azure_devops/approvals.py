"""The rules of approvals: who may answer, and what an answer does. No clock, no storage.

https://learn.microsoft.com/azure/devops/pipelines/process/approvals
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sandbox.azure_devops.records import Approval, ApprovalStep, Check
from sandbox.names import Character

OPEN = ("pending", "uninitiated", "deferred")


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody decides: `status` is `approved` or `rejected`."""

    id: str
    status: str
    comment: str = ""


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


def refusal(approval: Approval, who: Character, requester: str) -> Denied | None:
    """Why this person may not answer now; None if they may."""
    mine = [step for step in approval.steps if step.approver == who.oid]
    if not mine:
        return _forbidden(f"{who.name} is not an approver of this check and may not answer it.")
    if who.oid in approval.blocked or (approval.requester_excluded and who.oid == requester):
        return _forbidden(f"{who.name} requested this run, and its requester may not approve it.")
    if approval.status not in OPEN:
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
    if answer.status not in {"approved", "rejected"}:
        raise Denied(400, "ApprovalBadRequestException", f"An approval cannot be set to '{answer.status}' by its approver.")
    step = next(step for step in approval.steps if step.approver == who.oid and step.status == "pending")
    step.status, step.actual, step.comment = answer.status, who.oid, answer.comment
    step.modified, step.modified_by = at, who.oid
    approval.modified = at
    given = sum(step.status == "approved" for step in approval.steps)
    if answer.status == "rejected":
        close(approval, "rejected", at)
    elif given >= (approval.minimum or len(approval.steps)):
        close(approval, "approved", at)
    elif following := next((step for step in approval.steps if step.status == "uninitiated"), None):
        following.status, following.initiated = "pending", at


def close(approval: Approval, status: str, at: datetime) -> None:
    """End the approval: `approved`, `rejected`, `canceled` or `timedOut`; the steps nobody answered end with it."""
    approval.status, approval.modified = status, at
    rest = status if status in {"canceled", "timedOut"} else "skipped"
    for step in approval.steps:
        if step.status in OPEN:
            step.status, step.modified = rest, at


def permissions(approval: Approval, who: Character, requester: str) -> str:
    """What the caller may do with it, in the words of `$expand=permissions`."""
    return "view" if refusal(approval, who, requester) else "view, update"


def _forbidden(message: str) -> Denied:
    return Denied(403, "ApprovalUnauthorizedException", message)


def _closed(approval: Approval) -> Denied:
    return Denied(400, "ApprovalAlreadyCompletedException", f"The approval {approval.id} is already completed: it is {approval.status}.")
