"""The REST API that the azure-devops SDK speaks: one table of routes, which is also what the SDK discovers.

https://learn.microsoft.com/rest/api/azure/devops/
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from aiohttp import web

from sandbox.azure_devops import events, hooks, release_events, views
from sandbox.azure_devops.approvals import MONTH, ORDERS, Answer, Denied
from sandbox.azure_devops.hooks import BadSubscription, Notification, Subscription
from sandbox.azure_devops.packing import packed
from sandbox.azure_devops.plan import BadPipeline
from sandbox.azure_devops.project import Project
from sandbox.azure_devops.records import Approval, Check, Environment, Pipeline, Run, TestRun, now
from sandbox.azure_devops.release_rest import ReleaseRest
from sandbox.azure_devops.repository import MAIN, NoSuchThing
from sandbox.azure_devops.views import Json, collection
from sandbox.azure_devops.wire import ApiError, Call, Location, Scopes, listing, mapping, moment, ok, route, whole
from sandbox.names import ADO_GROUPS, ADO_MEMBERS, BOT, COLLECTION_ID, PROJECT, PROJECT_ID, REPOSITORY_ID, Character, Group

DEV, VSRM, VSSPS = "dev.azure.com", "vsrm.dev.azure.com", "vssps.dev.azure.com"

ThingT = TypeVar("ThingT")

# Scopes of delegated tokens: to read, to write.
_ANY = Scopes()
_BUILD = Scopes(("vso.build",), ("vso.build_execute",))
_APPROVE = Scopes(("vso.build", "vso.pipelineresources_use"), ("vso.build_execute", "vso.pipelineresources_use"))
_CODE = Scopes(("vso.code",), ("vso.code_write",))
_ENVIRONMENT = Scopes(("vso.environment_manage",), ("vso.environment_manage",))
_TEST = Scopes(("vso.test",), ("vso.test_write",))

# Every area a client of the SDK may ask for: one that is missing would send it to another host.
_AREAS = {
    "Build": "965220d5-5bb9-42cf-8d67-9b146df2a5a4",
    "approval": "5b55a9b6-2e0f-40d7-829d-3741d2b8c4e4",
    "core": "79134c72-4a58-4b42-976c-04e7115f32bf",
    "git": "4e080c62-fa21-4fbc-8fef-2a10a2b38049",
    "Test": "c2aa639c-3ccc-4740-b3b6-ce2a1e1d984e",
    "testresults": "c83eaf52-edf3-4034-ae11-17d38f25404c",
    "distributedtask": "a85b8835-c1a1-4aac-ae97-1c3d0ba72dbd",
    "PipelinesChecks": "4a933897-0488-45af-bd82-6fd3ad33f46a",
    "pipelinePermissions": "a81a0441-de52-4000-aa15-ff0e07bfbbaa",
    "Identities": "8a3d49b8-91f0-46ef-b33d-dda338c25db3",
    "Profile": "8ccfef3d-2b87-4e99-8ccb-66e343d2daa8",
    "Graph": "bb1e7ec9-e901-4b68-999a-de7012b920f8",
    "policy": "fb13a388-40dd-4a04-b530-013a739c72ef",
    "serviceendpoint": "1814ab31-2f4f-4a9f-8761-f4d77dc5a5d7",
    "Release": "efc2f575-36ef-48e9-b672-0c6fb4a48ac5",
}


class Rest:
    """The handlers, by what they are about."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._store = project.store
        self._releases = ReleaseRest(project)

    def locations(self, host: str) -> list[Location]:
        """The route table of a host."""
        shared = [*self._about_the_organization(), *self._about_hooks()]
        if host == VSRM:
            return [*shared, *self._releases.locations()]
        return [*shared, *self._about_runs(), *self._about_approvals(), *self._about_code(), *self._about_tests()]

    def _about_the_organization(self) -> list[Location]:
        return [
            route("e81700f7-3be2-46de-8624-2eb35882fcaa", "Location/ResourceAreas", "_apis/{resource}/{areaId}", 1, GET=self._areas),
            route("00d9565f-ed9c-4a06-9a50-00e7896ccab4", "Location/ConnectionData", "_apis/{resource}", 1, GET=self._connection),
            route("603fe2ac-9723-48b9-88ad-09305aa6c6e1", "core/projects", "_apis/{resource}/{*projectId}", 4, GET=self._projects),
            route("28010c54-d0c0-4c89-a5b0-1c9e188b9fb7", "IMS/Identities", "_apis/{resource}/{identityId}", 1, GET=self._identities),
        ]

    def _about_runs(self) -> list[Location]:
        pipeline = "{project}/_apis/{area}/{pipelineId}"
        build = "{project}/_apis/{area}/builds/{buildId}/{resource}"
        builds, definitions = "{project}/_apis/build/{resource}/{buildId}", "{project}/_apis/build/{resource}/{definitionId}"
        runs, build_one = {"GET": self._runs, "POST": self._run_pipeline}, {"GET": self._builds, "POST": self._queue_build}
        return [
            route("28e1305e-2afe-47bf-abaf-cbb0e6a91988", "pipelines/pipelines", pipeline, 1, _BUILD, GET=self._pipelines),
            route("7859261e-d2e9-4a68-b820-a5d84cc5bb3d", "pipelines/runs", pipeline + "/{resource}/{runId}", 1, _BUILD, **runs),
            route("53df2d18-29ea-46a9-bee0-933540f80abf", "pipelines/preview", pipeline + "/{resource}", 1, _BUILD, POST=self._preview),
            route(
                "fb1b6d27-3957-43d5-a14b-a2d70403e545",
                "pipelines/logs",
                pipeline + "/runs/{runId}/{resource}/{logId}",
                1,
                _BUILD,
                GET=self._pipeline_logs,
            ),
            route("0cd358e1-9217-4d94-8269-1c1ee6f93dcf", "build/Builds", builds, 7, _BUILD, **build_one, PATCH=self._update_build),
            route("dbeaf647-6167-421a-bda9-c9327b25e2e6", "build/Definitions", definitions, 7, _BUILD, GET=self._definitions),
            route("54572c7b-bbd3-45d4-80dc-28be08941620", "build/Changes", build, 2, _BUILD, GET=self._build_changes),
            route("8baac422-4c6e-4de5-8532-db96d92acffa", "build/Timeline", build + "/{timelineId}", 2, _BUILD, GET=self._timeline),
            route("35a80daf-7f30-45fc-86e8-6b813d9c90df", "build/logs", build + "/{logId}", 2, _BUILD, GET=self._logs),
            route("1db06c96-014e-44e1-ac91-90b2d4b3e984", "build/artifacts", build, 5, _BUILD, GET=self._artifacts),
            route("6e6114b2-8161-44c8-8f6c-c5505782427f", "build/tags", build + "/{tag}", 3, _BUILD, GET=self._tags),
            route("b8aac6c9-744b-46e1-88fc-3550969f9313", "build/stages", build + "/{stageRefName}", 1, _BUILD, PATCH=self._update_stage),
        ]

    def _about_approvals(self) -> list[Location]:
        approval = "{project}/_apis/pipelines/{resource}/{approvalId}"
        environment = "{project}/_apis/{area}/{resource}/{environmentId}"
        records = "{project}/_apis/{area}/environments/{environmentId}/{resource}"
        check = "{project}/_apis/pipelines/checks/{resource}/{id}"
        checks = {"GET": self._checks, "POST": self._add_check, "PATCH": self._update_check, "DELETE": self._delete_check}
        decide = {"GET": self._approvals, "PATCH": self._decide}
        environments, deployments = "distributedtask/environments", "distributedtask/environmentdeploymentRecords"
        return [
            route("37794717-f36f-4d78-b2bf-4dc30d0cfbcd", "approval/approvals", approval, 2, _APPROVE, **decide),
            route("86c8381e-5aee-4cde-8ae4-25c0c7f5eaea", "PipelinesChecks/configurations", check, 1, _BUILD, **checks),
            route("8572b1fc-2482-47fa-8f74-7e3ed53ee54b", environments, environment, 1, _ENVIRONMENT, GET=self._environments),
            route("51bb5d21-4305-4ea6-9dbb-b7488af73334", deployments, records, 1, _ENVIRONMENT, GET=self._deployments),
        ]

    def _about_code(self) -> list[Location]:
        repositories = "{project}/_apis/{area}/{resource}/{repositoryId}"
        below = "{project}/_apis/{area}/repositories/{repositoryId}"
        commit, changes = below + "/{resource}/{commitId}", below + "/commits/{commitId}/{resource}"
        items = below + "/{resource}/{*path}"
        return [
            route("225f7195-f9c7-4d14-ab28-a83f7ff77e1f", "git/repositories", repositories, 1, _CODE, GET=self._repositories),
            route("c2570c3b-5b3f-41b8-98bf-5407bfde8d58", "git/commits", commit, 1, _CODE, GET=self._commits),
            route("5bf884f5-3e07-42e9-afb8-1b872267bf16", "git/changes", changes, 1, _CODE, GET=self._changes),
            route("2d874a60-a811-4f62-9c9f-963a6ea0a55b", "git/refs", below + "/{resource}", 1, _CODE, GET=self._refs),
            route("fb93c0db-47ed-4a31-8c20-47552878fb44", "git/items", items, 1, _CODE, GET=self._items),
        ]

    def _about_tests(self) -> list[Location]:
        runs, results = "{project}/_apis/test/{resource}/{runId}", "{project}/_apis/test/Runs/{runId}/{resource}/{testCaseResultId}"
        return [
            route("cadb3810-d47d-4a3c-a234-fe5f3be50138", "Test/Runs", runs, 3, _TEST, GET=self._test_runs),
            route("4637d869-3a76-4468-8057-0bb02aa385cf", "Test/Results", results, 6, _TEST, GET=self._test_results),
        ]

    def _about_hooks(self) -> list[Location]:
        one, many = "_apis/{area}/{resource}/{subscriptionId}", "_apis/{area}/{resource}"
        history = "_apis/{area}/subscriptions/{subscriptionId}/{resource}/{notificationId}"
        test, publisher = "_apis/{area}/{resource}/{notificationId}", "_apis/{area}/{resource}/{publisherId}"
        subscriptions = {"GET": self._subscriptions, "POST": self._subscribe, "PUT": self._replace, "DELETE": self._unsubscribe}
        return [
            route("fc50d02a-849f-41fb-8af1-0a5216103269", "hooks/subscriptions", one, 1, _ANY, **subscriptions),
            route("0c62d343-21b0-4732-997b-017fde84dc28", "hooks/notifications", history, 1, GET=self._notifications),
            route("1a57562f-160a-4b5c-9185-905e95b39d36", "hooks/notificationsQuery", many, 1, POST=self._query_notifications),
            route("1139462c-7e27-4524-a997-31b9b73551fe", "hooks/testNotifications", test, 1, POST=self._test_notification),
            route("1e83a210-5b53-43bc-90f0-d476a4e5d731", "hooks/publishers", publisher, 1, GET=self._publishers),
        ]

    async def _areas(self, call: Call) -> web.Response:
        hosts = {"Release": VSRM}
        listed = [{"id": key, "name": name, "locationUrl": f"https://{hosts.get(name, DEV)}/contoso/"} for name, key in _AREAS.items()]
        asked = call.values.get("areaId", "").lower()
        return ok(_one_of(listed, asked, lambda area: area["id"]) if asked else collection(listed))

    async def _connection(self, call: Call) -> web.Response:
        who = _identity(call.who)
        return ok(
            {
                "authenticatedUser": who,
                "authorizedUser": who,
                "instanceId": COLLECTION_ID,
                "deploymentId": "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a0004",
                "deploymentType": "hosted",
                "locationServiceData": {"serviceOwner": "00025394-6065-48ca-87d9-7f5672854ef7", "lastChangeId": 1},
            }
        )

    async def _projects(self, call: Call) -> web.Response:
        asked = call.values.get("projectId")
        if asked is None:
            return ok(collection([views.project()]))
        if asked.lower() not in {PROJECT, PROJECT_ID}:
            raise ApiError(404, "ProjectDoesNotExistWithNameException", f"TF200016: The following project does not exist: {asked}.")
        return ok(views.project())

    async def _identities(self, call: Call) -> web.Response:
        everybody = {who.oid: who for who in ADO_MEMBERS} | views.GROUPS
        members = call.query.get("querymembership", "none").lower() != "none"
        if asked := call.values.get("identityId"):
            who = call.who if asked == "me" else everybody.get(asked.lower())
            if who is None:
                raise ApiError(404, "IdentityNotFoundException", f"VS403283: Could not find an identity with the id {asked}.")
            return ok(_identity(who, members=members))
        wanted = call.query.get("filtervalue", "").lower()
        found = [everybody[oid] for oid in call.names("identityids") if oid in everybody]
        descriptors = call.names("descriptors")
        found += [who for who in everybody.values() if _descriptor(who).lower() in descriptors]
        found += [who for who in everybody.values() if wanted and wanted in _names_of(who)]
        return ok(collection(_identity(who, members=members) for who in found))

    async def _pipelines(self, call: Call) -> web.Response:
        if "pipelineId" in call.values:
            return ok(views.pipeline(self._pipeline(call.number("pipelineId"))))
        return ok(collection(views.pipeline(one) for one in list(self._store.pipelines)[: call.top()]))

    async def _runs(self, call: Call) -> web.Response:
        pipeline = self._pipeline(call.number("pipelineId"))
        if "runId" in call.values:
            return ok(views.run(self._run_of(pipeline, call.number("runId")), pipeline))
        runs = [run for run in self._store.runs if run.pipeline == pipeline.id]
        return ok(collection(views.run(run, pipeline) for run in reversed(runs[-10000:])))

    async def _run_pipeline(self, call: Call) -> web.Response:
        pipeline = self._pipeline(call.number("pipelineId"))
        body = call.document()
        if body.get("previewRun"):
            return await self._preview(call)
        here = ((body.get("resources") or {}).get("repositories") or {}).get("self") or {}
        with _refusals():
            run = await self._project.queue(
                pipeline,
                call.who,
                branch=here.get("refName") or MAIN,
                version=here.get("version"),
                parameters=_texts(body.get("templateParameters"), "templateParameters"),
                variables={name: (value or {}).get("value") or "" for name, value in (body.get("variables") or {}).items()},
                skip=body.get("stagesToSkip") or (),
            )
        return ok(views.run(run, pipeline))

    async def _preview(self, call: Call) -> web.Response:
        pipeline = self._pipeline(call.number("pipelineId"))
        body = call.body if isinstance(call.body, dict) else {}
        with _refusals():
            await self._project.plan(pipeline, MAIN, _texts(body.get("templateParameters"), "templateParameters"), {})
            text = await asyncio.to_thread(self._project.repository.read, pipeline.file)
        return ok({"finalYaml": text})

    async def _pipeline_logs(self, call: Call) -> web.Response:
        run = self._run_of(self._pipeline(call.number("pipelineId")), call.number("runId"))
        logs = await asyncio.to_thread(self._finished_logs, run)
        if "logId" in call.values:
            return ok(_one_of(logs, call.number("logId"), lambda log: log["id"]))
        return ok({"logs": logs, "url": f"{views.API}/pipelines/{run.pipeline}/runs/{run.id}/logs"})

    async def _builds(self, call: Call) -> web.Response:
        if "buildId" in call.values:
            return ok(self._build_view(self._run(call.number("buildId"))))
        runs = _filtered(call, list(self._store.runs))
        token = call.query.get("continuationtoken", "")
        start = next((place for place, run in enumerate(runs) if str(run.id) == token), len(runs)) if token else 0
        page = runs[start : start + call.top()]
        following = runs[start + len(page) : start + len(page) + 1]
        headers = {"x-ms-continuationtoken": str(following[0].id)} if following else None
        return ok(collection(self._build_view(run) for run in page), headers=headers)

    async def _queue_build(self, call: Call) -> web.Response:
        body = call.document()
        number = mapping(body.get("definition"), "definition").get("id") or call.query.get("definitionid") or 0
        pipeline = self._pipeline(whole(number, "definition.id", 0))
        with _refusals():
            run = await self._project.queue(
                pipeline,
                call.who,
                branch=body.get("sourceBranch") or MAIN,
                version=body.get("sourceVersion"),
                parameters=_texts(body.get("templateParameters"), "templateParameters"),
            )
        return ok(views.build(run, pipeline))

    async def _update_build(self, call: Call) -> web.Response:
        run = self._run(call.number("buildId"))
        status = call.document().get("status")
        if status not in {"cancelling", 4}:
            raise ApiError(400, "InvalidBuildException", f"The status of a build cannot be set to '{status}'.")
        with _refusals():
            self._project.cancel(run, call.who)
        return ok(self._build_view(run))

    async def _definitions(self, call: Call) -> web.Response:
        if "definitionId" in call.values:
            return ok(views.definition(self._pipeline(call.number("definitionId"))))
        name = call.query.get("name", "").lower()
        return ok(collection(views.definition(one) for one in self._store.pipelines if name in {"", one.name.lower()}))

    async def _build_changes(self, call: Call) -> web.Response:
        run = self._run(call.number("buildId"))
        with _refusals():
            commit = await asyncio.to_thread(self._project.repository.commit, run.commit)
        author = {"displayName": commit.author.name, "uniqueName": commit.author.email, "id": views.EMPTY}
        change = {
            "id": commit.sha,
            "message": commit.message,
            "type": "TfsGit",
            "author": author,
            "timestamp": views.when(commit.author.date),
            "location": f"{views.API}/git/repositories/{REPOSITORY_ID}/commits/{commit.sha}",
            "displayUri": views.commit_url(commit.sha),
        }
        return ok(collection([change]))

    async def _timeline(self, call: Call) -> web.Response:
        run = self._run(call.number("buildId"))
        timeline = views.timeline(run, self._store, call.values.get("timelineId", "").lower() or None)
        if timeline is None:
            raise ApiError(404, "TimelineNotFoundException", f"No timeline {call.values['timelineId']} of the build {run.id} was found.")
        return ok(timeline)

    async def _logs(self, call: Call) -> web.Response:
        run = self._run(call.number("buildId"))
        if "logId" not in call.values:
            return ok(collection(await asyncio.to_thread(self._finished_logs, run)))
        number = call.number("logId")
        _one_of(await asyncio.to_thread(self._finished_logs, run), number, lambda log: log["id"])
        lines = await asyncio.to_thread(_lines, self._project.places.log(run.id, number))
        chosen = call.between(lines)
        if call.accepts == "text/plain":
            return web.Response(text="".join(f"{line}\r\n" for line in chosen), content_type="text/plain")
        if call.accepts == "application/zip":
            body = packed({f"{number}.log": "\n".join(chosen).encode()})
            return web.Response(body=body, content_type="application/zip")
        return ok(collection(chosen))

    async def _artifacts(self, call: Call) -> web.StreamResponse:
        run = self._run(call.number("buildId"))
        name = call.query.get("artifactname", "")
        folder = self._project.places.artifacts(run.id)
        sized = await asyncio.to_thread(lambda: {one.name: _size(folder / one.name) for one in run.artifacts})
        if not name:
            return ok(collection(views.artifact(run, one, sized[one.name]) for one in run.artifacts))
        found = next((one for one in run.artifacts if one.name.lower() == name.lower()), None)
        if found is None:
            raise ApiError(404, "ArtifactNotFoundException", f"Artifact {name} was not found for build {run.id}.")
        if call.accepts == "application/zip" or call.query.get("format", "").lower() == "zip":
            files = await asyncio.to_thread(files_of, folder / found.name)
            body = await asyncio.to_thread(packed, {f"{found.name}/{path}": content for path, content in files.items()})
            headers = {"Content-Disposition": f'attachment; filename="{found.name}.zip"'}
            return web.Response(body=body, content_type="application/zip", headers=headers)
        return ok(views.artifact(run, found, sized[found.name]))

    async def _tags(self, call: Call) -> web.Response:
        return ok(collection(self._run(call.number("buildId")).tags))

    async def _update_stage(self, call: Call) -> web.Response:
        run = self._run(call.number("buildId"))
        body = call.document()
        stage = run.stage(call.values.get("stageRefName", ""))
        if stage is None:
            raise ApiError(404, "StageNotFoundException", f"The stage {call.values.get('stageRefName')} of build {run.id} was not found.")
        state = str(body.get("state")).lower()
        with _refusals():
            if state in {"retry", "1"}:
                self._project.retry(run, stage, call.who, everything=bool(body.get("forceRetryAllJobs")))
            elif state in {"cancel", "0"}:
                self._project.cancel_stage(run, stage, call.who)
            else:
                raise ApiError(400, "InvalidRequestContentException", f"A stage cannot be updated to the state '{body.get('state')}'.")
        return web.Response(status=200)

    async def _approvals(self, call: Call) -> web.Response:
        expand = frozenset(call.names("expand"))
        if asked := call.values.get("approvalId"):
            found = self._store.approvals.get(asked.lower())
            if found is None:
                raise ApiError(
                    404, "ApprovalNotFoundException", f"The approval {asked} does not exist or you have no permission to see it."
                )
            return ok(views.approval(found, self._store, call.who, expand))
        keys, people = call.names("approvalids"), {*call.names("userids"), *call.names("assignedto")}
        state = call.query.get("state", "all").lower()
        listed = [
            approval
            for approval in self._store.approvals
            if (not keys or approval.id in keys)
            and state in {"all", approval.status.lower()}
            and (not people or _waits_for(approval, people))
        ]
        return ok(collection(views.approval(one, self._store, call.who, expand) for one in listed[: call.top()]))

    async def _decide(self, call: Call) -> web.Response:
        if "approvalId" in call.values or not isinstance(call.body, list) or not call.body:
            raise ApiError(400, "InvalidRequestContentException", "Approvals are updated in a list, at the URL of the collection.")
        expand = frozenset({"steps", "permissions"})
        decided = []
        for update in call.body:
            answer = _answer_of(mapping(update, "An update of an approval"))
            before = self._store.approvals.get(answer.id)
            if before is not None and self._project.faults.take("ado.200_unchanged") is not None:
                decided.append(before)
                continue
            with _refusals():
                decided.append(self._project.decide(call.who, answer))
        return ok(collection(views.approval(one, self._store, call.who, expand) for one in decided))

    async def _checks(self, call: Call) -> web.Response:
        settings = "settings" in call.names("expand")
        if "id" in call.values:
            found = self._check(call.number("id"))
            return ok(views.check(found, self._environment(found.environment), settings=settings))
        kind, place = call.query.get("resourcetype", "environment"), call.asked("resourceId", 0)
        listed = [one for one in self._store.checks if kind == "environment" and place in {0, one.environment}]
        return ok(collection(views.check(one, self._environment(one.environment), settings=settings) for one in listed))

    async def _add_check(self, call: Call) -> web.Response:
        body = call.document()
        resource = mapping(body.get("resource"), "resource")
        if mapping(body.get("type"), "type").get("id") != views.APPROVAL_CHECK or resource.get("type") != "environment":
            raise ApiError(400, "CheckConfigurationException", "The sandbox knows one kind of check: the approval of an environment.")
        environment = self._environment(whole(resource.get("id"), "resource.id", 0))
        with _refusals():
            check = self._project.check(call.who, _check_of(environment.id, body, call.who))
        return ok(views.check(check, environment, settings=True))

    async def _update_check(self, call: Call) -> web.Response:
        old = self._check(call.number("id"))
        made = replace(_check_of(old.environment, call.document(), call.who), id=old.id, created=old.created, created_by=old.created_by)
        with _refusals():
            self._project.check(call.who, made)
        return ok(views.check(made, self._environment(made.environment), settings=True))

    async def _delete_check(self, call: Call) -> web.Response:
        check = self._check(call.number("id"))
        with _refusals():
            self._project.administer(call.who)
        self._store.checks.drop(check.id)
        return web.Response(status=204)

    async def _environments(self, call: Call) -> web.Response:
        if "environmentId" in call.values:
            return ok(views.environment(self._environment(call.number("environmentId"))))
        name = call.query.get("name", "").lower()
        present = [one for one in self._store.environments if not one.deleted]
        return ok(collection(views.environment(one) for one in present if name in {"", one.name.lower()}))

    async def _deployments(self, call: Call) -> web.Response:
        environment = self._environment(call.number("environmentId"))
        found = [one for one in self._store.deployments if one.environment == environment.id]
        newest = sorted(found, key=lambda one: one.id, reverse=True)[: call.top()]
        documents = []
        for one in newest:
            run = self._run(one.run)
            documents.append(views.deployment(one, run, self._pipeline(run.pipeline)))
        return ok(collection(documents))

    async def _repositories(self, call: Call) -> web.Response:
        if "repositoryId" in call.values:
            _check_repository(call)
            return ok(views.repository())
        return ok(collection([views.repository()]))

    async def _commits(self, call: Call) -> web.Response:
        _check_repository(call)
        repository = self._project.repository
        with _refusals():
            if sha := call.values.get("commitId"):
                commit = await asyncio.to_thread(repository.commit, sha)
                changes = await asyncio.to_thread(repository.changes, commit.sha)
                return ok(views.commit(commit, changes[: call.asked("changeCount", 100)]))
            asked = {name.removeprefix("searchcriteria."): value for name, value in call.query.items()}
            start = asked.get("itemversion.version") or MAIN
            found = await asyncio.to_thread(repository.commits, start, whole(asked.get("$top") or asked.get("top"), "$top", 100))
        return ok(collection(views.commit(commit) for commit in found))

    async def _changes(self, call: Call) -> web.Response:
        _check_repository(call)
        with _refusals():
            changes = await asyncio.to_thread(self._project.repository.changes, call.values["commitId"])
        sha = call.values["commitId"]
        return ok({"changeCounts": views.change_counts(changes), "changes": [views.change(one, sha) for one in changes]})

    async def _refs(self, call: Call) -> web.Response:
        _check_repository(call)
        wanted = "refs/" + call.query.get("filter", "")
        branches = await asyncio.to_thread(self._project.repository.branches)
        return ok(collection({"name": name, "objectId": sha} for name, sha in branches.items() if name.startswith(wanted)))

    async def _items(self, call: Call) -> web.Response:
        _check_repository(call)
        path = (call.query.get("path") or call.query.get("scopepath") or call.values.get("path", "")).lstrip("/")
        version = call.query.get("versiondescriptor.version") or call.query.get("version") or MAIN
        with _refusals():
            text = await asyncio.to_thread(self._project.repository.read, path, version)
        if call.accepts in {"text/plain", "application/octet-stream"}:
            return web.Response(text=text, content_type=call.accepts)
        document = {"gitObjectType": "blob", "path": f"/{path}", "commitId": version, "isFolder": False}
        return ok(document | ({"content": text} if call.query.get("includecontent", "").lower() == "true" else {}))

    async def _test_runs(self, call: Call) -> web.Response:
        if "runId" in call.values:
            return ok(views.test_run(self._test_run(call.number("runId"))))
        listed: Iterable[TestRun] = self._store.tests
        if uri := call.query.get("builduri"):
            listed = [one for one in listed if f"vstfs:///build/build/{one.run}" == uri.lower()]
        if numbers := call.numbers("buildIds"):
            listed = [one for one in listed if one.run in numbers]
        found = list(listed)
        skip = call.asked("skip", 0)
        return ok(collection(views.test_run(one) for one in found[skip : skip + call.top()]))

    async def _test_results(self, call: Call) -> web.Response:
        results = views.test_results(self._test_run(call.number("runId")))
        if "testCaseResultId" in call.values:
            return ok(_one_of(results, call.number("testCaseResultId"), lambda result: result["id"]))
        outcomes = call.names("outcomes")
        chosen = [result for result in results if not outcomes or result["outcome"].lower() in outcomes]
        skip = call.asked("skip", 0)
        return ok(collection(chosen[skip : skip + call.top()]))

    async def _subscriptions(self, call: Call) -> web.Response:
        if "subscriptionId" in call.values:
            return ok(hooks.subscription_view(self._subscription(call)))
        publisher, kind = call.query.get("publisherid", ""), call.query.get("eventtype", "")
        listed = [
            one for one in self._project.hooks.subscriptions(_host(call)) if publisher in {"", one.publisher} and kind in {"", one.event}
        ]
        return ok(collection(hooks.subscription_view(one) for one in listed))

    async def _subscribe(self, call: Call) -> web.Response:
        with _refusals():
            self._project.administer(call.who)
            made = self._project.hooks.create(_host(call), call.document(), call.who.oid)
        return ok(hooks.subscription_view(made))

    async def _replace(self, call: Call) -> web.Response:
        body = call.document()
        old = self._subscription(call, str(body.get("id") or ""))
        with _refusals():
            self._project.administer(call.who)
            made = self._project.hooks.replace(old, body, call.who.oid)
        return ok(hooks.subscription_view(made))

    async def _unsubscribe(self, call: Call) -> web.Response:
        found = self._subscription(call)
        with _refusals():
            self._project.administer(call.who)
        self._project.hooks.delete(found)
        return web.Response(status=204)

    async def _notifications(self, call: Call) -> web.Response:
        subscription = self._subscription(call)
        history = self._project.hooks.history(subscription.id)
        if "notificationId" in call.values:
            found = next((one for one in history if one.id == call.number("notificationId")), None)
            if found is None:
                raise ApiError(404, "NotificationNotFoundException", f"The notification {call.values['notificationId']} was not found.")
            return ok(hooks.notification_view(found, subscription, details=True))
        status, result = call.query.get("status", "").lower(), call.query.get("result", "").lower()
        limit = call.asked("maxResults", 100)
        chosen = [one for one in history if status in {"", one.status.lower()} and result in {"", one.result}]
        return ok(collection(hooks.notification_view(one, subscription, details=True) for one in chosen[:limit]))

    async def _query_notifications(self, call: Call) -> web.Response:
        body = call.document()
        here = {one.id: one for one in self._project.hooks.subscriptions(_host(call))}
        asked = {str(key).lower() for key in body.get("subscriptionIds") or here}
        chosen = [one for one in self._project.hooks.everything() if one.subscription in here and _in_query(one, body, asked)]
        limit, each = (whole(body.get(name), name, 100) for name in ("maxResults", "maxResultsPerSubscription"))
        kept = [one for one in chosen if sum(other.subscription == one.subscription and other.id >= one.id for other in chosen) <= each]
        details = bool(body.get("includeDetails"))
        results = [hooks.notification_view(one, here[one.subscription], details=details) for one in kept[:limit]]
        associated = [hooks.subscription_view(one) for key, one in here.items() if key in asked]
        return ok(body | {"results": results, "summary": hooks.summary_view(chosen), "associatedSubscriptions": associated})

    async def _test_notification(self, call: Call) -> web.Response:
        body = call.document()
        subscription = self._subscription(call, str(body.get("subscriptionId") or ""))
        with _refusals():
            self._project.administer(call.who)
        if subscription.publisher == "rm":
            about = release_events.sample(subscription.event, self._project.releases.store)
        else:
            newest = max(self._store.runs, key=lambda run: run.id, default=None)
            about = events.Event(subscription.event, newest.id, now(), {}) if newest else None
        if about is None:
            raise ApiError(400, "TestNotificationException", "There is nothing yet that a test notification could be about.")
        sent = self._project.hooks.test(subscription, about)
        return ok(hooks.notification_view(sent, subscription, details=True))

    async def _publishers(self, call: Call) -> web.Response:
        listed = hooks.publishers_view(_host(call))
        asked = call.values.get("publisherId", "")
        return ok(_one_of(listed, asked, lambda publisher: publisher["id"]) if asked else collection(listed))

    def _build_view(self, run: Run) -> Json:
        return views.build(run, self._pipeline(run.pipeline))

    def _pipeline(self, number: int) -> Pipeline:
        found = self._store.pipelines.get(number)
        if found is None:
            raise ApiError(404, "PipelineDoesNotExistException", f"Pipeline with id {number} does not exist.")
        return found

    def _run(self, number: int) -> Run:
        found = self._store.runs.get(number)
        if found is None:
            raise ApiError(404, "BuildNotFoundException", f"The requested build {number} could not be found.")
        return found

    def _run_of(self, pipeline: Pipeline, number: int) -> Run:
        found = self._run(number)
        if found.pipeline != pipeline.id:
            raise ApiError(404, "RunDoesNotExistException", f"Run with id {number} does not belong to pipeline {pipeline.id}.")
        return found

    def _environment(self, number: int) -> Environment:
        found = self._store.environments.get(number)
        if found is None or found.deleted:
            raise ApiError(404, "EnvironmentNotFoundException", f"Environment with ID {number} does not exist or has been deleted.")
        return found

    def _check(self, number: int) -> Check:
        found = self._store.checks.get(number)
        if found is None:
            raise ApiError(404, "CheckConfigurationNotFoundException", f"The check configuration {number} does not exist.")
        return found

    def _test_run(self, number: int) -> TestRun:
        found = self._store.tests.get(number)
        if found is None:
            raise ApiError(404, "TestObjectNotFoundException", f"Test run {number} could not be found.")
        return found

    def _subscription(self, call: Call, otherwise: str = "") -> Subscription:
        key = call.values.get("subscriptionId", otherwise)
        found = self._project.hooks.subscription(key, _host(call))
        if found is None:
            raise ApiError(404, "SubscriptionNotFoundException", f"The service hooks subscription {key} could not be found.")
        return found

    def _finished_logs(self, run: Run) -> list[Json]:
        """The logs of completed steps, in order."""
        logs = []
        for _, _, step in run.steps():
            if step.log is not None and step.state == "completed":
                lines = len(_lines(self._project.places.log(run.id, step.log)))
                logs.append(views.log(run, step.log, lines, step.started, step.finished))
        return sorted({log["id"]: log for log in logs}.values(), key=lambda log: int(log["id"]))


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what the project refuses into the service's errors."""
    try:
        yield
    except Denied as denied:
        raise ApiError(denied.status, denied.key, str(denied)) from None
    except BadPipeline as bad:
        raise ApiError(400, "PipelineValidationException", str(bad)) from None
    except BadSubscription as bad:
        raise ApiError(400, "SubscriptionInputException", str(bad)) from None
    except NoSuchThing as missing:
        raise ApiError(404, "GitObjectNotFoundException", f"TF401175: {missing}") from None


