"""Classic releases of the local Azure DevOps: what the SDK and subscribers see of them, who may approve, and what is refused."""

from __future__ import annotations

import asyncio
import copy
import json
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from sandbox.azure_devops.agent import JobOutcome, Space, Watch
from sandbox.azure_devops.approvals import Denied
from sandbox.azure_devops.plan import Plan, PlanJob, PlanStage, PlanStep, Result
from sandbox.azure_devops.release_definitions import BadDefinition, Trigger, read
from sandbox.azure_devops.server import AzureDevOps
from sandbox.azure_ml.server import AzureML
from sandbox.names import ADA, AGENT, ALAN, BOT, GRACE, KATHERINE, LINUS, PROJECT_ID, RADIA, RELEASE_MANAGERS, Character
from sandbox.tokens import AZURE_DEVOPS
from sandbox.world import World
from tests.browser import browsing
from tests.sandboxes import ROOT, proxy, sandbox, the, trust

pytestmark = pytest.mark.world

Json = dict[str, Any]
RELEASES = "https://vsrm.dev.azure.com/contoso/ml-delivery/_apis/release"
FILE = ROOT / "deploy" / "pipelines" / "deploy-webservice.json"
QA, PROD = "QA - Deploy on ACI", "Prod - Deploy on AKS"
QA_JOB, PROD_JOB = "Deploy to Azure Container Instances", "Deploy to the Kubernetes online endpoint"
RESULT = '{"schema": 1, "passed": true}'
PLAN = Plan(
    "$(Date:yyyyMMdd)$(Rev:.r)", (PlanStage("publish", "Publish", (PlanJob("publish", "Publish", (PlanStep("script", "Tag"),)),)),), {}
)


def definition() -> Json:
    document: Json = json.loads(FILE.read_text(encoding="utf-8"))
    return document


def approvers(*ranked: tuple[int, str], count: int = 0, creator: bool = True, minutes: int = 60) -> Json:
    """Approvals as a definition has them: who by rank, how many are needed, and whether the creator may."""
    steps = [{"rank": rank, "isAutomated": False, "isNotificationOn": False, "approver": {"id": who}} for rank, who in ranked]
    options = {"requiredApproverCount": count, "releaseCreatorCanBeApprover": creator, "timeoutInMinutes": minutes}
    return {"approvals": steps, "approvalOptions": options}


