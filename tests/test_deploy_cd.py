"""The stages that bring a model to people: scoring image, QA, Prod; their decisions alone, and once all of it in the sandbox."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from azure.mgmt.containerinstance.models import ContainerGroup, IpAddress, Port

from bot.settings import EnvironmentVariables
from deploy.ml.config import Mistake, load
from deploy.ml.image import archive, assemble, fingerprint
from deploy.ml.prod import Release, crown, deployment_name, plan
from deploy.ml.qa import address, crashing, group
from deploy.ml.smoke import Examples, Outcome, examples, smoke, verdict
from deploy.ml.stage import Failed, quote
from sandbox import processes
from sandbox.names import AGENT
from sandbox.world import World
from tests.sandboxes import ROOT, sandbox
from tests.serving import Serving, workspace

DIGEST = "sha256:" + "ab" * 32
NEW = "image-abababababab"
IMAGE = {
    "name": "diabetes",
    "digest": DIGEST,
    "location": f"contosoml.azurecr.io/diabetes@{DIGEST}",
    "examples": {"columns": ["age", "bmi"], "rows": [[50, 21.5], [60, 30]], "predictions": [120.5, 200.25]},
}
WORKSPACE = replace(load(ROOT / "callboard.toml").workspace, subscription="sub", pull_identity="pull")
GOOD = Outcome(True, 2, 3.5, "2 predictions equal to the registered model's own, 3.5 ms each.")
BAD = Outcome(False, 0, None, "The prediction is 1.0; the registered model says 2.0.")


@pytest.mark.parametrize(
    ("status", "text", "wrong"),
    [
        (200, '{"predictions": [120.5]}', None),
        (200, '{"predictions": [[120.5]]}', None),
        (200, '{"predictions": [120.50000000000001]}', None),
        (200, '{"predictions": [120.6]}', "The prediction is 120.6; the registered model says 120.5."),
        (200, '{"predictions": [120.5, 1]}', "The prediction is 120.5, 1.0; the registered model says 120.5."),
        (200, "<html>\n", "The answer is not a prediction: <html>"),
        (400, "no\nsuch column", "The answer is HTTP 400: no such column"),
    ],
)
def test_an_answer_is_right_only_if_it_is_the_models_own(status: int, text: str, wrong: str | None) -> None:
    assert verdict(status, text, 120.5) == wrong


def test_an_image_without_examples_cannot_be_tested() -> None:
    with pytest.raises(Failed, match=r"image\.json has no examples"):
        examples({"name": "diabetes", "examples": {"columns": [], "rows": [], "predictions": []}})


async def test_the_smoke_test_waits_for_a_deployment_that_still_starts() -> None:
    async with _Server([503, 404, 200, 200]) as server:
        outcome = await asyncio.to_thread(smoke, server.url, examples(IMAGE), {"Authorization": "Bearer key"}, patience=30)

    assert (outcome.passed, outcome.checked) == (True, 2)
    assert server.keys == {"Bearer key"}
    assert server.asked[-1] == {"dataframe_split": {"columns": ["age", "bmi"], "data": [[60, 30]]}}


async def test_the_smoke_test_does_not_wait_for_somebody_who_refuses_it() -> None:
    async with _Server([401, 200, 200]) as server:
        outcome = await asyncio.to_thread(smoke, server.url, examples(IMAGE), {}, patience=30)

    assert outcome == Outcome(False, 0, None, "The answer is HTTP 401: answer 1")


async def test_a_deployment_that_falters_after_its_first_answer_has_failed() -> None:
    async with _Server([200, 503]) as server:
        outcome = await asyncio.to_thread(smoke, server.url, examples(IMAGE), {}, patience=30)

    assert (outcome.passed, outcome.checked, outcome.detail) == (False, 1, "The answer is HTTP 503: answer 2")


async def test_the_smoke_test_gives_up_once_waiting_is_of_no_use() -> None:
    async with _Server([503] * 9) as server:
        outcome = await asyncio.to_thread(smoke, server.url, examples(IMAGE), {}, patience=30, hopeless=lambda: "It crashes.")

    assert outcome == Outcome(False, 0, None, "It crashes.")
    assert len(server.asked) == 1


async def test_nobody_there_is_said_in_words() -> None:
    outcome = await asyncio.to_thread(smoke, "http://127.0.0.1:9/invocations", examples(IMAGE), {}, patience=0)

    assert outcome == Outcome(False, 0, None, "No answer: ConnectionError.")


def test_the_context_of_an_image_is_packed_the_same_wherever_it_lies(tmp_path: Path) -> None:
    contexts = [_context(tmp_path / name) for name in ("one", "two")]

    assert archive(contexts[0]) == archive(contexts[1])
    assert fingerprint(contexts[0], {"PYTHON": "3.11"}) == fingerprint(contexts[1], {"PYTHON": "3.11"})


def test_whatever_changes_the_image_changes_its_fingerprint(tmp_path: Path) -> None:
    context = _context(tmp_path / "one")
    before = fingerprint(context, {"PYTHON": "3.11"})

    (context / "model" / "model.pkl").write_bytes(b"other weights")

    assert len({before, fingerprint(context, {"PYTHON": "3.11"}), fingerprint(context, {"PYTHON": "3.12"})}) == 3


def test_a_container_group_is_pulled_by_digest_and_its_key_cannot_be_read_back() -> None:
    wanted = group(WORKSPACE, IMAGE, "the-key")

    (container,) = wanted.containers
    assert container.environment_variables is not None
    (variable,) = container.environment_variables
    assert container.image == f"contosoml.azurecr.io/diabetes@{DIGEST}"
    assert (variable.name, variable.value, variable.secure_value) == ("SCORING_KEY", None, "the-key")
    assert wanted.image_registry_credentials is not None
    (credential,) = wanted.image_registry_credentials
    assert credential.identity == "/subscriptions/sub/resourceGroups/ml/providers/Microsoft.ManagedIdentity/userAssignedIdentities/pull"


def test_without_an_identity_to_pull_under_the_mistake_is_named() -> None:
    with pytest.raises(Mistake, match="pull_identity"):
        group(replace(WORKSPACE, pull_identity=""), IMAGE, "the-key")


def test_the_address_of_a_group_is_what_azure_gave_it() -> None:
    given = ContainerGroup(containers=[], os_type="Linux", ip_address=IpAddress(ports=[Port(port=5001)], type="Public", ip="20.0.0.1"))

    assert address(given) == "http://20.0.0.1:5001"


def test_a_group_without_an_address_is_an_error() -> None:
    with pytest.raises(Failed, match="has no address"):
        address(ContainerGroup(containers=[], os_type="Linux"))


@pytest.mark.parametrize(
    ("view", "why"),
    [
        (None, None),
        ({"restartCount": 1, "previousState": {"state": "Terminated", "exitCode": 3}}, None),
        (
            {"restartCount": 2, "currentState": {"state": "Running"}, "previousState": {"state": "Terminated", "exitCode": 3}},
            "The container was started 2 times again and ended with 3 each time.",
        ),
    ],
)
def test_a_container_that_only_crashes_is_not_waited_for(view: dict[str, Any] | None, why: str | None) -> None:
    container = {"name": "model", "properties": {"image": "a", "resources": {}, "instanceView": view}}

    assert crashing(ContainerGroup.deserialize({"properties": {"containers": [container], "osType": "Linux"}})) == why


@pytest.mark.parametrize(
    ("traffic", "deployments", "retired"),
    [
        ({}, [], ()),
        ({"old": 100}, ["old"], ()),
        ({"old": 100, "older": 0}, ["old", "older"], ("older",)),
        ({"old": 100, "older": 0}, ["old", "older", NEW], ("older",)),
        ({NEW: 100, "old": 0}, ["old", NEW], ()),
    ],
)
def test_what_served_before_stays_to_go_back_to(traffic: Mapping[str, int], deployments: list[str], retired: tuple[str, ...]) -> None:
    assert plan(traffic, deployments, NEW).retired == retired


def test_a_deployment_is_named_after_its_image() -> None:
    assert deployment_name(DIGEST) == NEW


def test_a_good_image_gets_all_traffic_and_the_oldest_goes() -> None:
    ml = FakeWorkspace(traffic={"old": 100}, deployments=["old", "older", NEW])

    outcome = _release(ml, [GOOD, GOOD]).roll_out()

    assert outcome == GOOD
    assert ml.traffic == {NEW: 100}
    assert ml.names == ["old", NEW]


def test_an_image_that_fails_beside_the_traffic_never_gets_any() -> None:
    ml = FakeWorkspace(traffic={"old": 100}, deployments=["old", NEW])

    outcome = _release(ml, [BAD]).roll_out()

    assert outcome == BAD
    assert ml.traffic == {"old": 100}
    assert ml.names == ["old"]
    assert ml.sent == []


def test_an_image_that_fails_under_traffic_is_taken_back() -> None:
    ml = FakeWorkspace(traffic={"old": 100}, deployments=["old", NEW])

    outcome = _release(ml, [GOOD, BAD]).roll_out()

    assert outcome == BAD
    assert ml.sent == [{NEW: 100}, {"old": 100}]
    assert ml.names == ["old"]


def test_what_serves_already_is_never_deleted() -> None:
    ml = FakeWorkspace(traffic={NEW: 100}, deployments=["old", NEW])

    outcome = _release(ml, [BAD]).roll_out()

    assert outcome == BAD
    assert ml.names == ["old", NEW]
    assert ml.traffic == {NEW: 100}


def test_the_champion_is_tagged_before_the_former_one_loses_the_tag() -> None:
    ml = FakeWorkspace(stages={"1": "former", "2": "champion", "3": None})

    crown(ml, "diabetes", "3")

    assert ml.stages == {"1": "former", "2": "former", "3": "champion"}
    assert ml.tagged == ["3", "2"]


def test_a_champion_stays_one() -> None:
    ml = FakeWorkspace(stages={"1": None, "2": "champion"})

    crown(ml, "diabetes", "2")

    assert ml.tagged == []


def test_somebody_elses_log_cannot_command_the_agent(capsys: pytest.CaptureFixture[str]) -> None:
    quote("fine\n##vso[task.setvariable variable=a]b\n##[error]no")

    assert capsys.readouterr().out == "  fine\n  ## vso[task.setvariable variable=a]b\n  ## [error]no\n"


def test_the_bot_is_given_settings_it_knows_and_all_that_it_needs() -> None:
    bicep = (ROOT / "deploy" / "bot" / "main.bicep").read_text()
    dockerfile = (ROOT / "deploy" / "bot" / "Dockerfile").read_text()
    given = set(re.findall(r"name: '([A-Z_]+)'", bicep)) | set(re.findall(r"\b([A-Z_]+)=", dockerfile))

    fields = EnvironmentVariables.model_fields

    assert given - set(fields) == {"AZURE_CLIENT_ID", "PATH", "PYTHONUNBUFFERED"}
    assert {name for name, field in fields.items() if field.is_required()} <= given


def test_every_secret_of_the_bot_is_a_reference_to_the_vault() -> None:
    bicep = (ROOT / "deploy" / "bot" / "main.bicep").read_text()

    variables = dict(re.findall(r"name: '([A-Z_]+)', (value|secretRef): ", bicep))

    secret = {name for name, field in EnvironmentVariables.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert {name for name, how in variables.items() if how == "secretRef"} == secret


@pytest.mark.parametrize("lock", ["deploy/bot/requirements.lock", "deploy/ml/serving/requirements.lock"])
def test_an_image_gets_the_versions_that_were_tested(lock: str) -> None:
    tested, installed = (_pins((ROOT / file).read_text()) for file in ("requirements.lock", lock))

    assert installed
    assert installed <= tested


@pytest.mark.parametrize("dockerfile", ["deploy/bot/Dockerfile", "deploy/ml/serving/Dockerfile"])
def test_what_an_image_copies_is_there(dockerfile: str) -> None:
    folder = ROOT if "bot" in dockerfile else (ROOT / dockerfile).parent
    copied = re.findall(r"^COPY (?!--from)(\S+) ", (ROOT / dockerfile).read_text(), re.MULTILINE)

    missing = [name for name in copied if not (folder / name).exists()]

    assert missing == ([] if "bot" in dockerfile else ["model/"])  # the stage lays the model beside the recipe


# A model on its way to people, stage by stage in one process; then the same with examples that it does not agree with.
PROGRAM = """
import json, pathlib, sys
import mlflow.sklearn
from azure.ai.ml.entities import Model
from sklearn.linear_model import Ridge
from deploy.ml import config, data, image, prod, qa, stage

