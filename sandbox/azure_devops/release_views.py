"""What the REST API says about releases, in Azure DevOps' words. Pure: no request, no clock, no rule.

https://learn.microsoft.com/rest/api/azure/devops/release/
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sandbox.azure_devops import views
from sandbox.azure_devops.records import Job, Step, Store
from sandbox.azure_devops.releases import (
    Attachment,
    Definition,
    Json,
    Release,
    ReleaseApproval,
    ReleaseDeployment,
    ReleaseStage,
    ReleaseStore,
    When,
)
from sandbox.azure_devops.views import BASE, EMPTY, identity, present, when
from sandbox.names import ORGANIZATION, PROJECT, PROJECT_ID

API = f"https://vsrm.dev.azure.com/{ORGANIZATION}/{PROJECT_ID}/_apis/Release"
WEB = f"{BASE}/{PROJECT_ID}"
_PROJECT: Json = {"id": PROJECT_ID, "name": PROJECT}

_TASK = {
    "succeeded": "succeeded",
    "succeededWithIssues": "partiallySucceeded",
    "failed": "failed",
    "canceled": "canceled",
    "skipped": "skipped",
}


def release_url(record: Release) -> str:
    """The release in the API."""
    return f"{API}/releases/{record.id}"


def page_url(record: Release) -> str:
    """The release's page."""
    return f"{WEB}/_release?releaseId={record.id}&_a=release-summary"


def release(record: Release, releases: ReleaseStore, builds: Store) -> Json:
    """A release with its stages."""
    return present(
        {
            "id": record.id,
            "name": record.name,
            "status": record.status,
            "createdOn": when(record.created),
            "modifiedOn": when(record.modified),
            "modifiedBy": identity(record.modified_by),
            "createdBy": identity(record.created_by),
            "createdFor": identity(record.created_for),
            "environments": [stage(record, one, releases) for one in record.stages],
            "variables": record.snapshot.get("variables") or {},
            "variableGroups": [],
            "artifacts": [artifact(record, builds)],
            "releaseDefinition": _definition_reference(record),
            "releaseDefinitionRevision": record.revision,
            "description": record.description,
            "reason": record.reason,
            "releaseNameFormat": record.blueprint.release_name,
            "keepForever": False,
            "definitionSnapshotRevision": 1,
            "logsContainerUrl": f"{release_url(record)}/logs",
            "url": release_url(record),
            "comment": record.comment,
            "tags": [],
            "triggeringArtifactAlias": record.blueprint.alias if record.reason == "continuousIntegration" else None,
            "projectReference": _PROJECT,
            "properties": {},
            "_links": _links(release_url(record), page_url(record)),
        }
    )


def listed(record: Release, releases: ReleaseStore, builds: Store, expand: Collection[str]) -> Json:
    """A release of a list: stages, their approvals and artifacts only where they are asked for with `$expand`."""
    whole = release(record, releases, builds)
    if "environments" not in expand:
        del whole["environments"]
    elif "approvals" not in expand:
        for one in whole["environments"]:
            one |= {"preDeployApprovals": [], "postDeployApprovals": []}
    if "artifacts" not in expand:
        whole["artifacts"] = []
    return whole


def reference(record: Release, builds: Store) -> Json:
    """How a deployment names its release."""
    return {
        "id": record.id,
        "name": record.name,
        "url": release_url(record),
        "artifacts": [artifact(record, builds)],
        "webAccessUri": page_url(record),
        "_links": _links(release_url(record), page_url(record)),
        "description": record.description,
        "releaseDefinition": _definition_reference(record),
        "createdOn": when(record.created),
        "createdBy": identity(record.created_by),
        "modifiedBy": identity(record.modified_by),
        "reason": record.reason,
    }


def artifact(record: Release, builds: Store) -> Json:
    """The build that the release deploys."""
    blueprint = record.blueprint
    run, pipeline = builds.runs.get(record.build), builds.pipelines.get(blueprint.pipeline)
    assert run is not None
    assert pipeline is not None
    reference = {
        "artifactSourceDefinitionUrl": {"id": f"{WEB}/_build/definition?definitionId={pipeline.id}", "name": ""},
        "artifactSourceVersionUrl": {"id": views.run_url(run), "name": ""},
        "branch": {"id": run.branch, "name": run.branch},
        "buildUri": {"id": f"vstfs:///Build/Build/{run.id}", "name": run.number},
        "definition": {"id": str(pipeline.id), "name": pipeline.name},
        "IsTriggeringArtifact": {"id": str(record.reason == "continuousIntegration"), "name": ""},
        "project": {"id": PROJECT_ID, "name": PROJECT},
        "requestedForId": {"id": run.requested_for, "name": ""},
        "sourceVersion": {"id": run.commit, "name": ""},
        "version": {"id": str(run.id), "name": run.number},
    }
    return {
        "sourceId": f"{PROJECT_ID}:{pipeline.id}",
        "type": "Build",
        "alias": blueprint.alias,
        "definitionReference": reference,
        "isPrimary": True,
        "isRetained": True,
    }


