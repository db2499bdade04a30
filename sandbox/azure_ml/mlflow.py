"""Tracking: a real MLflow server as one child process, reached through the workspace's API behind its bearer tokens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import web

from sandbox import processes
from sandbox.azure_ml import arm
from sandbox.world import World

_START = 120  # seconds that a cold first start may take


class Tracking:
    """The server starts when it is first needed; its database lies in the world's folder."""

    def __init__(self, world: World) -> None:
        self._folder = world.folder / "azure_ml" / "mlflow"
        self._database = self._folder / "mlflow.sqlite3"
        self._process: asyncio.subprocess.Process | None = None
        self._session: aiohttp.ClientSession | None = None
        self._lock = asyncio.Lock()
        self._warming: asyncio.Task[str] | None = None
        self._url = ""

    def data_routes(self) -> list[web.RouteDef]:
        """MLflow's REST under the workspace's tracking address; the SDK says v2.0 where the workspace says v1.0."""
        return [web.route("*", "/mlflow/{_version:v[12][.]0}" + arm.WORKSPACE + "/{path:api/2[.]0/.+}", self._proxy)]

    def routes(self) -> list[web.RouteDef]:
        """Tracking is reached by the workspace's API only."""
        return []

    async def start(self) -> None:
        """Open the one session; the server itself comes up with the first wish."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))

    async def stop(self) -> None:
        """End the server."""
        if self._warming:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        if self._process:
            await processes.end(self._process)
        if self._session:
            await self._session.close()

    def warm(self) -> None:
        """Bring the server up in the background: the workspace's making is a good moment."""
        if self._warming is None:
            self._warming = asyncio.create_task(self.ready())

    async def ready(self) -> str:
        """The server's address, once it answers. Raises ArmError where it cannot be started."""
        async with self._lock:
            if self._process is None or self._process.returncode is not None:
                self._url = await self._bring_up()
            return self._url

    async def create_run(self, job: str, experiment: str, title: str, tags: Mapping[str, str]) -> str:
        """Open the run of a job, under the job's own name as its id; returns the experiment's id."""
        found = await self._call("GET", "experiments/get-by-name", {"experiment_name": experiment}, missing_ok=True)
        if found is None:
            with contextlib.suppress(arm.ArmError):  # a job submitted at the same moment made it first
                await self._call("POST", "experiments/create", {"name": experiment})
            found = await self._call("GET", "experiments/get-by-name", {"experiment_name": experiment})
        assert found is not None
        identifier = str(found["experiment"]["experiment_id"])
        wish = {
            "experiment_id": identifier,
            "run_name": title,
            "start_time": int(time.time() * 1000),
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        created = await self._call("POST", "runs/create", wish)
        assert created is not None
        await asyncio.to_thread(self._rename, created["run"]["info"]["run_id"], job)
        return identifier

    async def end_run(self, job: str, status: str) -> None:
        """Close the run of a job: FINISHED, FAILED or KILLED."""
        await self._call("POST", "runs/update", {"run_id": job, "status": status, "end_time": int(time.time() * 1000)}, missing_ok=True)

    async def run(self, job: str) -> dict[str, Any]:
        """The `data` of a job's run (metrics, params, tags); empty for a job that never had one."""
        found = await self._call("GET", "runs/get", {"run_id": job}, missing_ok=True)
        return dict(found["run"]["data"]) if found else {}

    def _rename(self, old: str, new: str) -> None:
        """Give a run that was just made another id: in Azure it is the job's name, and MLflow's API lets nobody choose."""
        with contextlib.closing(sqlite3.connect(self._database, timeout=30)) as database, database:
            database.execute(
                "update runs set run_uuid = ?, artifact_uri = replace(artifact_uri, ?, ?) where run_uuid = ?", (new, old, new, old)
            )
            database.execute("update tags set run_uuid = ? where run_uuid = ?", (new, old))

    async def _call(self, method: str, path: str, wish: Mapping[str, Any], *, missing_ok: bool = False) -> dict[str, Any] | None:
        url = f"{await self.ready()}/api/2.0/mlflow/{path}"
        assert self._session is not None
        how: dict[str, Any] = {"params": wish} if method == "GET" else {"json": wish}
        async with self._session.request(method, url, **how) as answer:
            document: dict[str, Any] = await answer.json()
            if missing_ok and answer.status == 404:
                return None
            if not answer.ok:
                raise arm.ArmError(answer.status, document.get("error_code", "MLflow"), document.get("message", ""))
            return document

    async def _proxy(self, request: web.Request) -> web.Response:
        url = f"{await self.ready()}/{request.match_info['path']}"
        assert self._session is not None
        headers = {name: request.headers[name] for name in ("Content-Type", "Accept", "User-Agent") if name in request.headers}
        body = await request.read()
        async with self._session.request(request.method, url, params=request.query, data=body or None, headers=headers) as answer:
            content = await answer.read()
            return web.Response(status=answer.status, body=content, headers={"Content-Type": answer.headers.get("Content-Type", "")})

    async def _bring_up(self) -> str:
        self._folder.mkdir(parents=True, exist_ok=True)
        port = processes.free_port()
        url = f"http://127.0.0.1:{port}"
        # `mlflow server` starts eight processes; this is the one of them that answers.
        command = [sys.executable, "-W", "ignore", "-m", "uvicorn", "mlflow.server.fastapi_app:app"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
        log = self._folder / "server.log"
        self._process = await processes.start(command, folder=self._folder, environment=self._environment(), output=log)
        deadline = time.monotonic() + _START
        assert self._session is not None
        while self._process.returncode is None and time.monotonic() < deadline:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self._session.get(f"{url}/health") as answer:
                    if answer.ok:
                        return url
            await asyncio.sleep(0.1)
        await processes.end(self._process)
        raise arm.ArmError(503, "ServiceUnavailable", f"The tracking server did not start; see {log}.")

    def _environment(self) -> dict[str, str]:
        own = {
            name: value for name, value in os.environ.items() if "MLFLOW" not in name and name.upper() not in ("HTTP_PROXY", "HTTPS_PROXY")
        }
        return own | {
            "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{self._database}",
            "_MLFLOW_SERVER_REGISTRY_STORE": f"sqlite:///{self._database}",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": str(self._folder / "artifacts"),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }
