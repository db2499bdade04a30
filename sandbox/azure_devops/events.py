"""Service-hook events: what happened, whom it interests, and how it reads on the wire. Pure.

The shapes are those of live deliveries where they differ from the documentation's samples.
https://learn.microsoft.com/azure/devops/service-hooks/events
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sandbox.azure_devops import views
from sandbox.azure_devops.records import Approval, Job, Run, Stage, Store, new_id
from sandbox.azure_devops.views import Json, present, when
from sandbox.names import COLLECTION_ID, PROJECT_ID, REPOSITORY_ID

BUILD = "build.complete"
RUN = "ms.vss-pipelines.run-state-changed-event"
STAGE = "ms.vss-pipelines.stage-state-changed-event"
JOB = "ms.vss-pipelines.job-state-changed-event"
PENDING = "ms.vss-pipelinechecks-events.approval-pending"
COMPLETED = "ms.vss-pipelinechecks-events.approval-completed"


@dataclass(frozen=True, slots=True)
class Kind:
    """An event type: who publishes it, in which versions, and the inputs that filter it."""

    publisher: str
    versions: tuple[str, ...]
    inputs: tuple[str, ...]


_PIPELINES = ("5.1-preview.1",)
_RELEASES = ("3.0-preview.1",)
KINDS: Mapping[str, Kind] = {
    BUILD: Kind("tfs", ("1.0", "1.0-preview.1", "2.0", "2.0-preview.2"), ("definitionName", "buildStatus")),
    "git.push": Kind("tfs", ("1.0",), ("repository", "branch", "pushedBy")),
    "git.pullrequest.merged": Kind("tfs", ("1.0",), ("repository", "branch", "pullrequestCreatedBy", "mergeResult")),
    RUN: Kind("pipelines", _PIPELINES, ("pipelineId", "runStateId", "runResultId")),
    STAGE: Kind("pipelines", _PIPELINES, ("pipelineId", "stageNameId", "stageStateId", "stageResultId")),
    JOB: Kind("pipelines", _PIPELINES, ("pipelineId", "stageNameId", "jobNameId", "jobStateId", "jobResultId")),
    PENDING: Kind("pipelines", _PIPELINES, ("pipelineId", "stageName", "environmentName")),
    COMPLETED: Kind("pipelines", _PIPELINES, ("pipelineId", "stageName", "environmentName")),
    "ms.vss-release.release-created-event": Kind("rm", _RELEASES, ("releaseDefinitionId",)),
    "ms.vss-release.release-abandoned-event": Kind("rm", _RELEASES, ("releaseDefinitionId",)),
    "ms.vss-release.deployment-started-event": Kind("rm", _RELEASES, ("releaseEnvironmentId", "releaseDefinitionId")),
    "ms.vss-release.deployment-completed-event": Kind(
        "rm", _RELEASES, ("releaseEnvironmentId", "releaseDefinitionId", "releaseEnvironmentStatus")
    ),
    "ms.vss-release.deployment-approval-pending-event": Kind(
        "rm", _RELEASES, ("releaseApprovalType", "releaseEnvironmentId", "releaseDefinitionId")
    ),
    "ms.vss-release.deployment-approval-completed-event": Kind(
        "rm", _RELEASES, ("releaseApprovalType", "releaseEnvironmentId", "releaseDefinitionId", "releaseApprovalStatus")
    ),
}
# Every publisher knows these; the server adds the last two on its own.
COMMON_INPUTS = ("projectId", "subscriberId", "teamId", "tfsSubscriptionId", "hostId")


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened; `facts` are what publisher inputs filter by, as of then. The rest is read when it is delivered."""

    kind: str
    run: int
    at: datetime
    facts: dict[str, str]
    id: str = field(default_factory=new_id)
    stage: str = ""
    attempt: int = 1
    job: str = ""
    approval: str = ""
    release: int = 0
    place: int = 0  # a stage of the release

    def interests(self, publisher_inputs: Mapping[str, str]) -> bool:
        """Whether the inputs of a subscription let the event pass; an empty input lets anything pass."""
        known = self.facts | {"projectId": PROJECT_ID}
        return all(not wanted or name not in known or known[name].lower() == wanted.lower() for name, wanted in publisher_inputs.items())


