"""The local Azure ML as the unmodified SDKs see it: workspace, storage, assets, jobs as real processes, tracking, the studio's pages."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from sandbox import names
from sandbox.azure_ml.server import AzureML
from sandbox.azure_ml.workspace import workspace_id
from sandbox.names import AGENT, GUEST, Character
from sandbox.world import World
from tests.sandboxes import proxy, sandbox, the, trust

pytestmark = [pytest.mark.world, pytest.mark.asyncio(loop_scope="module")]

MANAGEMENT = "https://management.azure.com"
GROUP = f"/subscriptions/{names.SUBSCRIPTION}/resourceGroups/{names.RESOURCE_GROUP}"
WORKSPACE = workspace_id(names.WORKSPACE)
CLUSTER = f"{WORKSPACE}/computes/cpu-cluster"
ENVIRONMENT = f"{WORKSPACE}/environments/plain/versions/1"

# What a pipeline does with azure-ai-ml, as one program; it prints one JSON object.
PROGRAM = '''
import contextlib, io, json, logging, pathlib, sys, time
from azure.ai.ml import MLClient, Output, command
from azure.ai.ml.entities import AmlCompute, Environment, Model, Workspace
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import DefaultAzureCredential

subscription, group, name, location, folder = sys.argv[1:]
folder = pathlib.Path(folder)
ml = MLClient(DefaultAzureCredential(), subscription, group, name)
logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)
said = {}

def refusal(do):
    try:
        do()
    except HttpResponseError as problem:
        return [problem.status_code, problem.message.splitlines()[0]]
    except Exception as problem:
        return [0, str(problem)]

said["missing"] = refusal(lambda: ml.workspaces.get(name))[0]
said["created"] = ml.workspaces.begin_create(Workspace(name=name, location=location)).result().name
said["again"] = ml.workspaces.begin_create(Workspace(name=name, location=location)).result().name
ml.compute.begin_create_or_update(AmlCompute(name="cpu-cluster", size="Standard_DS2_v2", min_instances=0, max_instances=4)).result()
said["compute"] = ml.compute.get("cpu-cluster").provisioning_state
environment = Environment(name="plain", version="1", image="python:3.11", conda_file={"dependencies": ["python=3.11"]})
said["environment"] = ml.environments.create_or_update(environment).version

code = folder / "code"
code.mkdir()

def submit(line, **more):
    wish = command(command=line, code=str(code), environment="plain:1", **({"compute": "cpu-cluster"} | more))
    return ml.jobs.create_or_update(wish)

def follow(job):
    heard = io.StringIO()
    try:
        with contextlib.redirect_stdout(heard):
            ml.jobs.stream(job.name)
    except Exception as problem:
        return str(problem)
    return heard.getvalue()

FIRST = """
import pathlib, sys, time
print('first edition')
time.sleep(1)
pathlib.Path(sys.argv[1], 'weights.txt').write_text(sys.argv[2])
"""
(code / "train.py").write_text(FIRST)
line = "python train.py '${{outputs.model}}' ${{inputs.alpha}}"
first = submit(line, inputs={"alpha": 0.5}, outputs={"model": Output(type="custom_model")}, tags={"kind": "first"})
said["first"] = follow(first)
def ended(job):
    while ml.jobs.get(job.name).status not in ("Completed", "Failed"):
        time.sleep(0.1)
    return job

def printed(job):
    ended(job)
    with contextlib.redirect_stdout(io.StringIO()):
        ml.jobs.download(job.name, download_path=folder / job.name)
    return (folder / job.name / "artifacts" / "user_logs" / "std_log.txt").read_text()

(code / "train.py").write_text("print('second edition')")
second = submit("python train.py", compute="local")
said["second"] = printed(second)
said["unknown compute"] = refusal(lambda: submit("true", compute="nowhere"))
broken = submit("python -c 'raise ValueError(7)'")
said["broken"] = follow(ended(broken))
said["status"] = [ml.jobs.get(job.name).status for job in (first, second, broken)]
with contextlib.redirect_stdout(io.StringIO()):
    ml.jobs.download(first.name, download_path=folder / "down", output_name="model")
    ml.jobs.download(first.name, download_path=folder / "down")
said["output"] = sorted(file.relative_to(folder / "down").as_posix() for file in (folder / "down").rglob("*") if file.is_file())

uri = f"azureml://jobs/{first.name}/outputs/model"
def model(name, version, **more):
    return ml.models.create_or_update(Model(name=name, version=version, **({"path": uri, "type": "custom_model"} | more)))

registered = model("m", "1", tags={"stage": "champion", "metric.mae": "1.5"})
said["registered"] = [registered.version, registered.tags]
(folder / "local").mkdir()
(folder / "local" / "weights.txt").write_text("local")
said["automatic"] = model("m", None, path=str(folder / "local")).version
said["taken"] = refusal(lambda: model("m", "2"))[0]
said["not mlflow"] = refusal(lambda: model("n", "1", type="mlflow_model"))
said["no job"] = refusal(lambda: model("n", "1", path="azureml://jobs/no/outputs/model"))
ml.models.download("m", "1", download_path=folder / "model")
said["content"] = next((folder / "model").rglob("weights.txt")).read_text()
said["listed"] = [model.version for model in ml.models.list(name="m")]
ml.models.archive("m", version="2")
said["after archiving"] = [model.version for model in ml.models.list(name="m")]
said["latest"] = ml.models.get("m", label="latest").version
print("SAID " + json.dumps(said))
'''


@dataclass
class Azure:
    """A client of the local Azure, in this process."""

    world: World
    session: aiohttp.ClientSession
    said: dict[str, Any] = field(default_factory=dict)  # by the program

    async def call(
        self,
        method: str,
        url: str,
        body: Any = None,
        *,
        who: Character | None = AGENT,
        audience: str = MANAGEMENT,
        version: str = "2023-04-01",
    ) -> tuple[int, Any]:
        """One request; the answer's status and JSON."""
        headers = {"Authorization": f"Bearer {self.world.tokens.issue(who, audience)}"} if who else {}
        address = url if url.startswith("https:") else f"{MANAGEMENT}{url}{'&' if '?' in url else '?'}api-version={version}"
        async with self.session.request(
            method, address, json=body, headers=headers, proxy=proxy(self.world), ssl=trust(self.world)
        ) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None

    async def blob(
        self, method: str, url: str, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """One request to the blob store; the answer's status and content."""
        async with self.session.request(
            method, url, data=content, headers=headers, proxy=proxy(self.world), ssl=trust(self.world)
        ) as answer:
            return answer.status, await answer.read()

    async def submit(self, name: str, line: str, **more: Any) -> tuple[int, Any]:
        """Submit a command job."""
        wish = {"jobType": "Command", "command": line, "environmentId": ENVIRONMENT, "computeId": CLUSTER, "experimentName": "trials"}
        return await self.call("PUT", f"{WORKSPACE}/jobs/{name}", {"properties": wish | more})

    async def until(self, name: str, *statuses: str) -> dict[str, Any]:
        """The job's run, once it has one of the statuses."""
        while True:
            _, run = await self.call("GET", f"https://{names.AML_API}/history/v1.0{WORKSPACE}/runs/{name}/details")
            if run["status"] in statuses:
                return dict(run)
            await asyncio.sleep(0.05)


async def furnish(azure: Azure) -> None:
    """The workspace, a cluster and an environment."""
    parameters = {"workspaceName": {"value": names.WORKSPACE}, "location": {"value": names.LOCATION}}
    await azure.call("PUT", f"{GROUP}/providers/Microsoft.Resources/deployments/first", {"properties": {"parameters": parameters}})
    scale = {"minNodeCount": 0, "maxNodeCount": 4}
    cluster = {"computeType": "AmlCompute", "properties": {"vmSize": "Standard_DS2_v2", "scaleSettings": scale}}
    assert (await azure.call("PUT", CLUSTER, {"properties": cluster}))[0] == 201
    assert (await azure.call("PUT", ENVIRONMENT, {"properties": {"image": "python:3.11"}}))[0] == 201


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def azure(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Azure]:
    """An Azure ML that the program has made its workspace in, shared by the tests of this file: its tracking server takes seconds."""
    async with sandbox(tmp_path_factory.mktemp("world"), AzureML) as world, aiohttp.ClientSession() as session:
        words = (names.SUBSCRIPTION, names.RESOURCE_GROUP, names.WORKSPACE, names.LOCATION, str(tmp_path_factory.mktemp("program")))
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM,
            *words,
            env=world.outside(AGENT),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        told = (await program.communicate())[0].decode()
        assert program.returncode == 0, told
        yield Azure(world, session, json.loads(told.partition("SAID ")[2]))


async def test_the_sdk_does_with_it_what_it_does_with_azure(azure: Azure) -> None:
    said = azure.said

    assert azure.world.proxy
    assert azure.world.proxy.refused == []
    assert (said["missing"], said["created"], said["again"]) == (404, names.WORKSPACE, names.WORKSPACE)
    assert (said["compute"], said["environment"]) == ("Succeeded", "1")
    assert "first edition" in said["first"]
    assert "second edition" in said["second"]
    assert "Execution failed. User process 'python' exited with status code 1." in said["broken"]
    assert "ValueError: 7" in said["broken"]
    assert said["status"] == ["Completed", "Completed", "Failed"]
    assert said["unknown compute"][1].endswith("Compute with name 'nowhere' was not found in workspace 'ml-delivery'.")
    assert [name for name in said["output"] if name.endswith(("weights.txt", "std_log.txt"))] == [
        "artifacts/user_logs/std_log.txt",
        "named-outputs/model/weights.txt",
    ]
    assert said["registered"] == ["1", {"stage": "champion", "metric.mae": "1.5"}]
    assert (said["automatic"], said["taken"]) == ("2", 409)
    assert "MLmodel" in said["not mlflow"][1]
    assert said["no job"][1].endswith("Job no was not found.")
    assert (said["content"], said["listed"], said["after archiving"]) == ("0.5", ["2", "1"], ["1"])
    assert said["latest"] == "1"
    assert the(azure.world, AzureML).champion("m") == "1"


async def test_strangers_and_guests_are_refused_as_resource_manager_does(azure: Azure) -> None:
    assert await azure.call("GET", WORKSPACE, who=None) == (
        401,
        {"error": {"code": "AuthenticationFailed", "message": "The request has no bearer token."}},
    )
    status, wrong = await azure.call("GET", WORKSPACE, audience="https://vault.azure.net")
    assert (status, wrong["error"]["code"]) == (401, "InvalidAuthenticationToken")
    status, guest = await azure.call("GET", WORKSPACE, who=GUEST)
    assert (status, guest["error"]["code"]) == (403, "AuthorizationFailed")
    for path in (f"/mlflow/v1.0{WORKSPACE}/api/2.0/mlflow/experiments/search", f"/history/v1.0{WORKSPACE}/runs/x/details"):
        assert (await azure.call("GET", f"https://{names.AML_API}{path}", who=None))[0] == 401


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        (f"{MANAGEMENT}{WORKSPACE}", 400, "MissingApiVersionParameter"),
        (WORKSPACE.replace(names.SUBSCRIPTION, "1" * 8), 404, "SubscriptionNotFound"),
        (WORKSPACE.replace("/ml/", "/other/"), 404, "ResourceGroupNotFound"),
        (f"{GROUP}/providers/Microsoft.MachineLearningServices/workspaces/other/models", 404, "ResourceNotFound"),
        (f"{WORKSPACE}/models/none/versions/1", 404, "UserError"),
        (f"{WORKSPACE}/jobs/none", 404, "UserError"),
        (f"{WORKSPACE}/datastores/none", 404, "UserError"),
        (f"{WORKSPACE}/nothing", 404, "InvalidResourceType"),
    ],
)
async def test_what_is_not_there_has_an_error_of_its_own(azure: Azure, url: str, status: int, code: str) -> None:
    answer = await azure.call("GET", url)

    assert (answer[0], answer[1]["error"]["code"]) == (status, code)


