"""Classic releases: their records, and the rules of their approvals. No clock, no storage.

A *stage* here is what REST calls an environment; a *deployment* is one attempt to deploy a release to a stage.
https://learn.microsoft.com/azure/devops/pipelines/release/approvals/approvals
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sandbox.azure_devops.approvals import Denied
from sandbox.azure_devops.records import Job, Shelf, new_id
from sandbox.azure_devops.release_definitions import IDENTITIES, Approvers, Blueprint, read
from sandbox.names import ADO_GROUPS, ADO_MEMBERS, AGENT, BOT, CONTRIBUTORS, GRACE, Character
from sandbox.state import State

Json = dict[str, Any]

# Who may do what with releases; the build agent's identity may not even look.
VIEW = frozenset(who.oid for who in ADO_MEMBERS if who is not AGENT)
DEPLOY = frozenset({*CONTRIBUTORS.members, BOT.oid})  # create releases, deploy, cancel, abandon
APPROVERS = frozenset({BOT.oid, GRACE.oid})  # manage release approvers: hand an approval to somebody else


class When(StrEnum):
    """What an approval holds up."""

    BEFORE = "preDeploy"
    AFTER = "postDeploy"


@dataclass(slots=True)
class Definition:
    """A release definition at its newest revision; `document` is it as REST shows it, its stages with ids."""

    id: int
    revision: int
    document: Json
    created: datetime
    created_by: str
    modified: datetime
    modified_by: str

    @property
    def blueprint(self) -> Blueprint:
        """What it says."""
        return read(self.document)


@dataclass(slots=True)
class Handover:
    """An approval was somebody else's before; `revision` is the one that this ended."""

    approver: str
    by: str
    comment: str
    revision: int
    at: datetime


@dataclass(slots=True)
class ReleaseApproval:
    """What one approver (a person's or a group's id; None where it approves itself) is asked about one deployment."""

    id: int
    release: int
    stage: int
    deployment: int
    attempt: int
    when: When
    approver: str | None
    rank: int
    created: datetime
    modified: datetime
    expires: datetime
    creator_excluded: bool = False
    status: str = "pending"  # pending | approved | rejected | canceled | skipped
    revision: int = 1
    approved_by: str | None = None
    comment: str = ""
    history: list[Handover] = field(default_factory=list)


@dataclass(slots=True)
class Attachment:
    """A file that a task attached to its record; the content is text."""

    kind: str
    name: str
    text: str
    record: str
    created: datetime


@dataclass(slots=True)
class ReleaseDeployment:
    """One attempt: approvals before it, its job, approvals after it. `job` is of records, its logs are numbered in the release."""

    id: int
    attempt: int
    reason: str  # automated | manual
    requested_by: str
    requested_for: str
    queued: datetime
    job: Job
    modified: datetime
    modified_by: str
    step: str = "before"  # before | job | after | done: where it stands
    status: str = "undefined"  # undefined | notDeployed | inProgress | succeeded | partiallySucceeded | failed
    operation: str = "Pending"
    canceling: bool = False
    comment: str = ""
    started: datetime | None = None
    finished: datetime | None = None
    plan: str = field(default_factory=new_id)
    timeline: str = field(default_factory=new_id)
    phase: str = field(default_factory=new_id)
    phase_number: int = 0
    approvals: list[int] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)


@dataclass(slots=True)
class ReleaseStage:
    """A stage of one release; `of` is its id in the definition."""

    id: int
    of: int
    name: str
    rank: int
    manual: bool = False  # it does not start by itself in this release
    status: str = "notStarted"  # notStarted | queued | inProgress | succeeded | partiallySucceeded | rejected | canceled
    deployments: list[ReleaseDeployment] = field(default_factory=list)
    modified: datetime | None = None

    @property
    def open(self) -> ReleaseDeployment | None:
        """The deployment that is under way."""
        return next((one for one in self.deployments if one.step != "done"), None)


@dataclass(slots=True)
class Release:
    """One build on its way through the stages, by the definition as it was then."""

    id: int
    name: str
    definition: int
    revision: int
    snapshot: Json
    build: int
    reason: str  # continuousIntegration | manual
    created: datetime
    created_by: str
    created_for: str
    modified: datetime
    modified_by: str
    stages: list[ReleaseStage]
    status: str = "active"  # active | abandoned
    description: str = ""
    comment: str = ""
    logs: int = 0

    @property
    def blueprint(self) -> Blueprint:
        """What the definition said when it was created."""
        return read(self.snapshot)

    def stage(self, id: int) -> ReleaseStage | None:
        """The stage of that id."""
        return next((stage for stage in self.stages if stage.id == id), None)


@dataclass(frozen=True, slots=True)
class Place:
    """A deployment, and where it belongs."""

    release: Release
    stage: ReleaseStage
    deployment: ReleaseDeployment


