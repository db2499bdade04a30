"""The rules of approvals: who may answer, and what an answer does. No clock, no storage.

https://learn.microsoft.com/azure/devops/pipelines/process/approvals
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sandbox.azure_devops.records import Approval, ApprovalStep, Assigned, Check
from sandbox.names import ADO_GROUPS, ADO_MEMBERS, Character

OPEN = ("pending", "uninitiated", "deferred")
ORDERS = ("anyOrder", "inSequence")
MONTH = 43200  # minutes: the longest that an approval may wait

IDENTITIES = frozenset({*(who.oid for who in ADO_MEMBERS), *(group.oid for group in ADO_GROUPS)})


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody decides: `status` is `approved`, `rejected` or `deferred` (approved from `until` on), or to whom they hand it over.

    `part` says whose part it is about where a person has several: an id of theirs or of a group of theirs.
    """

    id: str
    status: str = ""
    comment: str = ""
    until: datetime | None = None
    to: str = ""
    part: str = ""


class Denied(Exception):
    """The answer is refused; `key` is the service's error type and `status` the HTTP status."""

    def __init__(self, status: int, key: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.key = key


def validate(check: Check) -> None:
    """Refuse a check that nobody could pass. Raises Denied."""
    wrong = None
    if not check.approvers or not IDENTITIES.issuperset([*check.approvers, *check.blocked]):
        wrong = "The specified identities are invalid."
    elif len(set(check.approvers)) < len(check.approvers):
        wrong = "An approver is specified more than once."
    elif not 0 <= check.minimum <= len(check.approvers):
        wrong = f"The minimum number of approvers must be between 0 (all of them) and {len(check.approvers)}."
    elif check.execution_order not in ORDERS:
        wrong = f"The execution order must be one of {', '.join(ORDERS)}, not '{check.execution_order}'."
    elif not 0 <= check.timeout <= MONTH:
        wrong = f"The timeout must be between 0 and {MONTH} minutes."
    if wrong:
        raise Denied(400, "CheckConfigurationException", wrong)


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
    mine = _steps_of(approval, who)
    answered = any(step.actual == who.oid for step in approval.steps)
    if not mine and not answered:
        return _forbidden(f"{who.name} is not an approver of this check and may not answer it.")
    if _ids_of(who) & set(approval.blocked):
        return _forbidden(f"{who.name} is blocked from approving this check.")
    if approval.requester_excluded and who.oid == requester:
        return _forbidden(f"{who.name} requested this run, and its requester may not approve it.")
    if approval.status not in OPEN:
        message = f"The approval {approval.id} is already completed: it is {approval.status}."
        return Denied(400, "ApprovalAlreadyCompletedException", message)
    if answered:
        return _bad(f"{who.name} has answered this approval already: everybody answers once.")
    if any(step.status == "pending" for step in mine):
        return None
    if any(step.status == "uninitiated" for step in mine):
        return _bad(f"It is not yet the turn of {who.name}: approvals are given in sequence.")
    return _bad(f"Somebody else has answered for {who.name} already.")


def decide(approval: Approval, who: Character, answer: Answer, requester: str, at: datetime) -> None:
    """Write the answer into the approval. Raises Denied."""
    if denied := refusal(approval, who, requester):
        raise denied
    step = _chosen(approval, who, answer.part)
    if answer.to:
        _hand_over(approval, step, who, answer, requester=requester, at=at)
        return
    if answer.status not in {"approved", "rejected", "deferred"}:
        raise _bad(f"An approval cannot be set to '{answer.status}' by its approver.")
    if (answer.until is not None) != (answer.status == "deferred"):
        raise _bad("An approval with the status 'deferred', and no other, has a time that it is deferred to.")
    if answer.until is not None and answer.until <= at:
        raise _bad("An approval is deferred to a time to come.")
    step.status, step.actual, step.comment, step.deferred = answer.status, who.oid, answer.comment, answer.until
    step.modified, step.modified_by = at, who.oid
    approval.modified = at
    if answer.status == "rejected":
        close(approval, "rejected", at)
    elif answer.status == "approved":
        _go_on(approval, at)


def take_effect(approval: Approval, at: datetime) -> bool:
    """Let the yes of those who deferred it count once its time has come; whether any did."""
    moved = False
    for step in approval.steps:
        # One that ends the approval takes the others with it: a later one is not deferred any more.
        if approval.status in OPEN and step.status == "deferred" and step.deferred is not None and step.deferred <= at:
            step.status, step.modified, approval.modified = "approved", at, at
            _go_on(approval, at)
            moved = True
    return moved


def next_effect(approval: Approval) -> datetime | None:
    """When the next deferred yes counts."""
    times = [step.deferred for step in approval.steps if step.status == "deferred" and step.deferred]
    return min(times) if times and approval.status in OPEN else None


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


def step_permissions(approval: Approval, step: ApprovalStep, who: Character, requester: str) -> str:
    """What the caller may do with one part of it."""
    mine = step.status == "pending" and step.approver in _ids_of(who)
    return permissions(approval, who, requester) if mine else "view"


def _go_on(approval: Approval, at: datetime) -> None:
    """After a yes: the end, or the turn of whoever comes next."""
    given = sum(step.status == "approved" for step in approval.steps)
    if given >= (approval.minimum or len(approval.steps)):
        close(approval, "approved", at)
    elif following := next((step for step in approval.steps if step.status == "uninitiated"), None):
        following.status, following.initiated = "pending", at


def _hand_over(approval: Approval, step: ApprovalStep, who: Character, answer: Answer, *, requester: str, at: datetime) -> None:
    """Give one's own part to somebody else.

    Subscribers hear nothing: the service documents no event for it, and what nobody saw it send is not to be relied on.
    Who looks sees the new approver, the history, and a later `lastModifiedOn`.
    """
    if answer.status in {"approved", "rejected", "deferred"}:
        raise _bad("An approval is either answered or handed over.")
    if answer.to not in IDENTITIES:
        raise _bad("The specified identities are invalid.")
    if any(answer.to in {other.approver, other.actual} for other in approval.steps):
        raise _bad("They are an approver of this check already.")
    if answer.to in approval.blocked:
        raise _forbidden("They are blocked from approving this check.")
    if approval.requester_excluded and answer.to == requester:
        raise _forbidden("The requester of the run may not approve it.")
    step.history.append(Assigned(step.approver, who.oid, at, answer.comment))
    step.approver, step.modified, step.modified_by = answer.to, at, who.oid
    approval.modified = at


def _ids_of(who: Character) -> set[str]:
    """Theirs, and those of their groups."""
    return {who.oid, *(group.oid for group in ADO_GROUPS if who.oid in group.members)}


def _steps_of(approval: Approval, who: Character) -> list[ApprovalStep]:
    """The steps that are this person's: their own first, then those of their groups."""
    ids = _ids_of(who)
    return sorted((step for step in approval.steps if step.approver in ids), key=lambda step: step.approver != who.oid)


def _chosen(approval: Approval, who: Character, part: str) -> ApprovalStep:
    """The step that is answered: the first of theirs that waits, or that of the group that `part` names. Raises Denied."""
    waiting = [step for step in _steps_of(approval, who) if step.status == "pending"]
    named = [step for step in waiting if part in {"", who.oid, step.approver}]
    if not named:
        raise _forbidden(f"{who.name} has no part in this approval under the identity {part}.")
    return named[0]


def _forbidden(message: str) -> Denied:
    return Denied(403, "ApprovalUnauthorizedException", message)


def _bad(message: str) -> Denied:
    return Denied(400, "ApprovalBadRequestException", message)