def run_moved(run: Run, at: datetime) -> Event:
    """The run started, is being canceled, or completed."""
    facts = {
        "pipelineId": str(run.pipeline),
        "runStateId": views.RUN_STATE[run.state],
        "runResultId": views.RUN_RESULT.get(run.result or "", ""),
    }
    return Event(RUN, run.id, at, facts)


def build_completed(run: Run, pipeline: str, at: datetime) -> Event:
    """The build completed."""
    return Event(BUILD, run.id, at, {"definitionName": pipeline, "buildStatus": _build_status(run)})


def stage_moved(run: Run, stage: Stage, at: datetime) -> Event:
    """The stage waits, runs or completed."""
    facts = {
        "pipelineId": str(run.pipeline),
        "stageNameId": stage.name,
        "stageStateId": _stage_state(stage),
        "stageResultId": _result(stage.result) or "",
    }
    return Event(STAGE, run.id, at, facts, stage=stage.name, attempt=stage.attempt)


def job_moved(run: Run, stage: Stage, job: Job, at: datetime) -> Event:
    """The job waits for an agent, runs or completed."""
    facts = {
        "pipelineId": str(run.pipeline),
        "stageNameId": stage.name,
        "jobNameId": job.name,
        "jobStateId": _job_state(job),
        "jobResultId": _result(job.result) or "",
    }
    return Event(JOB, run.id, at, facts, stage=stage.name, attempt=stage.attempt, job=job.name)


def approval_moved(run: Run, approval: Approval, environment: str, at: datetime) -> Event:
    """The approval waits for people, or no longer does."""
    facts = {"pipelineId": str(run.pipeline), "stageName": approval.stage, "environmentName": environment}
    kind = PENDING if approval.status == "pending" else COMPLETED
    return Event(kind, run.id, at, facts, stage=approval.stage, attempt=approval.attempt, approval=approval.id)


def render(event: Event, version: str, store: Store) -> Json | None:
    """The event's message and resource as they read now, not as they were; None once its run is gone."""
    run = store.runs.get(event.run)
    pipeline = store.pipelines.get(run.pipeline) if run else None
    if run is None or pipeline is None:
        return None
    kind = KINDS[event.kind]
    text, resource = _content(event, version, run, store)
    containers: Json = {
        "collection": {"id": COLLECTION_ID, "baseUrl": f"{views.BASE}/"},
        "account": {"id": COLLECTION_ID, "baseUrl": f"{views.BASE}/"},
    }
    # Live events of the pipelines publisher have no project container.
    if kind.publisher == "tfs":
        containers["project"] = {"id": PROJECT_ID, "baseUrl": f"{views.BASE}/"}
    message = {"text": text, "html": text, "markdown": text}
    return {
        "id": event.id,
        "eventType": event.kind,
        "publisherId": kind.publisher,
        "message": message,
        "detailedMessage": message,
        "resource": resource,
        "resourceVersion": version,
        "resourceContainers": containers,
        "createdDate": when(event.at),
    }


def trim(document: Json, resource: str, message: str, detailed: str) -> Json:
    """The event with as much detail as the subscription asked for: all, minimal, none; for messages also text, html or markdown."""
    trimmed = dict(document)
    if resource == "none":
        trimmed["resource"] = None
    elif resource == "minimal":
        keep = ("id", "url", "uri", "runId", "runUrl", "projectId", "approvalId", "stageName")
        trimmed["resource"] = {key: value for key, value in document["resource"].items() if key in keep}
    for key, asked in (("message", message), ("detailedMessage", detailed)):
        if asked == "none":
            trimmed[key] = None
        elif asked != "all":
            trimmed[key] = {asked: document[key].get(asked)}
    return trimmed


