"""Service-hook events: typed hints that say where to look, never what is true.

`parse` is a `match`: its patterns are the schema. Shapes: recordings of 2019 and 2026, the docs' samples of 2022 and 2025.
https://learn.microsoft.com/azure/devops/service-hooks/events
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bot.core.references import Ref, Thing

NOBODY = "00000000-0000-0000-0000-000000000000"


class Kind(StrEnum):
    """The kinds of event we subscribe to, by Azure DevOps' own names."""

    RUN = "ms.vss-pipelines.run-state-changed-event"
    STAGE = "ms.vss-pipelines.stage-state-changed-event"
    JOB = "ms.vss-pipelines.job-state-changed-event"
    BUILD = "build.complete"
    APPROVAL_PENDING = "ms.vss-pipelinechecks-events.approval-pending"
    APPROVAL_COMPLETED = "ms.vss-pipelinechecks-events.approval-completed"
    RELEASE_CREATED = "ms.vss-release.release-created-event"
    RELEASE_ABANDONED = "ms.vss-release.release-abandoned-event"
    DEPLOYMENT_STARTED = "ms.vss-release.deployment-started-event"
    DEPLOYMENT_COMPLETED = "ms.vss-release.deployment-completed-event"
    RELEASE_APPROVAL_PENDING = "ms.vss-release.deployment-approval-pending-event"
    RELEASE_APPROVAL_COMPLETED = "ms.vss-release.deployment-approval-completed-event"


@dataclass(frozen=True, slots=True)
class _OfRun:
    run_id: int

    @property
    def ref(self) -> Ref:
        """What to look at."""
        return Ref(Thing.RUN, self.run_id)


@dataclass(frozen=True, slots=True)
class RunMoved(_OfRun):
    """A run changed: queued, started, canceling, completed."""


@dataclass(frozen=True, slots=True)
class StageMoved(_OfRun):
    """A stage of a run changed."""

    stage: str
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class JobMoved(_OfRun):
    """A job of a run changed."""

    stage: str | None
    job: str


@dataclass(frozen=True, slots=True)
class ApprovalRequested(_OfRun):
    """Azure DevOps waits for people."""

    approval_id: str


@dataclass(frozen=True, slots=True)
class ApprovalCompleted(_OfRun):
    """Azure DevOps no longer waits: approved, rejected, timed out or canceled."""

    approval_id: str


@dataclass(frozen=True, slots=True)
class _OfRelease:
    release_id: int

    @property
    def ref(self) -> Ref:
        """What to look at."""
        return Ref(Thing.RELEASE, self.release_id)


@dataclass(frozen=True, slots=True)
class ReleaseMoved(_OfRelease):
    """A classic release changed: created, abandoned, a deployment started or completed."""


@dataclass(frozen=True, slots=True)
class ReleaseApprovalRequested(_OfRelease):
    """A deployment of a release waits for somebody, before it begins or after it is done."""

    approval_id: str


@dataclass(frozen=True, slots=True)
class ReleaseApprovalCompleted(_OfRelease):
    """Somebody approved or rejected a deployment of a release."""

    approval_id: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """A kind of event we did not ask for: kept, and left alone."""

    kind: str


Event = (
    RunMoved
    | StageMoved
    | JobMoved
    | ApprovalRequested
    | ApprovalCompleted
    | ReleaseMoved
    | ReleaseApprovalRequested
    | ReleaseApprovalCompleted
)

# Of these we only take which release it is.
_MOVES = {Kind.RELEASE_CREATED, Kind.RELEASE_ABANDONED, Kind.DEPLOYMENT_STARTED, Kind.DEPLOYMENT_COMPLETED}


class Malformed(Exception):
    """A known kind of event in a shape we do not know: our bug, never the sender's."""


def parse(payload: object) -> Event | Ignored:
    """The event in a delivery's JSON. Raises Malformed for a known kind in an unknown shape."""
    match payload:
        case {"eventType": Kind.RUN, "resource": resource}:
            return RunMoved(_run(resource))
        case {"eventType": Kind.STAGE, "resource": resource}:
            return StageMoved(_run(resource), _stage(resource), _attempt(resource))
        case {"eventType": Kind.JOB, "resource": resource}:
            return JobMoved(_run(resource), _stage_if_any(resource), _job(resource))
        case {"eventType": Kind.APPROVAL_PENDING, "resource": resource}:
            return ApprovalRequested(_run(resource), _approval(resource))
        case {"eventType": Kind.APPROVAL_COMPLETED, "resource": resource}:
            return ApprovalCompleted(_run(resource), _approval(resource))
        case {"eventType": str(kind), "resource": resource} if kind in _MOVES:
            return ReleaseMoved(_release(resource))
        case {"eventType": Kind.RELEASE_APPROVAL_PENDING, "resource": resource}:
            return ReleaseApprovalRequested(_release(resource), _release_approval(resource))
        case {"eventType": Kind.RELEASE_APPROVAL_COMPLETED, "resource": resource}:
            return ReleaseApprovalCompleted(_release(resource), _release_approval(resource))
        # 1.0 says status "succeeded" and has no result, 2.0 says status "completed" and a result: both have the id, which is all we take.
        case {"eventType": Kind.BUILD, "resource": {"id": id, "status": str()}}:
            return RunMoved(_known(id, "build"))
        case {"eventType": str(kind)} if kind not in [*Kind]:
            return Ignored(kind)
        case {"eventType": str(kind)}:
            raise Malformed(f"The event ({kind}) has no resource that we could look at.")
        case _:
            raise Malformed("The delivery has no event type.")