async def test_a_job_is_refused_before_it_runs(azure: Azure) -> None:
    wrong = {
        "computeId": f"{WORKSPACE}/computes/gone",
        "environmentId": f"{WORKSPACE}/environments/gone/versions/1",
        "codeId": f"{WORKSPACE}/codes/gone/versions/1",
        "line": "echo ${{inputs.nothing}}",
        "jobType": "Sweep",
    }

    for name, value in wrong.items():
        status, _ = await azure.submit("refused", **({"line": "true"} | {name: value}))
        assert status in (400, 404)

    assert (await azure.call("GET", f"{WORKSPACE}/jobs/refused"))[0] == 404


async def test_a_job_and_its_run_have_one_name_and_one_set_of_tags(azure: Azure) -> None:
    script = "import os, mlflow; mlflow.start_run(); mlflow.log_metric('mae', 2.5); mlflow.set_tag('rows', os.environ['AZUREML_RUN_ID'])"
    line = f'export MLFLOW_TRACKING_URI=https${{MLFLOW_TRACKING_URI#azureml}}; python -c "{script}"'
    await azure.submit("tracked-1", line)

    assert (await azure.until("tracked-1", "Completed", "Failed"))["status"] == "Completed"

    url = f"https://{names.AML_API}/mlflow/v2.0{WORKSPACE}/api/2.0/mlflow/runs/get?run_id=tracked-1"
    status, run = await azure.call("GET", url, audience="https://ml.azure.com")
    assert status == 200
    assert run["run"]["info"]["status"] == "FINISHED"
    assert [(metric["key"], metric["value"]) for metric in run["run"]["data"]["metrics"]] == [("mae", 2.5)]
    _, job = await azure.call("GET", f"{WORKSPACE}/jobs/tracked-1")
    assert job["properties"]["tags"]["rows"] == "tracked-1"
    _, search = await azure.call(
        "POST", url.replace("runs/get?run_id=tracked-1", "runs/search"), {"experiment_ids": [run["run"]["info"]["experiment_id"]]}
    )
    assert "tracked-1" in [found["info"]["run_id"] for found in search["runs"]]


async def test_a_cancelled_job_ends_at_once(azure: Azure) -> None:
    await azure.submit("long-1", "echo begun; sleep 600")
    await azure.until("long-1", "Running")

    status, _ = await azure.call("POST", f"{WORKSPACE}/jobs/long-1/cancel")

    assert status == 200
    assert "error" not in await azure.until("long-1", "Canceled")


async def test_a_preempted_node_kills_its_job_and_the_next_one_lives(azure: Azure) -> None:
    azure.world.faults.arm("aml.preempt", after=0)

    await azure.submit("victim-1", "echo begun; sleep 600")

    run = await azure.until("victim-1", "Failed", "Completed")
    assert run["error"]["error"]["message"] == "Compute node was preempted (the process was ended by signal 9)."
    await azure.submit("next-1", "echo fine")
    assert (await azure.until("next-1", "Failed", "Completed"))["status"] == "Completed"


async def test_a_job_that_takes_too_long_is_ended(azure: Azure) -> None:
    await azure.submit("slow-1", "sleep 600", limits={"jobLimitsType": "Command", "timeout": "PT1S"})

    run = await azure.until("slow-1", "Failed", "Completed")

    assert run["error"]["error"]["message"] == "Execution exceeded the limit of 1 seconds and was ended."


async def test_a_restart_remembers_everything_and_says_which_job_was_lost(tmp_path: Path) -> None:
    async with sandbox(tmp_path, AzureML) as world, aiohttp.ClientSession() as session:
        azure = Azure(world, session)
        await furnish(azure)
        await azure.submit("lost-1", "sleep 600")

    async with sandbox(tmp_path, AzureML) as world, aiohttp.ClientSession() as session:
        azure = Azure(world, session)
        run = await azure.until("lost-1", "Failed", "Completed")
        _, cluster = await azure.call("GET", CLUSTER)

    assert run["error"]["error"]["message"] == "Compute node was lost: the sandbox was stopped while the job ran."
    assert cluster["properties"]["properties"]["vmSize"] == "Standard_DS2_v2"


