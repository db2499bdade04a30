"""Command jobs as real processes: their code, inputs and outputs, their logs as they grow, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

from sandbox import names, processes
from sandbox.azure_ml import arm
from sandbox.azure_ml.assets import Assets
from sandbox.azure_ml.blobs import Storage
from sandbox.azure_ml.mlflow import Tracking
from sandbox.azure_ml.workspace import ARTIFACTS, PROVIDER, Workspaces, workspace_id
from sandbox.world import World

log = logging.getLogger("sandbox.azure.jobs")

LOG = "user_logs/std_log.txt"
ENDED = ("Completed", "Failed", "Canceled")
_RUN_STATUS = {"Completed": "FINISHED", "Failed": "FAILED", "Canceled": "KILLED"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
_EXPRESSION = re.compile(r"\$\{\{\s*(?P<table>inputs|outputs)\.(?P<name>\w+)\s*\}\}")
_TIMEOUT = re.compile(r"PT(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)(?:\.\d+)?S)?")
_TAIL = 4000  # characters of the log that a failed job's error repeats


class Jobs:
    """The workspace's jobs; `error` of a failed one is what its run says."""

    def __init__(self, world: World, storage: Storage, workspaces: Workspaces, assets: Assets, tracking: Tracking) -> None:
        self._world = world
        self._storage = storage
        self._workspaces = workspaces
        self._assets = assets
        self._tracking = tracking
        self._folder = world.folder / "azure_ml" / "jobs"
        self._jobs = world.state.table("azure.jobs")
        self._runs = world.state.table("azure.runs")  # what run history adds: times, error
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._nodes: dict[str, asyncio.Semaphore] = {}
        assets.job_output = self.output

    def all(self) -> list[dict[str, Any]]:
        """Every job's document, newest first."""
        return list(self._jobs.values())[::-1]

    def get(self, name: str) -> dict[str, Any]:
        """A job's document. Raises ArmError."""
        if name not in self._jobs:
            raise arm.ArmError(404, "UserError", f"Job {name} was not found.")
        document: dict[str, Any] = self._jobs[name]
        return document

    def history(self, name: str) -> dict[str, Any]:
        """Times and error of a job's run."""
        return dict(self._runs.get(name, {}))

    def output(self, name: str, output: str) -> str:
        """The datastore address of a job's output, with a slash at its end. Raises ArmError."""
        document = self.get(name)
        if output not in document["properties"]["outputs"] or output == "default":
            raise arm.ArmError(404, "UserError", f"Job {name} has no output {output}.")
        if document["properties"]["status"] != "Completed":
            raise arm.invalid(f"Job {name} is {document['properties']['status']}; only a completed job's output can be used.", "UserError")
        uri: str = document["properties"]["outputs"][output]["uri"]
        return uri.rstrip("/") + "/"

    def text(self, name: str) -> str:
        """What a job has printed so far."""
        file = self._log(name)
        return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""

    def routes(self) -> list[web.RouteDef]:
        """Jobs, as Resource Manager knows them."""
        jobs = arm.WORKSPACE + "/jobs"
        return [
            web.get(jobs, self._list),
            web.get(jobs + "/{name}", self._get),
            web.put(jobs + "/{name}", self._put),
            web.post(jobs + "/{name}/cancel", self._cancel),
        ]

    def data_routes(self) -> list[web.RouteDef]:
        """Run history, as far as the SDK asks for it."""
        history = "/history/v1.0" + arm.WORKSPACE
        return [
            web.get(history + "/runs/{name}/details", self._details),
            web.get(history + "/runs/{name}", self._details),
            web.post(history + "/rundata", self._rundata),
            web.patch(history + "/experiments/{experiment}/runs/{name}", self._patch),
        ]

    async def start(self) -> None:
        """Jobs that ran when the sandbox ended have lost their node."""
        for name, document in self._jobs.items():
            if document["properties"]["status"] not in ENDED:
                self._finish(name, "Failed", "Compute node was lost: the sandbox was stopped while the job ran.")
                self._tasks[name] = asyncio.create_task(self._close_run(name))

    async def stop(self) -> None:
        """End every job; the next start says why."""
        for task in tuple(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _list(self, request: web.Request) -> web.Response:
        hidden = {"All": (True, False), "ArchivedOnly": (True,)}.get(request.query.get("listViewType", ""), (False,))
        return web.json_response({"value": [job for job in self.all() if bool(job["properties"].get("isArchived")) in hidden]})

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(self.get(request.match_info["name"]))

    async def _put(self, request: web.Request) -> web.Response:
        name, workspace = request.match_info["name"], request.match_info["workspace"]
        properties: dict[str, Any] = (await arm.body(request)).get("properties") or {}
        if name in self._jobs:
            raise arm.invalid(
                "A job with this name already exists. If you are trying to submit a new job, use a different name. If you are trying to "
                "update an existing job, only description, tags, displayName, properties, and isArchived can be updated.",
                "UserError",
            )
        self._check(name, workspace, properties)
        outputs = {
            key: dict(value) | {"uri": value.get("uri") or _uri("workspaceblobstore", f"paths/azureml/{name}/{key}/")}
            for key, value in (properties.get("outputs") or {}).items()
        }
        outputs["default"] = {
            "jobOutputType": "uri_folder",
            "mode": "ReadWriteMount",
            "uri": _uri("workspaceartifactstore", f"ExperimentRun/dcid.{name}"),
        }
        studio = f"https://ml.azure.com/runs/{name}?wsid={workspace_id(workspace)}&tid={names.TENANT}"
        tracking = self._workspaces.get(workspace)["properties"]["mlFlowTrackingUri"]
        self._jobs[name] = {
            "id": f"{workspace_id(workspace)}/jobs/{name}",
            "name": name,
            "type": f"{PROVIDER}/workspaces/jobs",
            "properties": {
                **properties,
                "displayName": properties.get("displayName") or name,
                "experimentName": properties.get("experimentName") or "Default",
                "tags": properties.get("tags") or {},
                "properties": properties.get("properties") or {},
                "inputs": properties.get("inputs") or {},
                "isArchived": False,
                "status": "Queued",
                "outputs": outputs,
                "services": {
                    "Studio": {"jobServiceType": "Studio", "endpoint": studio, "properties": {}},
                    "Tracking": {"jobServiceType": "Tracking", "endpoint": tracking, "properties": {}},
                },
            },
            "systemData": {"createdBy": request[arm.PRINCIPAL].who.name, "createdByType": "Application", "createdAt": arm.now()},
        }
        self._runs[name] = {"createdUtc": arm.now()}
        task = asyncio.create_task(self._work(name, workspace))
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._tasks.pop(name, None))
        return web.json_response(self._jobs[name], status=201)

    def _check(self, name: str, workspace: str, properties: dict[str, Any]) -> None:
        """Refuse what the service refuses. Raises ArmError."""
        if not _NAME.fullmatch(name):
            raise arm.invalid(f"The job name '{name}' has characters that are not allowed.", "UserError")
        if properties.get("jobType") != "Command":
            raise arm.invalid(f"Jobs of type {properties.get('jobType')} are not supported.", "UserError")
        if not properties.get("command"):
            raise arm.invalid("The field 'command' is required.", "UserError")
        for expression in _EXPRESSION.finditer(properties["command"]):
            if expression["name"] not in (properties.get(expression["table"]) or {}):
                raise arm.invalid(f"The command uses {expression[0]}, which the job does not declare.", "UserError")
        if code := properties.get("codeId"):
            self._assets.find("codes", code)
        self._assets.find("environments", properties.get("environmentId") or "")
        compute = properties.get("computeId") or ""
        if compute:
            if self._workspaces.compute(workspace, compute.rpartition("/")[2])["properties"]["computeType"] != "AmlCompute":
                raise arm.invalid(f"The compute '{compute.rpartition('/')[2]}' cannot run jobs of this kind.", "UserError")
        elif not _is_local(properties):
            raise arm.invalid("The job names no compute.", "UserError")

    async def _work(self, name: str, workspace: str) -> None:
        """From the queue to its end."""
        document = self.get(name)
        try:
            async with self._node(workspace, document["properties"].get("computeId") or ""):
                experiment = await self._tracking.create_run(
                    name,
                    document["properties"]["experimentName"],
                    document["properties"]["displayName"],
                    {"mlflow.user": document["systemData"]["createdBy"], "azureml.jobName": name} | document["properties"]["tags"],
                )
                status, error = await self._run(name, document["properties"], self._environment(name, workspace, experiment))
        except asyncio.CancelledError:
            if self.get(name)["properties"]["status"] != "CancelRequested":
                raise  # the sandbox stops; the next start marks the job
            status, error = "Canceled", None
        except arm.ArmError as problem:
            status, error = "Failed", problem.message
        except Exception as problem:
            log.exception("job %s broke", name)
            status, error = "Failed", f"The sandbox could not run the job: {problem}"
        await self._take_tags(name)
        self._finish(name, status, error)
        await self._close_run(name)

    async def _run(self, name: str, properties: dict[str, Any], environment: dict[str, str]) -> tuple[str, str | None]:
        """One process, from its code to its exit: the status and, of a failed one, the error."""
        self._set(name, "Preparing")
        folder = self._folder / name / "wd"
        shutil.rmtree(folder, ignore_errors=True)
        if code := properties.get("codeId"):
            await asyncio.to_thread(
                shutil.copytree, self._assets.content(self._assets.find("codes", code)["properties"]["codeUri"]), folder
            )
        folder.mkdir(parents=True, exist_ok=True)
        values = {f"inputs.{key}": self._input(value) for key, value in (properties.get("inputs") or {}).items()}
        values |= {f"outputs.{key}": self._output_folder(name, key) for key in (properties.get("outputs") or {}) if key != "default"}
        line = _EXPRESSION.sub(lambda found: values[f"{found['table']}.{found['name']}"], properties["command"])
        own = {key: str(value) for key, value in (properties.get("environmentVariables") or {}).items()}
        preempt = self._world.faults.take("aml.preempt")
        process = await processes.start(["/bin/bash", "-c", line], folder=folder, environment=environment | own, output=self._log(name))
        self._set(name, "Running", startTimeUtc=arm.now())
        killer = asyncio.create_task(self._preempt(name, process, preempt)) if preempt is not None else None
        limit = _seconds((properties.get("limits") or {}).get("timeout"))
        try:
            code_of_exit = await asyncio.wait_for(process.wait(), limit)
        except TimeoutError:
            return "Failed", f"Execution exceeded the limit of {limit:.0f} seconds and was ended."
        finally:
            if killer:
                killer.cancel()
            await processes.end(process)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        if code_of_exit == 0:
            return "Completed", None
        if code_of_exit < 0 and preempt is not None:
            return "Failed", f"Compute node was preempted (the process was ended by signal {-code_of_exit})."
        how = f"was ended by signal {-code_of_exit}" if code_of_exit < 0 else f"exited with status code {code_of_exit}"
        return "Failed", (
            f"Execution failed. User process '{shlex.split(line)[0]}' {how}. Please check log file '{LOG}' for error details. "
            f"Error: {self.text(name)[-_TAIL:].strip()}"
        )

    async def _preempt(self, name: str, process: asyncio.subprocess.Process, detail: dict[str, Any]) -> None:
        """Take the node away once the job has said its first word."""
        while not self.text(name):  # noqa: ASYNC110 a file that another process writes raises no event
            await asyncio.sleep(0.05)
        await asyncio.sleep(float(detail.get("after", 0.5)))
        await processes.kill(process)

    def _environment(self, name: str, workspace: str, experiment: str) -> dict[str, str]:
        """What a job on Azure's computes finds in its environment, besides its node's own."""
        tracking = self._workspaces.get(workspace)["properties"]["mlFlowTrackingUri"]
        outside = self._world.outside(names.AGENT)
        return outside | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{outside.get('PATH', '')}",
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",  # a node has one core
            "AZUREML_RUN_ID": name,
            "AZUREML_EXPERIMENT_ID": experiment,
            "AZUREML_ARM_SUBSCRIPTION": names.SUBSCRIPTION,
            "AZUREML_ARM_RESOURCEGROUP": names.RESOURCE_GROUP,
            "AZUREML_ARM_WORKSPACE_NAME": workspace,
            "AZUREML_SERVICE_ENDPOINT": f"https://{names.AML_API}",
            "MLFLOW_TRACKING_URI": tracking,
            "MLFLOW_TRACKING_TOKEN": self._world.tokens.issue(names.AGENT, "https://ml.azure.com"),
            "MLFLOW_EXPERIMENT_ID": experiment,
            "MLFLOW_RUN_ID": name,
        }

    def _input(self, given: dict[str, Any]) -> str:
        if given.get("jobInputType") == "literal":
            return str(given.get("value", ""))
        return str(self._assets.content(given.get("uri") or ""))

    def _output_folder(self, name: str, output: str) -> str:
        folder = self._storage.path(self._workspaces.container("workspaceblobstore"), f"azureml/{name}/{output}")
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    def _node(self, workspace: str, compute: str) -> asyncio.Semaphore:
        """A place on the compute: as many as its cluster may have nodes."""
        if compute not in self._nodes:
            nodes = 8
            if compute:
                details = self._workspaces.compute(workspace, compute.rpartition("/")[2])["properties"]["properties"]
                nodes = int((details.get("scaleSettings") or {}).get("maxNodeCount") or 1)
            self._nodes[compute] = asyncio.Semaphore(nodes)
        return self._nodes[compute]

    def _set(self, name: str, status: str, **history: Any) -> None:
        document = self.get(name)
        document["properties"]["status"] = status
        self._jobs[name] = document
        self._runs[name] = self.history(name) | history

    def _finish(self, name: str, status: str, error: str | None) -> None:
        told = {"error": {"error": {"code": "UserError", "message": error}}} if error else {}
        self._set(name, status, endTimeUtc=arm.now(), **told)

    async def _take_tags(self, name: str) -> None:
        """In Azure a job's tags and its run's are the same; here they become so when it ends."""
        with contextlib.suppress(arm.ArmError):
            run = await self._tracking.run(name)
            own = {tag["key"]: tag["value"] for tag in run.get("tags", ()) if not tag["key"].startswith("mlflow.")}
            self.get(name)["properties"]["tags"] |= own

    async def _close_run(self, name: str) -> None:
        with contextlib.suppress(arm.ArmError):
            await self._tracking.end_run(name, _RUN_STATUS[self.get(name)["properties"]["status"]])

    async def _cancel(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if self.get(name)["properties"]["status"] not in ENDED:
            self._set(name, "CancelRequested")
            if name in self._tasks:
                self._tasks[name].cancel()
        return web.Response(status=200)

    async def _details(self, request: web.Request) -> web.Response:
        return web.json_response(self._run_document(request.match_info["name"]))

    async def _rundata(self, request: web.Request) -> web.Response:
        name = (await arm.body(request)).get("runId") or ""
        # No outputs: the SDK then looks where a job's outputs lie by convention, as it does for jobs of today's service.
        return web.json_response({"runMetadata": self._run_document(name) | {"outputs": {}}})

    async def _patch(self, request: web.Request) -> web.Response:
        name, wish = request.match_info["name"], await arm.body(request)
        document = self.get(name)
        if "hidden" in wish:
            document["properties"]["isArchived"] = bool(wish["hidden"])
        document["properties"]["displayName"] = wish.get("displayName") or document["properties"]["displayName"]
        document["properties"]["tags"] |= wish.get("tags") or {}
        document["properties"]["properties"] |= wish.get("properties") or {}
        self._jobs[name] = document
        return web.json_response(self._run_document(name))

    def _run_document(self, name: str) -> dict[str, Any]:
        properties = self.get(name)["properties"]
        blob = f"ExperimentRun/dcid.{name}/{LOG}"
        logs = {LOG: self._storage.sas(ARTIFACTS, blob, permissions="r")} if self._log(name).exists() else {}
        return {
            "runId": name,
            "status": properties["status"],
            "displayName": properties["displayName"],
            "target": (properties.get("computeId") or "local").rpartition("/")[2],
            "tags": properties["tags"],
            "properties": properties["properties"],
            "logFiles": logs,
            "warnings": [],
        } | self.history(name)

    def _log(self, name: str) -> Path:
        return self._storage.folder(ARTIFACTS) / "ExperimentRun" / f"dcid.{name}" / LOG


def _uri(datastore: str, path: str) -> str:
    return f"azureml://datastores/{datastore}/{path}"


def _is_local(properties: dict[str, Any]) -> bool:
    resources = properties.get("resources") or {}
    return "IsLocal" in (resources.get("properties") or {}) or properties.get("computeId") == "local"


def _seconds(duration: str | None) -> float | None:
    parts = _TIMEOUT.fullmatch(duration or "")
    if not duration or not parts:
        return None
    hours, minutes, seconds = (int(parts[name] or 0) for name in ("hours", "minutes", "seconds"))
    return hours * 3600 + minutes * 60 + seconds or None