@dataclass
class Agent:
    """Tags builds, and ends the jobs of releases as it is told, by job title; a job in `held` runs until it is let go or canceled."""

    tags: list[str] = field(default_factory=lambda: ["release"])
    results: dict[str, list[Result]] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    ran: list[tuple[PlanJob, Space]] = field(default_factory=list)

    async def __call__(self, job: PlanJob, space: Space, watch: Watch) -> JobOutcome:
        self.ran.append((job, space))
        told = self.results.get(job.title)
        result = told.pop(0) if told else Result.SUCCEEDED
        watch.step_started(0)
        watch.line(0, f"2026-09-13T12:00:00.0000000Z working on {job.title}")
        if job.name == "publish":
            for tag in self.tags:
                watch.build_tag(tag)
        else:
            (space.folder).mkdir(parents=True)
            (space.folder / "qa.json").write_text(RESULT)
            watch.attachment("smoke-test", "qa.json", space.folder / "qa.json")
        if job.title in self.held:
            waits = [asyncio.ensure_future(self.go.wait()), asyncio.ensure_future(watch.canceled.wait())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            result = Result.CANCELED if watch.canceled.is_set() else result
        if result is Result.FAILED:
            watch.issue(0, "error", "QA: 3 of 5 predictions differ.")
        watch.step_finished(0, result)
        return JobOutcome(result, {})


class Site:
    """A running local Azure DevOps with releases, and somebody's client of it."""

    def __init__(self, world: World, azure: AzureDevOps, agent: Agent, session: aiohttp.ClientSession) -> None:
        self.world = world
        self.azure = azure
        self.agent = agent
        self._session = session

    async def ask(
        self, method: str, path: str, who: Character = BOT, *, body: object = None, scopes: tuple[str, ...] = ()
    ) -> tuple[int, Any]:
        """The status and the document of an answer."""
        token = self.world.tokens.issue(who, AZURE_DEVOPS, scopes)
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json;api-version=7.1"}
        address = path if path.startswith("https:") else f"{RELEASES}/{path}"
        async with self._session.request(
            method, address, json=body, headers=headers, proxy=proxy(self.world), ssl=trust(self.world)
        ) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if "json" in answer.headers.get("Content-Type", "") else text

    async def value(self, path: str, who: Character = BOT) -> list[Json]:
        status, document = await self.ask("GET", path, who)
        assert status == 200, document
        listed: list[Json] = document["value"]
        return listed

    async def redefine(self, **approvals: Json) -> None:
        """Other approvals: `prod_before`, `prod_after`, `qa_before`, `qa_after`."""
        _, document = await self.ask("GET", "definitions/1")
        for name, given in approvals.items():
            stage, when = name.split("_")
            key = {"before": "preDeployApprovals", "after": "postDeployApprovals"}[when]
            document["environments"][["qa", "prod"].index(stage)][key] = given
        status, answer = await self.ask("PUT", "definitions", body=document)
        assert status == 200, answer

    async def build(self, who: Character = ADA) -> int:
        """A completed build."""
        run = await self.azure.queue(who)
        await self.azure.wait_for(lambda: bool(self.azure.run(run)["status"] == "completed"), 8)
        return run

    async def released(self, who: Character = ADA) -> int:
        """The release that a new build started."""
        run = await self.build(who)
        return next(one.id for one in self.azure.project.releases.store.releases if one.build == run)

    def stage(self, release: int, name: str = PROD) -> Json:
        return next(one for one in self.azure.release(release)["environments"] if one["name"] == name)

    def asked(self, release: int, name: str = PROD) -> list[Json]:
        """The approvals that wait."""
        stage = self.stage(release, name)
        return [one for one in stage["preDeployApprovals"] + stage["postDeployApprovals"] if one["status"] == "pending"]

    async def waiting(self, release: int, name: str = PROD) -> Json:
        await self.azure.wait_for(lambda: bool(self.asked(release, name)), 8)
        return self.asked(release, name)[0]

    async def became(self, release: int, status: str, name: str = PROD) -> Json:
        await self.azure.wait_for(lambda: bool(self.stage(release, name)["status"] == status), 8)
        return self.stage(release, name)

    async def sdk(self, who: Character, code: str, *arguments: object) -> Any:
        """What a program with the real SDK prints; `client` and `project` are there for it."""
        words = [json.dumps(argument) for argument in arguments]
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            SDK + code,
            *words,
            env=self.world.outside(who),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, trouble = await child.communicate()
        assert child.returncode == 0, trouble.decode()
        return json.loads(output)


SDK = """
import io, json, sys, zipfile
from azure.devops.connection import Connection
from azure.devops.exceptions import AzureDevOpsServiceError
from azure.devops.v7_1.release.models import (
    ReleaseApproval, ReleaseDefinition, ReleaseEnvironmentUpdateMetadata, ReleaseStartMetadata, ReleaseUpdateMetadata,
)
from azure.identity import DefaultAzureCredential
from msrest.authentication import BasicTokenAuthentication

token = DefaultAzureCredential().get_token("499b84ac-1321-427f-aa17-267ca6975798/.default").token
clients = Connection("https://dev.azure.com/contoso", BasicTokenAuthentication({"access_token": token})).clients_v7_1
client, project, given = clients.get_release_client(), "ml-delivery", [json.loads(word) for word in sys.argv[1:]]
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A working tree with the definition that the repository has."""
    tree = tmp_path / "tree"
    (tree / "deploy" / "pipelines").mkdir(parents=True)
    (tree / "callboard.toml").write_text("")
    shutil.copy(FILE, tree / "deploy" / "pipelines" / FILE.name)
    return tree


@asynccontextmanager
async def running(
    folder: Path, root: Path, agent: Agent | None = None, *, make: Callable[[World], AzureDevOps] | None = None
) -> AsyncIterator[Site]:
    """A site whose agent is a fake and whose pipeline only tags its build, unless it is made otherwise."""
    world = World(folder, root=root)
    agent = agent or Agent()
    azure = make(world) if make else AzureDevOps(world, run_job=agent, compile=lambda *_: PLAN)
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


READS = """
release, build = given
whole = client.get_release(project, release)
qa, prod = whole.environments
attempt = qa.deploy_steps[0]
phase = attempt.release_deploy_phases[0]
task = next(one for one in phase.deployment_jobs[0].tasks if one.name == "Download artifact - _diabetes - delivery")
places = dict(project=project, release_id=release, environment_id=qa.id, attempt_id=1, plan_id=phase.run_plan_id)
(found,) = client.get_release_task_attachments(**places, type="smoke-test")
content = client.get_release_task_attachment_content(
    **places, timeline_id=found.timeline_id, record_id=found.record_id, type=found.type, name=found.name
)
log = client.get_task_log(project, release, qa.id, phase.id, task.id)
logs = zipfile.ZipFile(io.BytesIO(b"".join(client.get_logs(project, release))))
hidden, (approval,) = client.get_approvals(project), client.get_approvals(project, include_my_group_approvals=True)
print(json.dumps({
    "release": [whole.name, whole.reason, whole.status, whole.created_by.display_name, whole.created_for.display_name],
    "artifact": [whole.artifacts[0].alias, whole.artifacts[0].definition_reference["version"].id == str(build)],
    "stages": [[one.name, one.status, one.trigger_reason] for one in whole.environments],
    "automatic": [[one.is_automated, one.status, one.approver] for one in qa.pre_deploy_approvals],
    "attempt": [attempt.attempt, attempt.status, attempt.operation_status, phase.deployment_jobs[0].job.status],
    "smoke": b"".join(content).decode(),
    "log": b"".join(log).decode().split(" ", 1)[1],
    "logs": len(logs.namelist()),
    "list": [[one.name, one.environments] for one in client.get_releases(project, definition_id=1)],
    "expanded": [len(one.environments) for one in client.get_releases(project, expand="environments", release_id_filter=[release])],
    "found": [one.id for one in client.get_releases(project, artifact_version_id=build, status_filter="active")],
    "deployments": [[one.release_environment.name, one.deployment_status] for one in client.get_deployments(project, definition_id=1)],
    "succeeded": [one.release_environment.name for one in client.get_deployments(project, deployment_status="succeeded")],
    "definition": [client.get_release_definition(project, 1).environments[1].name, client.get_release_definitions(project)[0].name],
    "environment": client.get_release_environment(project, release, prod.id).definition_environment_id,
    "hidden": hidden,
    "approval": [approval.status, approval.approval_type, approval.approver.display_name],
    "place": [approval.release.name, approval.release_environment.name],
    "numbers": [approval.id, approval.attempt, approval.trial_number, approval.revision],
    "filtered": [len(client.get_approvals(project, include_my_group_approvals=True, **one)) for one in (
        {"assigned_to_filter": "Grace Hopper"}, {"assigned_to_filter": "Alan Turing"},
        {"type_filter": "postDeploy"}, {"type_filter": "preDeploy"}, {"release_ids_filter": [release]}, {"release_ids_filter": [99]},
        {"status_filter": "approved"}, {"top": 1},
    )],
    "folders": [one.path for one in client.get_folders(project)],
    "interventions": client.get_manual_interventions(project, release),
    "history": [one.revision for one in client.get_release_definition_history(project, 1)],
}))
"""


async def test_the_sdk_reads_everything_of_a_release(site: Site) -> None:
    release = await site.released(ALAN)
    await site.waiting(release)
    build = int(site.azure.release(release)["artifacts"][0]["definitionReference"]["version"]["id"])

    seen = await site.sdk(BOT, READS, release, build)

    assert seen == {
        "release": ["Release-1", "continuousIntegration", "active", "Microsoft.VisualStudio.Services.ReleaseManagement", "Alan Turing"],
        "artifact": ["_diabetes", True],
        "stages": [[QA, "succeeded", "After release creation"], [PROD, "inProgress", f"After successful deployment of {QA}"]],
        "automatic": [[True, "approved", None]],
        "attempt": [1, "succeeded", "Approved", "succeeded"],
        "smoke": RESULT,
        "log": f"working on {QA_JOB}\r\n",
        "logs": 3,
        "list": [["Release-1", None]],
        "expanded": [2],
        "found": [release],
        "deployments": [[PROD, "undefined"], [QA, "succeeded"]],
        "succeeded": [QA],
        "definition": [PROD, "Deploy Webservice"],
        "environment": 2,
        "hidden": [],
        "approval": ["pending", "preDeploy", r"[ml-delivery]\Release Managers"],
        "place": ["Release-1", PROD],
        "numbers": [3, 1, 1, 1],
        "filtered": [1, 0, 0, 1, 1, 0, 0, 1],
        "folders": ["\\"],
        "interventions": [],
        "history": [1],
    }
    assert site.world.proxy is not None
    assert site.world.proxy.refused == []


DECIDES = """
release, approval, prod = given
def refused(deed):
    try:
        return deed()
    except AzureDevOpsServiceError as error:
        return error.type_key
done = client.update_release_approval(ReleaseApproval(status="approved", comments="Good to go!"), project, approval)
again = refused(lambda: client.update_release_approval(ReleaseApproval(status="rejected"), project, approval))
print(json.dumps([done.status, done.approved_by.display_name, done.approver.is_container, done.comments, again]))
"""
REDEPLOYS = """
release, prod = given
wanted = ReleaseEnvironmentUpdateMetadata(status="inProgress", comment="Back to it")
queued = client.update_release_environment(wanted, project, release, prod)
made = client.create_release(ReleaseStartMetadata(definition_id=1, description="By hand", manual_environments=["%s", "%s"]), project)
gone = client.update_release_resource(ReleaseUpdateMetadata(status="abandoned", comment="Wrong build"), project, made.id)
print(json.dumps([queued.status, [step.attempt for step in queued.deploy_steps], made.reason, made.description, gone.status]))
""" % (QA, PROD)  # noqa: UP031 - braces are the program's own


async def test_the_sdk_approves_redeploys_creates_and_abandons(site: Site) -> None:
    release = await site.released()
    approval = await site.waiting(release)
    prod = site.stage(release)["id"]

    decided = await site.sdk(KATHERINE, DECIDES, release, approval["id"], prod)
    await site.became(release, "succeeded")
    redeployed = await site.sdk(BOT, REDEPLOYS, release, prod)
    fresh = await site.waiting(release)

    assert decided == ["approved", "Katherine Johnson", True, "Good to go!", "InvalidRequestException"]
    assert redeployed == ["queued", [1, 2], "manual", "By hand", "abandoned"]
    assert (fresh["attempt"], fresh["trialNumber"], fresh["id"] > approval["id"]) == (2, 2, True)


async def test_a_build_without_the_tag_starts_no_release(tmp_path: Path, root: Path) -> None:
    async with running(tmp_path / "world", root, Agent(tags=["champion"])) as site:
        await site.build()

        assert site.azure.releases() == []


async def test_a_build_that_is_retried_starts_its_release_once(site: Site) -> None:
    run = await site.build()
    record = site.azure.project.store.runs.get(run)
    assert record is not None
    site.azure.project.retry(record, record.stages[0], ADA, everything=True)
    await site.azure.wait_for(lambda: bool(site.azure.run(run)["status"] == "completed"), 8)

    assert len(site.azure.releases()) == 1


async def test_a_job_of_a_release_gets_what_the_service_sets_for_it(site: Site) -> None:
    release = await site.released()
    await site.waiting(release)

    job, space = site.agent.ran[-1]
    variables = space.scope.variables
    build = site.azure.run(1)
    assert [step.title for step in job.steps][:2] == ["Download artifact - _diabetes - delivery", "Download artifact - _diabetes - scripts"]
    assert (variables["Release.ReleaseName"], variables["Release.EnvironmentName"], variables["Release.AttemptNumber"]) == (
        "Release-1",
        QA,
        "1",
    )
    assert (variables["Build.BuildNumber"], variables["System.HostType"]) == (build["buildNumber"], "release")
    assert variables["Release.Artifacts._diabetes.BuildId"] == str(build["id"])
    assert variables["serviceConnection"] == "azure-ml-delivery"
    assert (space.artifacts.parent.name, space.commit, space.secrets) == (
        str(build["id"]),
        build["sourceVersion"],
        frozenset({"System.AccessToken"}),
    )


async def decided(site: Site, approval: int, who: Character, **body: object) -> tuple[int, str]:
    """The status, and the approval's status or the error's type."""
    status, document = await site.ask("PATCH", f"approvals/{approval}", who, body={"status": "approved"} | body)
    return status, document.get("status") or document["typeKey"]


async def test_who_may_not_approve_is_refused(site: Site) -> None:
    release = await site.released(GRACE)
    approval = (await site.waiting(release))["id"]

    refused = {who.name: await decided(site, approval, who) for who in (ALAN, BOT, GRACE, AGENT, LINUS)}
    _, words = await site.ask("GET", "releases", AGENT)
    odd = await decided(site, approval, RADIA, status="skipped")
    missing = await decided(site, 99, RADIA)
    accepted = await decided(site, approval, RADIA)

    forbidden = (403, "UnauthorizedRequestException")
    assert refused == {who.name: forbidden for who in (ALAN, BOT, GRACE, AGENT)} | {LINUS.name: (401, "UnauthorizedRequestException")}
    assert words["message"].startswith("VS402904: Access denied: User ml-delivery build agent does not have view releases permission.")
    assert (odd, missing) == ((400, "InvalidRequestException"), (404, "ReleaseManagementObjectNotFoundException"))
    assert accepted == (200, "approved")
    assert (await site.became(release, "succeeded"))["preDeployApprovals"][0]["approvedBy"]["displayName"] == "Radia Perlman"


@pytest.mark.parametrize(
    ("scopes", "reads", "deploys", "approves"),
    [
        (("vso.build_execute",), 401, 401, 401),
        (("vso.release",), 200, 401, 401),
        (("vso.release_execute",), 200, 400, 401),
        (("vso.release_manage",), 200, 400, 200),
    ],
)
async def test_a_delegated_token_reaches_as_far_as_its_scopes(
    site: Site, scopes: tuple[str, ...], reads: int, deploys: int, approves: int
) -> None:
    release = await site.released()
    approval, prod = await site.waiting(release), site.stage(release)["id"]

    read, _ = await site.ask("GET", f"releases/{release}", GRACE, scopes=scopes)
    # It is under way already: refused by the release, where the token goes so far.
    deploy, _ = await site.ask("PATCH", f"releases/{release}/environments/{prod}", GRACE, body={"status": "inProgress"}, scopes=scopes)
    approve, _ = await site.ask("PATCH", f"approvals/{approval['id']}", GRACE, body={"status": "approved"}, scopes=scopes)

    assert (read, deploy, approve) == (reads, deploys, approves)


async def test_all_approvers_of_a_rank_in_any_order_then_the_next_rank(site: Site) -> None:
    await site.redefine(prod_before=approvers((1, GRACE.oid), (1, ADA.oid), (2, RELEASE_MANAGERS.oid)))
    release = await site.released(ALAN)
    await site.azure.wait_for(lambda: len(site.asked(release)) == 2, 8)
    first = {one["approver"]["displayName"]: one["id"] for one in site.asked(release)}

    site.azure.approve_release_as(ADA, first["Ada Lovelace"])
    alone = [one["approver"]["displayName"] for one in site.asked(release)]
    site.azure.approve_release_as(GRACE, first["Grace Hopper"])
    last = await site.waiting(release)
    site.azure.approve_release_as(KATHERINE, last["id"])
    prod = await site.became(release, "succeeded")

    assert (sorted(first), alone) == (["Ada Lovelace", "Grace Hopper"], ["Grace Hopper"])
    assert (last["rank"], last["approver"]["displayName"]) == (2, r"[ml-delivery]\Release Managers")
    assert [one["approvedBy"]["displayName"] for one in prod["preDeployApprovals"]] == ["Grace Hopper", "Ada Lovelace", "Katherine Johnson"]


async def test_as_many_approvals_as_are_required_suffice(site: Site) -> None:
    await site.redefine(prod_before=approvers((1, GRACE.oid), (1, ADA.oid), (1, RADIA.oid), count=2))
    release = await site.released(ALAN)
    await site.azure.wait_for(lambda: len(site.asked(release)) == 3, 8)
    asked = {one["approver"]["id"]: one["id"] for one in site.asked(release)}

    site.azure.approve_release_as(RADIA, asked[RADIA.oid])
    site.azure.approve_release_as(GRACE, asked[GRACE.oid])
    prod = await site.became(release, "succeeded")

    assert [one["status"] for one in prod["preDeployApprovals"]] == ["approved", "skipped", "approved"]


async def test_a_rejection_ends_the_deployment_and_the_other_approvals(site: Site) -> None:
    await site.redefine(prod_before=approvers((1, GRACE.oid), (1, ADA.oid)))
    release = await site.released(ALAN)
    await site.azure.wait_for(lambda: len(site.asked(release)) == 2, 8)
    mine = next(one["id"] for one in site.asked(release) if one["approver"]["id"] == ADA.oid)

    site.azure.approve_release_as(ADA, mine, "rejected", "Friday.")
    prod = await site.became(release, "rejected")

    assert [(one["status"], one["comments"]) for one in prod["preDeployApprovals"]] == [("canceled", ""), ("rejected", "Friday.")]
    assert [(one["status"], one["operationStatus"]) for one in prod["deploySteps"]] == [("notDeployed", "Rejected")]
    assert [job.title for job, _ in site.agent.ran] == ["Publish", QA_JOB]


async def test_an_approval_after_the_deployment_decides_about_it(site: Site) -> None:
    await site.redefine(qa_after=approvers((1, ADA.oid)))
    one, other = await site.released(ALAN), await site.released(ALAN)
    first, second = await site.waiting(one, QA), await site.waiting(other, QA)

    site.azure.approve_release_as(ADA, first["id"])
    site.azure.approve_release_as(ADA, second["id"], "rejected")
    await site.waiting(one)
    rejected = await site.became(other, "rejected", QA)

    assert first["approvalType"] == "postDeploy"
    assert (rejected["deploySteps"][0]["status"], site.stage(other)["status"]) == ("failed", "notStarted")


async def test_an_approval_is_handed_over_and_stays_the_same(site: Site) -> None:
    release = await site.released(ALAN)
    approval = (await site.waiting(release))["id"]

    stranger = await decided(site, approval, ALAN, status="reassigned", approver={"id": ALAN.oid})
    nobody = await decided(site, approval, GRACE, status="reassigned", approver={"id": "nobody"})
    status, handed = await site.ask(
        "PATCH", f"approvals/{approval}", GRACE, body={"status": "reassigned", "approver": {"id": ADA.oid}, "comments": "You know it best."}
    )
    before = await decided(site, approval, GRACE)
    after = await decided(site, approval, ADA)

    assert (stranger[0], nobody[0], before[0], after) == (403, 400, 403, (200, "approved"))
    assert (status, handed["id"], handed["status"], handed["revision"], handed["approver"]["displayName"]) == (
        200,
        approval,
        "pending",
        2,
        "Ada Lovelace",
    )
    (past,) = handed["history"]
    assert (past["approver"]["displayName"], past["changedBy"]["displayName"]) == (r"[ml-delivery]\Release Managers", "Grace Hopper")


async def test_what_failed_is_deployed_again_and_goes_on_from_there(site: Site) -> None:
    site.agent.results[QA_JOB] = [Result.FAILED]
    release = await site.released()
    failed = await site.became(release, "rejected", QA)

    site.azure.redeploy_as(ADA, release, QA)
    approval = await site.waiting(release)

    (job,) = failed["deploySteps"][0]["releaseDeployPhases"][0]["deploymentJobs"]
    assert (failed["deploySteps"][0]["status"], failed["deploySteps"][0]["operationStatus"]) == ("failed", "PhaseFailed")
    assert [issue["message"] for task in job["tasks"] for issue in task["issues"]] == ["QA: 3 of 5 predictions differ."]
    assert [one["attempt"] for one in site.stage(release, QA)["deploySteps"]] == [1, 2]
    assert approval["attempt"] == 1


async def test_what_an_approval_asks_the_person_who_redeploys_may_not_answer(site: Site) -> None:
    old, new = await site.released(ALAN), await site.released(ALAN)
    for release in (old, new):
        site.azure.approve_release_as(RADIA, (await site.waiting(release))["id"])
        await site.became(release, "succeeded")

    site.azure.redeploy_as(GRACE, old, PROD)
    approval = (await site.waiting(old))["id"]
    with pytest.raises(Denied, match="Grace Hopper requested this release or its deployment"):
        site.azure.approve_release_as(GRACE, approval)
    site.azure.approve_release_as(KATHERINE, approval)
    await site.became(old, "succeeded")

    newest = (await site.value("deployments?definitionEnvironmentId=2&deploymentStatus=succeeded"))[0]
    assert (newest["release"]["name"], newest["attempt"], newest["requestedFor"]["displayName"]) == ("Release-1", 2, "Grace Hopper")


async def test_a_deployment_is_canceled_while_it_waits_and_while_it_runs(site: Site) -> None:
    site.agent.held.add(QA_JOB)
    release = await site.released()
    await site.azure.wait_for(lambda: bool(site.stage(release, QA)["deploySteps"][0]["hasStarted"]), 8)
    qa, prod = (f"releases/{release}/environments/{site.stage(release, name)['id']}" for name in (QA, PROD))

    busy, _ = await site.ask("PATCH", f"releases/{release}", body={"status": "abandoned"})
    idle, _ = await site.ask("PATCH", prod, body={"status": "canceled"})
    await site.ask("PATCH", qa, body={"status": "canceled"})
    canceled = await site.became(release, "canceled", QA)
    site.azure.redeploy_as(ADA, release, PROD)
    await site.waiting(release)
    await site.ask("PATCH", prod, ALAN, body={"status": "canceled", "comment": "Not today"})
    waited = await site.became(release, "canceled")

    assert (busy, idle) == (400, 400)
    assert canceled["deploySteps"][0]["operationStatus"] == "Canceled"
    assert [(one["status"], one["comments"]) for one in waited["preDeployApprovals"]] == [("canceled", "Not today")]


async def test_an_abandoned_release_is_over(site: Site) -> None:
    release = await site.released()
    approval = (await site.waiting(release))["id"]

    site.azure.abandon_as(ADA, release)
    await site.became(release, "canceled")

    assert site.azure.release(release)["status"] == "abandoned"
    with pytest.raises(Denied, match="Release-1 is abandoned: it cannot be deployed"):
        site.azure.redeploy_as(ADA, release, PROD)
    with pytest.raises(Denied, match="Release-1 is already abandoned"):
        site.azure.abandon_as(ADA, release)
    with pytest.raises(Denied, match="it is already canceled"):
        site.azure.approve_release_as(GRACE, approval)
    with pytest.raises(Denied, match="VS402904: Access denied: User Linus Pauling"):
        site.azure.redeploy_as(LINUS, release, PROD)


@pytest.mark.parametrize(
    ("request_line", "body", "status", "says"),
    [
        ("GET releases/99", None, 404, "The release with ID 99 was not found."),
        ("GET releases/1/environments/99", None, 404, "There is no environment 99"),
        ("PATCH releases/1/environments/2", {"status": "succeeded"}, 400, "cannot be set to 'succeeded'"),
        ("PATCH releases/1/environments/2", {"status": "inProgress", "variables": {"a": {}}}, 400, "the variables of the definition"),
        ("PATCH releases/1", {"keepForever": True}, 400, "The sandbox changes one thing of a release"),
        ("POST releases", {"definitionId": 9}, 404, "The release definition with ID 9 does not exist."),
        ("POST releases", {"definitionId": 1, "isDraft": True}, 400, "no releases with isDraft"),
        (
            "POST releases",
            {"definitionId": 1, "artifacts": [{"alias": "_x", "instanceReference": {"id": "1"}}]},
            400,
            "one artifact, _diabetes",
        ),
        (
            "POST releases",
            {"definitionId": 1, "artifacts": [{"alias": "_diabetes", "instanceReference": {"id": "77"}}]},
            400,
            "build 77",
        ),
        ("POST releases", {"definitionId": 1, "manualEnvironments": ["Staging"]}, 400, "has no environment Staging"),
        ("PUT definitions", {"id": 1, "revision": 7}, 400, "You are using an old copy"),
        ("POST definitions", {"name": "X"}, 400, "exactly one artifact"),
        ("GET approvals?assignedToFilter=Nobody", None, 400, "There is no identity Nobody here."),
        ("GET releases?minCreatedTime=yesterday", None, 400, "is not a time: yesterday"),
        ("PATCH gates/1", {}, 405, "does not support http method 'PATCH'"),
    ],
)
async def test_what_the_service_refuses_is_refused(site: Site, request_line: str, body: object, status: int, says: str) -> None:
    await site.waiting(await site.released())
    method, _, path = request_line.partition(" ")

    answered, error = await site.ask(method, path, body=body)

    assert (answered, says in error["message"]) == (status, True), error


async def test_a_list_comes_in_pages(site: Site) -> None:
    for _ in range(3):
        await site.released()

    newest = await site.value("releases?$top=2")
    oldest = await site.value("releases?queryOrder=ascending&$top=1")
    rest = await site.value("releases?$top=2&continuationToken=1")

    assert [[one["id"] for one in page] for page in (newest, oldest, rest)] == [[3, 2], [1], [1]]


@dataclass
class Receiver:
    """Where hooks are delivered."""

    url: str = ""
    got: list[Json] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: web.Request) -> web.Response:
        self.got.append(await request.json())
        self.came.set()
        return web.Response()

    async def have(self, count: int) -> list[Json]:
        async with asyncio.timeout(8):
            while len(self.got) < count:
                self.came.clear()
                await self.came.wait()
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


async def subscribe(site: Site, url: str, event: str, **inputs: str) -> tuple[int, Json]:
    body = {
        "publisherId": "rm",
        "eventType": f"ms.vss-release.{event}",
        "resourceVersion": "3.0-preview.1",
        "consumerId": "webHooks",
        "consumerActionId": "httpRequest",
        "publisherInputs": inputs,
        "consumerInputs": {"url": url},
    }
    host = "dev.azure.com" if inputs.get("teamId") else "vsrm.dev.azure.com"
    return await site.ask("POST", f"https://{host}/contoso/_apis/hooks/subscriptions", body=body)


KINDS = (
    "release-created-event",
    "deployment-started-event",
    "deployment-completed-event",
    "deployment-approval-pending-event",
    "deployment-approval-completed-event",
    "release-abandoned-event",
)


async def test_subscribers_hear_of_everything_that_happens_to_a_release(site: Site, receiver: Receiver) -> None:
    for kind in KINDS:
        assert (await subscribe(site, receiver.url, kind))[0] == 200
    release = await site.released()
    approval = await site.waiting(release)
    await receiver.have(4)
    site.azure.approve_release_as(GRACE, approval["id"], "approved", "Better by 6 %.")
    await site.became(release, "succeeded")
    await receiver.have(7)
    site.azure.abandon_as(ADA, release)
    got = await receiver.have(8)

    by_kind: dict[str, list[Json]] = {}
    for one in got:
        by_kind.setdefault(one["eventType"].removeprefix("ms.vss-release."), []).append(one)
    assert {kind: len(by_kind[kind]) for kind in KINDS} == dict(zip(KINDS, (1, 2, 2, 1, 1, 1), strict=True))
    assert all((one["publisherId"], one["resourceVersion"]) == ("rm", "3.0-preview.1") for one in got)
    assert all(one["resource"]["project"] == {"id": PROJECT_ID, "name": "ml-delivery"} for one in got)
    created = by_kind["release-created-event"][0]
    assert (created["message"]["text"], created["resource"]["release"]["reason"]) == ("Release Release-1 created.", "continuousIntegration")
    completed = [one["resource"]["environment"] for one in by_kind["deployment-completed-event"]]
    assert {(one["name"], one["status"], one["release"]["id"]) for one in completed} == {
        (QA, "succeeded", release),
        (PROD, "succeeded", release),
    }
    (asked,), (answered,) = by_kind["deployment-approval-pending-event"], by_kind["deployment-approval-completed-event"]
    assert (
        asked["resource"]["approval"] | {"id": approval["id"], "status": "pending", "approvalType": "preDeploy"}
        == asked["resource"]["approval"]
    )
    assert asked["resource"]["release"]["id"] == release
    assert "Pending on: [ml-delivery]\\Release Managers" in asked["detailedMessage"]["text"]
    assert answered["resource"]["approval"]["approvedBy"]["displayName"] == "Grace Hopper"
    assert (answered["resource"]["stageName"], answered["resource"]["attemptId"]) == (PROD, 1)


async def test_filters_let_pass_what_they_name(site: Site, receiver: Receiver) -> None:
    site.agent.results[QA_JOB] = [Result.FAILED]
    for status in ("4", "16"):
        await subscribe(site, receiver.url, "deployment-completed-event", releaseEnvironmentStatus=status, releaseEnvironmentId="1")
    await subscribe(site, receiver.url, "deployment-completed-event", releaseDefinitionId="2")
    await subscribe(site, receiver.url, "deployment-approval-pending-event", releaseApprovalType="2")
    await subscribe(site, receiver.url, "deployment-approval-completed-event", releaseApprovalStatus="4", releaseApprovalType="1")

    release = await site.released()
    await site.became(release, "rejected", QA)
    await receiver.have(1)
    site.azure.redeploy_as(ADA, release, QA)
    approval = await site.waiting(release)
    await receiver.have(2)
    site.azure.approve_release_as(GRACE, approval["id"], "rejected")
    got = await receiver.have(3)

    assert [one["resource"].get("environment", {}).get("status") for one in got[:2]] == ["rejected", "succeeded"]
    assert got[2]["resource"]["approval"]["status"] == "rejected"


async def test_releases_are_subscribed_to_on_their_own_host(site: Site, receiver: Receiver) -> None:
    elsewhere, _ = await subscribe(site, receiver.url, "release-created-event", teamId="x")
    unknown, _ = await subscribe(site, receiver.url, "release-created-event", releaseEnvironmentId="1")
    _, made = await subscribe(site, receiver.url, "deployment-approval-pending-event")
    test = {"subscriptionId": made["id"]}
    too_early, _ = await site.ask("POST", "https://vsrm.dev.azure.com/contoso/_apis/hooks/testNotifications", body=test)
    await site.waiting(await site.released())
    await receiver.have(1)
    await site.ask("POST", "https://vsrm.dev.azure.com/contoso/_apis/hooks/testNotifications", body=test)
    got = await receiver.have(2)

    assert (elsewhere, unknown, too_early) == (400, 400, 400)
    assert got[0]["resource"]["approval"]["id"] == got[1]["resource"]["approval"]["id"]


