"""Edge: Azure Machine Learning. `AzureML` implements `bot.ports.Models`.

The registry is read with azure-ai-ml, in a worker process (`bot.azure_ml_worker`) that starts on first use and dies on a time-out;
metrics come from MLflow's REST API over aiohttp. Neither azure-ai-ml nor mlflow is ever imported here.
https://mlflow.org/docs/latest/rest-api.html#get-run
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import aiohttp

from bot.core.errors import Gone, NotNow, OutsideError, Refused
from bot.core.models import ModelVersion

LINE = 4 * 1024 * 1024  # bytes of one message to or from the worker
_METRIC = "metric."  # what the tags of metrics start with
log = logging.getLogger(__name__)


class AzureML:
    """One workspace. `token` gives a token for Azure Resource Manager and may block; `session` belongs to the caller.

    `logs` is the folder of the worker's log; `timeout` is for one answer, `start_timeout` for the worker's start, in seconds;
    `command` starts it, and gets the three names as arguments.
    """

    def __init__(
        self,
        subscription: str,
        resource_group: str,
        workspace: str,
        *,
        token: Callable[[], str],
        session: aiohttp.ClientSession,
        logs: Path,
        timeout: float = 30.0,
        start_timeout: float = 60.0,
        command: Sequence[str] = (sys.executable, "-m", "bot.azure_ml_worker"),
    ) -> None:
        self._token = token
        self._session = session
        self._timeout = timeout
        self.worker = Worker(
            (*command, subscription, resource_group, workspace), logs / "azure-ml-worker.log", timeout=timeout, start_timeout=start_timeout
        )
        self._tracking: str | None = None

    async def close(self) -> None:
        """End the worker."""
        await self.worker.stop()

    async def versions(self, model: str) -> tuple[ModelVersion, ...]:
        """Every registered version, newest first; empty for a model nobody has registered."""
        said = await self.worker.ask({"do": "versions", "model": model})
        found = (version(one) for one in said["versions"])
        return tuple(sorted(found, key=_age, reverse=True))

    async def metrics(self, run_id: str) -> Mapping[str, float]:
        """The last value of every metric of an MLflow run. Raises Gone."""
        if self._tracking is None:
            said = await self.worker.ask({"do": "tracking"})
            self._tracking = rest_address(said["tracking"])
        token = await asyncio.to_thread(self._token)
        try:
            async with self._session.get(
                f"{self._tracking}/api/2.0/mlflow/runs/get",
                params={"run_id": run_id},
                headers={"Authorization": f"Bearer {token}"},
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                allow_redirects=False,
            ) as answer:
                if answer.status != 200:
                    raise refusal(answer.status, answer.headers.get("Retry-After"), run_id)
                return metrics(await answer.json(content_type=None))
        except (aiohttp.ClientError, TimeoutError, ValueError):
            raise NotNow("MLflow cannot be reached.") from None


def version(said: Mapping[str, Any]) -> ModelVersion:
    """A version out of the worker's answer; what the register stage wrote into its tags is taken out of them."""
    tags: dict[str, str] = dict(said["tags"])
    created = said["created"]
    return ModelVersion(
        name=said["name"],
        version=said["version"],
        created=_aware(datetime.fromisoformat(created)) if created else None,
        champion=tags.get("stage") == "champion",
        algorithm=tags.get("algorithm", ""),
        run_id=tags.get("run_id") or None,
        commit=tags.get("commit") or None,
        metrics={
            name.removeprefix(_METRIC): value
            for name, text in tags.items()
            if name.startswith(_METRIC) and (value := _number(text)) is not None
        },
        tags=tags,
    )


def metrics(said: Any) -> dict[str, float]:
    """The metrics out of MLflow's answer; of a value that is no number there is nothing to compare."""
    match said:
        case {"run": {"data": {"metrics": [*listed]}}}:
            return {one["key"]: value for one in listed if (value := _number(one.get("value"))) is not None}
        case {"run": {"data": {}}}:
            return {}
    raise NotNow("MLflow gave an answer that cannot be read.")


def refusal(status: int, after: str | None, run_id: str) -> OutsideError:
    """MLflow's failure as ours."""
    match status:
        case 404:
            return Gone(f"The run {run_id} does not exist in MLflow.")
        case 400 | 403:
            return Refused(f"MLflow does not give us the run {run_id}.")
        case 401:
            return NotNow("MLflow does not accept Callboard's identity.")
        case _:
            return NotNow("MLflow has trouble.", after=_number(after))


def rest_address(tracking: str) -> str:
    """Where MLflow's REST API answers, out of a workspace's tracking URI (`azureml://host/mlflow/...`)."""
    return "https://" + tracking.partition("://")[2].partition("?")[0].rstrip("/")


def _age(one: ModelVersion) -> tuple[float, int]:
    return (one.created.timestamp() if one.created else 0.0, int(one.version) if one.version.isdecimal() else 0)


def _aware(time: datetime) -> datetime:
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


class Worker:
    """A process that answers one question at a time in JSON lines. It starts on the first question, and again after it died."""

    def __init__(self, command: Sequence[str], log_file: Path, *, timeout: float, start_timeout: float) -> None:
        self._command = command
        self._log_file = log_file
        self._timeout = timeout
        self._start_timeout = start_timeout
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The answer. Raises Gone, Refused, NotNow; whoever gives up waiting leaves no half-read answer behind."""
        async with self._turn:
            try:
                process = await self._running()
                said = await self._exchange(process, json.dumps(question), self._timeout)
            except BaseException:
                await self._kill()
                raise
        match said:
            case {"error": "gone", "says": str(words)}:
                raise Gone(words)
            case {"error": "refused", "says": str(words)}:
                raise Refused(words)
            case {"error": _, "says": str(words)}:
                raise NotNow(words, after=said.get("after"))
        return said

    async def stop(self) -> None:
        """End the process, if there is one: it leaves by itself when its input ends."""
        if self._process and self._process.stdin:
            self._process.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await self._process.wait()
        await self._kill()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._log_file.parent.mkdir(parents=True, exist_ok=True)
            with self._log_file.open("ab") as errors:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=errors,
                    limit=LINE,
                    start_new_session=True,
                )
            await self._exchange(self._process, None, self._start_timeout)
            log.info("The Azure ML worker is ready, as process %d.", self._process.pid)
        return self._process

    @staticmethod
    async def _exchange(process: asyncio.subprocess.Process, question: str | None, within: float) -> dict[str, Any]:
        questions, answers = cast(asyncio.StreamWriter, process.stdin), cast(asyncio.StreamReader, process.stdout)  # both are pipes
        try:
            async with asyncio.timeout(within):
                if question is not None:
                    questions.write(question.encode() + b"\n")
                    await questions.drain()
                line = await answers.readline()
                said: dict[str, Any] = json.loads(line)
                return said
        except TimeoutError:
            raise NotNow("Azure Machine Learning did not answer in time.") from None
        except (ValueError, OSError):  # no line at all, half a line, one that is too long
            raise NotNow("Azure Machine Learning's worker died; it will be started again.") from None

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