def lane(event: Event) -> str:
    """What is worked off one by one, in order: everything about one run, or about one release."""
    return f"{event.ref.thing.value}:{event.ref.id}"


def rests(lane: str) -> bool:
    """Whether the lane is a run's or a release's: their events are hints, and may be taken together and a little late."""
    return lane.partition(":")[0] in {*Thing}


def key(payload: object, headers: Mapping[str, str]) -> str | None:
    """What tells a delivery from its repetition, or None where nothing does; a repetition is harmless, only work.

    A retry carries the same notification of the same subscription. Deliveries of 2019 lack both and are told apart by what they say.
    """
    sent = {name.lower(): value for name, value in headers.items()}
    match payload:
        case {"subscriptionId": str(subscription), "notificationId": int() | str() as number} if subscription != NOBODY:
            return f"{subscription}:{number}"
        case {"notificationId": int() | str() as number} if sent.get("x-vss-subscriptionid"):
            return f"{sent['x-vss-subscriptionid']}:{number}"
        case {"id": str(id)} if id not in {"", NOBODY}:
            return f"event:{id}"
        case {"eventType": str(kind), "createdDate": str(created)}:
            return _meaning(kind, created, payload)
        case _:
            return None


def _meaning(kind: str, created: str, payload: object) -> str | None:
    """Kind, time and place of an event; None where it does not say the place."""
    try:
        event = parse(payload)
    except Malformed:
        return None
    return f"{kind}:{created}:{event}"


def _run(resource: object) -> int:
    match resource:
        # Approval events carry run.id as a string; 2019's stage events have the run only as {id, name}.
        case {"runId": int() | str() as id} | {"run": {"id": id}} | {"approval": {"pipeline": {"owner": {"id": id}}}}:
            return _known(id, "run")
        case _:
            raise Malformed("The event names no run.")


def _known(id: object, what: str) -> int:
    """A positive number, which may be written as a string. The docs' samples say 0: they are no events."""
    match id:
        case bool():
            number = 0
        case int():
            number = id
        case str() if id.isascii() and id.isdigit() and len(id) < 19:
            number = int(id)
        case _:
            number = 0
    if not 0 < number < 2**63:
        raise Malformed(f"{str(id)[:40]!r} cannot be the number of the {what}.")
    return number


def _stage(resource: object) -> str:
    stage = _stage_if_any(resource)
    if stage is None:
        raise Malformed("The event names no stage.")
    return stage


def _stage_if_any(resource: object) -> str | None:
    match resource:
        case {"stage": {"name": str(name)}} | {"stageName": str(name)} if name:
            return name
        case _:
            return None


def _attempt(resource: object) -> int | None:
    """Which attempt of the stage; 2019's events do not say."""
    match resource:
        case {"stage": {"attempt": int() | str() as attempt}} | {"attemptId": int() | str() as attempt}:
            return _known(attempt, "attempt")
        case _:
            return None


def _job(resource: object) -> str:
    match resource:
        case {"job": {"name": str(name)}} | {"jobName": str(name)} if name:
            return name
        case _:
            raise Malformed("The event names no job.")


def _approval(resource: object) -> str:
    match resource:
        case {"approvalId": str(id)} | {"approval": {"id": str(id)}} if id not in {"", NOBODY}:
            return id
        case _:
            raise Malformed("The event names no approval.")


def _release(resource: object) -> int:
    match resource:
        # Where details are left out only the resource's own id may be there; the docs' samples have nothing in place of the release.
        case (
            {"release": {"id": id}}
            | {"deployment": {"release": {"id": id}}}
            | {"environment": {"release": {"id": id}}}
            | {"approval": {"release": {"id": id}}}
            | {"id": id}
        ):
            return _known(id, "release")
        case _:
            raise Malformed("The event names no release.")


def _release_approval(resource: object) -> str:
    match resource:
        case {"approval": {"id": id}}:
            return str(_known(id, "approval"))
        case _:
            raise Malformed("The event names no approval.")