async def test_a_restart_goes_on_with_what_waited_and_mourns_what_ran(tmp_path: Path, root: Path) -> None:
    agent = Agent()
    async with running(tmp_path / "world", root, agent) as site:
        waiting = await site.released()
        approval = await site.waiting(waiting)
        agent.held.add(QA_JOB)
        lost = await site.released()
        await site.azure.wait_for(lambda: bool(site.stage(lost, QA)["deploySteps"][0]["hasStarted"]), 8)

    async with running(tmp_path / "world", root) as site:
        failed = await site.became(lost, "rejected", QA)
        site.azure.approve_release_as(GRACE, approval["id"])
        await site.became(waiting, "succeeded")

    (job,) = failed["deploySteps"][0]["releaseDeployPhases"][0]["deploymentJobs"]
    assert job["job"]["issues"][0]["message"].startswith("We stopped hearing from agent Callboard sandbox 1.")


async def test_an_approval_that_nobody_answers_in_time_rejects_the_deployment(tmp_path: Path, root: Path) -> None:
    async with running(tmp_path / "world", root) as site:
        release = await site.released()
        number = (await site.waiting(release))["id"]
        store = site.azure.project.releases.store
        record = store.approvals.get(number)
        assert record is not None
        record.expires -= timedelta(days=31)
        store.approvals.keep(number, record)

    async with running(tmp_path / "world", root) as site:
        prod = await site.became(release, "rejected")

    assert [(one["status"], one["comments"]) for one in prod["preDeployApprovals"]] == [("rejected", "The approval timed out.")]


