"""The local registry, container instances and online endpoints, as the real SDKs see them, with containers that are real processes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import tarfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sandbox import names
from sandbox.azure_ml.oci import BuildFailed, Corrupt, Layout, parse
from sandbox.azure_ml.registry import LOGIN_SERVER
from sandbox.names import AGENT, GUEST
from sandbox.world import World
from tests.serving import Serving, workspace

SERVER = """
import json, os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply(200, {"healthy": True})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked == "crash":
            os._exit(3)
        seen = {"asked": asked, "greeting": os.environ.get("GREETING"), "secret": os.environ.get("SECRET")}
        self.reply(200 if asked != "wrong" else 400, seen)

    def reply(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        print("answered", flush=True)

print("serving", os.getcwd(), flush=True)
HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""
DOCKERFILE = """
# Two layers and a greeting.
ARG WHO=nobody
FROM python:3.11-slim
ARG WHO
ENV GREETING="hello ${WHO}" PLACE=here
WORKDIR /srv/app
COPY serve.py ./
RUN pip install \\
    something
COPY data/ data/
EXPOSE 5001
USER 1000
CMD ["python", "serve.py"]
"""
IDENTITY = f"/subscriptions/{names.SUBSCRIPTION}/resourceGroups/ml/providers/Microsoft.ManagedIdentity/userAssignedIdentities/pull"

BUILD = """
import sys, json, time, requests
from azure.identity import DefaultAzureCredential
from azure.mgmt.containerregistrytasks import ContainerRegistryTasksMgmtClient
from azure.mgmt.containerregistrytasks.models import Argument, DockerBuildRequest, PlatformProperties
subscription, registry, archive = sys.argv[1:]
tasks = ContainerRegistryTasksMgmtClient(DefaultAzureCredential(), subscription)
source = tasks.registries.get_build_source_upload_url("ml", registry)
put = requests.put(source.upload_url, data=open(archive, "rb"), headers={"x-ms-blob-type": "BlockBlob"})
put.raise_for_status()
run = tasks.registries.schedule_run("ml", registry, DockerBuildRequest(
    source_location=source.relative_path, docker_file_path="Dockerfile", image_names=["greeter:one"], is_push_enabled=True,
    arguments=[Argument(name="WHO", value="Ada")], platform=PlatformProperties(os="Linux"), timeout=60))
while run.status in ("Queued", "Running"):
    time.sleep(0.1)
    run = tasks.runs.get("ml", registry, run.run_id)
log = requests.get(tasks.runs.get_log_sas_url("ml", registry, run.run_id).log_link).text
digests = [image.digest for image in run.output_images]
print("\\n" + json.dumps({"status": run.status, "digests": digests, "log": log, "why": run.run_error_message}))
"""

INSTANCES = """
import sys, json, requests
from azure.core.exceptions import HttpResponseError
from azure.identity import DefaultAzureCredential
from azure.mgmt.containerinstance import ContainerInstanceManagementClient
from azure.mgmt.containerinstance.models import *
subscription, identity, server, good, unknown = sys.argv[1:]
client = ContainerInstanceManagementClient(DefaultAzureCredential(), subscription)
def group(image, credentials=True):
    return ContainerGroup(
        location="westeurope", os_type="Linux", restart_policy="Always",
        containers=[Container(name="model", image=image, ports=[ContainerPort(port=5001)],
            environment_variables=[EnvironmentVariable(name="SECRET", secure_value="s3cret")],
            resources=ResourceRequirements(requests=ResourceRequests(cpu=1, memory_in_gb=1)))],
        ip_address=IpAddress(type="Public", ports=[Port(protocol="TCP", port=5001)]),
        identity=ContainerGroupIdentity(type="UserAssigned", user_assigned_identities={identity: UserAssignedIdentities()}),
        image_registry_credentials=[ImageRegistryCredential(server=server, identity=identity)] if credentials else None)
def refusal(*args):
    try:
        client.container_groups.begin_create_or_update("ml", "greeter-qa", group(*args)).result()
    except HttpResponseError as problem:
        return problem.error.code
    return None
refused = [refusal(unknown), refusal(good, False)]
first = client.container_groups.begin_create_or_update("ml", "greeter-qa", group(good)).result()
made = client.container_groups.begin_create_or_update("ml", "greeter-qa", group(good)).result()
assert made.ip_address.ports[0].port == first.ip_address.ports[0].port
shown = json.dumps(made.serialize(keep_readonly=True))
print("\\n" + json.dumps({"refused": refused, "ip": made.ip_address.ip, "port": made.ip_address.ports[0].port, "shown": shown,
    "state": made.provisioning_state, "listed": [each.name for each in client.container_groups.list_by_resource_group("ml")]}))
"""

LOGS_AND_RESTART = """
import sys, json
from azure.identity import DefaultAzureCredential
from azure.mgmt.containerinstance import ContainerInstanceManagementClient
client = ContainerInstanceManagementClient(DefaultAzureCredential(), sys.argv[1])
log = client.containers.list_logs("ml", "greeter-qa", "model").content
client.container_groups.begin_restart("ml", "greeter-qa").result()
client.container_groups.stop("ml", "greeter-qa")
stopped = client.container_groups.get("ml", "greeter-qa").instance_view.state
client.container_groups.begin_start("ml", "greeter-qa").result()
started = client.container_groups.get("ml", "greeter-qa").instance_view.state
client.container_groups.begin_delete("ml", "greeter-qa").result()
print("\\n" + json.dumps({"log": log, "stopped": stopped, "started": started, "left": len(list(client.container_groups.list()))}))
"""

ENDPOINTS = """
import sys, json, logging, requests
from azure.ai.ml import MLClient
from azure.ai.ml.entities import (Environment, KubernetesCompute, KubernetesOnlineDeployment, KubernetesOnlineEndpoint,
    ManagedOnlineDeployment, ManagedOnlineEndpoint, Workspace)
from azure.core.exceptions import HttpResponseError
from azure.identity import DefaultAzureCredential
subscription, good, broken = sys.argv[1:]
ml = MLClient(DefaultAzureCredential(), subscription, "ml", "ml-delivery", enable_telemetry=False)
route = {"port": 5001, "path": "/health"}
def environment(image):
    config = {"liveness_route": route, "readiness_route": route, "scoring_route": {"port": 5001, "path": "/score"}}
    return Environment(name="scoring", version=image[-8:], image=image, inference_config=config)
def refusal(work):
    try:
        work().result()
    except HttpResponseError as problem:
        return str(problem)
    return None
seen = {}
unknown = KubernetesOnlineEndpoint(name="greeter", compute="nowhere", auth_mode="key")
seen["no compute"] = refusal(lambda: ml.online_endpoints.begin_create_or_update(unknown))
endpoint = KubernetesOnlineEndpoint(name="greeter", compute="aks-prod", auth_mode="key")
endpoint = ml.online_endpoints.begin_create_or_update(endpoint).result()
seen["state"] = endpoint.provisioning_state
def deployment(name, image, kind=KubernetesOnlineDeployment, **more):
    return kind(name=name, endpoint_name="greeter", environment=environment(image), instance_count=1,
        environment_variables={"GREETING": name}, **more)
seen["wrong kind"] = refusal(lambda: ml.online_deployments.begin_create_or_update(
    deployment("green", good, ManagedOnlineDeployment, instance_type="Standard_DS3_v2")))
for name in ("blue", "green"):
    ml.online_deployments.begin_create_or_update(deployment(name, good)).result()
seen["crashed"] = refusal(lambda: ml.online_deployments.begin_create_or_update(deployment("red", broken)))
seen["red log"] = ml.online_deployments.get_logs(name="red", endpoint_name="greeter", lines=5)
endpoint = ml.online_endpoints.get("greeter")
endpoint.traffic = {"blue": 100}
endpoint = ml.online_endpoints.begin_create_or_update(endpoint).result()
seen["traffic"] = ml.online_endpoints.get("greeter").traffic
seen["in use"] = refusal(lambda: ml.online_deployments.begin_delete(name="blue", endpoint_name="greeter"))
ml.online_deployments.begin_delete(name="red", endpoint_name="greeter").result()
seen["deployments"] = sorted(each.name for each in ml.online_deployments.list("greeter"))
seen["url"], seen["key"] = endpoint.scoring_uri, ml.online_endpoints.get_keys("greeter").primary_key
print("\\n" + json.dumps(seen))
"""


class Place:
    """A running sandbox whose local Azure can be asked as a script of the pipeline would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World(folder / "world")
        self.azure = Serving(self.world)

    async def start(self) -> None:
        await self.world.start([self.azure])

    async def restart(self) -> None:
        """Stop the sandbox and start it again on what it remembers."""
        await self.world.stop()
        self.world = World(self.folder / "world")
        self.azure = Serving(self.world)
        await self.start()

    async def python(self, code: str, *arguments: str) -> dict[str, Any]:
        """The JSON that a script prints which runs under the agent's identity, with the real SDKs."""
        output, errors = self.folder / "script.out", self.folder / "script.err"
        with output.open("wb") as out, errors.open("wb") as err:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                code,
                *arguments,
                env=self.world.outside(AGENT),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
            assert await process.wait() == 0, errors.read_text()
        return dict(json.loads(output.read_text().splitlines()[-1]))

    async def build(self, dockerfile: str = DOCKERFILE, server: str = SERVER) -> dict[str, Any]:
        """What comes of a build of a small server."""
        archive = await asyncio.to_thread(_archive, _context(self.folder / "context", dockerfile, server))
        return await self.python(BUILD, names.SUBSCRIPTION, names.REGISTRY, str(archive))

    async def image(self, server: str = SERVER) -> str:
        """The reference of a built image of a small server."""
        built = await self.build(server=server)
        return f"{LOGIN_SERVER}/greeter@{built['digests'][0]}"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    await place.start()
    yield place
    await place.world.stop()


def test_the_same_content_gives_the_same_image_wherever_and_whenever_it_is_built(tmp_path: Path) -> None:
    first, second = (_context(tmp_path / name) for name in ("first", "second"))
    os.utime(second / "serve.py", (1, 1))

    digests = {Layout(tmp_path / f"layout-{context.name}").build(context, "Dockerfile", _quiet) for context in (first, second)}

    assert len(digests) == 1


def test_an_image_layout_holds_every_blob_under_its_own_digest(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    layout.tag(layout.build(_context(tmp_path / "context"), "Dockerfile", _quiet, {"WHO": "Ada"}), "one")

    blobs = list((layout.folder / "blobs" / "sha256").iterdir())

    assert json.loads((layout.folder / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert len(blobs) == 4  # two layers, the configuration, the manifest
    assert all(hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name for blob in blobs)
    image = layout.image("one")
    assert image.command == ("python", "serve.py")
    assert image.folder == "/srv/app"
    assert image.environment == {"GREETING": "hello Ada", "PLACE": "here"}
    assert image.ports == (5001,)


def test_an_image_unpacks_to_the_files_that_were_copied(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    layout.tag(layout.build(_context(tmp_path / "context"), "Dockerfile", _quiet), "one")

    layout.unpack(layout.image("one"), tmp_path / "root")

    files = {str(file.relative_to(tmp_path / "root")) for file in (tmp_path / "root").rglob("*") if file.is_file()}
    assert files == {"srv/app/serve.py", "srv/app/data/numbers.txt"}


def test_an_image_that_lost_its_tag_is_still_known_by_its_digest(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    first = layout.build(_context(tmp_path / "context"), "Dockerfile", _quiet)
    second = layout.build(_context(tmp_path / "context"), "Dockerfile", _quiet, {"WHO": "Ada"})
    layout.tag(first, "latest")

    layout.tag(second, "latest")

    assert layout.resolve("latest") == second
    assert layout.resolve(first) == first


def test_a_blob_that_was_tampered_with_is_not_used(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    layout.tag(layout.build(_context(tmp_path / "context"), "Dockerfile", _quiet), "one")
    layer = layout.image("one").layers[0]
    (layout.folder / "blobs" / "sha256" / layer.removeprefix("sha256:")).write_bytes(b"something else")

    with pytest.raises(Corrupt):
        layout.unpack(layout.image("one"), tmp_path / "root")


@pytest.mark.parametrize(
    ("dockerfile", "words"),
    [
        ("FROM a\nFETCH b", "dockerfile parse error on line 2: unknown instruction: FETCH"),
        (
            "FROM a\nCOPY nothing ./",
            "COPY failed: file not found in build context or excluded by .dockerignore: stat nothing: file does not exist",
        ),
        ("FROM a\nCOPY ../secret ./", "COPY failed: forbidden path outside the build context: ../secret (../secret)"),
        ("FROM a\nCOPY --chown=1 serve.py ./", "Unknown flag: chown"),
        (
            "FROM a\nCOPY serve.py data out",
            "When using COPY with more than one source file, the destination must be a directory and end with a /",
        ),
        ("RUN true", "no build stage in current context"),
        ("# nothing", "the Dockerfile cannot be empty"),
        ("FROM a\nVOLUME /data", "the sandbox's builder does not carry out VOLUME (line 2)"),
    ],
)
def test_a_wrong_dockerfile_fails_in_dockers_words(tmp_path: Path, dockerfile: str, words: str) -> None:
    context = _context(tmp_path / "context", dockerfile)

    with pytest.raises(BuildFailed) as failed:
        Layout(tmp_path / "layout").build(context, "Dockerfile", _quiet)

    assert str(failed.value) == words


def test_a_dockerfile_lies_in_its_context(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)

    with pytest.raises(BuildFailed, match="unable to evaluate symlinks in Dockerfile path"):
        Layout(tmp_path / "layout").build(_context(tmp_path / "context"), "../Dockerfile", _quiet)


def test_an_instruction_may_span_lines() -> None:
    instructions = parse("FROM a\n# a word on it\nRUN one \\\n    two\nUSER 1")

    assert [(each.word, each.rest, each.line) for each in instructions] == [("FROM", "a", 1), ("RUN", "one two", 3), ("USER", "1", 5)]


@pytest.mark.world
async def test_the_registry_builds_an_image_and_says_honestly_what_it_did_not_do(place: Place) -> None:
    built = await place.build()

    assert built["status"] == "Succeeded"
    assert "RUN pip install something" in built["log"]
    assert "not run: the sandbox writes RUN into the history and does not carry it out" in built["log"]
    image, _ = place.azure.registry.image(f"{LOGIN_SERVER}/greeter:one")
    assert image.digest == built["digests"][0]
    assert image.environment["GREETING"] == "hello Ada"
    assert not list((place.folder / "world" / "registry" / "source").iterdir())  # what was sent to be built is not kept


@pytest.mark.world
async def test_a_failed_build_says_why_in_its_log(place: Place) -> None:
    built = await place.build(dockerfile="FROM python:3.11\nCOPY model/ model/")

    assert built["status"] == "Failed"
    assert built["digests"] == []
    assert built["why"] == "failed during run, err: exit status 1"
    assert "stat model/: file does not exist" in built["log"]


@pytest.mark.world
async def test_nobody_reads_an_image_without_a_token_of_the_registry(place: Place) -> None:
    await place.image()
    token = place.world.tokens.issue(AGENT, "https://management.azure.com")

    status, document = await _get(place, LOGIN_SERVER, "/v2/greeter/manifests/one", token)

    assert status == 401
    assert document["errors"][0]["code"] == "UNAUTHORIZED"


@pytest.mark.world
async def test_a_guest_may_not_look_into_the_registry(place: Place) -> None:
    token = place.world.tokens.issue(GUEST, "https://management.azure.com")
    path = f"/subscriptions/{names.SUBSCRIPTION}/resourceGroups/ml/providers/Microsoft.ContainerRegistry/registries/{names.REGISTRY}"

    status, document = await _get(place, "management.azure.com", f"{path}?api-version=2025-03-01-preview", token)

    assert status == 403
    assert document["error"]["code"] == "AuthorizationFailed"


@pytest.mark.world
async def test_a_container_group_runs_its_image_and_keeps_its_secrets(place: Place) -> None:
    good = await place.image()
    unknown = f"{LOGIN_SERVER}/greeter@sha256:{'0' * 64}"

    made = await place.python(INSTANCES, names.SUBSCRIPTION, IDENTITY, LOGIN_SERVER, good, unknown)

    assert made["refused"] == ["InaccessibleImage", "InaccessibleImage"]
    assert (made["ip"], made["state"], made["listed"]) == ("127.0.0.1", "Succeeded", ["greeter-qa"])
    assert "s3cret" not in made["shown"]
    address = f"http://127.0.0.1:{made['port']}/"
    assert await _ask(address, "hi") == (200, {"asked": "hi", "greeting": "hello Ada", "secret": "s3cret"})

    await place.restart()

    assert (await _ask(address, "again"))[0] == 200

    done = await place.python(LOGS_AND_RESTART, names.SUBSCRIPTION)

    assert done["log"].count("serving") == 1
    assert (done["stopped"], done["started"], done["left"]) == ("Stopped", "Running", 0)
    assert await _silent(made["port"])


@pytest.mark.world
async def test_a_container_that_crashes_is_started_again(place: Place) -> None:
    good = await place.image()
    made = await place.python(INSTANCES, names.SUBSCRIPTION, IDENTITY, LOGIN_SERVER, good, good)
    address = f"http://127.0.0.1:{made['port']}/"
    await _ask(address, "hi")

    with pytest.raises(aiohttp.ClientError):
        await _ask(address, "crash", patient=False)

    assert (await _ask(address, "still here?"))[0] == 200


@pytest.mark.world
async def test_an_online_endpoint_serves_its_deployments_to_those_who_have_a_key(place: Place) -> None:
    broken, good = await place.image("import sys; print('no model here', flush=True); sys.exit(3)"), await place.image()
    await workspace(place.world)

    seen = await place.python(ENDPOINTS, names.SUBSCRIPTION, good, broken)

    assert "nowhere" in seen["no compute"]
    assert seen["state"] == "Succeeded"
    assert "must be of one kind" in seen["wrong kind"]
    assert "ResourceNotReady" in seen["crashed"]
    assert "no model here" in seen["red log"]
    assert seen["traffic"] == {"blue": 100, "green": 0, "red": 0}
    assert "100% of the traffic" in seen["in use"]
    assert seen["deployments"] == ["blue", "green"]
    await _endpoint_answers(seen["url"], seen["key"])

    await place.restart()

    await _endpoint_answers(seen["url"], seen["key"])


@pytest.mark.world
async def test_what_lost_its_image_has_failed_and_does_not_keep_the_sandbox_from_starting(place: Place) -> None:
    gone = f"{LOGIN_SERVER}/greeter@sha256:{'0' * 64}"
    container = {"name": "model", "properties": {"image": gone}}
    group = {"asked": {"location": "westeurope", "properties": {"containers": [container]}}, "port": 0, "stopped": False}
    deployment = {"asked": {"properties": {}}, "image": gone, "scoring": "/score", "ready": "/health", "port": 0}
    groups, deployments = (place.world.state.table(name) for name in ("containers.groups", "endpoints.deployments"))
    groups["greeter-qa"] = group | {"provisioning": "Succeeded"}
    deployments["greeter/blue"] = deployment | {"state": "Succeeded"}

    await place.restart()

    assert place.world.state.table("containers.groups")["greeter-qa"]["provisioning"] == "Failed"
    assert place.world.state.table("endpoints.deployments")["greeter/blue"]["state"] == "Failed"


async def _endpoint_answers(url: str, key: str) -> None:
    """What holds of the endpoint's scoring address, before and after a restart."""
    bearer = {"Authorization": f"Bearer {key}"}
    assert (await _ask(url, "hi", bearer))[1]["greeting"] == "blue"
    assert (await _ask(url, "hi", bearer | {"azureml-model-deployment": "green"}))[1]["greeting"] == "green"
    assert (await _ask(url, "hi", bearer | {"azureml-model-deployment": "pink"}, patient=False))[0] == 404
    assert (await _ask(url, "hi", {"Authorization": "Bearer wrong"}))[0] == 401
    assert (await _ask(url, "hi"))[0] == 401
    assert (await _ask(url, "wrong", bearer))[0] == 400
    assert (await _ask(url, "crash", bearer, patient=False))[0] == 502


async def _ask(url: str, asked: Any, headers: Mapping[str, str] | None = None, *, patient: bool = True) -> tuple[int, Any]:
    """The answer's status and document; with patience, whoever only starts is asked again."""
    async with asyncio.timeout(30), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.post(url, json=asked, headers=headers) as answer:
                    if answer.status != 502 or not patient:
                        return answer.status, await answer.json() if answer.content_type == "application/json" else await answer.text()
            except aiohttp.ClientError:
                if not patient:
                    raise
            await asyncio.sleep(0.05)


async def _silent(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def _get(place: Place, host: str, path: str, token: str) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}", "Host": host}
    url = f"https://127.0.0.1:{place.world.tls_port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers, ssl=False) as answer:
        return answer.status, await answer.json()


def _context(folder: Path, dockerfile: str = DOCKERFILE, server: str = SERVER) -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "Dockerfile").write_text(dockerfile)
    (folder / "serve.py").write_text(server)
    (folder / "data" / "numbers.txt").write_text("1 2 3")
    return folder


def _archive(context: Path) -> Path:
    archive = context.with_suffix(".tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("Dockerfile", "serve.py", "data"):
            tar.add(context / name, name)
    return archive


def _quiet(line: str) -> None:
    assert line
