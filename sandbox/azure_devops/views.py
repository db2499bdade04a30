"""What the REST API says about a record, in Azure DevOps' words. Pure: no request, no clock, no rule.

https://learn.microsoft.com/rest/api/azure/devops/
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from sandbox.azure_devops.approvals import permissions, step_permissions
from sandbox.azure_devops.records import (
    Approval,
    ApprovalStep,
    Artifact,
    Check,
    Deployment,
    Environment,
    Issue,
    Job,
    Pipeline,
    Run,
    Stage,
    Step,
    Store,
    TestRun,
)
from sandbox.azure_devops.repository import MAIN, Change, Commit, Signature
from sandbox.names import (
    ADO_GROUPS,
    AGENT,
    BOT,
    COLLECTION_ID,
    ORGANIZATION,
    PEOPLE,
    PROJECT,
    PROJECT_ID,
    REPOSITORY_ID,
    Character,
)

Json = dict[str, Any]

BASE = f"https://dev.azure.com/{ORGANIZATION}"
API = f"{BASE}/{PROJECT_ID}/_apis"
WEB = f"{BASE}/{PROJECT}"

# Who starts a run on a push: the service itself.
SERVICE = Character("", "Microsoft.VisualStudio.Services.TFS", "", "00000002-0000-8888-8000-000000000000")
# Who makes a release of a build that is tagged for it: the release service itself.
RELEASE_SERVICE = Character("", "Microsoft.VisualStudio.Services.ReleaseManagement", "", "0000000d-0000-8888-8000-000000000000")
KNOWN = {who.oid: who for who in (*PEOPLE, BOT, AGENT, SERVICE, RELEASE_SERVICE)}
GROUPS = {group.oid: group for group in ADO_GROUPS}

APPROVAL_CHECK = "8c6f20a7-a545-4486-9777-f762fafe0d4d"
EMPTY = "00000000-0000-0000-0000-000000000000"

# A build's words to those of the pipelines API, which knows no partial success.
RUN_STATE = {"notStarted": "inProgress", "inProgress": "inProgress", "cancelling": "canceling", "completed": "completed"}
RUN_RESULT = {"succeeded": "succeeded", "partiallySucceeded": "succeeded", "failed": "failed", "canceled": "canceled"}


def when(time: datetime | None) -> str | None:
    """A time as the service writes it."""
    return None if time is None else time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def collection(values: Iterable[Any]) -> Json:
    """The wrapper of every list."""
    found = list(values)
    return {"count": len(found), "value": found}


def present(document: Json) -> Json:
    """Without what is null: the service leaves it out."""
    return {key: value for key, value in document.items() if value is not None}


def identity(id: str) -> Json:
    """An IdentityRef of a person, a service or a group; groups are containers, and a service's unique name is its id."""
    if id in GROUPS:
        return _group(id)
    who = KNOWN[id]
    kind = "aadsp" if who in (BOT, AGENT) else "s2s" if who in (SERVICE, RELEASE_SERVICE) else "aad"
    descriptor = f"{kind}.{base64.urlsafe_b64encode(id.encode()).decode().rstrip('=')}"
    avatar = f"{BASE}/_apis/GraphProfile/MemberAvatars/{descriptor}"
    return {
        "displayName": who.name,
        "url": f"https://spsprodweu1.vssps.visualstudio.com/A{COLLECTION_ID}/_apis/Identities/{id}",
        "_links": {"avatar": {"href": avatar}},
        "id": id,
        "uniqueName": who.email if kind == "aad" else id if kind == "aadsp" else "",
        "imageUrl": avatar,
        "descriptor": descriptor,
    }


def _group(id: str) -> Json:
    descriptor = f"vssgp.{base64.urlsafe_b64encode(id.encode()).decode().rstrip('=')}"
    avatar = f"{BASE}/_apis/GraphProfile/MemberAvatars/{descriptor}"
    return {
        "displayName": name_of(id),
        "url": f"https://spsprodweu1.vssps.visualstudio.com/A{COLLECTION_ID}/_apis/Identities/{id}",
        "_links": {"avatar": {"href": avatar}},
        "id": id,
        "uniqueName": f"vstfs:///Classification/TeamProject/{PROJECT_ID}\\{GROUPS[id].name}",
        "imageUrl": avatar,
        "isContainer": True,
        "descriptor": descriptor,
    }


def name_of(id: str | None) -> str:
    """How people read an identity; groups have their project in front."""
    if id is None:
        return ""
    return f"[{PROJECT}]\\{GROUPS[id].name}" if id in GROUPS else KNOWN[id].name