def stage(record: Release, one: ReleaseStage, releases: ReleaseStore) -> Json:
    """A stage of a release: an environment, with the approvals and steps of every attempt."""
    given = next(each for each in record.snapshot["environments"] if each["id"] == one.of)
    asked = [approval for attempt in one.deployments for approval in releases.approvals_of(attempt)]
    newest = one.deployments[-1] if one.deployments else None
    status = {each.name: each.status for each in record.stages}
    return present(
        {
            "id": one.id,
            "releaseId": record.id,
            "name": one.name,
            "status": one.status,
            "variables": given.get("variables") or {},
            "variableGroups": [],
            "preDeployApprovals": [approval(each, releases) for each in asked if each.when is When.BEFORE],
            "postDeployApprovals": [approval(each, releases) for each in asked if each.when is When.AFTER],
            "preApprovalsSnapshot": given.get("preDeployApprovals"),
            "postApprovalsSnapshot": given.get("postDeployApprovals"),
            "deploySteps": [_attempt(record, one, each) for each in one.deployments],
            "rank": one.rank,
            "definitionEnvironmentId": one.of,
            "environmentOptions": given.get("environmentOptions"),
            "demands": [],
            "conditions": [each | {"result": _holds(each, status)} for each in given.get("conditions") or []],
            "createdOn": when(record.created),
            "modifiedOn": when(one.modified or record.created),
            "workflowTasks": [],
            "deployPhasesSnapshot": given.get("deployPhases"),
            "owner": identity(record.created_for),
            "schedules": [],
            "release": _reference(record),
            "releaseDefinition": _definition_reference(record),
            "releaseCreatedBy": identity(record.created_by),
            "triggerReason": _reason(record, one),
            "timeToDeploy": round(minutes(newest), 2) if newest else 0,
        }
    )


def minutes(of: ReleaseDeployment) -> float:
    """How long the deployment took, in minutes."""
    return (of.finished - of.started).total_seconds() / 60 if of.started and of.finished else 0.0


def approval(record: ReleaseApproval, releases: ReleaseStore) -> Json:
    """An approval. Who answered is `approvedBy`, from the token of the answer."""
    place = releases.place(record)
    url = f"{API}/approvals/{record.id}"
    return present(
        {
            "id": record.id,
            "revision": record.revision,
            "approver": identity(record.approver) if record.approver else None,
            "approvedBy": identity(record.approved_by) if record.approved_by else None,
            "approvalType": record.when.value,
            "createdOn": when(record.created),
            "modifiedOn": when(record.modified),
            "status": record.status,
            "comments": record.comment,
            "isAutomated": record.approver is None,
            "isNotificationOn": False,
            "trialNumber": record.attempt,
            "attempt": record.attempt,
            "rank": record.rank,
            "history": [
                {
                    "approver": identity(past.approver),
                    "changedBy": identity(past.by),
                    "comments": past.comment,
                    "createdOn": when(record.created),
                    "modifiedOn": when(past.at),
                    "revision": past.revision,
                }
                for past in record.history
            ],
            "release": _reference(place.release),
            "releaseDefinition": _definition_reference(place.release),
            "releaseEnvironment": _stage_reference(place.release, place.stage),
            "url": url,
        }
    )


def deployment(record: Release, one: ReleaseStage, of: ReleaseDeployment, releases: ReleaseStore, builds: Store) -> Json:
    """A deployment of the list of deployments."""
    asked = releases.approvals_of(of)
    return present(
        {
            "id": of.id,
            "release": reference(record, builds),
            "releaseDefinition": _definition_reference(record),
            "releaseEnvironment": _stage_reference(record, one),
            "projectReference": _PROJECT,
            "definitionEnvironmentId": one.of,
            "attempt": of.attempt,
            "reason": of.reason,
            "deploymentStatus": of.status,
            "operationStatus": of.operation,
            "requestedBy": identity(of.requested_by),
            "requestedFor": identity(of.requested_for),
            "queuedOn": when(of.queued),
            "startedOn": when(of.started),
            "completedOn": when(of.finished),
            "lastModifiedOn": when(of.finished or of.started or of.modified),
            "lastModifiedBy": identity(of.modified_by),
            "conditions": [],
            "preDeployApprovals": [approval(each, releases) for each in asked if each.when is When.BEFORE],
            "postDeployApprovals": [approval(each, releases) for each in asked if each.when is When.AFTER],
            "_links": {},
        }
    )


def attachment(record: Release, one: ReleaseStage, of: ReleaseDeployment, found: Attachment) -> Json:
    """A file that a task attached."""
    url = f"{release_url(record)}/environments/{one.id}/attempts/{of.attempt}/plan/{of.plan}/timelines/{of.timeline}"
    return {
        "type": found.kind,
        "name": found.name,
        "createdOn": when(found.created),
        "modifiedOn": when(found.created),
        "modifiedBy": {"id": EMPTY},
        "timelineId": of.timeline,
        "recordId": found.record,
        "_links": {"self": {"href": f"{url}/records/{found.record}/attachments/{found.kind}/{found.name}"}},
    }


