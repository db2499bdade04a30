"""The edge to Azure Machine Learning: its worker process, the registry's tags, and MLflow's metrics."""

from __future__ import annotations

import asyncio
import math
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)

from bot import azure_ml, azure_ml_worker
from bot.azure_ml import AzureML
from bot.core.errors import Gone, NotNow, Refused
from sandbox.azure_ml.server import AzureML as LocalAzureML
from sandbox.names import AML_API, BOT, LOCATION, RESOURCE_GROUP, SUBSCRIPTION, WORKSPACE
from sandbox.world import World
from tests.sandboxes import proxy, sandbox, the, trust

pytestmark = pytest.mark.world

# Stands in for the worker: the same lines, without the SDK. What it does depends on the model it is asked for.
STAND_IN = """
import json, os, sys, time
if sys.argv[1] == "mute":
    time.sleep(60)
if sys.argv[1] == "broken":
    sys.exit(1)
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    question = json.loads(line)
    match question.get("model"):
        case "hang": time.sleep(60)
        case "crash": os._exit(3)
        case "endless": print("x" * (5 * 1024 * 1024), flush=True)
        case "half": print('{"versions": [', end="", flush=True); os._exit(0)
        case "gone": print(json.dumps({"error": "gone", "says": "There is no such workspace."}), flush=True)
        case "refused": print(json.dumps({"error": "refused", "says": "No role here."}), flush=True)
        case "busy": print(json.dumps({"error": "not now", "says": "Slow down.", "after": 9}), flush=True)
        case None: print(json.dumps({"tracking": sys.argv[3]}), flush=True)
        case model:
            version = {"name": model, "version": "1", "created": None, "tags": {"pid": str(os.getpid()), "where": " ".join(sys.argv[1:])}}
            print(json.dumps({"versions": [version]}), flush=True)
"""
TRACKING = f"azureml://{AML_API}/mlflow/v2.0/subscriptions/s/workspaces/w?"


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[AzureML]:
    """The edge with a stand-in for its worker."""
    async with aiohttp.ClientSession() as session:
        made = edge_of(session, tmp_path)
        yield made
        await made.close()


def edge_of(session: aiohttp.ClientSession, folder: Path, subscription: str = "sub", timeout: float = 10.0) -> AzureML:
    """An edge whose worker is the stand-in."""
    return AzureML(
        subscription,
        "group",
        TRACKING,
        token=lambda: "t0ken",
        session=session,
        logs=folder,
        timeout=timeout,
        start_timeout=timeout,
        command=(sys.executable, "-c", STAND_IN),
    )


# --- the worker --------------------------------------------------------------------------------------------------------


async def test_the_worker_starts_with_the_first_question_and_answers_further_ones(edge: AzureML) -> None:
    assert edge.worker.pid is None

    (first,) = await edge.versions("diabetes")
    (second,) = await edge.versions("diabetes")

    assert first == second
    assert first.tags["pid"] == str(edge.worker.pid)
    assert first.tags["where"] == f"sub group {TRACKING}"


async def test_questions_asked_at_the_same_time_get_their_own_answers(edge: AzureML) -> None:
    names = [f"model-{n}" for n in range(20)]

    answers = await asyncio.gather(*(edge.versions(name) for name in names))

    assert [one.name for (one,) in answers] == names


@pytest.mark.parametrize("model", ["crash", "endless", "half"])
async def test_a_worker_that_dies_or_babbles_is_started_again(model: str, edge: AzureML) -> None:
    (before,) = await edge.versions("diabetes")

    with pytest.raises(NotNow, match="started again"):
        await edge.versions(model)
    (after,) = await edge.versions("diabetes")

    assert before.tags["pid"] != after.tags["pid"]


