"""The REST API of releases, on a host of its own; the location ids are those of the azure-devops SDK.

https://learn.microsoft.com/rest/api/azure/devops/release/
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from aiohttp import web

from sandbox.azure_devops import release_views as views
from sandbox.azure_devops.approvals import Denied
from sandbox.azure_devops.packing import packed
from sandbox.azure_devops.project import Project
from sandbox.azure_devops.release_definitions import BadDefinition
from sandbox.azure_devops.releases import (
    VIEW,
    Attachment,
    Definition,
    Json,
    Release,
    ReleaseApproval,
    ReleaseDeployment,
    ReleaseStage,
    allow,
    groups_of,
)
from sandbox.azure_devops.views import collection, name_of
from sandbox.azure_devops.wire import ApiError, Call, Handler, Location, Scopes, ok, route
from sandbox.names import ADO_GROUPS, ADO_MEMBERS

ThingT = TypeVar("ThingT")

_DEPLOY = Scopes(("vso.release",), ("vso.release_execute",))
_MANAGE = Scopes(("vso.release",), ("vso.release_manage",))
# A bit mask of the service's own enumeration, in filters.
_STATUS = {
    "notStarted": 1,
    "inProgress": 2,
    "succeeded": 4,
    "canceled": 8,
    "rejected": 16,
    "queued": 32,
    "scheduled": 64,
    "partiallySucceeded": 128,
}


class ReleaseRest:
    """The handlers."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._engine = project.releases
        self._store = project.releases.store
        self._builds = project.store

    def locations(self) -> list[Location]:
        """The route table, every location id that the SDK's client asks for in it."""
        top, releases = "{project}/_apis/{area}/{resource}", "{project}/_apis/{area}/releases/{releaseId}"
        stage = releases + "/environments/{environmentId}"
        attempt = stage + "/attempts/{attemptId}/plan/{planId}"
        definition = "{project}/_apis/{area}/{resource}/{definitionId}"
        return [
            _route("b47c6458-e73b-47cb-a770-4df1e8813a91", "approvals", top, 3, _MANAGE, GET=self._approvals),
            _route(
                "9328e074-59fb-465a-89d9-b09c82ee5109",
                "approvals",
                top + "/{approvalId}",
                3,
                _MANAGE,
                GET=self._one_approval,
                PATCH=self._decide,
            ),
            _route(
                "a166fde7-27ad-408e-ba75-703c2cc9d500",
                "releases",
                top + "/{releaseId}",
                8,
                _DEPLOY,
                GET=self._releases,
                POST=self._create,
                PATCH=self._update,
            ),
            _route(
                "a7e426b1-03dc-48af-9dfe-c98bac612dcb",
                "environments",
                releases + "/{resource}/{environmentId}",
                7,
                _DEPLOY,
                GET=self._stage_of,
                PATCH=self._update_stage,
            ),
            _route("b005ef73-cddc-448e-9ba2-5193bf36b19f", "deployments", top, 2, _DEPLOY, GET=self._deployments),
            _route(
                "d8f96f24-8ea7-4cb6-baab-2df8fc515665",
                "definitions",
                definition,
                4,
                _MANAGE,
                GET=self._definitions,
                POST=self._define,
                PUT=self._redefine,
            ),
            _route(
                "258b82e0-9d41-43f3-86d6-fef14ddd44bc",
                "revisions",
                "{project}/_apis/{area}/definitions/{definitionId}/{resource}/{revision}",
                1,
                _MANAGE,
                GET=self._revisions,
            ),
            _route(
                "a4d06688-0dfa-4895-82a5-f43ec9452306", "attachments", attempt + "/{resource}/{type}", 1, _DEPLOY, GET=self._attachments
            ),
            _route(
                "60b86efb-7b8c-4853-8f9f-aa142b77b479",
                "attachments",
                attempt + "/timelines/{timelineId}/records/{recordId}/{resource}/{type}/{name}",
                1,
                _DEPLOY,
                GET=self._attachment,
            ),
            _route("c37fbab5-214b-48e4-a55b-cb6b4f6e4038", "logs", releases + "/{resource}", 2, _DEPLOY, GET=self._logs),
            _route(
                "17c91af7-09fd-4256-bff1-c24ee4f73bc0",
                "logs",
                stage + "/deployPhases/{releaseDeployPhaseId}/tasks/{taskId}/{resource}",
                2,
                _DEPLOY,
                GET=self._task_log,
            ),
            # Neither folders nor gates nor manual interventions are here to be changed.
            _route("f7ddf76d-ce0c-4d68-94ff-becaec5d9dea", "folders", top + "/{*path}", 2, _MANAGE, GET=self._folders),
            _route("2666a539-2001-4f80-bcc7-0379956749d4", "gates", top + "/{gateStepId}", 1, _MANAGE),
            _route(
                "616c46e4-f370-4456-adaa-fbaf79c7b79e",
                "manualinterventions",
                releases + "/{resource}/{manualInterventionId}",
                1,
                _MANAGE,
                GET=self._interventions,
            ),
        ]

    async def _approvals(self, call: Call) -> web.Response:
        """Those of groups are left out unless they are asked for; with an assignee, those of the assignee's groups."""
        state, kind = call.query.get("statusfilter", "pending").lower(), call.query.get("typefilter", "all").lower()
        numbers, groups = set(call.names("releaseidsfilter")), call.query.get("includemygroupapprovals", "").lower() == "true"
        assignee = _assignee(call.query.get("assignedtofilter", ""))
        group_ids = {group.oid for group in ADO_GROUPS}

        def is_wanted(one: ReleaseApproval) -> bool:
            if one.approver is None or (one.approver in group_ids and not groups):
                return False
            mine = assignee is None or one.approver in {assignee, *groups_of(assignee)}
            return (
                mine
                and state in {"all", "undefined", one.status}
                and kind in {"all", "undefined", one.when.lower()}
                and (not numbers or str(one.release) in numbers)
            )

        found = [one for one in self._store.approvals if is_wanted(one)]
        return _paged(call, found, lambda one: one.id, lambda one: views.approval(one, self._store))

    async def _one_approval(self, call: Call) -> web.Response:
        return ok(views.approval(self._approval(call), self._store))

    async def _decide(self, call: Call) -> web.Response:
        approval, body = self._approval(call), call.document()
        to = str((body.get("approver") or {}).get("id") or "").lower()
        with _refusals():
            self._engine.decide(approval, call.who, str(body.get("status") or ""), str(body.get("comments") or ""), to)
        return ok(views.approval(approval, self._store))

    async def _releases(self, call: Call) -> web.Response:
        if "releaseId" in call.values:
            return ok(views.release(self._release(call), self._store, self._builds))
        query = call.query
        state, text, creator = (
            query.get("statusfilter", "").lower(),
            query.get("searchtext", "").lower(),
            query.get("createdby", "").lower(),
        )
        numbers, build = set(call.names("releaseidfilter")), query.get("artifactversionid", "")
        place, status = query.get("definitionenvironmentid", ""), query.get("environmentstatusfilter", "")
        after, before = call.time("mincreatedtime"), call.time("maxcreatedtime")

        def is_wanted(one: Release) -> bool:
            stages = [stage for stage in one.stages if place in {"", str(stage.of)}]
            return (
                query.get("definitionid", "") in {"", str(one.definition)}
                and state in {"", "undefined", one.status}
                and text in one.name.lower()
                and creator in {"", one.created_by, name_of(one.created_by).lower()}
                and (not numbers or str(one.id) in numbers)
                and build in {"", str(one.build)}
                and bool(stages)
                and (not status.isdigit() or any(_STATUS[stage.status] & int(status) for stage in stages))
                and (after is None or one.created >= after)
                and (before is None or one.created <= before)
            )

        found = [one for one in self._store.releases if is_wanted(one)]
        expand = call.names("expand")
        return _paged(call, found, lambda one: one.id, lambda one: views.listed(one, self._store, self._builds, expand))

    async def _create(self, call: Call) -> web.Response:
        body = call.document()
        definition = self._definition(body.get("definitionId"))
        alias = definition.blueprint.alias
        for unknown in ("environmentsMetadata", "variables", "isDraft"):
            if body.get(unknown):
                raise ApiError(400, "InvalidRequestException", f"The sandbox creates no releases with {unknown}.")
        build: int | None = None
        for one in body.get("artifacts") or []:
            number = str(((one or {}).get("instanceReference") or {}).get("id") or "")
            if (one or {}).get("alias") != alias or not number.isdigit():
                raise ApiError(
                    400, "InvalidRequestException", f"A release of {definition.blueprint.name} has one artifact, {alias}: a build."
                )
            build = int(number)
        manual, text = [str(name) for name in body.get("manualEnvironments") or []], str(body.get("description") or "")
        with _refusals():
            made = self._engine.create(definition, build, call.who, description=text, manual=manual)
        return ok(views.release(made, self._store, self._builds))

    async def _update(self, call: Call) -> web.Response:
        release, body = self._release(call), call.document()
        if body.get("status") != "abandoned":
            raise ApiError(400, "InvalidRequestException", "The sandbox changes one thing of a release: its status, to abandoned.")
        with _refusals():
            self._engine.abandon(release, call.who, str(body.get("comment") or ""))
        return ok(views.release(release, self._store, self._builds))

    async def _stage_of(self, call: Call) -> web.Response:
        release = self._release(call)
        if "environmentId" not in call.values:
            return ok(collection(views.stage(release, one, self._store) for one in release.stages))
        return ok(views.stage(release, self._stage(call, release), self._store))

    async def _update_stage(self, call: Call) -> web.Response:
        release, body = self._release(call), call.document()
        stage, comment = self._stage(call, release), str(body.get("comment") or "")
        if body.get("scheduledDeploymentTime") or body.get("variables"):
            raise ApiError(400, "InvalidRequestException", "The sandbox deploys at once and with the variables of the definition.")
        with _refusals():
            match body.get("status"):
                case "inProgress" | 2:
                    self._engine.deploy(release, stage, call.who, comment)
                case "canceled" | 8:
                    self._engine.cancel(release, stage, call.who, comment)
                case other:
                    raise ApiError(400, "InvalidRequestException", f"The status of an environment cannot be set to '{other}'.")
        return ok(views.stage(release, stage, self._store))

    async def _deployments(self, call: Call) -> web.Response:
        query = call.query
        status, operation = query.get("deploymentstatus", "all").lower(), query.get("operationstatus", "all").lower()
        after, before = call.time("minstartedtime"), call.time("maxstartedtime")
        newest = query.get("latestattemptsonly", "").lower() == "true"

        def is_wanted(release: Release, stage: ReleaseStage, one: ReleaseDeployment) -> bool:
            at = one.started or one.queued
            return (
                query.get("definitionid", "") in {"", str(release.definition)}
                and query.get("definitionenvironmentid", "") in {"", str(stage.of)}
                and status in {"all", one.status.lower()}
                and operation in {"all", one.operation.lower()}
                and query.get("createdfor", "").lower() in {"", one.requested_for}
                and (not newest or one is stage.deployments[-1])
                and (after is None or at >= after)
                and (before is None or at <= before)
            )

        found = [
            (release, stage, one)
            for release in self._store.releases
            for stage in release.stages
            for one in stage.deployments
            if is_wanted(release, stage, one)
        ]
        return _paged(
            call,
            sorted(found, key=lambda each: each[2].id),
            lambda each: each[2].id,
            lambda each: views.deployment(*each, self._store, self._builds),
        )

    async def _definitions(self, call: Call) -> web.Response:
        if "definitionId" in call.values:
            return ok(views.definition(self._definition(call.number("definitionId"))))
        text, whole = call.query.get("searchtext", "").lower(), bool(call.names("expand"))
        numbers = set(call.names("definitionidfilter"))
        exactly = call.query.get("isexactnamematch", "").lower() == "true"

        def is_wanted(one: Definition) -> bool:
            name = one.blueprint.name.lower()
            return (name == text if exactly else text in name) and (not numbers or str(one.id) in numbers)

        found = [one for one in self._store.definitions if is_wanted(one)]
        return _paged(call, found, lambda one: one.id, lambda one: views.definition(one, whole=whole), ascending=True)

    async def _define(self, call: Call) -> web.Response:
        with _refusals():
            self._project.administer(call.who)
            return ok(views.definition(self._engine.define(call.document(), call.who)))

    async def _redefine(self, call: Call) -> web.Response:
        body = call.document()
        old = self._definition(body.get("id"))
        if body.get("revision") != old.revision:
            message = f"You are using an old copy of the release pipeline. It is at revision {old.revision}, not {body.get('revision')}."
            raise ApiError(400, "InvalidRequestException", message)
        with _refusals():
            self._project.administer(call.who)
            return ok(views.definition(self._engine.define(body, call.who, old)))

    async def _revisions(self, call: Call) -> web.Response:
        """The newest revision is the only one that is kept."""
        definition = self._definition(call.number("definitionId"))
        if "revision" in call.values:
            return ok(views.definition(definition))
        shown = views.definition(definition)
        entry = {"definitionId": definition.id, "definitionUrl": shown["url"], "revision": definition.revision, "changeType": "update"}
        return ok(collection([entry | {"changedBy": shown["modifiedBy"], "changedDate": shown["modifiedOn"], "comment": ""}]))

    async def _attachments(self, call: Call) -> web.Response:
        release, stage, deployment = self._attempt(call)
        found = [one for one in deployment.attachments if one.kind.lower() == call.values.get("type", one.kind).lower()]
        return ok(collection(views.attachment(release, stage, deployment, one) for one in found))

    async def _attachment(self, call: Call) -> web.Response:
        _, _, deployment = self._attempt(call)
        wanted = (call.values["recordId"].lower(), call.values["type"].lower(), call.values.get("name", "").lower())

        def is_it(one: Attachment) -> bool:
            return (one.record, one.kind.lower(), one.name.lower()) == wanted

        found = next((one for one in deployment.attachments if is_it(one)), None)
        if found is None:
            raise ApiError(404, "ReleaseManagementObjectNotFoundException", f"There is no attachment {call.values.get('name')}.")
        return web.Response(body=found.text.encode(), content_type="application/octet-stream")

    async def _logs(self, call: Call) -> web.Response:
        release = self._release(call)
        logs = {
            f"{stage.name}/Attempt{one.attempt}/{step.log}_{re.sub(r'[^A-Za-z0-9 ._-]', '_', step.title)}.log": step.log
            for stage in release.stages
            for one in stage.deployments
            for step in one.job.steps
            if step.log and step.state == "completed"
        }
        read = {name: await asyncio.to_thread(self._engine.places.log(release.id, number).read_bytes) for name, number in logs.items()}
        return web.Response(body=packed(read), content_type="application/zip")

    async def _task_log(self, call: Call) -> web.Response:
        release = self._release(call)
        stage, number = self._stage(call, release), call.number("taskId")
        phase = call.number("releaseDeployPhaseId")
        steps = [step for one in stage.deployments if one.phase_number == phase for step in one.job.steps]
        if not any(step.log == number and step.state == "completed" for step in steps):
            raise ApiError(404, "ReleaseManagementObjectNotFoundException", f"There is no log of a task {number} here.")
        text = await asyncio.to_thread(self._engine.places.log(release.id, number).read_text, "utf-8", "replace")
        return web.Response(text="".join(f"{line}\r\n" for line in call.between(text.splitlines())), content_type="text/plain")

    async def _folders(self, _: Call) -> web.Response:
        return ok(collection([{"path": "\\"}]))

    async def _interventions(self, call: Call) -> web.Response:
        self._release(call)
        if asked := call.values.get("manualInterventionId"):
            raise ApiError(404, "ManualInterventionNotFoundException", f"There is no manual intervention {asked}.")
        return ok(collection([]))

    def _approval(self, call: Call) -> ReleaseApproval:
        asked = call.values.get("approvalId", "")
        found = self._store.approvals.get(asked) if asked.isdigit() else None
        if found is None or found.approver is None:
            raise ApiError(404, "ReleaseManagementObjectNotFoundException", f"The release approval with ID {asked} does not exist.")
        return found

    def _release(self, call: Call) -> Release:
        asked = call.values.get("releaseId", "")
        found = self._store.releases.get(asked)
        if found is None:
            message = f"The release with ID {asked} was not found."
            raise ApiError(404, "ReleaseNotFoundException", message)
        return found

    def _stage(self, call: Call, release: Release) -> ReleaseStage:
        asked = call.values.get("environmentId", "")
        found = release.stage(int(asked)) if asked.isdigit() else None
        if found is None:
            raise ApiError(404, "ReleaseEnvironmentNotFoundException", f"There is no environment {asked} of {release.name}.")
        return found

    def _attempt(self, call: Call) -> tuple[Release, ReleaseStage, ReleaseDeployment]:
        release = self._release(call)
        stage, number = self._stage(call, release), call.number("attemptId")
        found = next((one for one in stage.deployments if (one.attempt, one.plan) == (number, call.values["planId"].lower())), None)
        if found is None:
            message = f"There is no attempt {number} to deploy {release.name} to {stage.name} under that plan."
            raise ApiError(404, "ReleaseManagementObjectNotFoundException", message)
        return release, stage, found

    def _definition(self, number: object) -> Definition:
        found = self._store.definitions.get(str(number))
        if found is None:
            raise ApiError(404, "ReleaseDefinitionNotFoundException", f"The release definition with ID {number} does not exist.")
        return found