def project() -> Json:
    """The one project."""
    return {
        "id": PROJECT_ID,
        "name": PROJECT,
        "description": "Trains, evaluates and delivers Contoso's models.",
        "url": f"{BASE}/_apis/projects/{PROJECT_ID}",
        "state": "wellFormed",
        "revision": 11,
        "visibility": "private",
        "lastUpdateTime": "2026-01-05T08:00:00.000Z",
    }


def pipeline(record: Pipeline) -> Json:
    """A pipeline of the pipelines API."""
    url = f"{API}/pipelines/{record.id}?revision={record.revision}"
    return {
        "_links": {"self": {"href": url}, "web": {"href": f"{WEB}/_build/definition?definitionId={record.id}"}},
        "configuration": {
            "path": record.file,
            "repository": {"id": REPOSITORY_ID, "type": "azureReposGit"},
            "type": "yaml",
        },
        "url": url,
        **pipeline_reference(record),
    }


def pipeline_reference(record: Pipeline) -> Json:
    """How a run names its pipeline."""
    return {"id": record.id, "revision": record.revision, "name": record.name, "folder": record.folder}


def definition(record: Pipeline) -> Json:
    """A pipeline of the build API."""
    return {
        "id": record.id,
        "revision": record.revision,
        "name": record.name,
        "url": f"{API}/build/Definitions/{record.id}?revision={record.revision}",
        "uri": f"vstfs:///Build/Definition/{record.id}",
        "path": record.folder,
        "type": "build",
        "queueStatus": "enabled",
        "createdDate": when(record.created),
        "authoredBy": identity(record.created_by),
        "process": {"yamlFilename": record.file, "type": 2},
        "repository": repository_reference(),
        "project": project(),
        "_links": {"web": {"href": f"{WEB}/_build/definition?definitionId={record.id}"}},
    }


def repository_reference() -> Json:
    """How a build names its repository."""
    return {
        "id": REPOSITORY_ID,
        "type": "TfsGit",
        "name": PROJECT,
        "url": f"{WEB}/_git/{PROJECT}",
        "clean": None,
        "checkoutSubmodules": False,
    }


def run_url(record: Run) -> str:
    """The run's page."""
    return f"{WEB}/_build/results?buildId={record.id}"


def run(record: Run, of: Pipeline) -> Json:
    """A run of the pipelines API."""
    url = f"{API}/pipelines/{record.pipeline}/runs/{record.id}"
    hidden = set(record.secrets)
    variables = {name: {"isSecret": True} if name in hidden else {"value": value} for name, value in record.variables.items()}
    repository = {"repository": {"id": REPOSITORY_ID, "type": "azureReposGit"}, "refName": record.branch, "version": record.commit}
    return present(
        {
            "_links": {
                "self": {"href": url},
                "web": {"href": run_url(record)},
                "pipeline.web": {"href": f"{WEB}/_build/definition?definitionId={record.pipeline}"},
                "pipeline": {"href": f"{API}/pipelines/{record.pipeline}?revision={of.revision}"},
            },
            "templateParameters": record.parameters,
            "variables": variables or None,
            "pipeline": pipeline_reference(of) | {"url": f"{API}/pipelines/{record.pipeline}?revision={of.revision}"},
            "state": RUN_STATE[record.state],
            "result": RUN_RESULT[record.result] if record.result else None,
            "createdDate": when(record.queued),
            "finishedDate": when(record.finished),
            "url": url,
            "resources": {"repositories": {"self": repository}},
            "id": record.id,
            "name": record.number,
        }
    )


def trigger_info(record: Run) -> Json:
    """What started the run; nothing for one that somebody queued."""
    if record.reason == "manual":
        return {}
    return {
        "ci.sourceBranch": record.branch,
        "ci.sourceSha": record.commit,
        "ci.message": record.commit_message,
        "ci.triggerRepository": REPOSITORY_ID,
    }


