"""The edge to Azure DevOps: what its answers come to, and what the real SDK makes of a server that behaves and of one that does not."""

from __future__ import annotations

import asyncio
import io
import threading
import zipfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from azure.devops._file_cache import OPTIONS_CACHE
from azure.devops.client import Client
from azure.devops.v7_1.build import models as sdk
from msrest import Deserializer

from bot import hooks
from bot.azure_devops import AzureDevOps, reading
from bot.azure_devops.reading import Commit, Site
from bot.azure_devops.wire import LONGEST_PAUSE, Pace
from bot.core.approvals import Answer, Approval, ApprovalState, ApprovalStep
from bot.core.errors import Gone, NotNow, OutsideError, Refused, Uncertain
from bot.core.people import Person
from bot.core.runs import FailedTest, Order, Run, State
from bot.hooks import Subscription
from sandbox.azure_devops.server import AzureDevOps as LocalAzureDevOps
from sandbox.names import ADA, BOT, GRACE, ORGANIZATION, PROJECT, PROJECT_ID, REPOSITORY_ID, Character
from sandbox.tokens import AZURE_DEVOPS
from sandbox.world import World
from tests.examples import TEAM
from tests.sandboxes import proxy, sandbox

pytestmark = pytest.mark.world

SITE = Site(ORGANIZATION, PROJECT)
SHA = "8f1c2d3e4b5a69788796a5b4c3d2e1f000112233"
RUN_PAGE = "https://dev.azure.com/contoso/ml-delivery/_build/results?buildId=42"
Json = dict[str, Any]


# --- what the service says, as recorded, cut to what matters ---------------------------------------------------------


def build(**more: Any) -> Json:
    """A build of the REST API."""
    return {
        "id": 42,
        "buildNumber": "20261123.1",
        "status": "inProgress",
        "queueTime": "2026-11-23T09:00:00.1234567Z",
        "startTime": "2026-11-23T09:00:04Z",
        "definition": {"id": 1, "name": "diabetes"},
        "uri": "vstfs:///Build/Build/42",
        "sourceBranch": "refs/heads/main",
        "sourceVersion": SHA,
        "reason": "individualCI",
        "requestedFor": identity(ADA.name, ADA.email, ADA.oid),
        "requestedBy": identity("Microsoft.VisualStudio.Services.TFS", "", "00000002-0000-8888-8000-000000000000"),
        "repository": {"id": REPOSITORY_ID, "type": "TfsGit", "name": "ml-delivery"},
        "triggerInfo": {"ci.message": "Try a smaller penalty"},
        "templateParameters": {"model": "diabetes", "requestId": "t-1"},
    } | more


def identity(name: str, unique: str, id: str) -> Json:
    """An IdentityRef."""
    return {"displayName": name, "uniqueName": unique, "id": id, "descriptor": "aad.x"}


def record(kind: str, id: str, parent: str | None, state: str, result: str | None = None, **more: Any) -> Json:
    """A record of a timeline."""
    return {"id": id, "parentId": parent, "type": kind, "name": id, "state": state, "result": result, "attempt": 1, "order": 1} | more


def job(stage: str, state: str, result: str | None = None, *tasks: Json, **more: Any) -> list[Json]:
    """A stage's phase and job, and the job's tasks."""
    phase = record("Phase", f"{stage}-phase", stage, state, result, identifier=f"{stage}.main")
    return [phase, record("Job", f"{stage}-job", phase["id"], state, result, identifier=f"{stage}.main.__default") | more, *tasks]


DONE = [
    record("Stage", "s1", None, "completed", "succeeded", identifier="train", name="Train", order=1),
    *job("s1", "completed", "succeeded"),
]
WAITING = [
    *DONE,
    record("Stage", "s2", None, "pending", identifier="prod", name="Prod - Deploy on AKS", order=2),
    record("Checkpoint", "c2", "s2", "inProgress", identifier="Checkpoint"),
    record("Checkpoint.Approval", "a2", "c2", "inProgress"),
]
REJECTED = [
    *DONE,
    record("Stage", "s2", None, "completed", "failed", identifier="prod", name="Prod", order=2),
    record("Checkpoint", "c2", "s2", "completed", "failed"),
    record("Checkpoint.Approval", "a2", "c2", "completed", "failed"),
]
FAILED = [
    *DONE,
    record("Stage", "s2", None, "completed", "failed", identifier="evaluate", name="Evaluate", order=2),
    *job(
        "s2",
        "completed",
        "failed",
        record("Task", "t1", "s2-job", "completed", "succeeded", name="Checkout", order=1, log={"id": 5}),
        record(
            "Task",
            "t3",
            "s2-job",
            "completed",
            "failed",
            name="Clean up",
            order=3,
            log={"id": 7},
            issues=[{"type": "error", "message": "too late"}],
        ),
        record(
            "Task",
            "t2",
            "s2-job",
            "completed",
            "failed",
            name="Score the candidates",
            order=2,
            log={"id": 6},
            issues=[{"type": "warning", "message": "old Python"}, {"type": "error", "message": "Bash exited with code '1'."}],
        ),
        name="Evaluate on the hold-out",
    ),
]
LOG = [
    "\ufeff2026-11-23T09:01:00.0000000Z ##[section]Starting: Score the candidates",
    *(f"2026-11-23T09:01:01.{n:07}Z row {n}" for n in range(30)),
    "2026-11-23T09:01:02.0000000Z Traceback (most recent call last):",
    "2026-11-23T09:01:02.0000000Z \x1b[31mValueError: the hold-out set is empty\x1b[0m",
    "2026-11-23T09:01:02.0000000Z ##[error]Bash exited with code '1'.",
    "2026-11-23T09:01:02.0000000Z ##[section]Finishing: Score the candidates",
]
APPROVAL = {
    "id": "a2",
    "status": "pending",
    "createdOn": "2026-11-23T09:05:00.0000000Z",
    "minRequiredApprovers": 1,
    "instructions": "Look at the comparison first.",
    "pipeline": {"id": "1", "name": "diabetes", "owner": {"id": 42, "name": "20261123.1"}},
    "steps": [{"assignedApprover": identity(GRACE.name, GRACE.email, GRACE.oid), "status": "pending", "order": 1}],
}
APPROVED = APPROVAL | {
    "status": "approved",
    "steps": [
        {
            "assignedApprover": identity(GRACE.name, GRACE.email, GRACE.oid),
            "actualApprover": identity(GRACE.name, GRACE.email, GRACE.oid),
            "status": "approved",
            "comment": "Good numbers.",
            "lastModifiedOn": "2026-11-23T09:07:00Z",
        }
    ],
}


def models(kind: str, said: Any) -> Any:
    """What the SDK makes of it."""
    return Deserializer({name: value for name, value in vars(sdk).items() if isinstance(value, type)})(kind, said)


def records(said: list[Json]) -> Any:
    """A timeline's records as the SDK gives them."""
    return models("[TimelineRecord]", said)


def a_run(said: Json, timeline: list[Json], **more: Any) -> Run:
    """The run these come to."""
    return reading.run(models("Build", said), records(timeline), SITE, **more)


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_run_is_read_with_its_people_its_commit_and_its_parameters() -> None:
    run = a_run(build(), DONE, commit=Commit(Person("Ada", "ada@contoso.example"), "Try a smaller penalty\n\nIt overfits."))

    assert (run.id, run.number, run.pipeline, run.branch, run.reason) == (42, "20261123.1", "diabetes", "refs/heads/main", "individualCI")
    assert run.requested_for == Person(ADA.name, ADA.email, ADA.oid)
    assert run.committer == Person("Ada", "ada@contoso.example")
    assert run.commit_message == "Try a smaller penalty\n\nIt overfits."
    assert run.created == datetime(2026, 11, 23, 9, 0, 0, 123456, UTC)
    assert run.url == RUN_PAGE
    assert run.commit_url == f"https://dev.azure.com/contoso/ml-delivery/_git/ml-delivery/commit/{SHA}"
    assert run.parameters == {"model": "diabetes", "requestId": "t-1"}