async def test_a_blob_is_for_whoever_has_a_right_to_it(azure: Azure) -> None:
    storage = the(azure.world, AzureML).storage
    container, other = storage.new_container(), storage.new_container()
    blob = {"x-ms-blob-type": "BlockBlob", "x-ms-meta-kind": "text"}
    name = storage.sas(container).replace("?", "/folder/a.txt?", 1)

    assert (await azure.blob("PUT", name, b"hello world", blob))[0] == 201

    assert await azure.blob("GET", name, headers={"x-ms-range": "bytes=6-100"}) == (206, b"world")
    assert (await azure.blob("GET", name, headers={"x-ms-range": "bytes=11-"}))[0] == 416
    assert (await azure.blob("GET", name.partition("?")[0]))[0] == 404
    assert (await azure.blob("GET", name.replace(container, other)))[0] == 403
    assert (await azure.blob("GET", name.replace("sig=", "sig=x")))[0] == 403
    assert (await azure.blob("GET", name.replace("se=", "se=1")))[0] == 403
    reader = storage.sas(container, "folder/a.txt", permissions="r")
    assert await azure.blob("GET", reader) == (200, b"hello world")
    assert (await azure.blob("PUT", reader, b"changed", blob))[0] == 403
    assert (await azure.blob("GET", storage.sas(container).replace("?", "/folder/%2e%2e/%2e%2e/x?", 1)))[0] in (400, 403, 404)
    _, listing = await azure.blob("GET", storage.sas(container) + "&restype=container&comp=list&prefix=folder/&include=metadata")
    assert b"<Name>folder/a.txt</Name>" in listing
    assert b"<kind>text</kind>" in listing