def build(record: Run, of: Pipeline) -> Json:
    """A run of the build API."""
    url = f"{API}/build/Builds/{record.id}"
    visible = {name: value for name, value in record.variables.items() if name not in record.secrets}
    return present(
        {
            "_links": {
                "self": {"href": url},
                "web": {"href": run_url(record)},
                "sourceVersionDisplayUri": {"href": f"{API}/build/builds/{record.id}/sources"},
                "timeline": {"href": f"{API}/build/builds/{record.id}/Timeline"},
                "badge": {"href": f"{API}/build/status/{record.pipeline}"},
            },
            "properties": {},
            "tags": record.tags,
            "validationResults": [],
            "plans": [{"planId": record.id_of_plan}],
            "templateParameters": record.parameters,
            "triggerInfo": trigger_info(record),
            "id": record.id,
            "buildNumber": record.number,
            "buildNumberRevision": int(record.number.rpartition(".")[2]) if record.number.rpartition(".")[2].isdigit() else None,
            "status": record.state,
            "result": record.result,
            "queueTime": when(record.queued),
            "startTime": when(record.started),
            "finishTime": when(record.finished),
            "url": url,
            "definition": {
                "drafts": [],
                "id": of.id,
                "name": of.name,
                "url": f"{API}/build/Definitions/{of.id}?revision={of.revision}",
                "uri": f"vstfs:///Build/Definition/{of.id}",
                "path": of.folder,
                "type": "build",
                "queueStatus": "enabled",
                "revision": of.revision,
                "project": project(),
            },
            "project": project(),
            "uri": f"vstfs:///Build/Build/{record.id}",
            "sourceBranch": record.branch,
            "sourceVersion": record.commit,
            "queue": {"id": 1, "name": "Default", "pool": {"id": 1, "name": "Default"}},
            "priority": "normal",
            "reason": record.reason,
            "requestedFor": identity(record.requested_for),
            "requestedBy": identity(record.requested_by),
            "lastChangedDate": when(record.changed or record.queued),
            "lastChangedBy": identity(record.changed_by or record.requested_by),
            "parameters": json.dumps(visible) if visible else None,
            "orchestrationPlan": {"planId": record.id_of_plan},
            "logs": {"id": 0, "type": "Container", "url": f"{url}/logs"},
            "repository": repository_reference(),
            "retainedByRelease": False,
            "triggeredByBuild": None,
            "appendCommitMessageToRunName": True,
        }
    )


def timeline(record: Run, store: Store, asked: str | None = None) -> Json | None:
    """The run's timeline, or that of an earlier attempt of one of its stages; None where there is none of that id."""
    timeline_id = asked or record.timeline
    stages = record.stages
    if timeline_id != record.timeline:
        stages = [stage for newest in record.stages for stage in newest.previous if stage.timeline == timeline_id]
        if not stages:
            return None
    records = [found for stage in stages for found in _stage(record, stage, store)]
    return {
        "records": records,
        "lastChangedBy": EMPTY,
        "lastChangedOn": when(record.changed or record.queued),
        "id": timeline_id,
        "changeId": record.change,
        "url": f"{API}/build/Builds/{record.id}/Timeline/{timeline_id}",
    }


def log_url(record: Run, number: int) -> str:
    """Where a log is read."""
    return f"{API}/build/builds/{record.id}/logs/{number}"


def _record(kind: str, id: str, parent: str | None, name: str, *, state: str, result: str | None, **more: Any) -> Json:
    """A timeline record; keys that a kind lacks are null, as on the wire."""
    blank: Json = {
        "previousAttempts": [],
        "id": id,
        "parentId": parent,
        "type": kind,
        "name": name,
        "startTime": None,
        "finishTime": None,
        "currentOperation": None,
        "percentComplete": None,
        "state": state,
        "result": "failed" if result == "rejected" else result,
        "resultCode": None,
        "changeId": 0,
        "lastModified": "0001-01-01T00:00:00",
        "workerName": None,
        "order": 1,
        "details": None,
        "errorCount": 0,
        "warningCount": 0,
        "url": None,
        "log": None,
        "task": None,
        "attempt": 1,
        "identifier": None,
    }
    return blank | more


def _issues(issues: Sequence[Issue]) -> Json:
    """A record's issues, and no key where it has none."""
    counts = {
        "errorCount": sum(issue.kind == "error" for issue in issues),
        "warningCount": sum(issue.kind == "warning" for issue in issues),
    }
    if not issues:
        return counts
    listed = [{"type": issue.kind, "category": "General", "message": issue.message, "data": {"type": issue.kind}} for issue in issues]
    return counts | {"issues": listed}