def test_the_trigger_knows_the_message_where_the_repository_does_not() -> None:
    run = a_run(build(repository={"id": "contoso/models", "type": "GitHub"}), [])

    assert run.commit_message == "Try a smaller penalty"
    assert run.commit_url == f"https://github.com/contoso/models/commit/{SHA}"


@pytest.mark.parametrize(
    ("status", "result", "state"),
    [
        ("notStarted", None, State.PENDING),
        ("postponed", None, State.PENDING),
        ("inProgress", None, State.RUNNING),
        ("cancelling", None, State.CANCELING),
        ("completed", "succeeded", State.SUCCEEDED),
        ("completed", "partiallySucceeded", State.PARTIAL),
        ("completed", "failed", State.FAILED),
        ("completed", "canceled", State.CANCELED),
        ("completed", "none", State.FAILED),
    ],
)
def test_state_and_result_are_one_word(status: str, result: str | None, state: State) -> None:
    assert a_run(build(status=status, result=result), []).state is state


def test_a_stage_behind_an_open_checkpoint_waits_and_so_does_the_run() -> None:
    run = a_run(build(), WAITING)

    assert [(stage.name, stage.state) for stage in run.stages] == [("train", State.SUCCEEDED), ("prod", State.WAITING)]
    assert run.state is State.WAITING


def test_a_run_with_a_waiting_and_a_running_stage_runs() -> None:
    beside = record("Stage", "s3", None, "inProgress", identifier="qa", order=3)

    assert a_run(build(), [*WAITING, beside]).state is State.RUNNING


def test_a_stage_that_was_retried_between_the_readings_means_that_the_run_goes_on() -> None:
    again = record("Stage", "s1", None, "inProgress", identifier="train", order=1, attempt=2)

    assert a_run(build(status="completed", result="failed"), [again]).state is State.RUNNING


def test_a_stage_that_somebody_turned_down_is_rejected_and_so_is_the_run() -> None:
    over = build(status="completed", result="failed")

    assert reading.doubtful(records(REJECTED)) == ("a2",)
    run = a_run(over, REJECTED, rejected=frozenset({"a2"}))
    assert (run.stages[1].state, run.state) == (State.REJECTED, State.REJECTED)
    timed_out = a_run(over, REJECTED)
    assert (timed_out.stages[1].state, timed_out.state) == (State.FAILED, State.FAILED)


def test_skipped_canceled_and_never_reached_stages_are_told_apart() -> None:
    timeline = [
        record("Stage", "s1", None, "completed", "skipped", identifier="a", order=1),
        record("Stage", "s2", None, "completed", "canceled", identifier="b", order=2),
        record("Stage", "s3", None, "pending", identifier="c", order=3),
        record("Stage", "s4", None, "completed", "succeededWithIssues", identifier="d", order=4),
        record("Stage", "s5", None, "completed", "abandoned", identifier="e", order=5),
    ]

    run = a_run(build(status="completed", result="canceled"), timeline)

    assert [stage.state for stage in run.stages] == [State.SKIPPED, State.CANCELED, State.SKIPPED, State.PARTIAL, State.FAILED]


def test_only_the_latest_attempt_counts_in_whatever_order_the_records_come() -> None:
    old = record("Stage", "old", None, "completed", "failed", identifier="train", order=1)
    again = record("Stage", "new", None, "inProgress", identifier="train", order=1, attempt=2)
    jobs = [
        record("Phase", "p", "new", "inProgress", identifier="train.main"),
        record("Job", "j2", "p", "inProgress", identifier="train.main.__default", attempt=2, name="second"),
        record("Job", "j1", "p", "completed", "failed", identifier="train.main.__default", name="first"),
    ]

    stages = a_run(build(), [again, old, *jobs]).stages

    assert [(stage.name, stage.attempt, stage.state, [one.name for one in stage.jobs]) for stage in stages] == [
        ("train", 2, State.RUNNING, ["second"])
    ]


def test_jobs_and_steps_come_in_order_with_their_times_logs_and_errors() -> None:
    stage = a_run(build(), FAILED).stages[1]

    assert [step.name for step in stage.jobs[0].steps] == ["Checkout", "Score the candidates", "Clean up"]
    assert stage.jobs[0].steps[1].errors == ("Bash exited with code '1'.",)
    assert (stage.jobs[0].steps[1].log_id, stage.jobs[0].steps[1].state) == (6, State.FAILED)


def test_the_first_failed_step_is_to_blame() -> None:
    culprit = reading.culprit(records(FAILED))

    assert culprit is not None
    assert (culprit.stage.identifier, culprit.job.name, culprit.task.name if culprit.task else "") == (
        "evaluate",
        "Evaluate on the hold-out",
        "Score the candidates",
    )
    assert reading.culprit(records(DONE)) is None
    assert reading.culprit(records(REJECTED)) is None


def test_a_log_loses_its_timestamps_its_colours_and_its_sections() -> None:
    lines = reading.plain(LOG)

    assert lines[0] == "row 0"
    assert lines[-2:] == ("ValueError: the hold-out set is empty", "##[error]Bash exited with code '1'.")


@pytest.mark.parametrize(
    ("reported", "lines", "error"),
    [
        (["no space left\nreally"], ["ValueError: other"], "no space left"),
        (["Bash exited with code '1'."], ["KeyError: 'mae'", "ValueError: no rows"], "ValueError: no rows"),
        (["PowerShell exited with code '1'."], ["##[error]disk is full", "ValueError: no rows"], "disk is full"),
        (["Bash exited with code '2'."], ["make: nothing"], "Bash exited with code '2'."),
        ([], ["##[error]The process '/bin/sh' failed with exit code 3"], "The process '/bin/sh' failed with exit code 3"),
        ([], ["all fine"], ""),
    ],
)
def test_the_error_shown_is_the_line_that_says_most(reported: list[str], lines: list[str], error: str) -> None:
    assert reading.first_error(reported, lines) == error


def test_an_approval_says_who_was_asked_and_who_answered() -> None:
    gate = reading.gates(records(WAITING))["a2"]

    approval = reading.approval(APPROVED, 42, gate, reading.environment(APPROVED, gate.stage, {"prod": "production"}))

    assert (approval.stage, approval.attempt, approval.environment) == ("prod", 1, "production")
    assert approval.state is ApprovalState.APPROVED
    assert approval.decided is not None
    assert (approval.decided.actual, approval.decided.comment) == (Person(GRACE.name, GRACE.email, GRACE.oid), "Good numbers.")
    assert reading.owner(APPROVED) == 42
    assert reading.owner({"pipeline": {"owner": {"id": "42"}}}) == 42
    assert reading.owner({"id": "a2"}) is None


def test_statuses_of_approvals_that_are_no_answer() -> None:
    gate = reading.Gate("prod", 1)

    def state(status: str | None) -> ApprovalState:
        return reading.approval(APPROVAL | {"status": status}, 42, gate, "prod").state

    assert [state(status) for status in ("uninitiated", "timedOut", "deferred", "canceled", "somethingNew", None)] == [
        ApprovalState.PENDING,
        ApprovalState.TIMED_OUT,
        ApprovalState.DEFERRED,
        ApprovalState.CANCELED,
        ApprovalState.CANCELED,
        ApprovalState.PENDING,
    ]