async def test_a_large_blob_comes_in_blocks(azure: Azure) -> None:
    storage = the(azure.world, AzureML).storage
    name = storage.sas(storage.new_container()).replace("?", "/big.bin?", 1)
    blocks = [base64.b64encode(b"one").decode(), base64.b64encode(b"two").decode()]
    for block, content in zip(blocks, (b"first ", b"second"), strict=True):
        assert (await azure.blob("PUT", f"{name}&comp=block&blockid={block}", content))[0] == 201
    listing = "<BlockList>" + "".join(f"<Latest>{block}</Latest>" for block in blocks) + "</BlockList>"

    assert (await azure.blob("PUT", f"{name}&comp=blocklist", listing.encode()))[0] == 201

    assert await azure.blob("GET", name) == (200, b"first second")
    assert (await azure.blob("PUT", f"{name}&comp=blocklist", listing.encode()))[0] == 400


async def test_the_studio_shows_what_ran_and_lets_nothing_through(azure: Azure) -> None:
    await azure.submit("shown-1", "echo '<script>alert(1)</script>'; exit 3", displayName="<b>bold</b>")
    await azure.until("shown-1", "Failed")

    pages = {}
    for path in ("/ml.azure.com/", "/ml.azure.com/runs/shown-1", "/ml.azure.com/runs/none", "/ml.azure.com/studio.css"):
        async with azure.session.get(azure.world.page_url + path) as answer:
            pages[path] = (answer.status, await answer.text(), answer.headers.get("Content-Security-Policy", ""))

    status, job, policy = pages["/ml.azure.com/runs/shown-1"]
    assert status == 200
    assert "default-src 'none'" in policy
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in job
    assert "exited with status code 3" in job
    assert "<b>bold" not in job + pages["/ml.azure.com/"][1]
    assert "shown-1" in pages["/ml.azure.com/"][1]
    assert pages["/ml.azure.com/runs/none"][0] == 404
    assert pages["/ml.azure.com/studio.css"][0] == 200