folder = pathlib.Path(sys.argv[1])
workspace = config.load().workspace

def run(title, module, *words):
    print(f"## {title}", flush=True)
    try:
        module.main([*words, "--out", str(folder / title)])
    except stage.Failed as problem:
        print(f"failed: {problem}", flush=True)

rows = data.split(data.load(), 20).training
mlflow.sklearn.save_model(Ridge().fit(rows.features, rows.target), str(folder / "model"), pip_requirements=["scikit-learn"])
ml = stage.client(workspace)
for version, of in (("1", "champion"), ("2", "candidate")):
    ml.models.create_or_update(Model(name="diabetes", version=version, path=str(folder / "model"), type="mlflow_model", tags={"stage": of}))

stage.write(folder / "image" / "model.json", {"name": "diabetes", "version": "2"})
run("image", image, "--model-json", str(folder / "image" / "model.json"))
run("qa", qa, "--delivery", str(folder / "image"))
run("prod", prod, "--delivery", str(folder / "image"))

built = stage.read(folder / "image" / "image.json")
registry = image.Registry(workspace)
stage.write(folder / "tags.json", {"digests": [registry.digest("diabetes", tag) for tag in (built["tag"], "no-such-tag")]})

stage.write(folder / "image" / "image.json", built | {"examples": built["examples"] | {"predictions": [0.0] * 5}})
run("wrong", prod, "--delivery", str(folder / "image"))
"""


@pytest.mark.world
@pytest.mark.timeout(300)
async def test_a_registered_model_reaches_prod(tmp_path: Path) -> None:
    folder = tmp_path / "delivery"
    folder.mkdir()

    async with sandbox(tmp_path / "world", Serving) as world:
        await workspace(world)
        said = await _told(world, folder)
        qa, prod = (_read(folder / name / f"{name}.json") for name in ("qa", "prod"))
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{qa['endpoint']}/health") as probed,
            session.post(f"{qa['endpoint']}/invocations", json={}) as uninvited,
        ):
            assert (probed.status, uninvited.status) == (200, 401)  # nobody but the stage had the key
        models = world.state.table("azure.models").items()
        stages = {key: document["properties"]["tags"]["stage"] for key, document in models}

    image = _read(folder / "image" / "image.json")
    assert image["location"] == f"contosoml.azurecr.io/diabetes@{image['digest']}"
    assert _read(folder / "tags.json")["digests"] == [image["digest"], None]
    assert (qa["passed"], qa["checked"], qa["digest"]) == (True, 5, image["digest"])
    assert (prod["passed"], prod["checked"], prod["digest"]) == (True, 5, image["digest"])
    assert prod["endpoint"].endswith("/api/v1/endpoint/diabetes/score")
    assert stages == {"diabetes/1": "former", "diabetes/2": "champion"}
    assert said.count("failed: ") == 1
    assert "failed: Prod: The prediction is" in said.partition("## wrong")[2]
    assert not _read(folder / "wrong" / "prod.json")["passed"]


async def _told(world: World, folder: Path) -> str:
    """What the program prints under the agent's identity."""
    log = folder / "log"
    words = [sys.executable, "-c", PROGRAM, str(folder)]
    process = await processes.start(words, folder=ROOT, environment=world.outside(AGENT), output=log)
    code = await process.wait()
    processes.clear(process)
    assert code == 0, log.read_text()
    return log.read_text()