def definition(record: Definition, *, whole: bool = True) -> Json:
    """A release definition; a list leaves out what it does."""
    url = f"{API}/definitions/{record.id}"
    shown = record.document if whole else {key: record.document.get(key) for key in ("name", "path", "description", "releaseNameFormat")}
    return shown | {
        "source": "restApi",
        "id": record.id,
        "revision": record.revision,
        "createdBy": identity(record.created_by),
        "createdOn": when(record.created),
        "modifiedBy": identity(record.modified_by),
        "modifiedOn": when(record.modified),
        "isDeleted": False,
        "projectReference": _PROJECT,
        "url": url,
        "_links": _links(url, f"{WEB}/_release?definitionId={record.id}"),
    }


def _attempt(record: Release, one: ReleaseStage, of: ReleaseDeployment) -> Json:
    started = of.job.started is not None
    return present(
        {
            "id": of.id,
            "deploymentId": of.id,
            "attempt": of.attempt,
            "reason": of.reason,
            "status": of.status,
            "operationStatus": of.operation,
            "releaseDeployPhases": [_phase(record, one, of)] if started else [],
            "requestedBy": identity(of.requested_by),
            "requestedFor": identity(of.requested_for),
            "queuedOn": when(of.queued),
            "lastModifiedBy": identity(of.modified_by),
            "lastModifiedOn": when(of.finished or of.started or of.modified),
            "hasStarted": started,
            "runPlanId": of.plan if started else EMPTY,
            "tasks": [],
            "issues": [],
        }
    )


def _phase(record: Release, one: ReleaseStage, of: ReleaseDeployment) -> Json:
    job = of.job
    shown = _record(job.title, job.id, job, rank=1, issues=job, agent=job.worker) | {"id": 0}
    url = f"{release_url(record)}/environments/{one.id}/deployPhases/{of.phase_number}/tasks"
    return present(
        {
            "id": of.phase_number,
            "phaseId": of.phase,
            "name": job.title,
            "rank": 1,
            "phaseType": "agentBasedDeployment",
            "status": _TASK.get(job.result or "", "inProgress"),
            "runPlanId": of.plan,
            "startedOn": when(job.started),
            "manualInterventions": [],
            "deploymentJobs": [{"job": shown, "tasks": [_task(url, job, step, rank) for rank, step in enumerate(job.steps, 1)]}],
        }
    )


def _task(url: str, job: Job, step: Step, rank: int) -> Json:
    """A task; its id is the number of its log, which is there once it has completed."""
    shown = _record(step.title, step.id, step, rank=rank, issues=step, agent=job.worker) | {"id": step.log or 0}
    return shown | ({"logUrl": f"{url}/{step.log}/logs"} if step.log and step.state == "completed" else {})


def _record(name: str, id: str, of: Job | Step, *, rank: int, issues: Job | Step, agent: str | None) -> Json:
    status = _TASK.get(of.result or "", "inProgress" if of.state == "inProgress" else "pending")
    times = {
        "dateStarted": when(of.started),
        "dateEnded": when(of.finished),
        "startTime": when(of.started),
        "finishTime": when(of.finished),
    }
    found = [{"issueType": issue.kind.capitalize(), "message": issue.message, "data": {}} for issue in issues.issues]
    return present({"timelineRecordId": id, "name": name, "status": status, "rank": rank, "agentName": agent, "issues": found, **times})


def _holds(condition: Json, status: dict[str, str]) -> bool:
    return condition.get("conditionType") == "event" or status.get(str(condition.get("name"))) == "succeeded"


def _reason(record: Release, one: ReleaseStage) -> str:
    follows = record.blueprint.stage(one.of).follows
    if one.manual or not (follows or record.blueprint.stage(one.of).at_start):
        return "Manual"
    return f"After successful deployment of {', '.join(follows)}" if follows else "After release creation"


def _reference(record: Release) -> Json:
    links = _links(release_url(record), page_url(record))
    return {"id": record.id, "name": record.name, "url": release_url(record), "_links": links}


def _stage_reference(record: Release, one: ReleaseStage) -> Json:
    url = f"{release_url(record)}/environments/{one.id}"
    return {"id": one.id, "name": one.name, "url": url, "_links": {"self": {"href": url}}}


def _definition_reference(record: Release) -> Json:
    url = f"{API}/definitions/{record.definition}"
    return {
        "id": record.definition,
        "name": record.blueprint.name,
        "path": "\\",
        "projectReference": None,
        "url": url,
        "_links": _links(url, f"{WEB}/_release?definitionId={record.definition}"),
    }


def _links(self: str, web: str) -> dict[str, Any]:
    return {"self": {"href": self}, "web": {"href": web}}