DEFINES = """
made = client.create_release_definition(ReleaseDefinition.from_dict(given[0]), project)
qa, prod = made.environments
print(json.dumps([made.id, made.name, qa.name, prod.name, prod.pre_deploy_approvals.approvals[0].approver.id]))
"""


async def test_the_repository_s_definition_is_what_the_api_takes(site: Site) -> None:
    made = await site.sdk(BOT, DEFINES, definition())

    assert made == [2, "Deploy Webservice", QA, PROD, RELEASE_MANAGERS.oid]


def without(path: str, value: object) -> Json:
    """The repository's definition with one thing changed; a path is names and places with dots between."""
    document = copy.deepcopy(definition())
    *outer, last = path.split(".")
    place: Any = document
    for name in outer:
        place = place[int(name)] if isinstance(place, list) else place[name]
    place[int(last) if isinstance(place, list) else last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("name", "", "The definition needs a name"),
        ("artifacts", [], "exactly one artifact"),
        ("artifacts.0.type", "Git", "is not of a build pipeline"),
        ("artifacts.0.definitionReference", None, "definitionReference must be an object"),
        ("environments", [], "one stage or more"),
        ("environments", "two", "environments must be a list"),
        ("environments.1.name", "QA - Deploy on ACI", "their names differ"),
        ("environments.1.conditions.0.name", "Staging", "follows a stage that is not there: Staging"),
        ("environments.1.conditions.0.conditionType", "artifact", "a condition that the sandbox does not know"),
        ("environments.1.schedules", [{}], "has schedules"),
        ("environments.1.preDeploymentGates", {"gates": [{}]}, "has gates"),
        ("environments.1.preDeployApprovals.approvals.0.approver.id", "nobody", "an approver who is nobody here"),
        ("environments.1.preDeployApprovals.approvalOptions.requiredApproverCount", 2, "asks for 2 approvals and has fewer"),
        ("environments.1.preDeployApprovals.approvalOptions.enforceIdentityRevalidation", True, "enforceIdentityRevalidation"),
        ("environments.1.rank", "last", "rank must be a number"),
        ("environments.1.deployPhases", [], "exactly one job"),
        ("environments.1.deployPhases.0.phaseType", "runOnServer", "is no agent job"),
        ("environments.1.deployPhases.0.workflowTasks.1.inputs.targetType", "filePath", "must have its script inline"),
        ("environments.1.deployPhases.0.workflowTasks.0.taskId", "eba81c9f", "one that the sandbox's agent does not have: eba81c9f@0"),
        (
            "environments.1.deployPhases.0.deploymentInput.artifactsDownloadInput.downloadInputs.0.alias",
            "_other",
            "downloads what the sandbox",
        ),
        ("triggers.0.triggerType", "schedule", "one kind of trigger"),
        ("variables.serviceConnection.isSecret", True, "The variable serviceConnection is secret"),
        ("variableGroups", [7], "no variable groups"),
    ],
)
def test_what_the_sandbox_cannot_run_it_does_not_take(path: str, value: object, says: str) -> None:
    with pytest.raises(BadDefinition, match=says):
        read(without(path, value))


