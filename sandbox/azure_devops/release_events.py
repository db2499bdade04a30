"""Service-hook events of releases: what happened, whom it interests, and how it reads on the wire. Pure.

https://learn.microsoft.com/azure/devops/service-hooks/events#build-and-release
"""

from __future__ import annotations

from datetime import datetime

from sandbox.azure_devops import release_views as views
from sandbox.azure_devops.events import Event
from sandbox.azure_devops.records import Store, now
from sandbox.azure_devops.releases import Json, Place, Release, ReleaseApproval, ReleaseDeployment, ReleaseStage, ReleaseStore, When
from sandbox.azure_devops.views import BASE, name_of, when
from sandbox.names import COLLECTION_ID, PROJECT, PROJECT_ID

CREATED = "ms.vss-release.release-created-event"
ABANDONED = "ms.vss-release.release-abandoned-event"
STARTED = "ms.vss-release.deployment-started-event"
COMPLETED = "ms.vss-release.deployment-completed-event"
ASKED = "ms.vss-release.deployment-approval-pending-event"
ANSWERED = "ms.vss-release.deployment-approval-completed-event"

# What filters call these: numbers of the service's own enumerations.
_STATUS = {"succeeded": "4", "canceled": "8", "rejected": "16", "partiallySucceeded": "128"}
_WHEN = {When.BEFORE: "1", When.AFTER: "2"}
_ANSWER = {"approved": "2", "rejected": "4"}
_DONE = {"succeeded": "Succeeded", "canceled": "Canceled", "rejected": "Rejected", "partiallySucceeded": "Partially Succeeded"}


def about(kind: str, release: Release, at: datetime) -> Event:
    """The release was created or abandoned."""
    return Event(kind, release.build, at, {"releaseDefinitionId": str(release.definition)}, release=release.id)


def deployment(kind: str, release: Release, stage: ReleaseStage, of: ReleaseDeployment, at: datetime) -> Event:
    """The deployment started, or completed in whatever way."""
    facts = {
        "releaseDefinitionId": str(release.definition),
        "releaseEnvironmentId": str(stage.of),
        "releaseEnvironmentStatus": _STATUS.get(stage.status, ""),
    }
    return Event(kind, release.build, at, facts, release=release.id, place=stage.id, attempt=of.attempt)


def approval(place: Place, asked: ReleaseApproval, at: datetime) -> Event:
    """The approval waits for somebody (else), or was answered."""
    facts = {
        "releaseDefinitionId": str(place.release.definition),
        "releaseEnvironmentId": str(place.stage.of),
        "releaseApprovalType": _WHEN[asked.when],
        "releaseApprovalStatus": _ANSWER.get(asked.status, ""),
    }
    kind = ASKED if asked.status == "pending" else ANSWERED
    release, number = place.release, place.deployment.attempt
    return Event(kind, release.build, at, facts, release=release.id, place=place.stage.id, attempt=number, approval=str(asked.id))


def sample(kind: str, releases: ReleaseStore) -> Event | None:
    """An event of that kind about the newest release that it could be about, for a test notification."""
    for release in reversed(list(releases.releases)):
        asked = next((one for one in releases.approvals if one.release == release.id and one.approver), None)
        if kind in {CREATED, ABANDONED}:
            return about(kind, release, now())
        if kind in {ASKED, ANSWERED} and asked is not None:
            return Event(
                kind, release.build, now(), {}, release=release.id, place=asked.stage, attempt=asked.attempt, approval=str(asked.id)
            )
        if kind in {STARTED, COMPLETED} and release.stages[0].deployments:
            return Event(kind, release.build, now(), {}, release=release.id, place=release.stages[0].id)
    return None


def render(event: Event, version: str, releases: ReleaseStore, builds: Store) -> Json | None:
    """The event's message and resource as they read now, not as they were; None once its release is gone."""
    release = releases.releases.get(event.release)
    if release is None:
        return None
    stage = release.stage(event.place)
    text, detail, resource = _content(event, release, stage, releases, builds)
    containers = {"collection": {"id": COLLECTION_ID, "baseUrl": f"{BASE}/"}, "account": {"id": COLLECTION_ID, "baseUrl": f"{BASE}/"}}
    return {
        "id": event.id,
        "eventType": event.kind,
        "publisherId": "rm",
        "message": {"text": text, "html": text, "markdown": text},
        "detailedMessage": {"text": detail, "html": detail, "markdown": detail},
        "resource": resource
        | {"project": {"id": PROJECT_ID, "name": PROJECT}, "url": views.release_url(release), "id": release.id}
        | ({"stageName": stage.name, "attemptId": event.attempt} if stage else {}),
        "resourceVersion": version,
        "resourceContainers": containers,
        "createdDate": when(event.at),
    }


def _content(event: Event, release: Release, stage: ReleaseStage | None, releases: ReleaseStore, builds: Store) -> tuple[str, str, Json]:
    asked = releases.approvals.get(event.approval) if event.approval else None
    if stage is None:
        past = "created" if event.kind == CREATED else "abandoned"
        who = name_of(release.created_by if event.kind == CREATED else release.modified_by)
        text = f"Release {release.name} {past}."
        return text, f"{text}\r\nBy: {who}", {"release": views.release(release, releases, builds)}
    if asked is not None:
        whole = {"approval": views.approval(asked, releases), "release": views.release(release, releases, builds)}
        before = "Pre" if asked.when is When.BEFORE else "Post"
        if event.kind == ASKED:
            text = f"{before} deployment approval pending for release {release.name} on stage {stage.name}."
            since = asked.created.strftime("%d %B %Y %H:%M:%S (UTC)")
            return text, f"{text}\r\nPending on: {name_of(asked.approver)}\r\nPending since: {since}", whole
        done = "Succeeded" if asked.status == "approved" else "Rejected"
        text = f"{before} Deployment approval for deployment of release {release.name} on stage {stage.name} {done}."
        return text, f"{text}\r\nApprover: {name_of(asked.approved_by)}\r\nComment: {asked.comment}", whole
    of = next((one for one in stage.deployments if one.attempt == event.attempt), None)
    resource: Json = {"environment": views.stage(release, stage, releases)}
    if event.kind == STARTED:
        text = f"Deployment of release {release.name} to stage {stage.name} started."
        reason = of.reason.capitalize() if of else "Manual"
        return text, f"{text}\r\nTrigger: {reason}", resource | {"release": views.reference(release, builds)}
    text = f"Deployment of release {release.name} on stage {stage.name} {_DONE.get(stage.status, stage.status)}."
    minutes = views.minutes(of) if of else 0
    detail = f"{text} Time to deploy: {minutes:.2f} minutes."
    shown = {"deployment": views.deployment(release, stage, of, releases, builds)} if of else {}
    return text, detail, resource | shown | {"comment": of.comment if of else ""}