def test_an_approval_of_an_earlier_attempt_keeps_its_number() -> None:
    timeline = [
        record("Stage", "s", None, "pending", identifier="prod", attempt=2),
        record("Checkpoint", "c1", "s", "completed", "failed"),
        record("Checkpoint.Approval", "old", "c1", "completed", "failed"),
        record("Checkpoint", "c2", "s", "inProgress", attempt=2),
        record("Checkpoint.Approval", "new", "c2", "inProgress"),
        record("Checkpoint.Approval", "beside", "c2", "inProgress"),
    ]

    assert reading.gates(records(timeline)) == {
        "old": reading.Gate("prod", 1),
        "new": reading.Gate("prod", 2),
        "beside": reading.Gate("prod", 2),
    }


def packed(files: Mapping[str, bytes]) -> bytes:
    """A zip of these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_an_artifact_is_unpacked_by_the_paths_inside_it() -> None:
    found = reading.files(packed({"evaluation/evaluation.json": b"{}", "evaluation/charts/a.png": b"p", "evaluation/": b""}), "evaluation")

    assert found == {"evaluation.json": b"{}", "charts/a.png": b"p"}


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b", "a\\..\\b", "C:/x"])
def test_an_artifact_that_reaches_outside_its_folder_is_refused(path: str) -> None:
    with pytest.raises(Refused, match="outside its folder"):
        reading.files(packed({path: b"x"}), "evaluation")


def test_a_bomb_and_a_broken_zip_are_refused() -> None:
    with pytest.raises(Refused, match="bigger than 8 MiB"):
        reading.files(packed({"zeros": bytes(reading.ARTIFACT_BYTES + 1)}), "evaluation")
    with pytest.raises(Refused, match="1000 files"):
        reading.files(packed({str(n): b"" for n in range(1001)}), "evaluation")
    with pytest.raises(Refused, match="not a readable zip"):
        reading.files(b"<html>", "evaluation")


# --- the real SDK against a server of ours ---------------------------------------------------------------------------


LOCATIONS = (  # id, area, resource, route, resource version
    ("0cd358e1-9217-4d94-8269-1c1ee6f93dcf", "build", "Builds", "{project}/_apis/build/{resource}/{buildId}", 7),
    ("8baac422-4c6e-4de5-8532-db96d92acffa", "build", "Timeline", "{project}/_apis/{area}/builds/{buildId}/{resource}/{timelineId}", 2),
    ("35a80daf-7f30-45fc-86e8-6b813d9c90df", "build", "logs", "{project}/_apis/{area}/builds/{buildId}/{resource}/{logId}", 2),
    ("b8aac6c9-744b-46e1-88fc-3550969f9313", "build", "stages", "{project}/_apis/{area}/builds/{buildId}/{resource}/{stageRefName}", 1),
    ("1db06c96-014e-44e1-ac91-90b2d4b3e984", "build", "artifacts", "{project}/_apis/{area}/builds/{buildId}/{resource}", 5),
    ("00d9565f-ed9c-4a06-9a50-00e7896ccab4", "Location", "ConnectionData", "_apis/{resource}", 1),
    ("28010c54-d0c0-4c89-a5b0-1c9e188b9fb7", "IMS", "Identities", "_apis/{resource}/{identityId}", 1),
    ("603fe2ac-9723-48b9-88ad-09305aa6c6e1", "core", "projects", "_apis/{resource}/{*projectId}", 4),
    (
        "c2570c3b-5b3f-41b8-98bf-5407bfde8d58",
        "git",
        "commits",
        "{project}/_apis/{area}/repositories/{repositoryId}/{resource}/{commitId}",
        1,
    ),
    ("28e1305e-2afe-47bf-abaf-cbb0e6a91988", "pipelines", "pipelines", "{project}/_apis/{area}/{pipelineId}", 1),
    ("7859261e-d2e9-4a68-b820-a5d84cc5bb3d", "pipelines", "runs", "{project}/_apis/{area}/{pipelineId}/{resource}/{runId}", 1),
    ("37794717-f36f-4d78-b2bf-4dc30d0cfbcd", "approval", "approvals", "{project}/_apis/pipelines/{resource}/{approvalId}", 2),
    ("fc50d02a-849f-41fb-8af1-0a5216103269", "hooks", "subscriptions", "_apis/{area}/{resource}/{subscriptionId}", 1),
    ("cadb3810-d47d-4a3c-a234-fe5f3be50138", "test", "runs", "{project}/_apis/{area}/{resource}/{runId}", 3),
    ("4637d869-3a76-4468-8057-0bb02aa385cf", "test", "results", "{project}/_apis/{area}/runs/{runId}/{resource}/{testCaseResultId}", 6),
)


@dataclass
class Said:
    """One answer of the server; `drops` breaks the connection instead, `late` waits first, in seconds."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    drops: bool = False
    late: float = 0.0

    def response(self) -> web.Response:
        """As the service sends it."""
        if isinstance(self.body, bytes):
            return web.Response(body=self.body, status=self.status, headers=self.headers)
        if isinstance(self.body, str):
            return web.Response(text=self.body, status=self.status, headers=self.headers, content_type="text/html")
        return web.json_response(self.body, status=self.status, headers=self.headers)


def problem(status: int, key: str, message: str) -> Said:
    """An error in the service's shape."""
    body = {"$id": "1", "innerException": None, "message": message, "typeName": key, "typeKey": key, "errorCode": 0, "eventId": 3000}
    return Said(body, status)


def listed(*values: Any) -> Json:
    """A collection in the service's wrapper."""
    return {"count": len(values), "value": list(values)}