class ReleaseStore:
    """Every record of classic releases."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.definitions = Shelf(state.table("ado.release-definitions"), Definition)
        self.releases = Shelf(state.table("ado.releases"), Release)
        self.approvals = Shelf(state.table("ado.release-approvals"), ReleaseApproval)

    def approvals_of(self, deployment: ReleaseDeployment) -> list[ReleaseApproval]:
        """What this deployment waits for, or waited."""
        return [approval for key in deployment.approvals if (approval := self.approvals.get(key))]

    def place(self, approval: ReleaseApproval) -> Place:
        """The deployment that an approval is about."""
        release = self.releases.get(approval.release)
        assert release is not None
        stage = release.stage(approval.stage)
        assert stage is not None
        return Place(release, stage, next(one for one in stage.deployments if one.id == approval.deployment))


def groups_of(oid: str) -> set[str]:
    """The groups that a person belongs to."""
    return {group.oid for group in ADO_GROUPS if oid in group.members}


def allow(who: Character, allowed: Collection[str], permission: str) -> None:
    """Whether the person holds the permission. Raises Denied."""
    if who.oid not in allowed:
        raise forbidden(who, permission)


def forbidden(who: Character, permission: str) -> Denied:
    """The refusal of somebody who lacks a permission."""
    message = f"VS402904: Access denied: User {who.name} does not have {permission} permission. Contact your release manager."
    return Denied(403, "UnauthorizedRequestException", message)


def next_rank(approvers: Approvers, asked: Collection[ReleaseApproval]) -> int | None:
    """The rank to ask now: the first one that was not asked, once all that were asked have approved."""
    if any(approval.status != "approved" for approval in asked):
        return None
    reached = max((approval.rank for approval in asked), default=0)
    return next((rank for rank in approvers.ranks if rank > reached), None)


def outcome(approvers: Approvers, asked: Collection[ReleaseApproval]) -> str | None:
    """`approved` or `rejected` once that is decided, None as long as somebody has to answer."""
    if any(approval.status == "rejected" for approval in asked):
        return "rejected"
    given = sum(approval.status == "approved" for approval in asked)
    return "approved" if given >= (approvers.required or sum(map(len, approvers.ranks.values()))) else None


def ask(place: Place, when: When, rank: int, who: str | None, *, number: int, at: datetime) -> ReleaseApproval:
    """The approval that this approver is asked for; with nobody to ask, it is given already."""
    plan = place.release.blueprint.stage(place.stage.of)
    approvers = plan.before if when is When.BEFORE else plan.after
    return ReleaseApproval(
        id=number,
        release=place.release.id,
        stage=place.stage.id,
        deployment=place.deployment.id,
        attempt=place.deployment.attempt,
        when=when,
        approver=who,
        rank=rank,
        created=at,
        modified=at,
        expires=at + timedelta(minutes=approvers.timeout),
        creator_excluded=approvers.creator_excluded,
        status="pending" if who else "approved",
    )


def refusal(approval: ReleaseApproval, place: Place, who: Character) -> Denied | None:
    """Why this person may not answer now; None if they may."""
    if not _concerns(approval, who):
        return forbidden(who, "approve deployments")
    release, deployment = place.release, place.deployment
    requesters = {release.created_by, release.created_for, deployment.requested_by, deployment.requested_for}
    if approval.creator_excluded and who.oid in requesters:
        message = f"VS402904: Access denied: User {who.name} requested this release or its deployment and may not approve it."
        return Denied(403, "UnauthorizedRequestException", message)
    return _closed(approval)


def decide(approval: ReleaseApproval, who: Character, status: str, comment: str, at: datetime) -> None:
    """Write an answer that `refusal` let pass into the approval. Raises Denied for what is no answer."""
    if status not in {"approved", "rejected"}:
        raise Denied(400, "InvalidRequestException", f"The status of an approval cannot be set to '{status}'.")
    approval.status, approval.approved_by, approval.comment, approval.modified = status, who.oid, comment, at


def hand_over(approval: ReleaseApproval, who: Character, to: str, comment: str, at: datetime) -> None:
    """Give the approval to somebody else; it stays the same and waits for them. Raises Denied."""
    if not _concerns(approval, who):
        allow(who, APPROVERS, "manage release approvers")
    if closed := _closed(approval):
        raise closed
    if to not in IDENTITIES:
        raise Denied(400, "InvalidRequestException", "The approver to reassign the approval to is nobody of this organization.")
    assert approval.approver is not None
    approval.history.append(Handover(approval.approver, who.oid, comment, approval.revision, at))
    approval.approver, approval.comment, approval.modified = to, comment, at
    approval.revision += 1


def close(approval: ReleaseApproval, status: str, at: datetime, comment: str = "") -> None:
    """End an approval that nobody answered."""
    approval.status, approval.modified, approval.comment = status, at, comment


def _concerns(approval: ReleaseApproval, who: Character) -> bool:
    """Whether it is this person's, or that of a group they belong to: one member answers for it."""
    return approval.approver in {who.oid, *groups_of(who.oid)}


def _closed(approval: ReleaseApproval) -> Denied | None:
    if approval.status == "pending":
        return None
    message = f"The approval with ID {approval.id} cannot be updated: it is already {approval.status}."
    return Denied(400, "InvalidRequestException", message)