def _stage(record: Run, stage: Stage, store: Store) -> Iterable[Json]:
    started = when(stage.started)
    yield _record(
        "Stage",
        stage.id,
        None,
        stage.title,
        state=stage.state,
        result=stage.result,
        startTime=started,
        finishTime=when(stage.finished),
        order=stage.order,
        attempt=stage.attempt,
        identifier=stage.name,
        refName=stage.name,
        previousAttempts=[{"attempt": old.attempt, "timelineId": old.timeline, "recordId": old.id} for old in stage.previous],
    )
    if stage.approvals:
        yield from _checkpoint(stage, store.approvals_of(stage))
    if not any(job.queued or job.result for job in stage.jobs):
        return
    for order, job in enumerate(stage.jobs, 1):
        yield from _job(record, stage, job, order)


def _checkpoint(stage: Stage, approvals: Sequence[Approval]) -> Iterable[Json]:
    open_ = any(approval.status == "pending" for approval in approvals)
    passed = all(approval.status == "approved" for approval in approvals)
    first = min((approval.created for approval in approvals), default=None)
    last = None if open_ else max((approval.modified or approval.created for approval in approvals), default=None)
    yield _record(
        "Checkpoint",
        stage.checkpoint,
        stage.id,
        "Checkpoint",
        state="inProgress" if open_ else "completed",
        result=None if open_ else "succeeded" if passed else "failed",
        startTime=when(first),
        finishTime=when(last),
        identifier="Checkpoint",
        attempt=stage.attempt,
    )
    ends = {"approved": "succeeded", "rejected": "failed", "canceled": "canceled", "timedOut": "failed"}
    for approval in approvals:
        waiting = approval.status == "pending"
        yield _record(
            "Checkpoint.Approval",
            approval.id,
            stage.checkpoint,
            "Checkpoint.Approval",
            state="inProgress" if waiting else "completed",
            result=ends.get(approval.status),
            startTime=when(approval.created),
            finishTime=None if waiting else when(approval.modified),
            identifier=approval.id,
            attempt=stage.attempt,
        )


def _job(record: Run, stage: Stage, job: Job, order: int) -> Iterable[Json]:
    times = {"startTime": when(job.started), "finishTime": when(job.finished)}
    shared = times | {"attempt": job.attempt, "order": order}
    yield _record(
        "Phase",
        job.phase,
        stage.id,
        job.title,
        state=job.state,
        result=job.result,
        **shared,
        identifier=f"{stage.name}.{job.name}",
    )
    yield _record(
        "Job",
        job.id,
        job.phase,
        job.title,
        state=job.state,
        result=job.result,
        **(shared | {"order": 1}),
        **_issues(job.issues),
        identifier=f"{stage.name}.{job.name}.__default",
        workerName=job.worker,
    )
    if job.started is None:
        return
    for number, step in enumerate(job.steps, 1):
        yield _task(record, stage, job, step, number)


def _task(record: Run, stage: Stage, job: Job, step: Step, order: int) -> Json:
    # A task's log is there only once the task has completed.
    log = None
    if step.log is not None and step.state == "completed":
        log = {"id": step.log, "type": "Container", "url": log_url(record, step.log)}
    name, _, version = step.task.partition("@")
    return _record(
        "Task",
        step.id,
        job.id,
        step.title,
        state=step.state,
        result=step.result,
        startTime=when(step.started),
        finishTime=when(step.finished),
        order=order,
        attempt=job.attempt,
        identifier=f"{stage.name}.{job.name}.__default.{step.name or order}",
        task={"id": EMPTY, "name": name, "version": f"{version}.0.0" if version else "1.0.0"},
        workerName=job.worker,
        percentComplete=100 if step.state == "completed" else None,
        log=log,
        **_issues(step.issues),
    )


def log(record: Run, number: int, lines: int, created: datetime | None, changed: datetime | None) -> Json:
    """A log of the build API."""
    return {
        "lineCount": lines,
        "createdOn": when(created),
        "lastChangedOn": when(changed),
        "id": number,
        "type": "Container",
        "url": log_url(record, number),
    }


def artifact(record: Run, published: Artifact, size: int) -> Json:
    """A published artifact, with the address of its zip; `size` in bytes."""
    url = f"{API}/build/builds/{record.id}/artifacts?artifactName={quote(published.name)}&api-version=7.1"
    return {
        "id": published.id,
        "name": published.name,
        "source": published.source,
        "resource": {
            "type": published.kind,
            "data": f"#/{record.id}/{published.name}",
            "properties": {"localpath": published.name, "artifactsize": str(size)},
            "url": url,
            "downloadUrl": f"{url}&%24format=zip",
        },
    }