def _read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text()))


@dataclass
class FakeThing:
    """Whatever has a name and a state."""

    name: str
    provisioning_state: str = "Succeeded"
    scoring_uri: str = "http://127.0.0.1/score"
    primary_key: str = "key"
    traffic: dict[str, int] = field(default_factory=dict)
    version: str = ""
    tags: dict[str, str] = field(default_factory=dict)

    def result(self) -> FakeThing:
        return self


class FakeWorkspace:
    """A workspace with one endpoint and one model; it is its own operation groups."""

    def __init__(
        self, *, traffic: dict[str, int] | None = None, deployments: list[str] | None = None, stages: dict[str, str | None] | None = None
    ) -> None:
        self.traffic = traffic or {}
        self.names = deployments or []
        self.stages = stages or {}
        self.sent: list[dict[str, int]] = []
        self.tagged: list[str] = []
        self.online_endpoints = _Endpoints(self)
        self.online_deployments = _Deployments(self)
        self.models = _Models(self)


class _Endpoints:
    def __init__(self, ml: FakeWorkspace) -> None:
        self._ml = ml

    def get(self, name: str) -> FakeThing:
        return FakeThing(name, traffic=dict(self._ml.traffic))

    def get_keys(self, name: str) -> FakeThing:
        return FakeThing(name)

    def begin_create_or_update(self, endpoint: FakeThing) -> FakeThing:
        self._ml.traffic = endpoint.traffic
        self._ml.sent.append(endpoint.traffic)
        return endpoint