def _content(event: Event, version: str, run: Run, store: Store) -> tuple[str, Json]:
    pipeline = store.pipelines.get(run.pipeline)
    assert pipeline is not None
    stage = _stage_at(run, event.stage, event.attempt)
    approval = store.approvals.get(event.approval)
    if event.kind == BUILD:
        return f"Build {run.number} {_build_status(run).lower()}", _build(run, version, store)
    if event.kind == RUN:
        state = views.RUN_RESULT.get(run.result or "") or views.RUN_STATE[run.state]
        return f"Run {run.number} {state}.", _run(run, store)
    if approval is not None:
        environment = store.environments.get(approval.environment)
        assert environment is not None
        where = f"environment {environment.name} in stage {_title(stage, approval.stage)} of run {run.number}"
        text = f"Approval pending for {where}" if event.kind == PENDING else f"Approval {approval.status} for {where}"
        return text, _approval(event, approval, stage, run, store)
    assert stage is not None
    job = next((job for job in stage.jobs if job.name == event.job), None)
    if event.kind == JOB and job is not None:
        text = f"Job {job.title} of stage {stage.title} of run {run.number} {_result(job.result) or _job_state(job)}."
        return text, _pipeline_event(run, store) | {"job": _job(job, run), "stage": _stage(stage, run), "stageName": stage.name}
    text = f"Stage {stage.title} of run {run.number} {_result(stage.result) or _stage_state(stage)}."
    return text, _pipeline_event(run, store) | {"stage": _stage(stage, run), "stageName": stage.name}


def _pipeline_event(run: Run, store: Store) -> Json:
    pipeline = store.pipelines.get(run.pipeline)
    assert pipeline is not None
    return {
        "run": views.run(run, pipeline),
        "pipeline": views.pipeline_reference(pipeline) | {"url": f"{views.API}/pipelines/{pipeline.id}"},
        "projectId": PROJECT_ID,
        "runId": run.id,
        "runUrl": f"{views.API}/pipelines/{run.pipeline}/runs/{run.id}",
    }


def _run(run: Run, store: Store) -> Json:
    stages = [present({"name": stage.name, "state": _stage_state(stage), "result": _result(stage.result)}) for stage in run.stages]
    return _pipeline_event(run, store) | {
        "requestedBy": views.identity(run.requested_by),
        "requestedFor": views.identity(run.requested_for),
        "stages": stages,
        "repositories": [_repository(run)],
    }


def _repository(run: Run) -> Json:
    return {
        "type": "Git",
        "change": {"author": {"name": run.commit_author}, "message": run.commit_message, "version": run.commit},
        "url": f"{views.WEB}/_git/ml-delivery",
        "alias": "self",
        "id": REPOSITORY_ID,
    }


def _stage(stage: Stage, run: Run) -> Json:
    return present(
        {
            "_links": {"web": {"href": views.run_url(run)}},
            "id": stage.id,
            "name": stage.name,
            "displayName": stage.title,
            "attempt": stage.attempt,
            "state": _stage_state(stage),
            "result": _result(stage.result),
            "startTime": when(stage.started),
            "finishTime": when(stage.finished),
        }
    )


def _job(job: Job, run: Run) -> Json:
    return present(
        {
            "_links": {"web": {"href": views.run_url(run)}},
            "id": job.id,
            "name": job.name,
            "attempt": job.attempt,
            "state": _job_state(job),
            "result": _result(job.result),
            "startTime": when(job.started),
            "finishTime": when(job.finished),
        }
    )