def _answer_of(update: Json) -> Answer:
    """One update of a list. Raises ApiError."""
    to, part = (mapping(update.get(name), name) for name in ("reassignTo", "assignedApprover"))
    return Answer(
        id=str(update.get("approvalId", "")).lower(),
        status=str(update.get("status") or ""),
        comment=str(update.get("comment") or ""),
        until=moment(update.get("deferredTo"), "deferredTo"),
        to=_id_of(to),
        part=_id_of(part),
    )


def _id_of(reference: object) -> str:
    """The id in an IdentityRef of a body."""
    return str(mapping(reference, "An identity").get("id") or "").lower()


def _host(call: Call) -> str:
    return VSRM if call.request.host.startswith("vsrm.") else DEV


def _identity(who: Character | Group, *, members: bool = False) -> Json:
    """An identity of the identity service, as ConnectionData has it, too; with whom it belongs to, and who belongs to it."""
    reference = views.identity(who.oid)
    group = isinstance(who, Group)
    document: Json = {
        "id": who.oid,
        "descriptor": _descriptor(who),
        "subjectDescriptor": reference["descriptor"],
        "providerDisplayName": reference["displayName"],
        "isActive": True,
        "isContainer": group,
        "properties": {"Account": {"$type": "System.String", "$value": reference["uniqueName"]}},
        "resourceVersion": 2,
        "metaTypeId": 1 if who is BOT else 0,
    }
    if members:
        document["memberOf"] = [_descriptor(one) for one in ADO_GROUPS if who.oid in one.members]
        document["members"] = [_descriptor(views.KNOWN[oid]) for oid in who.members] if isinstance(who, Group) else []
    return document