class _Deployments:
    def __init__(self, ml: FakeWorkspace) -> None:
        self._ml = ml

    def list(self, endpoint_name: str) -> list[FakeThing]:
        assert endpoint_name == "diabetes"
        return [FakeThing(name) for name in self._ml.names]

    def get_logs(self, name: str, endpoint_name: str, lines: int) -> str:
        return f"{lines} lines of {endpoint_name}/{name}"

    def begin_delete(self, name: str, endpoint_name: str) -> FakeThing:
        assert not self._ml.traffic.get(name), f"{endpoint_name}/{name} has traffic"
        self._ml.names.remove(name)
        return FakeThing(name)


class _Models:
    def __init__(self, ml: FakeWorkspace) -> None:
        self._ml = ml

    def list(self, name: str) -> list[FakeThing]:
        return [self.get(name, version) for version in self._ml.stages]

    def get(self, name: str, version: str) -> FakeThing:
        stage = self._ml.stages[version]
        return FakeThing(name, version=version, tags={"stage": stage} if stage else {})

    def create_or_update(self, model: FakeThing) -> None:
        self._ml.tagged.append(model.version)
        self._ml.stages[model.version] = model.tags["stage"]


class _Server:
    """Answers with one status after the other, rightly where it is 200."""

    def __init__(self, statuses: list[int]) -> None:
        self._statuses = iter(statuses)
        self.asked: list[Any] = []
        self.keys: set[str] = set()
        self.url = ""

    async def __aenter__(self) -> _Server:
        app = web.Application()
        app.add_routes([web.post("/score", self._answer)])
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/score"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        self.keys.add(request.headers.get("Authorization", ""))
        row = self.asked[-1]["dataframe_split"]["data"][0]
        status = next(self._statuses)
        if status != 200:
            return web.Response(status=status, text=f"answer {len(self.asked)}")
        return web.json_response({"predictions": [{50: 120.5, 60: 200.25}[row[0]]]})


def _release(ml: FakeWorkspace, outcomes: list[Outcome]) -> Release:
    said = iter(outcomes)

    def try_out(url: str, rows: Examples, headers: Mapping[str, str]) -> Outcome:
        assert url
        assert rows.predictions
        assert headers["Authorization"] == "Bearer key"
        return next(said)

    model = load(ROOT / "callboard.toml").model("diabetes")
    return Release(ml, model, IMAGE, try_out)


def _pins(lock: str) -> set[str]:
    return set(re.findall(r"^([\w.-]+==[^\s;]+)", lock, re.MULTILINE))


def _context(folder: Path) -> Path:
    model = folder.with_name(folder.name + "-model")
    model.mkdir()
    (model / "MLmodel").write_text("flavors: {}")
    (model / "model.pkl").write_bytes(b"weights")
    return assemble(model, folder)