def _approval(event: Event, approval: Approval, stage: Stage | None, run: Run, store: Store) -> Json:
    """Identifiers of runs, pipelines and environments are texts here, but the owner's is a number."""
    pipeline = store.pipelines.get(run.pipeline)
    environment = store.environments.get(approval.environment)
    assert pipeline is not None
    assert environment is not None
    pending = event.kind == PENDING
    steps = [views.approval_step(step) for step in approval.steps]
    if pending:
        for step in steps:
            step.pop("actualApprover", None)
    inner: Json = {
        "id": approval.id,
        "status": approval.status,
        "instructions": approval.instructions,
        "executionOrder": approval.execution_order,
        "blockedApprovers": [views.identity(oid) for oid in approval.blocked],
        "createdOn": when(approval.created),
        "lastModifiedOn": when(approval.modified),
        "pipeline": {"id": str(pipeline.id), "name": pipeline.name, "owner": {"id": run.id, "name": run.number}},
        "steps": steps,
    }
    if not pending:
        inner["minRequiredApprovers"] = approval.minimum
    return {
        "approval": inner,
        "approvalId": approval.id,
        "attemptId": approval.attempt,
        "projectId": PROJECT_ID,
        "runId": run.id,
        "stageName": approval.stage,
        "stage": {"id": stage.id if stage else views.EMPTY, "name": approval.stage},
        "pipeline": {"id": str(pipeline.id), "name": pipeline.name},
        "resource": {"id": str(environment.id), "name": environment.name, "resourceType": "environment"},
        "run": {
            "id": str(run.id),
            "name": run.number,
            # The display name, not an identity; and nothing of this once the approval is completed.
            "queuedOn": when(run.queued) if pending else None,
            "requestedFor": views.KNOWN[run.requested_for].name if pending else None,
            "runReason": run.reason if pending else None,
        },
    }


def _build(run: Run, version: str, store: Store) -> Json:
    pipeline = store.pipelines.get(run.pipeline)
    assert pipeline is not None
    full = views.build(run, pipeline)
    if version.startswith("2"):
        return full
    status = _build_status(run)
    url = full["url"]
    return {
        "uri": full["uri"],
        "id": run.id,
        "buildNumber": run.number,
        "url": url,
        "startTime": when(run.started),
        "finishTime": when(run.finished),
        "reason": run.reason,
        "status": status[0].lower() + status[1:],
        "drop": {},
        "log": {"type": "Container", "url": f"{url}/logs"},
        "sourceGetVersion": f"LG:{run.branch}:{run.commit}",
        "lastChangedBy": full["lastChangedBy"],
        "retainIndefinitely": False,
        "hasDiagnostics": False,
        "definition": {
            "batchSize": 1,
            "triggerType": "none",
            "definitionType": "xaml",
            "id": pipeline.id,
            "name": pipeline.name,
            "url": f"{views.API}/build/Definitions/{pipeline.id}",
        },
        "queue": {"queueType": "buildController", "id": 1, "name": "Default", "url": f"{views.BASE}/_apis/build/Queues/1"},
        "requests": [{"id": run.id, "url": url, "requestedFor": full["requestedFor"]}],
    }


def _build_status(run: Run) -> str:
    """How a build ended, in the words of the `buildStatus` filter."""
    words = {"succeeded": "Succeeded", "partiallySucceeded": "PartiallySucceeded", "failed": "Failed", "canceled": "Stopped"}
    return words.get(run.result or "", "Succeeded")


def _stage_state(stage: Stage) -> str:
    if stage.state == "completed":
        return "completed"
    if stage.state == "inProgress":
        return "running"
    return "waiting" if stage.entered else "notStarted"


def _job_state(job: Job) -> str:
    return {"pending": "waiting", "inProgress": "running"}.get(job.state, "completed")


def _result(result: str | None) -> str | None:
    """Events know no result with issues."""
    return "succeeded" if result == "succeededWithIssues" else result


def _stage_at(run: Run, name: str, attempt: int) -> Stage | None:
    newest = run.stage(name) if name else None
    if newest is None:
        return None
    return next((old for old in newest.previous if old.attempt == attempt), newest)


def _title(stage: Stage | None, name: str) -> Any:
    return stage.title if stage else name
