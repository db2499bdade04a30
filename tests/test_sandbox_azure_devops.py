"""The local Azure DevOps: what its SDK and its subscribers see, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from sandbox.azure_devops import approvals, candidates, events
from sandbox.azure_devops.agent import JobOutcome, Space, Watch
from sandbox.azure_devops.approvals import Answer, Denied
from sandbox.azure_devops.hooks import BadSubscription, check_url
from sandbox.azure_devops.plan import BadPipeline, Plan, PlanJob, PlanStage, PlanStep, Result
from sandbox.azure_devops.records import Check
from sandbox.azure_devops.repository import NoSuchThing, Repository
from sandbox.azure_devops.server import AzureDevOps
from sandbox.names import ADA, AGENT, ALAN, BOT, GRACE, GUEST, RADIA, Character
from sandbox.tokens import AZURE_DEVOPS
from sandbox.world import World
from tests.sandboxes import proxy, trust

pytestmark = pytest.mark.world

Json = dict[str, Any]
PROJECT = "https://dev.azure.com/contoso/ml-delivery/_apis"
NOON = datetime(2026, 9, 13, 12, tzinfo=UTC)
STAGE = "ms.vss-pipelines.stage-state-changed-event"


def step(title: str) -> PlanStep:
    return PlanStep("script", title)


def job(name: str, environment: str | None = None) -> PlanJob:
    return PlanJob(name, name.title(), (step(f"Do {name}"),), environment=environment)


PLAN = Plan(
    "$(Date:yyyyMMdd)$(Rev:.r)",
    (
        PlanStage("train", "Train", (job("train"),)),
        PlanStage("qa", "QA - Deploy on ACI", (job("deploy", "qa"),), ("train",)),
        PlanStage("prod", "Prod - Deploy on AKS", (job("release", "prod"),), ("qa",)),
    ),
    {},
    branches=("main",),
    paths=("callboard.toml",),
)


@dataclass
class Agent:
    """Ends jobs as it is told, by job name, one answer for each attempt; a job in `held` runs until it is let go or canceled."""

    results: dict[str, list[Result]] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    spaces: list[Space] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, job: PlanJob, space: Space, watch: Watch) -> JobOutcome:
        self.ran.append(job.name)
        self.spaces.append(space)
        told = self.results.get(job.name)
        result = told.pop(0) if told else Result.SUCCEEDED
        watch.step_started(0)
        watch.line(0, f"2026-09-13T12:00:00.0000000Z working on {job.name}")
        if job.name in self.held:
            waits = [asyncio.ensure_future(self.go.wait()), asyncio.ensure_future(watch.canceled.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            result = Result.CANCELED if watch.canceled.is_set() else result
        if result is Result.FAILED:
            watch.issue(0, "error", "Bash exited with code '1'.")
        (space.artifacts / job.name).mkdir(exist_ok=True)
        (space.artifacts / job.name / "result.json").write_text("{}")
        watch.artifact(job.name, space.artifacts / job.name, "PipelineArtifact")
        watch.step_finished(0, result)
        return JobOutcome(result, self.outputs)


class Site:
    """A running local Azure DevOps and somebody's client of it."""

    def __init__(self, world: World, azure: AzureDevOps, agent: Agent, session: aiohttp.ClientSession) -> None:
        self.world = world
        self.azure = azure
        self.agent = agent
        self._session = session

    def token(self, who: Character, *scopes: str) -> str:
        return "Bearer " + self.world.tokens.issue(who, AZURE_DEVOPS, scopes)

    async def ask(
        self, method: str, url: str, who: Character = BOT, *, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """The status and the document of an answer (its text, where it is none)."""
        given = {"Authorization": self.token(who), "Accept": "application/json;api-version=7.1", **(headers or {})}
        address = url if url.startswith("https:") else f"{PROJECT}/{url}"
        async with self._session.request(
            method, address, json=body, headers=given, proxy=proxy(self.world), ssl=trust(self.world), allow_redirects=False
        ) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text and "json" in answer.headers.get("Content-Type", "") else text

    async def value(self, url: str, who: Character = BOT) -> list[Json]:
        status, document = await self.ask("GET", url, who)
        assert status == 200, document
        listed: list[Json] = document["value"]
        return listed

    async def waiting(self, run: int) -> Json:
        """The approval the run waits for."""
        await self.azure.wait_for(lambda: any(one["status"] == "pending" for one in self.azure.run(run)["approvals"]), 8)
        return next(one for one in self.azure.run(run)["approvals"] if one["status"] == "pending")

    async def ended(self, run: int) -> Json:
        await self.azure.wait_for(lambda: bool(self.azure.run(run)["status"] == "completed"), 8)
        return self.azure.run(run)

    def records(self, run: int, kind: str) -> dict[str, Json]:
        return {one["name"]: one for one in self.azure.run(run)["timeline"]["records"] if one["type"] == kind}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A working tree with a pipeline's files."""
    tree = tmp_path / "tree"
    (tree / "deploy").mkdir(parents=True)
    (tree / "deploy" / "train.py").write_text("print('training')\n")
    (tree / "callboard.toml").write_text(
        '[models.diabetes.candidates] # all of them\nridge = { alpha = 10.0 } # small\n\n[other]\nridge = "x"\n'
    )
    return tree


@asynccontextmanager
async def running(
    folder: Path, root: Path, agent: Agent | None = None, *, plan: Plan = PLAN, make: Callable[[World], AzureDevOps] | None = None
) -> AsyncIterator[Site]:
    """A site whose agent is a fake and whose pipeline is this plan."""
    world = World(folder, root=root)
    agent = agent or Agent()
    azure = make(world) if make else AzureDevOps(world, run_job=agent, compile=lambda *_: plan)
    azure.project.hooks.pace = azure.project.hooks.latency = 0.001
    async with aiohttp.ClientSession() as session:
        try:
            await world.start([azure])
            yield Site(world, azure, agent, session)
        finally:
            await world.stop()


@pytest.fixture
async def site(tmp_path: Path, root: Path) -> AsyncIterator[Site]:
    async with running(tmp_path / "world", root) as there:
        yield there


@dataclass
class Receiver:
    """Where hooks are delivered; answers what it is told to, then 200."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    got: list[Json] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    _came: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: web.Request) -> web.Response:
        status = self.answers.pop(0) if self.answers else 200
        self.headers.append(dict(request.headers))
        self.got.append(await request.json())
        self._came.set()
        return web.Response(status=status)

    async def have(self, count: int) -> list[Json]:
        async with asyncio.timeout(8):
            while len(self.got) < count:
                self._came.clear()
                await self._came.wait()
        return self.got


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    there = Receiver()
    app = web.Application()
    app.router.add_post("/hooks", there.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    there.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks"
    yield there
    await runner.cleanup()


def subscription(url: str, event: str = STAGE, publisher: str = "pipelines", **inputs: str) -> Json:
    return {
        "publisherId": publisher,
        "eventType": event,
        "consumerId": "webHooks",
        "consumerActionId": "httpRequest",
        "publisherInputs": inputs,
        "consumerInputs": {"url": url, "basicAuthUsername": "u", "basicAuthPassword": "sesame", "httpHeaders": "X-Hook-Key:abc"},
    }


SDK = """
import io, json, sys, zipfile
from azure.devops.connection import Connection
from azure.devops.v7_1.build.models import UpdateStageParameters
from azure.devops.v7_1.service_hooks.service_hooks_client import ServiceHooksClient
from azure.identity import DefaultAzureCredential
from msrest.authentication import BasicTokenAuthentication

token = DefaultAzureCredential().get_token("499b84ac-1321-427f-aa17-267ca6975798/.default").token
credentials = BasicTokenAuthentication({"access_token": token})
clients = Connection("https://dev.azure.com/Contoso", credentials).clients_v7_1
builds, pipelines, project = clients.get_build_client(), clients.get_pipelines_client(), "ml-delivery"
build = builds.get_builds(project, definitions=[1], top=5)[0]
records = builds.get_build_timeline(project, build.id).records
log = next(record.log.id for record in records if record.type == "Task" and record.name == "Do train")
archive = zipfile.ZipFile(io.BytesIO(b"".join(builds.get_artifact_content_zip(project, build.id, "train"))))
approvals = pipelines._send(
    "GET", "37794717-f36f-4d78-b2bf-4dc30d0cfbcd", "7.2-preview.2", route_values={"project": project},
    query_parameters={"state": "pending", "$expand": "steps,permissions"},
).json()["value"]
body = json.loads(sys.argv[1])
made = clients.get_service_hooks_client().create_subscription(body)
print(json.dumps({
    "pipeline": pipelines.list_pipelines(project)[0].name,
    "run": pipelines.get_run(project, 1, build.id).state,
    "number": build.build_number,
    "by": build.requested_by.display_name,
    "stages": [[record.identifier, record.state, record.result] for record in records if record.type == "Stage"],
    "log": b"".join(builds.get_build_log(project, build.id, log)).decode().splitlines(),
    "lines": builds.get_build_log_lines(project, build.id, log),
    "files": archive.namelist(),
    "author": clients.get_git_client().get_commit(build.source_version, project, project).author.name,
    "tests": clients.get_test_client().get_test_runs(project, build_uri=build.uri),
    "environments": [one.name for one in clients.get_task_agent_client().get_environments(project)],
    "releases": clients.get_release_client().get_approvals(project),
    "approval": [approvals[0]["permissions"], approvals[0]["pipeline"]["owner"]["id"]],
    "subscription": [made.status, made.consumer_inputs["basicAuthPassword"]],
    "elsewhere": len(ServiceHooksClient("https://vsrm.dev.azure.com/contoso", credentials).list_subscriptions()),
}))
"""


async def test_the_sdk_finds_its_way_and_reads_everything(site: Site) -> None:
    run = await site.azure.queue(ADA)
    await site.waiting(run)

    words = json.dumps(subscription("http://127.0.0.1:9/hooks"))
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SDK, words, env=site.world.outside(BOT), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, trouble = await child.communicate()
    assert child.returncode == 0, trouble.decode()
    seen = json.loads(output)

    line = "2026-09-13T12:00:00.0000000Z working on train"
    assert seen == {
        "pipeline": "diabetes",
        "run": "inProgress",
        "number": f"{datetime.now(UTC):%Y%m%d}.1",
        "by": "Ada Lovelace",
        "stages": [["train", "completed", "succeeded"], ["qa", "completed", "succeeded"], ["prod", "pending", None]],
        "log": [line],
        "lines": [line],
        "files": ["train/result.json"],
        "author": "Ada Lovelace",
        "tests": [],
        "environments": ["qa", "prod"],
        "releases": [],
        "approval": ["view", run],
        "subscription": ["enabled", "********"],
        "elsewhere": 0,
    }
    assert site.world.proxy is not None
    assert site.world.proxy.refused == []


async def test_a_run_goes_from_start_to_end(site: Site) -> None:
    status, started = await site.ask("POST", "pipelines/1/runs", ALAN, body={"templateParameters": {"model": "diabetes"}})
    approval = await site.waiting(started["id"])
    site.azure.approve_as(GRACE, approval["id"], "approved", "Better by 6 %.")
    run = await site.ended(started["id"])

    assert (status, started["state"]) == (200, "inProgress")
    assert (run["status"], run["result"], run["reason"]) == ("completed", "succeeded", "manual")
    assert run["requestedFor"]["displayName"] == "Alan Turing"
    assert run["templateParameters"] == {"model": "diabetes"}
    assert site.agent.ran == ["train", "deploy", "release"]
    assert [record["result"] for record in site.records(run["id"], "Stage").values()] == ["succeeded"] * 3
    deployments = await site.value("distributedtask/environments/2/environmentdeploymentrecords")
    assert [(one["stageName"], one["owner"]["id"], one["result"]) for one in deployments] == [("prod", run["id"], "succeeded")]


async def test_a_job_gets_what_the_service_sets_for_it(site: Site) -> None:
    run = await site.azure.queue(ADA)
    await site.waiting(run)

    space = site.agent.spaces[0]
    variables = space.scope.variables
    assert (variables["Build.BuildId"], variables["Build.Reason"], variables["System.StageName"]) == (str(run), "Manual", "train")
    assert variables["serviceConnection"] == "azure-ml-delivery"
    assert space.commit == site.azure.run(run)["sourceVersion"]
    assert space.secrets == {"System.AccessToken"}
    assert space.environment["IDENTITY_ENDPOINT"].startswith(site.world.page_url)


async def test_who_is_not_an_approver_is_refused_and_the_token_says_who_approved(site: Site) -> None:
    approval = await site.waiting(await site.azure.queue(ADA))
    answer = [{"approvalId": approval["id"], "status": "approved", "comment": "Mine!"}]

    refused, error = await site.ask("PATCH", "pipelines/approvals", ALAN, body=answer)
    accepted, given = await site.ask("PATCH", "pipelines/approvals", GRACE, body=answer)
    again, late = await site.ask("PATCH", "pipelines/approvals", RADIA, body=answer)

    assert (refused, error["typeKey"], error["eventId"]) == (403, "ApprovalUnauthorizedException", 3000)
    assert accepted == 200
    assert [step.get("actualApprover", {}).get("displayName") for step in given["value"][0]["steps"]] == [
        "Grace Hopper",
        None,
        None,
    ]
    assert (again, late["typeKey"]) == (400, "ApprovalAlreadyCompletedException")


async def test_permissions_are_the_callers_own(site: Site) -> None:
    await site.waiting(await site.azure.queue(ADA))

    seen = {
        who.name: (await site.value("pipelines/approvals?state=pending&$expand=permissions", who))[0]["permissions"] for who in (ADA, GRACE)
    }

    assert seen == {"Ada Lovelace": "view", "Grace Hopper": "view, update, reassign"}


async def test_the_check_of_an_environment_is_changed_by_administrators_only(site: Site) -> None:
    (check,) = await site.value("pipelines/checks/configurations?resourceType=environment&resourceId=2&$expand=settings")
    wanted = check | {
        "settings": check["settings"] | {"approvers": [{"id": ADA.oid}, {"id": GRACE.oid}], "requesterCannotBeApprover": True}
    }

    refused, _ = await site.ask("PATCH", f"pipelines/checks/configurations/{check['id']}", ALAN, body=wanted)
    changed, _ = await site.ask("PATCH", f"pipelines/checks/configurations/{check['id']}", GRACE, body=wanted)
    approval = await site.waiting(await site.azure.queue(ADA))
    own, error = await site.ask("PATCH", "pipelines/approvals", ADA, body=[{"approvalId": approval["id"], "status": "approved"}])

    assert (refused, changed, own) == (403, 200, 403)
    assert error["message"] == "Ada Lovelace requested this run, and its requester may not approve it."


CHECK = Check(
    id=1,
    environment=2,
    approvers=[GRACE.oid, ALAN.oid],
    minimum=1,
    execution_order="anyOrder",
    instructions="",
    requester_excluded=False,
    timeout=60,
    created=NOON,
    created_by=GRACE.oid,
    modified=NOON,
    modified_by=GRACE.oid,
)


def test_all_must_approve_where_no_number_is_given() -> None:
    approval = approvals.ask(replace(CHECK, minimum=0), 1, "prod", 1, NOON)

    approvals.decide(approval, GRACE, Answer(approval.id, "approved"), ADA.oid, NOON)
    assert approval.status == "pending"
    approvals.decide(approval, ALAN, Answer(approval.id, "approved"), ADA.oid, NOON)

    assert approval.status == "approved"


def test_in_sequence_everybody_has_their_turn() -> None:
    approval = approvals.ask(replace(CHECK, minimum=0, execution_order="inSequence"), 1, "prod", 1, NOON)

    with pytest.raises(Denied, match="not yet the turn of Alan"):
        approvals.decide(approval, ALAN, Answer(approval.id, "approved"), ADA.oid, NOON)
    approvals.decide(approval, GRACE, Answer(approval.id, "approved"), ADA.oid, NOON)
    approvals.decide(approval, ALAN, Answer(approval.id, "rejected", "No."), ADA.oid, NOON)

    assert approval.status == "rejected"


def test_who_asked_for_the_run_may_not_approve_it_where_the_check_says_so() -> None:
    approval = approvals.ask(replace(CHECK, requester_excluded=True), 1, "prod", 1, NOON)

    with pytest.raises(Denied, match="its requester may not approve"):
        approvals.decide(approval, GRACE, Answer(approval.id, "approved"), GRACE.oid, NOON)
    approvals.decide(approval, ALAN, Answer(approval.id, "approved"), GRACE.oid, NOON)

    assert [(step.status, step.actual) for step in approval.steps] == [("skipped", None), ("approved", ALAN.oid)]


async def test_a_rejection_ends_the_run_and_says_why(site: Site) -> None:
    run = await site.azure.queue(ADA)
    approval = await site.waiting(run)

    site.azure.approve_as(GRACE, approval["id"], "rejected", "Freeze until Monday.")
    ended = await site.ended(run)

    assert ended["result"] == "failed"
    assert ended["approvals"][0]["steps"][0]["comment"] == "Freeze until Monday."
    assert site.records(run, "Checkpoint.Approval")["Checkpoint.Approval"]["id"] == approval["id"]
    assert "release" not in site.agent.ran


async def test_an_approval_nobody_gives_times_out(site: Site) -> None:
    store = site.azure.project.store
    check = next(iter(store.checks))
    store.checks.keep(check.id, replace(check, timeout=0))

    run = await site.ended(await site.azure.queue(ADA))

    assert run["approvals"][0]["status"] == "timedOut"
    assert site.records(run["id"], "Stage")["Prod - Deploy on AKS"]["result"] == "skipped"


async def test_a_retry_runs_the_failed_stage_again_and_asks_for_approval_afresh(tmp_path: Path, root: Path) -> None:
    agent = Agent(results={"train": [Result.FAILED], "release": [Result.FAILED]})
    async with running(tmp_path / "world", root, agent) as site:
        run = await site.azure.queue(ADA)
        failed = await site.ended(run)
        skipped = site.records(run, "Stage")["QA - Deploy on ACI"]["result"]

        status, _ = await site.ask("PATCH", f"build/builds/{run}/stages/train", body={"state": "retry"})
        first = await site.waiting(run)
        site.azure.approve_as(GRACE, first["id"])
        await site.ended(run)
        site.azure.retry(ADA, run, "prod")
        second = await site.waiting(run)
        site.azure.approve_as(GRACE, second["id"])
        ended = await site.ended(run)

        train = site.records(run, "Stage")["Train"]
        (before,) = train["previousAttempts"]
        _, old = await site.ask("GET", f"build/builds/{run}/timeline/{before['timelineId']}")
    assert (failed["result"], skipped, status, ended["result"]) == ("failed", "skipped", 200, "succeeded")
    assert first["id"] != second["id"]
    assert (train["attempt"], before["attempt"]) == (2, 1)
    assert [one["message"] for record in old["records"] for one in record.get("issues", [])] == ["Bash exited with code '1'."]
    assert agent.ran == ["train", "train", "deploy", "release", "release"]


async def test_a_stage_that_did_not_fail_cannot_be_retried(site: Site) -> None:
    run = await site.azure.queue(ADA)
    await site.waiting(run)

    done, error = await site.ask("PATCH", f"build/builds/{run}/stages/train", body={"state": "retry"})
    waits, _ = await site.ask("PATCH", f"build/builds/{run}/stages/prod", body={"state": "retry"})
    unknown, _ = await site.ask("PATCH", f"build/builds/{run}/stages/nowhere", body={"state": "retry"})

    assert (done, waits, unknown) == (400, 400, 404)
    assert error["message"] == "The stage train has no failed jobs to retry."


async def test_a_run_is_canceled_while_it_works(tmp_path: Path, root: Path) -> None:
    async with running(tmp_path / "world", root, Agent(held={"train"})) as site:
        run = await site.azure.queue(ADA)
        await site.azure.wait_for(lambda: bool(site.agent.ran), 8)

        status, _ = await site.ask("PATCH", f"build/builds/{run}", ADA, body={"status": "cancelling"})
        ended = await site.ended(run)

        assert (status, ended["result"]) == (200, "canceled")
        results = [record["result"] for record in site.records(run, "Stage").values()]
    assert results == ["canceled", "skipped", "skipped"]


async def test_canceling_a_run_that_waits_cancels_its_approval(site: Site) -> None:
    run = await site.azure.queue(ADA)
    await site.waiting(run)

    await site.ask("PATCH", f"build/builds/{run}", ADA, body={"status": "cancelling"})
    ended = await site.ended(run)

    assert (ended["result"], ended["approvals"][0]["status"]) == ("canceled", "canceled")


async def test_a_stage_runs_only_if_its_condition_holds(tmp_path: Path, root: Path) -> None:
    condition = "and(succeeded(), eq(dependencies.train.outputs['train.score.verdict'], 'pass'))"
    plan = replace(PLAN, stages=(PLAN.stages[0], replace(PLAN.stages[1], condition=condition)))
    results = {}
    for verdict in ("pass", "kept"):
        async with running(tmp_path / verdict, root, Agent(outputs={"score.verdict": verdict}), plan=plan) as site:
            run = await site.ended(await site.azure.queue(ADA))
            results[verdict] = (run["result"], site.records(run["id"], "Stage")["QA - Deploy on ACI"]["result"])

    assert results == {"pass": ("succeeded", "succeeded"), "kept": ("succeeded", "skipped")}


async def test_an_agent_that_breaks_fails_its_job_only(tmp_path: Path, root: Path) -> None:
    async def broken(job: PlanJob, space: Space, watch: Watch) -> JobOutcome:
        raise OSError("the disk is full")

    async with running(tmp_path / "world", root, make=lambda world: AzureDevOps(world, run_job=broken, compile=lambda *_: PLAN)) as site:
        run = await site.ended(await site.azure.queue(ADA))
        issues = site.records(run["id"], "Job")["Train"]["issues"]

    assert run["result"] == "failed"
    assert issues[0]["message"] == "The agent failed: OSError: the disk is full"


async def test_after_a_restart_running_jobs_have_lost_their_agent_and_approvals_still_wait(tmp_path: Path, root: Path) -> None:
    async with running(tmp_path / "world", root) as site:
        waits = await site.azure.queue(ADA)
        approval = await site.waiting(waits)
    async with running(tmp_path / "world", root, Agent(held={"train"})) as site:
        runs = await site.azure.queue(GRACE)
        await site.azure.wait_for(lambda: bool(site.agent.ran), 8)

    async with running(tmp_path / "world", root) as site:
        lost = await site.ended(runs)
        issues = site.records(runs, "Job")["Train"]["issues"]
        site.azure.retry(GRACE, runs, "train")
        again = await site.waiting(runs)
        site.azure.approve_as(GRACE, approval["id"])
        ended = await site.ended(waits)

    assert lost["result"] == "failed"
    assert issues[0]["message"].startswith("We stopped hearing from agent Callboard sandbox 1. Verify the agent machine")
    assert again["status"] == "pending"
    assert ended["result"] == "succeeded"


@pytest.mark.parametrize(
    ("headers", "status", "says"),
    [
        ({"Authorization": ""}, 401, "The request has no bearer token."),
        ({"Authorization": "Bearer nonsense"}, 401, "The access token is invalid."),
        ({"Authorization": "Basic OnBhdA=="}, 203, "Sign in to continue"),
    ],
)
async def test_without_a_good_token_there_is_only_the_way_to_sign_in(
    site: Site, headers: Mapping[str, str], status: int, says: str
) -> None:
    answered, page = await site.ask("GET", "build/builds", headers=headers)

    assert answered == status
    assert says in page


async def test_who_is_not_in_the_organisation_is_told_so(site: Site) -> None:
    status, error = await site.ask("GET", "build/builds", GUEST)

    assert status == 401
    assert error["message"] == f"TF400813: The user '{GUEST.oid}' is not authorized to access this resource."


async def test_a_delegated_token_reaches_as_far_as_its_scopes(site: Site) -> None:
    approval = await site.waiting(await site.azure.queue(ADA))
    answer = [{"approvalId": approval["id"], "status": "approved"}]
    reads, builds = site.token(GRACE, "vso.build"), site.token(GRACE, "vso.build_execute")

    read, _ = await site.ask("GET", "build/builds", headers={"Authorization": reads})
    refused, error = await site.ask("PATCH", "pipelines/approvals", body=answer, headers={"Authorization": reads})
    accepted, _ = await site.ask("PATCH", "pipelines/approvals", body=answer, headers={"Authorization": builds})

    assert (read, refused, error["typeKey"], accepted) == (200, 401, "UnauthorizedRequestException", 200)


async def test_what_the_service_refuses_is_refused_in_its_words(site: Site) -> None:
    unversioned = {"Accept": "application/json"}
    asked = {
        "no version": await site.ask("POST", "pipelines/1/runs", body={}, headers=unversioned),
        "no project": await site.ask("GET", "https://dev.azure.com/contoso/nowhere/_apis/build/builds"),
        "no build": await site.ask("GET", "build/builds/99"),
        "no pipeline": await site.ask("POST", "pipelines/7/runs", body={}),
        "a variable": await site.ask("POST", "pipelines/1/runs", body={"variables": {"WHY": {"value": "drift"}}}),
        "an agent": await site.ask("POST", "pipelines/1/runs", AGENT, body={}),
        "no route": await site.ask("GET", "wit/workitems"),
    }

    assert {name: (status, error["typeKey"]) for name, (status, error) in asked.items()} == {
        "no version": (400, "VssVersionNotSpecifiedException"),
        "no project": (404, "ProjectDoesNotExistWithNameException"),
        "no build": (404, "BuildNotFoundException"),
        "no pipeline": (404, "PipelineDoesNotExistException"),
        "a variable": (400, "PipelineRunVariableException"),
        "an agent": (403, "AccessDeniedException"),
        "no route": (404, "HttpException"),
    }


async def test_a_wrong_parameter_is_the_pipelines_to_refuse(tmp_path: Path, root: Path) -> None:
    def refuse(*_: object) -> Plan:
        raise BadPipeline("/deploy/pipelines/azure-pipelines.yml: Unexpected parameter 'colour'")

    async with running(tmp_path / "world", root, make=lambda world: AzureDevOps(world, compile=refuse)) as site:
        status, error = await site.ask("POST", "pipelines/1/runs", body={"templateParameters": {"colour": "red"}})

    assert (status, error["typeKey"]) == (400, "PipelineValidationException")
    assert "Unexpected parameter 'colour'" in error["message"]


async def test_paths_are_the_same_in_any_case_of_letters(site: Site) -> None:
    status, told = await site.ask("OPTIONS", "https://dev.azure.com/CONTOSO/_apis")
    found, builds = await site.ask("GET", "https://dev.azure.com/Contoso/ML-Delivery/_apis/BUILD/Builds")

    assert (status, found, builds["count"]) == (200, 200, 0)
    assert {type(one["resourceVersion"]) for one in told["value"]} == {int}
    assert {one["releasedVersion"] for one in told["value"]} == {"7.1"}


async def test_builds_come_in_pages_and_by_time(site: Site) -> None:
    runs = [await site.azure.queue(ADA) for _ in range(3)]
    for run in runs:
        await site.waiting(run)

    first = await site.ask("GET", "build/builds?$top=2&queryOrder=queueTimeDescending")
    second = await site.value(f"build/builds?$top=2&queryOrder=queueTimeDescending&continuationToken={runs[0]}")
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    none = await site.value(f"build/builds?queryOrder=queueTimeDescending&minTime={later}")
    waiting = await site.value("build/builds?statusFilter=inProgress&definitions=1")
    completed = await site.value("build/builds?statusFilter=completed")

    assert [one["id"] for one in first[1]["value"]] == [runs[2], runs[1]]
    assert [one["id"] for one in second] == [runs[0]]
    assert (none, len(waiting), completed) == ([], 3, [])


async def test_a_merge_starts_ci_if_it_touches_what_the_trigger_names(site: Site) -> None:
    sha, runs = await site.azure.merge(GRACE, "Try a smaller penalty", {"callboard.toml": "x = 1\n"})
    _, none = await site.azure.merge(GRACE, "Say more", {"README.md": "More.\n"})
    (run,) = runs
    build = site.azure.run(run)

    assert none == []
    assert (build["reason"], build["sourceVersion"]) == ("individualCI", sha)
    assert (build["requestedFor"]["displayName"], build["requestedBy"]["displayName"]) == (
        "Grace Hopper",
        "Microsoft.VisualStudio.Services.TFS",
    )
    assert build["triggerInfo"]["ci.message"] == "Merged PR 12: Try a smaller penalty"
    _, commit = await site.ask("GET", f"git/repositories/ml-delivery/commits/{sha}")
    assert (commit["author"]["name"], commit["changes"][0]["item"]["path"]) == ("Grace Hopper", "/callboard.toml")
    with pytest.raises(NoSuchThing, match="nothing to merge"):
        await site.azure.merge(GRACE, "Again", {"callboard.toml": "x = 1\n"})


def test_the_repository_takes_over_the_working_tree_and_keeps_merges(tmp_path: Path, root: Path) -> None:
    repository = Repository(tmp_path / "bare.git", root)
    repository.seed()
    merged = repository.merge(ADA, "Settings", {"callboard.toml": "merged = true\n"}, number=1)
    repository.seed()
    unchanged = repository.head()

    (root / "deploy" / "train.py").write_text("print('better')\n")
    repository.seed()

    assert unchanged == merged
    assert repository.read("deploy/train.py") == "print('better')\n"
    assert repository.read("callboard.toml") == "merged = true\n"
    assert [commit.title for commit in repository.commits()][:2] == ["Take over the working tree", "Merged PR 1: Settings"]
    with pytest.raises(NoSuchThing):
        repository.merge(ADA, "Out", {"../escape": "x"}, number=2)


def test_new_settings_change_one_line_of_the_file(root: Path) -> None:
    before = (root / "callboard.toml").read_text()

    after = candidates.change(before, "diabetes", {("ridge", "alpha"): "2.5"})

    assert after == before.replace("alpha = 10.0", "alpha = 2.5")
    with pytest.raises(candidates.BadSettings, match="alpha must be a number, not 'much'"):
        candidates.change(before, "diabetes", {("ridge", "alpha"): "much"})
    with pytest.raises(candidates.BadSettings, match="alpha must be a number, not 'inf'"):
        candidates.change(before, "diabetes", {("ridge", "alpha"): "inf"})
    with pytest.raises(candidates.BadSettings, match="has no setting depth of ridge"):
        candidates.change(before, "diabetes", {("ridge", "depth"): "1"})


async def test_subscribers_are_told_with_their_secrets_and_only_what_they_asked_for(site: Site, receiver: Receiver) -> None:
    hooks = "https://dev.azure.com/contoso/_apis/hooks/subscriptions"
    status, made = await site.ask("POST", hooks, body=subscription(receiver.url, stageNameId="train", stageStateId="Completed"))

    run = await site.azure.queue(ADA)
    await site.waiting(run)
    (event,) = await receiver.have(1)

    headers = receiver.headers[0]
    assert (status, headers["X-Hook-Key"], headers["Authorization"]) == (200, "abc", "Basic dTpzZXNhbWU=")
    assert made["consumerInputs"]["basicAuthPassword"] == "********"
    assert made["consumerInputs"]["httpHeaders"] == "X-Hook-Key:********"
    assert (event["subscriptionId"], event["notificationId"], event["eventType"]) == (made["id"], 1, STAGE)
    assert (event["resource"]["stage"]["name"], event["resource"]["stage"]["result"]) == ("train", "succeeded")
    assert event["resource"]["runId"] == run
    assert "project" not in event["resourceContainers"]
    (seen,) = await site.value(f"{hooks}/{made['id']}/notifications")
    assert (seen["result"], seen["details"]["requestAttempts"]) == ("succeeded", 1)
    assert "sesame" not in json.dumps(seen)


async def test_approval_events_have_texts_for_numbers_and_say_who_acted(site: Site, receiver: Receiver) -> None:
    for kind in (events.PENDING, events.COMPLETED):
        site.azure.project.hooks.create("dev.azure.com", subscription(receiver.url, kind, environmentName="prod"), BOT.oid)
    run = await site.azure.queue(ADA)
    approval = await site.waiting(run)
    (pending,) = await receiver.have(1)
    site.azure.approve_as(GRACE, approval["id"], "approved", "Go.")
    completed = (await receiver.have(2))[1]

    asked, done = pending["resource"], completed["resource"]
    assert (asked["run"]["id"], asked["pipeline"]["id"], asked["resource"]["id"]) == (str(run), "1", "2")
    assert asked["approval"]["pipeline"]["owner"]["id"] == run
    assert (asked["run"]["requestedFor"], done["run"]["requestedFor"]) == ("Ada Lovelace", None)
    assert done["approval"]["steps"][0]["actualApprover"]["displayName"] == "Grace Hopper"
    assert (done["approval"]["status"], done["approval"]["minRequiredApprovers"]) == ("approved", 1)


async def test_the_two_versions_of_a_completed_build_differ(site: Site, receiver: Receiver) -> None:
    for version in ("1.0", "2.0"):
        body = subscription(receiver.url, events.BUILD, "tfs", buildStatus="Failed") | {"resourceVersion": version}
        site.azure.project.hooks.create("dev.azure.com", body, BOT.oid)
    site.agent.results["train"] = [Result.FAILED]

    await site.ended(await site.azure.queue(ADA))
    got = {one["resourceVersion"]: one for one in await receiver.have(2)}

    assert (got["1.0"]["resource"]["status"], "result" in got["1.0"]["resource"]) == ("failed", False)
    assert (got["2.0"]["resource"]["status"], got["2.0"]["resource"]["result"]) == ("completed", "failed")
    assert got["2.0"]["resourceContainers"]["project"]["id"]


async def test_a_busy_receiver_is_asked_again(site: Site, receiver: Receiver) -> None:
    made = site.azure.project.hooks.create(
        "dev.azure.com", subscription(receiver.url, stageNameId="train", stageStateId="Running"), BOT.oid
    )
    receiver.answers = [503, 408]

    await site.waiting(await site.azure.queue(ADA))
    got = await receiver.have(3)

    assert {one["notificationId"] for one in got} == {1}
    assert made.status == "enabled"


async def test_a_receiver_that_fails_is_put_on_probation_and_misses_events(tmp_path: Path, root: Path, receiver: Receiver) -> None:
    async with running(tmp_path / "world", root, Agent(held={"train"})) as site:
        hooks = site.azure.project.hooks
        hooks.pace = 0.002  # twenty minutes are 2.4 s
        made = hooks.create("dev.azure.com", subscription(receiver.url, stageStateId="Running"), BOT.oid)
        receiver.answers = [500]

        run = await site.azure.queue(ADA)
        await site.azure.wait_for(lambda: made.status == "onProbation", 8)
        site.agent.go.set()
        approval = await site.waiting(run)
        await site.azure.wait_for(lambda: made.status == "enabled", 8)
        site.azure.approve_as(GRACE, approval["id"])
        got = await receiver.have(3)

    # Train was told twice; QA ran while the subscription was on probation, and nobody was told.
    assert [one["resource"]["stage"]["name"] for one in got] == ["train", "train", "prod"]


async def test_a_receiver_that_is_gone_is_not_asked_again(site: Site, receiver: Receiver) -> None:
    made = site.azure.project.hooks.create("dev.azure.com", subscription(receiver.url), BOT.oid)
    receiver.answers = [410]

    await site.waiting(await site.azure.queue(ADA))
    await site.azure.wait_for(lambda: made.status == "disabledBySystem")

    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    ("host", "body", "says"),
    [
        ("dev.azure.com", subscription("https://bot.example/hooks"), "to this machine only"),
        ("vsrm.dev.azure.com", subscription("http://127.0.0.1/hooks"), "There is no registered handler for the service hooks event type"),
        (
            "dev.azure.com",
            subscription("http://127.0.0.1/hooks", "ms.vss-release.release-created-event", "rm"),
            "There is no registered handler for the service hooks event type ms.vss-release.release-created-event.",
        ),
        ("dev.azure.com", subscription("http://127.0.0.1/hooks", colour="red"), "The publisher input colour is not supported"),
        ("dev.azure.com", subscription("http://127.0.0.1/hooks") | {"resourceVersion": "9"}, "The resource version 9 is not supported"),
    ],
)
async def test_a_wrong_subscription_is_refused(site: Site, host: str, body: Json, says: str) -> None:
    status, error = await site.ask("POST", f"https://{host}/contoso/_apis/hooks/subscriptions", body=body)

    assert (status, error["typeKey"]) == (400, "SubscriptionInputException")
    assert says in error["message"]


async def test_only_administrators_edit_subscriptions(site: Site) -> None:
    status, error = await site.ask(
        "POST", "https://dev.azure.com/contoso/_apis/hooks/subscriptions", ADA, body=subscription("http://127.0.0.1/hooks")
    )

    assert (status, error["typeKey"]) == (403, "AccessDeniedException")


async def test_a_replaced_subscription_keeps_the_secrets_that_came_back_masked(site: Site, receiver: Receiver) -> None:
    hooks = "https://dev.azure.com/contoso/_apis/hooks/subscriptions"
    _, made = await site.ask("POST", hooks, body=subscription(receiver.url, stageStateId="Waiting"))

    status, changed = await site.ask("PUT", hooks, body=made | {"publisherInputs": {"stageStateId": "Running"}})
    await site.waiting(await site.azure.queue(ADA))
    await receiver.have(1)

    assert (status, changed["publisherInputs"]["stageStateId"]) == (200, "Running")
    assert receiver.headers[0]["X-Hook-Key"] == "abc"


async def test_hooks_misbehave_on_request(site: Site, receiver: Receiver) -> None:
    hooks, faults = site.azure.project.hooks, site.world.faults
    hooks.create("dev.azure.com", subscription(receiver.url, stageStateId="Running"), BOT.oid)
    orders: dict[str, list[int]] = defaultdict(list)

    async def twice(fault: str, expected: int, **detail: Any) -> None:
        receiver.got.clear()
        faults.arm(fault, **detail)
        await site.waiting(await site.azure.queue(ADA))
        orders[fault] = [one["notificationId"] for one in await receiver.have(expected)]

    await twice("hooks.duplicate", 3)
    await twice("hooks.shuffle", 2, times=2)
    await twice("hooks.lose", 1)

    assert orders == {"hooks.duplicate": [1, 1, 2], "hooks.shuffle": [4, 3], "hooks.lose": [6]}


@pytest.mark.parametrize(("fault", "status"), [("ado.429", 429), ("ado.503", 503), ("ado.html", 203)])
async def test_the_api_misbehaves_once_on_request(site: Site, fault: str, status: int) -> None:
    site.world.faults.arm(fault)

    first, _ = await site.ask("GET", "build/builds")
    second, _ = await site.ask("GET", "build/builds")

    assert (first, second) == (status, 200)


async def test_an_answer_can_be_lost_after_the_deed_is_done(site: Site) -> None:
    site.world.faults.arm("ado.lost_answer")

    with pytest.raises(aiohttp.ClientError):
        await site.ask("POST", "pipelines/1/runs", body={})

    assert len(site.azure.runs()) == 1


PIPELINE = """
trigger: {branches: {include: [main]}}
parameters:
- {name: model, type: string, default: diabetes}
stages:
- stage: train
  jobs:
  - job: train
    steps:
    - bash: |
        echo "training ${{ parameters.model }}"
        echo "<testsuite><testcase classname='ml' name='seed' time='0.5'><failure message='1 != 2'/></testcase></testsuite>" > junit.xml
        mkdir out && echo '{"schema": 1}' > out/evaluation.json
        echo "##vso[task.setvariable variable=verdict;isOutput=true]pass"
      name: score
      displayName: Train
    - task: PublishTestResults@2
      inputs: {testResultsFormat: JUnit, testResultsFiles: junit.xml, testRunTitle: Unit tests}
    - publish: out
      artifact: evaluation
- stage: qa
  dependsOn: train
  condition: and(succeeded(), eq(dependencies.train.outputs['train.score.verdict'], 'pass'))
  jobs:
  - deployment: deploy
    environment: qa
    strategy: {runOnce: {deploy: {steps: [{bash: "cat $(Pipeline.Workspace)/evaluation/evaluation.json; exit 3", displayName: Deploy}]}}}
"""


async def test_the_real_agent_runs_the_yaml_of_the_repository(tmp_path: Path, root: Path) -> None:
    (root / "deploy" / "pipelines").mkdir()
    (root / "deploy" / "pipelines" / "azure-pipelines.yml").write_text(PIPELINE)
    async with running(tmp_path / "world", root, make=AzureDevOps) as site:
        run = await site.ended(await site.azure.queue(ADA, {"model": "wine"}))

        tasks = site.records(run["id"], "Task")
        _, log = await site.ask("GET", f"build/builds/{run['id']}/logs/{tasks['Train']['log']['id']}")
        (tests,) = await site.value(f"test/Runs?buildUri=vstfs:///Build/Build/{run['id']}")
        (failing,) = await site.value(f"test/Runs/{tests['id']}/results?outcomes=Failed")
        _, artifact = await site.ask("GET", f"build/builds/{run['id']}/artifacts?artifactName=evaluation")

    assert run["result"] == "failed"
    assert any(line.endswith("training wine") for line in log["value"])
    assert (tests["name"], failing["testCaseTitle"], failing["errorMessage"]) == ("Unit tests", "seed", "1 != 2")
    assert artifact["resource"]["downloadUrl"].endswith("&%24format=zip")
    assert [issue["message"] for issue in tasks["Deploy"]["issues"]] == ["Bash exited with code '3'."]


@pytest.mark.parametrize("url", ["http://127.0.0.1.example.com/", "http://localhost@example.com/", "ftp://127.0.0.1/", "http:///hooks"])
def test_an_address_is_judged_by_its_host(url: str) -> None:
    with pytest.raises(BadSubscription):
        check_url(url)