@pytest.mark.parametrize(
    ("inputs", "downloads"),
    [
        ({}, ["Download artifacts - _diabetes"]),
        ({"artifactsDownloadInput": {"downloadInputs": [{"alias": "_diabetes", "artifactDownloadMode": "Skip"}]}}, []),
        ({"skipArtifactsDownload": True}, []),
    ],
)
def test_a_job_downloads_the_artifacts_it_asks_for(inputs: Mapping[str, object], downloads: list[str]) -> None:
    job = read(without("environments.0.deployPhases.0.deploymentInput", inputs)).stages[0].job

    assert [step.title for step in job.steps if step.task == "DownloadBuildArtifacts@1"] == downloads


@pytest.mark.parametrize(
    ("branch", "tags", "fits"),
    [("", ["release", "nightly"], True), ("main", ["release"], True), ("refs/heads/dev", ["release"], False), ("", ["nightly"], False)],
)
def test_a_trigger_wants_all_its_tags_and_its_branch(branch: str, tags: list[str], fits: bool) -> None:
    assert Trigger(branch, frozenset({"release"})).fits("refs/heads/main", tags) is fits


CI = """
parameters:
- {name: cd, type: string, default: stages, values: [stages, release]}
variables: [{name: serviceConnection, value: azure-ml-delivery}]
stages:
- stage: image
  jobs:
  - job: image
    steps:
    - ${{ each artifact in split('model image evaluation', ' ') }}:
      - bash: mkdir ${{ artifact }} && echo '{"schema":1}' > ${{ artifact }}/${{ artifact }}.json
      - task: PublishBuildArtifacts@1
        inputs: {PathtoPublish: "${{ artifact }}", ArtifactName: "${{ artifact }}", publishLocation: Container}
- template: stages/publish.yml
  parameters:
    cd: ${{ parameters.cd }}
"""
DEPLOYMENT = """
import json, pathlib, sys
folder, out = pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[4])
assert sys.argv[1::2] == ["--delivery", "--out"]
result = {"schema": 1, "environment": "qa", "passed": False, "found": sorted(one.name for one in folder.iterdir())}
(out / "qa.json").write_text(json.dumps(result))
sys.exit("QA: 3 of 5 predictions differ.")
"""