def _descriptor(who: Character | Group) -> str:
    kind = "Microsoft.TeamFoundation.Identity" if isinstance(who, Group) else "Microsoft.IdentityModel.Claims.ClaimsIdentity"
    return f"{kind};{who.oid}"


def _names_of(who: Character | Group) -> set[str]:
    return {views.name_of(who.oid).lower(), who.name.lower(), *({who.email.lower()} if isinstance(who, Character) else ())}


def _one_of(listed: Sequence[ThingT], wanted: object, key: Callable[[ThingT], object]) -> ThingT:
    for one in listed:
        if key(one) == wanted:
            return one
    raise ApiError(404, "NotFoundException", f"There is no {wanted} here.")


def _texts(value: object, name: str) -> dict[str, str]:
    """Template parameters are texts on the wire."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ApiError(400, "InvalidRequestContentException", f"{name} must be an object.")
    return {str(key): one if isinstance(one, str) else json.dumps(one) for key, one in value.items()}


def _check_repository(call: Call) -> None:
    asked = call.values["repositoryId"]
    if asked.lower() not in {PROJECT, REPOSITORY_ID}:
        raise ApiError(
            404, "GitRepositoryNotFoundException", f"TF401019: The Git repository with name or identifier {asked} does not exist."
        )


def _filtered(call: Call, runs: Sequence[Run]) -> list[Run]:
    """The builds a query asks for, in its order (by default the newest finish first, unfinished ones before them)."""
    statuses, results = set(call.names("statusfilter")), set(call.names("resultfilter"))
    definitions, numbers = call.numbers("definitions"), call.numbers("buildIds")
    order = call.query.get("queryorder", "finishTimeDescending")
    by, newest_first = order.lower(), not order.lower().endswith("ascending")
    after, before = call.time("mintime"), call.time("maxtime")
    branch, reason = call.query.get("branchname", ""), call.query.get("reasonfilter", "all").lower()

    def time(run: Run) -> datetime:
        at = run.queued if by.startswith("queue") else run.started if by.startswith("start") else run.finished
        return at or datetime.max.replace(tzinfo=UTC)

    chosen = [
        run
        for run in runs
        if (not definitions or run.pipeline in definitions)
        and (not numbers or run.id in numbers)
        and (not statuses or "all" in statuses or run.state.lower() in statuses)
        and (not results or (run.result or "none").lower() in results)
        and branch in {"", run.branch}
        and reason in {"all", run.reason.lower()}
        and (after is None or time(run) >= after)
        and (before is None or time(run) <= before)
    ]
    return sorted(chosen, key=lambda run: (time(run), run.id), reverse=newest_first)


def _waits_for(approval: Approval, people: set[str]) -> bool:
    return any(step.approver in people for step in approval.steps)


def _check_of(environment: int, body: Json, who: Character) -> Check:
    """A check from a request; it has no number yet. Raises ApiError."""
    settings = mapping(body.get("settings"), "settings")
    orders = {"": "anyOrder", "1": "anyOrder", "2": "inSequence"} | {order.lower(): order for order in ORDERS}
    order = str(settings.get("executionOrder") or "")
    at = now()
    return Check(
        id=0,
        environment=environment,
        approvers=[_id_of(one) for one in listing(settings.get("approvers"), "approvers")],
        minimum=whole(settings.get("minRequiredApprovers"), "minRequiredApprovers", 0),
        execution_order=orders.get(order.lower(), order),
        instructions=str(settings.get("instructions") or ""),
        requester_excluded=bool(settings.get("requesterCannotBeApprover")),
        timeout=whole(body.get("timeout"), "timeout", MONTH) or MONTH,
        created=at,
        created_by=who.oid,
        modified=at,
        modified_by=who.oid,
        blocked=[_id_of(one) for one in listing(settings.get("blockedApprovers"), "blockedApprovers")],
    )


def _in_query(one: Notification, body: Json, subscriptions: set[str]) -> bool:
    first, last = (moment(body.get(name), name) for name in ("minCreatedDate", "maxCreatedDate"))
    return (
        one.subscription in subscriptions
        and body.get("status") in (None, one.status)
        and body.get("resultType") in (None, one.result)
        and (first is None or one.created >= first)
        and (last is None or one.created <= last)
    )


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of an artifact by their path inside it."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