def approval(record: Approval, store: Store, who: Character, expand: frozenset[str]) -> Json:
    """An approval; `steps` and `permissions` only where they are asked for with `$expand`."""
    of = store.runs.get(record.run)
    assert of is not None
    pipeline_of = store.pipelines.get(of.pipeline)
    assert pipeline_of is not None
    url = f"{API}/pipelines/approvals/{record.id}"
    document: Json = {
        "id": record.id,
        "status": record.status,
        "createdOn": when(record.created),
        "lastModifiedOn": when(record.modified),
        "executionOrder": record.execution_order,
        "minRequiredApprovers": record.minimum,
        "instructions": record.instructions,
        "blockedApprovers": [identity(oid) for oid in record.blocked],
        "_links": {"self": {"href": url}},
        "pipeline": {
            "id": str(pipeline_of.id),
            "name": pipeline_of.name,
            "owner": {"id": of.id, "name": of.number, "_links": {"web": {"href": run_url(of)}}},
        },
    }
    if "steps" in expand:
        document["steps"] = [
            approval_step(step, step_permissions(record, step, who, of.requested_for) if "permissions" in expand else None)
            for step in record.steps
        ]
    if "permissions" in expand:
        document["permissions"] = permissions(record, who, of.requested_for)
    return document


def approval_step(step: ApprovalStep, permissions: str | None = None) -> Json:
    """One approver's part; who really answered is `actualApprover`, from the token of the answer."""
    return present(
        {
            "assignedApprover": identity(step.approver),
            "actualApprover": identity(step.actual) if step.actual else None,
            "status": step.status,
            "deferredTo": when(step.deferred),
            "comment": step.comment or None,
            "order": step.order,
            "history": [
                {"assignedTo": identity(past.approver), "createdBy": identity(past.by), "createdOn": when(past.at), "comment": past.comment}
                for past in step.history
            ],
            "permissions": permissions,
            "initiatedOn": when(step.initiated),
            "lastModifiedOn": when(step.modified),
            "lastModifiedBy": identity(step.modified_by) if step.modified_by else {"id": EMPTY, "displayName": ""},
        }
    )


def environment(record: Environment) -> Json:
    """An environment."""
    return {
        "id": record.id,
        "name": record.name,
        "description": record.description,
        "createdBy": identity(record.created_by),
        "createdOn": when(record.created),
        "lastModifiedBy": identity(record.created_by),
        "lastModifiedOn": when(record.created),
        "resources": [],
        "project": {"id": PROJECT_ID, "name": PROJECT},
    }


def deployment(record: Deployment, of: Run, by: Pipeline) -> Json:
    """A deployment record of an environment."""
    links = {"web": {"href": run_url(of)}, "self": {"href": f"{API}/build/Builds/{of.id}"}}
    definition_links = {"web": {"href": f"{WEB}/_build/definition?definitionId={by.id}"}}
    return present(
        {
            "id": record.id,
            "requestIdentifier": f"{record.stage}.{record.job}",
            "environmentId": record.environment,
            "serviceOwner": "00025394-6065-48ca-87d9-7f5672854ef7",
            "scopeId": PROJECT_ID,
            "planType": "Build",
            "planId": of.id_of_plan,
            "stageName": record.stage,
            "stageAttempt": record.stage_attempt,
            "jobName": record.job,
            "jobAttempt": record.job_attempt,
            "definition": {"id": by.id, "name": by.name, "_links": definition_links},
            "owner": {"id": of.id, "name": of.number, "_links": links},
            "result": record.result,
            "queueTime": when(record.queued),
            "startTime": when(record.started),
            "finishTime": when(record.finished),
        }
    )


def check(record: Check, of: Environment, *, settings: bool) -> Json:
    """An approval check's configuration."""
    url = f"{API}/pipelines/checks/configurations/{record.id}"
    document: Json = {
        "createdBy": identity(record.created_by),
        "createdOn": when(record.created),
        "modifiedBy": identity(record.modified_by),
        "modifiedOn": when(record.modified),
        "timeout": record.timeout,
        "id": record.id,
        "version": 1,
        "type": {"id": APPROVAL_CHECK, "name": "Approval"},
        "url": url,
        "_links": {"self": {"href": url}},
        "resource": {"type": "environment", "id": str(of.id), "name": of.name},
    }
    if settings:
        document["settings"] = {
            "approvers": [identity(oid) for oid in record.approvers],
            "executionOrder": record.execution_order,
            "minRequiredApprovers": record.minimum,
            "instructions": record.instructions,
            "blockedApprovers": [identity(oid) for oid in record.blocked],
            "requesterCannotBeApprover": record.requester_excluded,
        }
    return document