async def test_a_worker_that_does_not_answer_in_time_is_killed(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        edge = edge_of(session, tmp_path, timeout=1.0)
        await edge.versions("diabetes")
        pid = edge.worker.pid
        assert pid is not None

        with pytest.raises(NotNow, match="in time"):
            await edge.versions("hang")

        assert edge.worker.pid is None
        assert not alive(pid)


@pytest.mark.parametrize(("subscription", "words"), [("mute", "in time"), ("broken", "died")])
async def test_a_worker_that_does_not_start_is_no_worker(subscription: str, words: str, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        edge = edge_of(session, tmp_path, subscription, timeout=1.0)

        with pytest.raises(NotNow, match=words):
            await edge.versions("diabetes")

        assert edge.worker.pid is None


async def test_who_stops_waiting_leaves_no_answer_for_the_next(edge: AzureML) -> None:
    await edge.versions("diabetes")
    impatient = asyncio.create_task(edge.versions("hang"))
    await asyncio.sleep(0.05)
    impatient.cancel()

    (answer,) = await edge.versions("diabetes")

    assert answer.name == "diabetes"


async def test_the_worker_ends_with_the_edge(edge: AzureML) -> None:
    await edge.versions("diabetes")
    pid = edge.worker.pid
    assert pid is not None

    await edge.close()

    assert not alive(pid)


async def test_what_the_service_refuses_keeps_its_meaning_and_the_worker(edge: AzureML) -> None:
    with pytest.raises(Gone, match="no such workspace"):
        await edge.versions("gone")
    pid = edge.worker.pid
    with pytest.raises(Refused, match="No role"):
        await edge.versions("refused")
    with pytest.raises(NotNow) as busy:
        await edge.versions("busy")

    assert busy.value.after == 9
    assert edge.worker.pid == pid


async def test_the_real_worker_leaves_when_the_bot_is_killed(tmp_path: Path) -> None:
    # A process in between stands for the bot: killed without a chance to clean up.
    bot = """
import subprocess, sys, time
command = [sys.executable, "-m", "bot.azure_ml_worker", "s", "g", "w"]
worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
print(worker.pid, worker.stdout.readline().decode(), end="", flush=True)
time.sleep(60)
"""
    with (tmp_path / "log").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", bot, stdout=asyncio.subprocess.PIPE, stderr=errors)
    assert process.stdout is not None
    pid, _, said = (await process.stdout.readline()).partition(b" ")
    worker = int(pid)
    assert said == b'{"ready": true}\n', (tmp_path / "log").read_text()
    assert alive(worker)

    process.send_signal(signal.SIGKILL)
    await process.wait()

    async with asyncio.timeout(30):
        while True:
            if not alive(worker):
                break
            await asyncio.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- the registry's answers --------------------------------------------------------------------------------------------


def test_a_version_is_read_from_its_tags() -> None:
    tags = {
        "stage": "champion",
        "algorithm": "ridge",
        "run_id": "happy_toe",
        "commit": "8f1c2d3",
        "metric.mae": "41.25",
        "metric.r2": "nan",
        "metric.note": "n/a",
        "mood": "good",
    }

    version = azure_ml.version({"name": "diabetes", "version": "3", "created": "2026-11-23T10:00:00+01:00", "tags": tags})

    assert (version.name, version.version, version.champion, version.algorithm) == ("diabetes", "3", True, "ridge")
    assert (version.run_id, version.commit, version.metrics) == ("happy_toe", "8f1c2d3", {"mae": 41.25})
    assert version.created == datetime(2026, 11, 23, 9, tzinfo=UTC)
    assert version.tags == tags


def test_a_version_without_tags_is_nobody() -> None:
    version = azure_ml.version({"name": "diabetes", "version": "1", "created": None, "tags": {}})

    assert (version.champion, version.run_id, version.commit, version.metrics, version.created) == (False, None, None, {}, None)


def test_metrics_that_are_no_numbers_are_left_out() -> None:
    listed = [
        {"key": "mae", "value": 41.2},
        {"key": "r2", "value": "NaN"},
        {"key": "rmse", "value": math.inf},
        {"key": "mape", "value": None},
    ]

    assert azure_ml.metrics({"run": {"data": {"metrics": listed}}}) == {"mae": 41.2}
    assert azure_ml.metrics({"run": {"data": {}}}) == {}
    with pytest.raises(NotNow):
        azure_ml.metrics({"error": "?"})


def test_the_tracking_address_is_https_whatever_scheme_the_workspace_says() -> None:
    assert azure_ml.rest_address("azureml://host/mlflow/v1.0/subscriptions/s?") == "https://host/mlflow/v1.0/subscriptions/s"
    assert azure_ml.rest_address("https://host/mlflow/v1.0/") == "https://host/mlflow/v1.0"


@dataclass
class Registry:
    """`MLClient` as far as the worker uses it."""

    error: Exception | None = None
    workspace_name: str = "w"

    @property
    def models(self) -> Registry:
        return self

    @property
    def workspaces(self) -> Registry:
        return self

    def list(self, name: str) -> list[Any]:
        if self.error:
            raise self.error
        return []

    def get(self, name: str) -> Any:
        if self.error:
            raise self.error
        return self


def http_error(kind: type[HttpResponseError], status: int, headers: Mapping[str, str] | None = None) -> HttpResponseError:
    """What azure-core raises for a status."""
    error = kind(message="(UserError) The model name is wrong.\nCode: UserError")
    error.status_code = status
    error.response = SimpleNamespace(headers=headers or {})  # as much of a response as is read
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (http_error(HttpResponseError, 400), {"error": "refused", "says": "(UserError) The model name is wrong."}),
        (
            http_error(HttpResponseError, 429, {"Retry-After": "7"}),
            {"error": "not now", "says": "Azure Machine Learning has trouble.", "after": 7.0},
        ),
        (
            http_error(HttpResponseError, 503, {"Retry-After": "Mon, 23 Nov 2026 10:00:00 GMT"}),
            {"error": "not now", "says": "Azure Machine Learning has trouble.", "after": None},
        ),
        (http_error(ClientAuthenticationError, 401), {"error": "not now", "says": "Callboard could not sign in to Azure."}),
        (ServiceRequestError("no route"), {"error": "not now", "says": "Azure Machine Learning cannot be reached."}),
        (ServiceResponseError("broken"), {"error": "not now", "says": "Azure Machine Learning cannot be reached."}),
        (AzureError("?"), {"error": "not now", "says": "Azure Machine Learning gave an answer that cannot be read."}),
    ],
)
def test_the_worker_says_what_can_be_done_about_a_failure(error: Exception, said: Mapping[str, Any]) -> None:
    assert azure_ml_worker.answer(Registry(error), {"do": "versions", "model": "diabetes"}) == said