@dataclass
class Service:
    """Answers what the test lays down: `says` by method and path below `_apis/`; a list is used up, its last answer stays."""

    says: dict[str, Said | list[Said]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    queries: list[Mapping[str, str]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def hosts(self) -> Mapping[str, web.Application]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        return {"dev.azure.com": app, "vsrm.dev.azure.com": app, "vssps.dev.azure.com": app}

    def pages(self) -> Mapping[str, web.Application]:
        return {}

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(request.headers.get("Authorization", ""))
        path = request.path.lower().partition("/_apis")[2].strip("/")
        if request.method == "OPTIONS":
            said = self.says.get("OPTIONS", Said(listed(*(_location(*one) for one in LOCATIONS))))
            return (said if isinstance(said, Said) else said.pop(0)).response()
        what = f"{request.method} {path}"
        self.asked.append(what if request.host == "dev.azure.com" else f"{what} @{request.host}")
        self.queries.append(dict(request.query))
        if request.can_read_body:
            self.bodies.append(await request.json())
        known = self.says.get(what, problem(404, "NotFoundException", f"Nothing at {path}."))
        said = known if isinstance(known, Said) else known.pop(0) if len(known) > 1 else known[0]
        await asyncio.sleep(said.late)
        if said.drops:
            assert request.transport is not None
            request.transport.abort()
        return said.response()


def _location(id: str, area: str, resource: str, route: str, version: int) -> Json:
    return {
        "id": id,
        "area": area,
        "resourceName": resource,
        "routeTemplate": route,
        "resourceVersion": version,
        "minVersion": "1.0",
        "maxVersion": "7.2",
        "releasedVersion": "7.1",
    }


@pytest.fixture
async def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """The server, and this process pointed at it by its environment, as a production process would be."""
    service = Service()
    async with sandbox(tmp_path / "world", lambda _: service) as world:
        point_at(world, monkeypatch)
        yield service
        assert world.proxy is not None
        assert world.proxy.refused == []


def point_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment of a production process says; the SDK reads it with every request."""
    for name in ("HTTP_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy(world))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(world.authority.ca))


@pytest.fixture
async def azure(service: Service, tmp_path: Path) -> AsyncIterator[AzureDevOps]:
    """The edge, with a token that is new each time."""
    edge = edge_of(tmp_path)
    yield edge
    await edge.close()


def edge_of(folder: Path, timeout: float = 15.0) -> AzureDevOps:
    """An edge whose SDK remembers no routes of another server."""
    counter = iter(range(10**6))
    edge = AzureDevOps(
        ORGANIZATION,
        PROJECT,
        token=lambda: f"token-{next(counter)}",
        cache=folder / "cache",
        environments={"prod": "prod"},
        now=lambda: datetime(2026, 11, 23, tzinfo=UTC),
        timeout=timeout,
    )
    Client._locations_cache.clear()
    OPTIONS_CACHE.file_name = ""
    OPTIONS_CACHE.data = {}
    return edge


async def test_a_run_is_read_from_build_timeline_and_commit_and_the_commit_only_once(azure: AzureDevOps, service: Service) -> None:
    service.says = {
        "GET build/builds/42": Said(build()),
        "GET build/builds/42/timeline": Said({"records": WAITING}),
        f"GET git/repositories/{REPOSITORY_ID}/commits/{SHA}": Said(
            {"comment": "Try it", "committer": {"name": "Ada", "email": "ada@contoso.example", "date": "2026-11-23T08:00:00Z"}}
        ),
    }

    run = await azure.run(42)
    again = await azure.run(42)

    assert run == again
    assert (run.state, run.committer, run.commit_message) == (State.WAITING, Person("Ada", "ada@contoso.example"), "Try it")
    assert sorted(service.asked[:3]) == sorted(service.says)
    assert len(service.asked) == 5
    assert len(set(service.tokens)) == len(service.tokens)


async def test_parameters_that_the_build_leaves_out_come_from_the_pipelines_api_once(azure: AzureDevOps, service: Service) -> None:
    service.says = {
        "GET build/builds/42": Said(build(templateParameters=None, repository=None)),
        "GET build/builds/42/timeline": Said(None, status=204),
        "GET pipelines/1/runs/42": Said({"id": 42, "name": "20261123.1", "templateParameters": {"model": "diabetes", "rows": 30}}),
    }

    run = await azure.run(42)
    await azure.run(42)

    assert run.parameters == {"model": "diabetes", "rows": "30"}
    assert run.stages == ()
    assert service.asked.count("GET pipelines/1/runs/42") == 1


async def test_a_rejection_is_told_from_a_time_out_by_the_approval_itself(azure: AzureDevOps, service: Service) -> None:
    service.says = {
        "GET build/builds/42": Said(build(status="completed", result="failed", repository=None)),
        "GET build/builds/42/timeline": Said({"records": REJECTED}),
        "GET pipelines/approvals": Said(listed(APPROVED | {"status": "rejected"})),
    }

    run = await azure.run(42)

    assert (run.state, run.stages[1].state) == (State.REJECTED, State.REJECTED)
    assert service.queries[-1]["approvalIds"] == "a2"


async def test_a_run_that_does_not_exist_is_gone(azure: AzureDevOps, service: Service) -> None:
    service.says = {"GET build/builds/42": problem(404, "BuildNotFoundException", "The requested build 42 could not be found.")}

    with pytest.raises(Gone, match=r"Run 42 does not exist\."):
        await azure.run(42)


async def test_recent_runs_are_asked_for_newest_first(azure: AzureDevOps, service: Service) -> None:
    service.says = {"GET build/builds": Said(listed(build(id=43), build()))}

    runs = await azure.recent(1, datetime(2026, 11, 23, 8, tzinfo=UTC))

    assert [run.id for run in runs] == [43, 42]
    assert service.queries[-1]["definitions"] == "1"
    assert service.queries[-1]["minTime"].startswith("2026-11-23T08:00:00")
    assert service.queries[-1]["queryOrder"] == "queueTimeDescending"


async def test_a_started_run_is_found_by_its_token(azure: AzureDevOps, service: Service) -> None:
    service.says = {
        "GET build/builds": Said(listed(build(id=43, templateParameters=None), build())),
        "GET pipelines/1/runs/43": Said({"id": 43, "templateParameters": {"requestId": "other"}}),
    }
    since = datetime(2026, 11, 23, 9, tzinfo=UTC)

    found = await azure.started(1, "t-1", since)
    missing = await azure.started(1, "t-2", since)

    assert found is not None
    assert found.id == 42
    assert missing is None
    asked = datetime.fromisoformat(service.queries[0]["minTime"])
    assert asked == since - timedelta(minutes=5)


async def test_starting_a_run_sends_the_token_inside_it(azure: AzureDevOps, service: Service) -> None:
    service.says = {
        "POST pipelines/1/runs": Said(
            {
                "id": 44,
                "name": "20261123.3",
                "state": "inProgress",
                "createdDate": "2026-11-23T09:00:00Z",
                "pipeline": {"id": 1, "name": "diabetes"},
            }
        )
    }

    run = await azure.start(Order(1, "refs/heads/main", "t-9", {"model": "diabetes"}))

    assert service.bodies == [
        {
            "templateParameters": {"model": "diabetes", "requestId": "t-9"},
            "resources": {"repositories": {"self": {"refName": "refs/heads/main"}}},
        }
    ]
    assert (run.id, run.state, run.parameters["requestId"]) == (44, State.RUNNING, "t-9")


async def test_retrying_a_stage_names_it_as_the_yaml_does(azure: AzureDevOps, service: Service) -> None:
    service.says = {"PATCH build/builds/42/stages/evaluate": Said(b"")}

    await azure.retry(42, "evaluate")

    assert service.bodies == [{"state": "retry", "forceRetryAllJobs": False}]


async def test_a_failure_names_the_step_its_error_its_log_and_its_tests(azure: AzureDevOps, service: Service) -> None:
    service.says = {
        "GET build/builds/42": Said(build(status="completed", result="failed")),
        "GET build/builds/42/timeline": Said({"records": FAILED}),
        "GET build/builds/42/logs": Said(listed({"id": 5, "lineCount": 3}, {"id": 6, "lineCount": 1035})),
        "GET build/builds/42/logs/6": Said(listed(*LOG)),
        "GET test/runs": Said(listed({"id": 7})),
        "GET test/runs/7/results": Said(listed({"automatedTestName": "test_rows", "errorMessage": "assert 0 > 0", "outcome": "Failed"})),
    }

    failure = await azure.failure(a_run(build(), []))

    assert failure is not None
    assert (failure.stage, failure.job, failure.step) == ("evaluate", "Evaluate on the hold-out", "Score the candidates")
    assert failure.error == "ValueError: the hold-out set is empty"
    assert failure.tail == reading.plain(LOG)
    assert failure.tail[-1] == "##[error]Bash exited with code '1'."
    assert failure.tests == (FailedTest("test_rows", "assert 0 > 0"),)
    assert failure.log_url == RUN_PAGE + "&view=logs&j=s2-job&t=t2"
    lines = next(query for asked, query in zip(service.asked, service.queries, strict=True) if asked.endswith("logs/6"))
    assert lines == {"startLine": "836", "endLine": "1035"}
    results = next(query for asked, query in zip(service.asked, service.queries, strict=True) if asked.endswith("results"))
    assert results == {"outcomes": "Failed", "$top": "10"}


async def test_a_failure_without_log_or_tests_still_says_where(azure: AzureDevOps, service: Service) -> None:
    service.says = {"GET build/builds/42": Said(build()), "GET build/builds/42/timeline": Said({"records": FAILED})}

    failure = await azure.failure(a_run(build(), []))

    assert failure is not None
    assert (failure.step, failure.error, failure.tail, failure.tests) == ("Score the candidates", "Bash exited with code '1'.", (), ())


async def test_a_refused_yaml_is_the_reason_of_a_run_without_jobs(azure: AzureDevOps, service: Service) -> None:
    refused = [{"result": "error", "message": "/azure-pipelines.yml: Unexpected value 'stagez'"}]
    service.says = {"GET build/builds/42": Said(build(status="completed", result="failed", validationResults=refused))}

    failure = await azure.failure(a_run(build(), []))

    assert failure is not None
    assert failure.error == "/azure-pipelines.yml: Unexpected value 'stagez'"


async def test_a_good_run_has_no_failure(azure: AzureDevOps, service: Service) -> None:
    service.says = {"GET build/builds/42": Said(build()), "GET build/builds/42/timeline": Said({"records": DONE})}

    assert await azure.failure(a_run(build(), [])) is None


async def test_an_artifact_is_read_and_a_missing_one_is_empty(azure: AzureDevOps, service: Service) -> None:
    service.says = {
        "GET build/builds/42/artifacts": [
            problem(404, "ArtifactNotFoundException", "Artifact evaluation was not found for build 42."),
            Said(packed({"evaluation/evaluation.json": b"{}"})),
            Said(bytes(reading.ARTIFACT_BYTES + 1)),
            problem(404, "BuildNotFoundException", "The requested build 42 could not be found."),
        ]
    }

    assert await azure.artifact(42, "evaluation") == {}
    assert await azure.artifact(42, "evaluation") == {"evaluation.json": b"{}"}
    with pytest.raises(Refused, match="bigger than 8 MiB"):
        await azure.artifact(42, "evaluation")
    with pytest.raises(Gone):
        await azure.artifact(42, "evaluation")


async def test_approvals_of_a_run_and_of_the_project_know_their_stage(azure: AzureDevOps, service: Service) -> None:
    orphan = APPROVAL | {"id": "a9", "pipeline": None}
    service.says = {
        "GET build/builds/42/timeline": Said({"records": WAITING}),
        "GET pipelines/approvals": Said(listed(APPROVAL, orphan)),
    }

    of_run = await azure.approvals(a_run(build(), []))
    of_project = await azure.pending_approvals()

    assert of_run == of_project
    assert [(one.id, one.run_id, one.stage, one.environment, one.minimum) for one in of_run] == [("a2", 42, "prod", "prod", 1)]
    assert service.queries[1] == {"approvalIds": "a2", "$expand": "steps,permissions"}
    assert service.queries[2] == {"state": "pending", "$expand": "steps,permissions"}


async def test_an_approval_that_the_timeline_does_not_name_belongs_to_the_stage_that_waits(azure: AzureDevOps, service: Service) -> None:
    other = APPROVAL | {"id": "b1", "pipeline": {"owner": {"id": 43}}}
    service.says = {
        "GET build/builds/42/timeline": Said({"records": WAITING}),
        "GET build/builds/43/timeline": Said({"records": DONE}),
        "GET pipelines/approvals": [problem(404, "X", "a2?"), Said(listed(APPROVAL | {"id": "x7"}, other))],
    }

    of_run = await azure.approvals(a_run(build(), []))
    of_project = await azure.pending_approvals()

    assert [(one.id, one.run_id, one.stage) for one in of_run] == [("x7", 42, "prod")]
    assert of_project == of_run


async def test_a_run_without_parameters_anywhere_has_none(azure: AzureDevOps, service: Service) -> None:
    service.says = {"GET build/builds/42": Said(build(templateParameters={}, repository=None))}

    assert (await azure.run(42)).parameters == {}


I_AM_GRACE = Said(
    {"authenticatedUser": {"id": GRACE.oid, "providerDisplayName": GRACE.name, "properties": {"Account": {"$value": GRACE.email}}}}
)
PENDING = Approval(
    "a2",
    42,
    "prod",
    1,
    "prod",
    ApprovalState.PENDING,
    datetime(2026, 11, 23, 9, 5, tzinfo=UTC),
    (ApprovalStep(Person(GRACE.name, GRACE.email, GRACE.oid), ApprovalState.PENDING),),
)


async def test_an_answer_goes_out_and_what_the_service_then_says_comes_back(azure: AzureDevOps, service: Service) -> None:
    service.says = {"GET connectiondata": I_AM_GRACE, "PATCH pipelines/approvals": Said(listed(APPROVED))}

    after = await azure.decide(PENDING, Answer.APPROVE, "Good numbers.")

    assert service.bodies == [[{"approvalId": "a2", "status": "approved", "comment": "Good numbers."}]]
    assert after.state is ApprovalState.APPROVED
    assert after.decided is not None
    assert after.decided.actual == Person(GRACE.name, GRACE.email, GRACE.oid)


async def test_an_answer_that_changes_nothing_is_refused_although_the_service_says_200(azure: AzureDevOps, service: Service) -> None:
    service.says = {"GET connectiondata": I_AM_GRACE, "PATCH pipelines/approvals": [Said(listed(APPROVAL)), Said(listed())]}

    with pytest.raises(Refused, match="did not accept"):
        await azure.decide(PENDING, Answer.APPROVE, "")
    with pytest.raises(Gone):
        await azure.decide(PENDING, Answer.APPROVE, "")


async def test_an_answer_that_is_recorded_as_somebody_elses_did_not_take(azure: AzureDevOps, service: Service) -> None:
    service.says = {
        "GET connectiondata": Said({"authenticatedUser": {"id": ADA.oid, "providerDisplayName": ADA.name}}),
        "PATCH pipelines/approvals": Said(listed(APPROVED)),
    }

    with pytest.raises(Refused, match="did not record this as your answer"):
        await azure.decide(PENDING, Answer.APPROVE, "Good numbers.")


def test_somebody_elses_no_does_not_turn_a_yes_of_ones_own_into_a_no() -> None:
    grace, ada, at = Person(GRACE.name, GRACE.email, GRACE.oid), Person(ADA.name, ADA.email, ADA.oid), PENDING.created
    yes, no = ApprovalStep(grace, ApprovalState.APPROVED, grace, at=at), ApprovalStep(ada, ApprovalState.REJECTED, ada, at=at)
    after = replace(PENDING, state=ApprovalState.REJECTED, steps=(yes, no))

    assert reading.proved(PENDING, after, Answer.REJECT, ada) is after
    with pytest.raises(Refused, match="did not record this as your answer"):
        reading.proved(PENDING, after, Answer.REJECT, grace)


async def test_a_conflict_says_that_somebody_was_faster(azure: AzureDevOps, service: Service) -> None:
    conflict = problem(409, "ConcurrentUpdateException", "The item was changed.")
    service.says = {"GET connectiondata": I_AM_GRACE, "PATCH pipelines/approvals": conflict}

    with pytest.raises(Refused, match=r"Somebody changed this at the same moment\..*The item was changed\."):
        await azure.decide(PENDING, Answer.APPROVE, "")


async def test_no_cookie_is_kept_for_anybody(azure: AzureDevOps, service: Service) -> None:
    service.says = {"GET connectiondata": Said(I_AM_GRACE.body, headers={"Set-Cookie": "UserAuthentication=grace; Path=/; Secure"})}

    await azure.acting(lambda: "grace").me()
    await azure.acting(lambda: "ada").me()

    assert azure._wire._sessions
    assert [list(session.cookies) for session in azure._wire._sessions if len(session.cookies)] == []


async def test_each_identity_has_a_pace_of_its_own(azure: AzureDevOps, service: Service) -> None:
    busy = problem(429, "TF400733", "The request has been canceled.")
    service.says = {"GET connectiondata": [Said(busy.body, 429, {"Retry-After": "120"}), I_AM_GRACE]}
    ada, grace = azure.acting(lambda: "ada"), azure.acting(lambda: "grace")

    for _ in range(2):
        with pytest.raises(NotNow):
            await ada.me()
    await grace.me()
    await azure.me()

    assert service.asked == ["GET connectiondata"] * 3


async def test_subscriptions_are_only_ever_read_as_the_bot(azure: AzureDevOps, service: Service) -> None:
    service.says = {"GET hooks/subscriptions": Said(listed())}

    await azure.acting(lambda: "ada").hooks.list(releases=False)

    assert all(token.startswith("Bearer token-") for token in service.tokens)


async def test_what_a_person_may_not_see_is_not_hidden_from_the_bot(azure: AzureDevOps, service: Service) -> None:
    build = {"id": 42, "buildNumber": "42", "status": "completed", "result": "succeeded", "definition": {"id": 1, "name": "delivery"}}
    answer = {"id": 42, "name": "42", "state": "completed", "templateParameters": {"requestId": "token"}}
    service.says = {
        "GET build/builds": Said(listed(build)),
        "GET pipelines/1/runs/42": [problem(403, "AccessDeniedException", "No."), Said(answer)],
    }
    since = datetime(2026, 11, 23, tzinfo=UTC)

    assert await azure.acting(lambda: "ada").started(1, "token", since) is None
    assert await azure.started(1, "token", since) is not None


async def test_what_the_service_ignores_is_neither_deferred_nor_handed_over(azure: AzureDevOps, service: Service) -> None:
    service.says = {"GET connectiondata": I_AM_GRACE, "PATCH pipelines/approvals": Said(listed(APPROVAL))}

    with pytest.raises(Refused, match="did not record this as your approval for later"):
        await azure.defer(PENDING, datetime(2026, 11, 23, 18, tzinfo=UTC), "Later.")
    with pytest.raises(Refused, match="did not hand it over"):
        await azure.reassign(PENDING, Person(ADA.name, ADA.email, ADA.oid), "You.")
    assert service.bodies[0] == [{"approvalId": "a2", "status": "deferred", "deferredTo": "2026-11-23T18:00:00Z", "comment": "Later."}]
    assert service.bodies[1][0]["assignedApprover"] == {"id": GRACE.oid}


async def test_one_of_two_approvers_is_an_accepted_answer(azure: AzureDevOps, service: Service) -> None:
    service.says = {"GET connectiondata": I_AM_GRACE, "PATCH pipelines/approvals": Said(listed(APPROVED | {"status": "pending"}))}

    after = await azure.decide(PENDING, Answer.APPROVE, "Good numbers.")

    assert after.state is ApprovalState.PENDING


# --- what goes wrong ---------------------------------------------------------------------------------------------------


SIGN_IN = Said("<html>Sign in</html>", 203)


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (problem(404, "X", "There is none."), Gone, "does not exist"),
        (problem(400, "BuildNotFoundException", "There is none."), Gone, "does not exist"),
        (problem(400, "X", "TF123: The branch is wrong.\nat System.Web"), Refused, r"^TF123: The branch is wrong\.$"),
        (problem(403, "X", "TF401: Ada needs Queue builds."), Refused, "needs Queue builds"),
        (problem(401, "X", "no"), NotNow, "identity"),
        (SIGN_IN, NotNow, "identity"),
        (Said(b"not json", headers={"Content-Type": "application/json"}), NotNow, "cannot be read"),
    ],
)
async def test_a_refused_read_says_what_can_be_done(
    said: Said, error: type[Exception], words: str, azure: AzureDevOps, service: Service
) -> None:
    service.says = {"GET build/builds/42": said, "GET build/builds/42/timeline": Said({"records": []})}

    with pytest.raises(error, match=words) as raised:
        await azure.run(42)

    assert "token" not in str(raised.value)


async def test_a_read_is_tried_once_more_where_the_service_has_trouble(azure: AzureDevOps, service: Service) -> None:
    service.says = {"GET build/builds": [Said(None, 503), Said(listed(build()))]}

    assert len(await azure.recent(1, datetime(2026, 11, 23, tzinfo=UTC))) == 1

    service.says = {"GET build/builds": Said({"message": "busy"}, 503)}
    with pytest.raises(NotNow, match="trouble"):
        await azure.recent(1, datetime(2026, 11, 23, tzinfo=UTC))
    assert len(service.asked) == 4


async def test_a_lost_read_is_tried_once_more(azure: AzureDevOps, service: Service) -> None:
    service.says = {"GET build/builds": [Said(drops=True), Said(listed(build()))]}

    assert len(await azure.recent(1, datetime(2026, 11, 23, tzinfo=UTC))) == 1

    service.says = {"GET build/builds": Said(drops=True)}
    with pytest.raises(NotNow, match="cannot be reached"):
        await azure.recent(1, datetime(2026, 11, 23, tzinfo=UTC))


ORDER = Order(1, "refs/heads/main", "t-9", {"model": "diabetes"})


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (Said(drops=True), Uncertain),
        (Said({"message": "busy"}, 503), Uncertain),
        (Said({"message": "oops"}, 500), Uncertain),
        (Said(b"not json", headers={"Content-Type": "application/json"}), Uncertain),
        (problem(429, "TF400733", "slow down"), NotNow),
        (problem(401, "X", "no"), NotNow),
        (SIGN_IN, NotNow),
        (problem(400, "PipelineValidationException", "Unexpected parameter 'rows'"), Refused),
    ],
)
async def test_a_write_goes_out_once_whatever_comes_back(said: Said, error: type[Exception], azure: AzureDevOps, service: Service) -> None:
    service.says = {"POST pipelines/1/runs": said}

    with pytest.raises(error):
        await azure.start(ORDER)

    assert service.asked == ["POST pipelines/1/runs"]


async def test_a_write_that_is_not_answered_in_time_is_uncertain_and_a_read_is_not_now(service: Service, tmp_path: Path) -> None:
    service.says = {"POST pipelines/1/runs": Said({}, late=0.6), "GET build/builds": Said({}, late=0.6)}
    edge = edge_of(tmp_path, timeout=0.2)

    with pytest.raises(Uncertain):
        await edge.start(ORDER)
    with pytest.raises(NotNow):
        await edge.recent(1, datetime(2026, 11, 23, tzinfo=UTC))

    await edge.close()


async def test_a_write_that_waited_too_long_for_its_token_is_not_sent_after_all(service: Service, tmp_path: Path) -> None:
    asked, given = threading.Event(), threading.Event()

    def token() -> str:
        asked.set()
        given.wait(10)
        return "late"

    edge_of(tmp_path)
    edge = AzureDevOps(ORGANIZATION, PROJECT, token=token, cache=tmp_path)
    impatient = asyncio.create_task(edge.start(ORDER))
    await asyncio.to_thread(asked.wait, 10)
    impatient.cancel()
    await asyncio.wait({impatient})

    given.set()
    await asyncio.to_thread(edge._wire._pool.shutdown)

    assert service.tokens == []


async def test_a_closed_edge_asks_nothing(azure: AzureDevOps, service: Service) -> None:
    await azure.close()

    with pytest.raises(NotNow, match="stops"):
        await azure.start(ORDER)

    assert service.asked == []


async def test_a_write_that_never_left_is_not_uncertain(azure: AzureDevOps, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.says = {"GET build/builds": Said(listed())}
    await azure.recent(1, datetime(2026, 11, 23, tzinfo=UTC))  # the routes are known now
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")

    with pytest.raises(NotNow, match="cannot be reached"):
        await azure.start(ORDER)


async def test_a_write_whose_routes_cannot_be_found_out_is_not_uncertain(azure: AzureDevOps, service: Service) -> None:
    service.says = {"OPTIONS": Said({"message": "busy"}, 503)}

    with pytest.raises(NotNow):
        await azure.start(ORDER)

    assert service.asked == []


async def test_what_the_service_does_not_offer_is_refused(azure: AzureDevOps, service: Service) -> None:
    service.says = {"OPTIONS": Said(listed())}

    with pytest.raises(Refused, match="does not offer"):
        await azure.recent(1, datetime(2026, 11, 23, tzinfo=UTC))


async def test_a_request_to_slow_down_holds_all_further_calls_back(azure: AzureDevOps, service: Service) -> None:
    busy = problem(429, "TF400733", "The request has been canceled: Request was blocked due to exceeding usage of resource.")
    service.says = {"GET build/builds": Said(busy.body, 429, {"Retry-After": "120"})}

    with pytest.raises(NotNow) as first:
        await azure.recent(1, datetime(2026, 11, 23, tzinfo=UTC))
    with pytest.raises(NotNow) as second:
        await azure.start(ORDER)

    assert first.value.after == 120
    assert second.value.after is not None
    assert 100 < second.value.after <= 120
    assert service.asked == ["GET build/builds"]


def test_the_pace_follows_what_good_answers_say_too() -> None:
    now = 1000.0
    pace = Pace(lambda: now)

    assert pace.left() == 0
    pace.heed({"Retry-After": "3"})
    assert pace.left() == 3
    pace.heed({"X-RateLimit-Remaining": "120", "X-RateLimit-Reset": "1060"})
    assert pace.left() == 3
    pace.heed({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1010"})
    assert pace.left() == 10
    pace.heed({"Retry-After": "99999"})
    assert pace.left() == LONGEST_PAUSE
    pace.heed({"Retry-After": "Mon, 23 Nov 2026 10:00:00 GMT"})
    now += LONGEST_PAUSE
    assert pace.left() == 0


async def test_a_netrc_entry_does_not_replace_the_token(
    azure: AzureDevOps, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine dev.azure.com login me password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    service.says = {"GET build/builds": Said(listed())}

    await azure.recent(1, datetime(2026, 11, 23, tzinfo=UTC))

    assert all(token.startswith("Bearer token-") for token in service.tokens)


async def test_the_bot_without_an_identity_asks_for_nothing(service: Service, tmp_path: Path) -> None:
    def nobody() -> str:
        raise NotNow("Callboard could not sign in to Azure.")

    edge = AzureDevOps(ORGANIZATION, PROJECT, token=nobody, cache=tmp_path)

    with pytest.raises(NotNow, match="sign in"):
        await edge.start(ORDER)

    assert service.tokens == []
    await edge.close()


# --- subscriptions -----------------------------------------------------------------------------------------------------


async def test_subscriptions_are_kept_on_the_host_of_their_publisher(azure: AzureDevOps, service: Service) -> None:
    known = {
        "id": "s-1",
        "status": "onProbation",
        "publisherId": "pipelines",
        "eventType": "ms.vss-pipelines.run-state-changed-event",
        "resourceVersion": "5.1-preview.1",
        "consumerId": "webHooks",
        "consumerActionId": "httpRequest",
        "publisherInputs": {"projectId": PROJECT_ID, "pipelineId": "1", "tfsSubscriptionId": "x"},
        "consumerInputs": {"url": "https://bot/hooks/azure-devops", "basicAuthPassword": "********"},
    }
    service.says = {
        "GET hooks/subscriptions": Said(listed(known)),
        "POST hooks/subscriptions": Said(known),
        "PUT hooks/subscriptions/s-1": Said(known),
        "DELETE hooks/subscriptions/s-1": Said(None, 204),
        f"GET projects/{PROJECT}": Said({"id": PROJECT_ID, "name": PROJECT}),
        "GET pipelines/1": Said({"id": 1, "name": "diabetes"}),
    }
    release = Subscription("rm", "ms.vss-release.deployment-started-event", "3.0-preview.1", {"releaseDefinitionId": "3"}, {"url": "u"})

    found = await azure.hooks.list(releases=True)
    await azure.hooks.create(release)
    await azure.hooks.replace("s-1", found[0])
    await azure.hooks.remove(found[0])

    assert [(one.id, one.status, one.inputs["pipelineId"]) for one in found] == [("s-1", "onProbation", "1")]
    assert service.asked == [
        "GET hooks/subscriptions",
        "GET hooks/subscriptions @vsrm.dev.azure.com",
        "POST hooks/subscriptions @vsrm.dev.azure.com",
        "PUT hooks/subscriptions/s-1",
        "DELETE hooks/subscriptions/s-1",
    ]
    assert service.bodies[0]["publisherInputs"] == {"releaseDefinitionId": "3"}
    assert service.bodies[1]["status"] == "enabled"
    assert await azure.hooks.project_id() == PROJECT_ID
    assert await azure.hooks.pipeline_name(1) == "diabetes"


# --- the real SDK against the sandbox's Azure DevOps, which refuses what the service refuses -----------------------------


PIPELINE = """
name: $(Date:yyyyMMdd).$(Rev:r)
trigger: none
parameters:
  - { name: model, type: string, default: diabetes }
  - { name: requestId, type: string, default: none }
  - { name: breaks, type: string, default: "no" }
stages:
  - stage: train
    displayName: Train
    jobs:
      - job: main
        displayName: Fit the candidates
        steps:
          - checkout: none
          - script: |
              mkdir -p out && echo '{}' > out/evaluation.json
              cat > results.xml <<'XML'
              <testsuite tests="1" failures="1"><testcase classname="test_data" name="test_rows" time="0.1">
              <failure message="assert 0 &gt; 0">why</failure></testcase></testsuite>
              XML
            displayName: Prepare
          - task: PublishPipelineArtifact@1
            inputs: { targetPath: out, artifact: evaluation }
          - task: PublishTestResults@2
            inputs: { testResultsFormat: JUnit, testResultsFiles: results.xml }
          - ${{ if eq(parameters.breaks, 'yes') }}:
              - script: |
                  for n in $(seq 30); do echo "row $n"; done
                  echo "ValueError: the hold-out set is empty" >&2
                  exit 3
                displayName: Score the candidates
  - stage: prod
    displayName: Prod - Deploy on AKS
    dependsOn: train
    jobs:
      - deployment: deploy
        environment: prod
        strategy:
          runOnce:
            deploy:
              steps:
                - script: echo deployed
"""


@pytest.fixture
async def organisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """The sandbox's Azure DevOps with a pipeline of two short stages, and this process pointed at it."""
    file = tmp_path / "root" / "deploy" / "pipelines" / "azure-pipelines.yml"
    file.parent.mkdir(parents=True)
    file.write_text(PIPELINE)
    async with sandbox(tmp_path / "world", LocalAzureDevOps, root=tmp_path / "root") as world:
        point_at(world, monkeypatch)
        yield world
        assert world.proxy is not None
        assert world.proxy.refused == []


async def as_somebody(world: World, who: Character, folder: Path) -> AzureDevOps:
    """The edge under somebody's identity."""
    edge = edge_of(folder)
    await edge.close()
    return AzureDevOps(ORGANIZATION, PROJECT, token=lambda: world.tokens.issue(who, AZURE_DEVOPS), cache=folder / "cache")


async def until(azure: AzureDevOps, run_id: int, *states: State) -> Run:
    """The run once it is in one of these states."""
    async with asyncio.timeout(60):
        while True:
            run = await azure.run(run_id)
            if run.state in states:
                return run
            await asyncio.sleep(0.1)


async def test_a_run_is_started_waits_is_approved_and_delivers(organisation: World, tmp_path: Path) -> None:
    azure = await as_somebody(organisation, BOT, tmp_path)
    began = datetime.now(UTC)

    queued = await azure.start(ORDER)
    assert await azure.artifact(queued.id, "later") == {}
    run = await until(azure, queued.id, State.WAITING)

    assert (run.number, run.pipeline, run.parameters) == (queued.number, "diabetes", {"model": "diabetes", "requestId": "t-9"})
    assert [(stage.name, stage.title, stage.state) for stage in run.stages] == [
        ("train", "Train", State.SUCCEEDED),
        ("prod", "Prod - Deploy on AKS", State.WAITING),
    ]
    assert "Prepare" in [step.name for step in run.stages[0].jobs[0].steps]
    assert run.requested_for == Person(BOT.name, BOT.oid, BOT.oid)
    assert run.committer == Person(ADA.name, ADA.email)
    assert await azure.artifact(run.id, "evaluation") == {"evaluation.json": b"{}\n"}
    assert [one.id for one in await azure.recent(1, began - timedelta(minutes=1))] == [run.id]
    found = await azure.started(1, "t-9", began)
    assert found is not None
    assert found.id == run.id

    (approval,) = await azure.approvals(run)
    assert await azure.pending_approvals() == (approval,)
    assert (approval.stage, approval.attempt, approval.state) == ("prod", 1, ApprovalState.PENDING)
    assert Person(GRACE.name, GRACE.email, GRACE.oid) in [step.assigned for step in approval.steps]
    grace = await as_somebody(organisation, GRACE, tmp_path)
    decided = await grace.decide(approval, Answer.APPROVE, "Good numbers.")
    assert decided.decided is not None
    assert (decided.decided.actual, decided.decided.comment) == (Person(GRACE.name, GRACE.email, GRACE.oid), "Good numbers.")
    with pytest.raises(Refused, match="already completed"):
        await grace.decide(approval, Answer.APPROVE, "Again.")

    done = await until(azure, run.id, State.SUCCEEDED, State.FAILED)
    assert done.state is State.SUCCEEDED
    assert await azure.pending_approvals() == ()
    assert await azure.failure(done) is None
    with pytest.raises(Refused):
        await azure.retry(done.id, "train")
    await azure.close()
    await grace.close()


async def test_somebody_who_is_no_approver_is_refused_and_an_approver_may_say_no(organisation: World, tmp_path: Path) -> None:
    azure = await as_somebody(organisation, BOT, tmp_path)
    run = await until(azure, (await azure.start(ORDER)).id, State.WAITING)
    (approval,) = await azure.approvals(run)
    ada = await as_somebody(organisation, ADA, tmp_path)

    with pytest.raises(Refused, match="not an approver"):
        await ada.decide(approval, Answer.APPROVE, "")
    grace = azure.acting(lambda: organisation.tokens.issue(GRACE, AZURE_DEVOPS, ("vso.build_execute",)))
    decided = await grace.decide(approval, Answer.REJECT, "Too slow.")

    assert decided.state is ApprovalState.REJECTED
    run = await until(azure, run.id, State.REJECTED, State.FAILED, State.CANCELED, State.SUCCEEDED)
    assert [stage.state for stage in run.stages] == [State.SUCCEEDED, State.REJECTED]
    assert run.state is State.REJECTED
    await azure.close()
    await ada.close()


async def test_a_broken_run_says_why_and_is_retried(organisation: World, tmp_path: Path) -> None:
    azure = await as_somebody(organisation, BOT, tmp_path)
    order = Order(1, "refs/heads/main", "t-10", {"model": "diabetes", "breaks": "yes"})
    run = await until(azure, (await azure.start(order)).id, State.FAILED)

    failure = await azure.failure(run)

    assert failure is not None
    assert (failure.stage, failure.job, failure.step) == ("train", "Fit the candidates", "Score the candidates")
    assert failure.error == "ValueError: the hold-out set is empty"
    assert len(failure.tail) >= 30
    assert failure.tail[-2:] == ("ValueError: the hold-out set is empty", "##[error]Bash exited with code '3'.")
    assert [(test.name, test.message) for test in failure.tests] == [("test_data.test_rows", "assert 0 > 0")]
    await azure.retry(run.id, "train")
    again = await until(azure, run.id, State.RUNNING, State.FAILED)
    assert again.stages[0].attempt == 2
    await azure.close()


async def test_a_lost_answer_is_uncertain_and_the_run_is_found_by_its_token(organisation: World, tmp_path: Path) -> None:
    azure = await as_somebody(organisation, BOT, tmp_path)
    began = datetime.now(UTC)
    assert await azure.started(1, "t-9", began) is None
    organisation.faults.arm("ado.lost_answer")

    with pytest.raises(Uncertain):
        await azure.start(ORDER)
    found = await azure.started(1, "t-9", began)

    assert found is not None
    assert [run.id for run in await azure.recent(1, began)] == [found.id]
    await azure.close()


@pytest.mark.parametrize(("fault", "error"), [("ado.429", NotNow), ("ado.html", NotNow)])
async def test_the_sandbox_misbehaves_as_the_service_does(fault: str, error: type[Exception], organisation: World, tmp_path: Path) -> None:
    azure = await as_somebody(organisation, BOT, tmp_path)
    organisation.faults.arm(fault)

    with pytest.raises(error):
        await azure.pending_approvals()

    await azure.close()


async def test_unknown_things_are_gone_and_bad_parameters_refused(organisation: World, tmp_path: Path) -> None:
    azure = await as_somebody(organisation, BOT, tmp_path)

    with pytest.raises(Gone):
        await azure.run(4711)
    with pytest.raises(Refused, match="colour"):
        await azure.start(Order(1, "refs/heads/main", "t-9", {"colour": "red"}))
    with pytest.raises(OutsideError):
        await azure.start(Order(1, "refs/heads/nowhere", "t-9", {}))

    await azure.close()


async def test_subscriptions_are_made_once_and_kept_in_repair(organisation: World, tmp_path: Path) -> None:
    azure = await as_somebody(organisation, BOT, tmp_path)
    receiver = hooks.Receiver("http://127.0.0.1:9", "azure-devops", "pass-word", "s3cret-header")
    team = replace(TEAM, models={name: model for name, model in TEAM.models.items() if model.pipeline_id == 1})

    first = await hooks.apply(azure.hooks, team, receiver)
    second = await hooks.apply(azure.hooks, team, receiver)
    renewed = await hooks.apply(azure.hooks, team, receiver, renew=True)

    assert [line.split()[0] for line in first] == ["created"] * len(hooks.PIPELINE_EVENTS)
    assert second == (f"fine     {len(first)} subscriptions",)
    assert [line.split()[0] for line in renewed] == ["repaired"] * len(first)
    await azure.close()