def test_run(record: TestRun) -> Json:
    """A test run."""
    url = f"{API}/test/Runs/{record.id}"
    counts = {name: sum(result.outcome == name for result in record.results) for name in ("Passed", "Failed", "NotExecuted")}
    return {
        "id": record.id,
        "name": record.name,
        "url": url,
        "build": {"id": str(record.run), "name": str(record.run), "url": f"{API}/build/Builds/{record.run}"},
        "isAutomated": True,
        "owner": identity(AGENT.oid),
        "project": {"id": PROJECT_ID, "name": PROJECT},
        "startedDate": when(record.created),
        "completedDate": when(record.created),
        "state": "Completed",
        "totalTests": len(record.results),
        "incompleteTests": 0,
        "notApplicableTests": counts["NotExecuted"],
        "passedTests": counts["Passed"],
        "unanalyzedTests": counts["Failed"],
        "revision": 1,
        "webAccessUrl": f"{WEB}/_build/results?buildId={record.run}&view=ms.vss-test-web.build-test-results-tab",
        "runStatistics": [{"state": "Completed", "outcome": name, "count": count} for name, count in counts.items() if count],
        "pipelineReference": {
            "pipelineId": record.run,
            "stageReference": {"stageName": record.stage, "attempt": 1},
            "jobReference": {"jobName": record.job, "attempt": 1},
        },
    }


def test_results(record: TestRun) -> list[Json]:
    """The results of a test run."""
    return [
        present(
            {
                "id": result.id,
                "testCaseTitle": result.name,
                "automatedTestName": f"{result.storage}.{result.name}" if result.storage else result.name,
                "automatedTestStorage": result.storage,
                "automatedTestType": "JUnit",
                "outcome": result.outcome,
                "state": "Completed",
                "durationInMs": result.duration,
                "errorMessage": result.message or None,
                "stackTrace": result.stack or None,
                "priority": 0,
                "startedDate": when(record.created),
                "completedDate": when(record.created),
                "testRun": {"id": str(record.id), "name": record.name, "url": f"{API}/test/Runs/{record.id}"},
                "build": {"id": str(record.run), "name": str(record.run)},
                "url": f"{API}/test/Runs/{record.id}/Results/{result.id}",
            }
        )
        for result in record.results
    ]


def _signature(who: Signature) -> Json:
    return {"name": who.name, "email": who.email, "date": when(who.date)}


def commit_url(sha: str) -> str:
    """The commit's page."""
    return f"{WEB}/_git/{PROJECT}/commit/{sha}"


def commit(record: Commit, changes: Sequence[Change] | None = None) -> Json:
    """A commit; the list shortens the message, and only a single commit says what it changed."""
    url = f"{API}/git/repositories/{REPOSITORY_ID}/commits/{record.sha}"
    document: Json = {
        "treeId": record.tree,
        "commitId": record.sha,
        "author": _signature(record.author),
        "committer": _signature(record.committer),
        "comment": record.message,
        "parents": list(record.parents),
        "url": url,
        "remoteUrl": commit_url(record.sha),
        "_links": {"self": {"href": url}, "web": {"href": commit_url(record.sha)}, "changes": {"href": f"{url}/changes"}},
    }
    if changes is not None:
        document["changeCounts"] = change_counts(changes)
        document["changes"] = [change(one, record.sha) for one in changes]
    return document


def change(record: Change, sha: str) -> Json:
    """One file of a commit."""
    url = f"{API}/git/repositories/{REPOSITORY_ID}/items/{record.path}?versionType=Commit&version={sha}"
    return {"item": {"gitObjectType": "blob", "path": f"/{record.path}", "commitId": sha, "url": url}, "changeType": record.kind}


def change_counts(changes: Sequence[Change]) -> Json:
    """How many files a commit added, edited and deleted."""
    names = {"add": "Add", "edit": "Edit", "delete": "Delete"}
    return {name: count for kind, name in names.items() if (count := sum(one.kind == kind for one in changes))}


def repository() -> Json:
    """The one repository."""
    return {
        "id": REPOSITORY_ID,
        "name": PROJECT,
        "url": f"{API}/git/repositories/{REPOSITORY_ID}",
        "project": project(),
        "defaultBranch": MAIN,
        "remoteUrl": f"{WEB}/_git/{PROJECT}",
        "webUrl": f"{WEB}/_git/{PROJECT}",
        "isDisabled": False,
        "isInMaintenance": False,
        "size": 0,
    }