async def test_the_real_agent_runs_the_repository_s_publish_stage_and_release(tmp_path: Path, root: Path) -> None:
    """All is the repository's own but for what trains and what deploys: that is shown where the models are."""
    pipelines, ml = root / "deploy" / "pipelines", root / "deploy" / "ml"
    shutil.copytree(ROOT / "deploy" / "pipelines", pipelines, dirs_exist_ok=True)
    (pipelines / "azure-pipelines.yml").write_text(CI)
    ml.mkdir()
    for name in ("__init__.py", "prepare.py", "stage.py", "config.py", "requirements.lock"):
        shutil.copy(ROOT / "deploy" / "ml" / name, ml / name)
    (ml / "qa.py").write_text(DEPLOYMENT)
    async with running(tmp_path / "world", root, make=AzureDevOps) as site:
        run = await site.azure.queue(ADA, {"cd": "release"})
        await site.azure.wait_for(lambda: bool(site.azure.run(run)["status"] == "completed"), 60)
        built = site.azure.run(run)
        await site.azure.wait_for(lambda: bool(site.stage(1, QA)["status"] == "rejected"), 60)
        qa = site.stage(1, QA)
        (phase,) = qa["deploySteps"][0]["releaseDeployPhases"]
        place = f"releases/1/environments/{qa['id']}/attempts/1/plan/{phase['runPlanId']}"
        (found,) = await site.value(f"{place}/attachments/smoke-test")
        _, result = await site.ask("GET", found["_links"]["self"]["href"])

    assert (built["result"], built["tags"]) == ("succeeded", ["release"])
    assert {task["name"]: task["status"] for task in phase["deploymentJobs"][0]["tasks"]} == {
        "Initialize job": "succeeded",
        "Download artifact - _diabetes - delivery": "succeeded",
        "Download artifact - _diabetes - scripts": "succeeded",
        "Use Python": "succeeded",
        "Locked environment": "succeeded",
        "Deploy and test": "failed",
        "Keep the smoke test's result": "succeeded",
        "Finalize Job": "succeeded",
    }
    assert found["name"] == "qa.json"
    assert json.loads(result) == {
        "schema": 1,
        "environment": "qa",
        "passed": False,
        "found": ["evaluation.json", "image.json", "model.json"],
    }


class Person:
    """Somebody with a browser that has no face."""

    def __init__(self, site: Site, session: aiohttp.ClientSession) -> None:
        self._home = f"{site.world.page_url}/dev.azure.com/contoso/ml-delivery"
        self._origin = site.world.page_url
        self._session = session

    async def see(self, path: str) -> str:
        async with self._session.get(self._home + path) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.text()

    async def post(self, path: str, who: Character, **form: object) -> tuple[int, str]:
        """The status of the page that one sees then, and the page."""
        sent = {name: str(value) for name, value in form.items()}
        headers = {"Origin": self._origin, "Cookie": f"ado-person={who.oid}"}
        async with self._session.post(f"{self._home}/_release/{path}", data=sent, headers=headers) as answer:
            return answer.status, await answer.text()


@pytest.fixture
async def person(site: Site) -> AsyncIterator[Person]:
    async with aiohttp.ClientSession() as session:
        yield Person(site, session)


async def test_the_pages_show_releases_their_approvals_and_logs(site: Site, person: Person) -> None:
    empty = await person.see("/_release")
    release = await site.released()
    await site.waiting(release)

    progress = f"/_releaseProgress?_a=release-pipeline-progress&releaseId={release}"
    pages = {
        "/_release?_a=releases&definitionId=1": "Continuous deployment for Ada Lovelace",
        f"/_release?releaseId={release}&_a=release-summary": "waits for an approval before the deployment",
        progress: r"pending on [ml-delivery]\Release Managers",
        f"/_releaseProgress?_a=release-environment-logs&releaseId={release}": f"working on {QA_JOB}",
        "/_settings/serviceHooks": "Releases",
    }
    seen = {path: await person.see(path) for path in pages}

    assert "There is no release yet." in empty
    assert [path for path, says in pages.items() if says not in seen[path]] == []
    assert "&#34;passed&#34;: true" in seen[progress]


async def test_people_decide_on_the_page_under_the_same_rules(site: Site, person: Person) -> None:
    release = await site.released()
    approval = (await site.waiting(release))["id"]
    prod = site.stage(release)["id"]

    refused, why = await person.post("approval", ALAN, approval=approval, status="approved")
    handed, _ = await person.post("approval", GRACE, approval=approval, status="reassigned", approver=RADIA.oid, comment="Yours.")
    approved, _ = await person.post("approval", RADIA, approval=approval, status="approved", comment="Better by 6 %.")
    await site.became(release, "succeeded")
    again, _ = await person.post("deploy", ADA, release=release, stage=prod)
    await site.waiting(release)
    canceled, _ = await person.post("cancel", ADA, release=release, stage=prod)
    await site.became(release, "canceled")
    abandoned, page = await person.post("abandon", ADA, release=release)
    nothing = [await person.post(path, ADA, release=99, stage=9, approval=99) for path in ("approval", "deploy", "cancel", "abandon")]
    nowhere, _ = await person.post("deploy", ADA, release=release, stage=99)

    assert (refused, "VS402904" in why) == (403, True)
    assert (handed, approved, again, canceled, abandoned) == (200,) * 5
    assert ([status for status, _ in nothing], nowhere) == ([404] * 4, 404)
    assert "Abandoned" in page
    assert "Handed over by Grace Hopper" in page
    assert "Better by 6 %." in page


async def test_a_page_keeps_itself_fresh_while_a_release_goes_on(site: Site) -> None:
    release = await site.released()
    await site.waiting(release)
    url = f"{site.world.page_url}/dev.azure.com/contoso/ml-delivery/_releaseProgress?_a=release-pipeline-progress&releaseId={release}"

    async with browsing(url) as page:
        await page.select_option("#person", KATHERINE.oid)
        await page.wait_for_selector("text=as Katherine Johnson")
        await page.fill("textarea", "Looks good.")
        await page.click("button[value=approved]")
        await page.wait_for_selector("text=Katherine Johnson approved")
        await page.wait_for_selector(".stage.succeeded:has-text('Prod')")
        shown = await page.inner_text("#stages")

    assert shown.count("Succeeded") == 2
    assert shown.count("Redeploy") == 2


@pytest.mark.timeout(300)
async def test_a_trained_model_reaches_qa_by_a_release(tmp_path: Path) -> None:
    """All of it for real: the repository's pipeline with `cd=release`, its release, and Azure ML."""
    async with sandbox(tmp_path / "world", AzureDevOps, AzureML) as world:
        azure = the(world, AzureDevOps)
        run = await azure.queue(ADA, {"cd": "release"})
        await azure.wait_for(lambda: bool(azure.run(run)["status"] == "completed"), 200)
        await azure.wait_for(lambda: any(one["preDeployApprovals"] for one in azure.release(1)["environments"][1:]), 80)
        (record,) = azure.project.releases.store.releases

    assert [stage.status for stage in record.stages] == ["succeeded", "inProgress"]
    (deployment,) = record.stages[0].deployments
    (attached,) = deployment.attachments
    result = json.loads(attached.text)
    assert (attached.name, result["environment"], result["passed"], result["checked"]) == ("qa.json", "qa", True, 5)