def _route(key: str, name: str, template: str, version: int, scopes: Scopes, **methods: Handler) -> Location:
    return route(key, f"Release/{name}", template, version, scopes, **{method: _allowed(of) for method, of in methods.items()})


def _allowed(handler: Handler) -> Handler:
    """Whoever may not view releases sees none of them."""

    async def answer(call: Call) -> web.StreamResponse:
        with _refusals():
            allow(call.who, VIEW, "view releases")
        return await handler(call)

    return answer


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what the releases refuse into the service's errors."""
    try:
        yield
    except Denied as denied:
        raise ApiError(denied.status, denied.key, str(denied)) from None
    except BadDefinition as bad:
        raise ApiError(400, "InvalidRequestException", str(bad)) from None


def _assignee(text: str) -> str | None:
    """The id of the person that a filter names, by id, display name or mail address; None where there is no filter. Raises ApiError."""
    if not text:
        return None
    for who in ADO_MEMBERS:
        if text.lower() in {who.oid, who.name.lower(), who.email.lower()}:
            return who.oid
    raise ApiError(400, "InvalidRequestException", f"There is no identity {text} here.")


def _paged(
    call: Call, found: Iterable[ThingT], key: Callable[[ThingT], int], show: Callable[[ThingT], Json], *, ascending: bool = False
) -> web.Response:
    """A page of a list, newest first unless the query says otherwise; the number of the next one is in a header."""
    order = call.query.get("queryorder", "ascending" if ascending else "descending").lower()
    token = call.query.get("continuationtoken", "")
    listed = sorted(found, key=key, reverse=not order.endswith("ascending"))
    start = next((place for place, one in enumerate(listed) if str(key(one)) == token), len(listed)) if token else 0
    page = listed[start : start + call.top(50)]
    following = listed[start + len(page) : start + len(page) + 1]
    headers = {"x-ms-continuationtoken": str(key(following[0]))} if following else None
    return ok(collection(show(one) for one in page), headers=headers)