def test_what_does_not_exist_has_no_versions_and_no_address() -> None:
    nothing = Registry(http_error(ResourceNotFoundError, 404))

    assert azure_ml_worker.answer(nothing, {"do": "versions", "model": "diabetes"}) == {"versions": []}
    assert azure_ml_worker.answer(nothing, {"do": "tracking"})["error"] == "gone"
    assert azure_ml_worker.answer(nothing, {"do": "dance"})["error"] == "refused"


# --- MLflow ------------------------------------------------------------------------------------------------------------


@dataclass
class Tracking:
    """MLflow's REST API at the workspace's host; `says` by run id."""

    says: dict[str, tuple[int, Any, dict[str, str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def hosts(self) -> Mapping[str, web.Application]:
        app = web.Application()
        app.router.add_get("/mlflow/v2.0/subscriptions/s/workspaces/w/api/2.0/mlflow/runs/get", self._run)
        return {AML_API: app}

    def pages(self) -> Mapping[str, web.Application]:
        return {}

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def _run(self, request: web.Request) -> web.Response:
        self.asked.append(request.headers["Authorization"])
        status, body, headers = self.says.get(request.query["run_id"], (404, {"error_code": "RESOURCE_DOES_NOT_EXIST"}, {}))
        return web.json_response(body, status=status, headers=headers) if body else web.Response(text="<html>", headers=headers)


async def test_metrics_come_from_mlflow_and_what_it_refuses_keeps_its_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = Tracking()
    tracking.says = {
        "good": (200, {"run": {"data": {"metrics": [{"key": "mae", "value": 41.2}]}}}, {}),
        "busy": (429, {"error_code": "REQUEST_LIMIT_EXCEEDED"}, {"Retry-After": "7"}),
        "down": (503, {"error_code": "TEMPORARILY_UNAVAILABLE"}, {}),
        "secret": (403, {"error_code": "PERMISSION_DENIED"}, {}),
        "stale": (401, {"error_code": "UNAUTHENTICATED"}, {}),
        "page": (200, None, {}),
    }
    async with sandbox(tmp_path / "world", lambda _: tracking) as world:
        through(world, monkeypatch)
        connector = aiohttp.TCPConnector(ssl=trust(world))
        async with aiohttp.ClientSession(trust_env=True, connector=connector) as session:
            edge = edge_of(session, tmp_path)

            assert await edge.metrics("good") == {"mae": 41.2}
            with pytest.raises(Gone, match="does not exist"):
                await edge.metrics("nobody")
            with pytest.raises(NotNow) as busy:
                await edge.metrics("busy")
            for run_id, error in (("down", NotNow), ("secret", Refused), ("stale", NotNow), ("page", NotNow)):
                with pytest.raises(error):
                    await edge.metrics(run_id)
            await edge.close()

    assert busy.value.after == 7
    assert set(tracking.asked) == {"Bearer t0ken"}


async def test_mlflow_out_of_reach_is_not_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    async with aiohttp.ClientSession(trust_env=True) as session:
        edge = edge_of(session, tmp_path)

        with pytest.raises(NotNow, match="cannot be reached"):
            await edge.metrics("good")

        await edge.close()


def through(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point this process at the world, as its environment would."""
    for name in ("HTTP_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy(world))


# --- the real worker against the sandbox -------------------------------------------------------------------------------


async def test_the_real_worker_reads_the_registry_of_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with sandbox(tmp_path / "world", LocalAzureML) as world, aiohttp.ClientSession() as session:
        for name, value in world.outside(BOT).items():
            monkeypatch.setenv(name, value)
        edge = AzureML(SUBSCRIPTION, RESOURCE_GROUP, WORKSPACE, token=lambda: "", session=session, logs=tmp_path, start_timeout=60)
        with pytest.raises((Gone, Refused), match=WORKSPACE):
            await edge.worker.ask({"do": "tracking"})

        await registered(world, {"1": {"stage": "champion", "metric.mae": "44.0"}, "2": {"metric.mae": "41.2", "run_id": "happy_toe"}})
        versions = await edge.versions("diabetes")
        tracking = await edge.worker.ask({"do": "tracking"})

        assert [(one.version, one.champion, one.metrics, one.run_id) for one in versions] == [
            ("2", False, {"mae": 41.2}, "happy_toe"),
            ("1", True, {"mae": 44.0}, None),
        ]
        assert versions[0].created is not None
        assert versions[0].created.tzinfo is UTC
        assert await edge.versions("nobody") == ()
        assert azure_ml.rest_address(tracking["tracking"]).startswith(f"https://{AML_API}/mlflow/v")
        await edge.close()
        assert world.proxy is not None
        assert world.proxy.refused == []


async def registered(world: World, versions: Mapping[str, Mapping[str, str]]) -> None:
    """A workspace with these versions of a model, by their tags."""
    local = the(world, LocalAzureML)
    container = local.storage.new_container()
    (local.storage.folder(container) / "model.pkl").write_bytes(b"model")
    group = f"https://management.azure.com/subscriptions/{SUBSCRIPTION}/resourcegroups/{RESOURCE_GROUP}"
    parameters = {"workspaceName": {"value": WORKSPACE}, "location": {"value": LOCATION}}
    models = f"{group}/providers/Microsoft.MachineLearningServices/workspaces/{WORKSPACE}/models/diabetes/versions"
    wishes: list[tuple[str, Any]] = [
        (f"{group}/providers/Microsoft.Resources/deployments/d?api-version=2020-06-01", {"properties": {"parameters": parameters}})
    ]
    for version, tags in versions.items():
        properties = {"modelUri": f"{local.storage.address(container)}/model.pkl", "modelType": "custom_model", "tags": dict(tags)}
        wishes.append((f"{models}/{version}?api-version=2023-08-01-preview", {"properties": properties}))
    headers = {"Authorization": "Bearer " + world.tokens.issue(BOT, "https://management.azure.com")}
    async with aiohttp.ClientSession(headers=headers) as session:
        for url, wish in wishes:
            async with session.put(url, json=wish, proxy=proxy(world), ssl=trust(world)) as answer:
                assert answer.ok, await answer.text()
