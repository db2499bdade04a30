"""Containers as real processes: an image's command with this machine's Python, its own folder, log and port on loopback."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

import aiohttp

from sandbox import processes
from sandbox.azure_ml import arm
from sandbox.azure_ml.oci import Image, Layout


class Phase(StrEnum):
    """The states of a container, in the words of Azure Container Instances."""

    WAITING = "Waiting"
    RUNNING = "Running"
    TERMINATED = "Terminated"


@dataclass(frozen=True, slots=True)
class Status:
    """How a container is; `since` is when it got there, `code` the exit code of the last end."""

    phase: Phase
    since: str
    restarts: int = 0
    code: int | None = None


class Container:
    """One container: started with `start`, started again when it ends by itself (unless `always` is off), ended with `stop`."""

    def __init__(
        self, image: Image, layout: Layout, folder: Path, environment: Mapping[str, str], port: int, *, always: bool = True
    ) -> None:
        self._image = image
        self._layout = layout
        self._root = folder / "root"
        self._given = environment
        self._always = always
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self.log = folder / "container.log"
        self.port = port
        self.status = Status(Phase.WAITING, arm.now())

    async def start(self) -> None:
        """Unpack the image and start its command; the log begins anew."""
        await asyncio.to_thread(self._unpack)
        self.log.unlink(missing_ok=True)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the process and leave it ended."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._process:
            await processes.end(self._process)
            self.status = Status(Phase.TERMINATED, arm.now(), self.status.restarts, self._process.returncode)
            self._process = None

    async def healthy(self, path: str) -> bool:
        """Whether a probe of the path is answered with a success."""
        try:
            timeout = aiohttp.ClientTimeout(total=2)
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(f"http://127.0.0.1:{self.port}{path}") as answer:
                return answer.ok
        except (aiohttp.ClientError, TimeoutError):
            return False

    def logs(self, lines: int | None = None) -> str:
        """The end of what the container printed; everything without `lines`."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return text if lines is None else "".join(text.splitlines(keepends=True)[-lines:])

    async def _run(self) -> None:
        pause = 1.0
        while True:
            try:
                process = await processes.start(
                    self._command(), folder=self._inside(self._image.folder), environment=self._environment(), output=self.log
                )
            except OSError as problem:  # as runc: the command is not in the image
                self._note(f"exec: {self._image.command[:1]}: {problem.strerror}\n")
                self.status = Status(Phase.TERMINATED, arm.now(), self.status.restarts, 127)
            else:
                self._process = process
                self.status = Status(Phase.RUNNING, arm.now(), self.status.restarts, self.status.code)
                code = await process.wait()
                processes.clear(process)
                self.status = Status(Phase.TERMINATED, arm.now(), self.status.restarts, code)
            if not self._always:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, 300)
            self.status = Status(Phase.WAITING, arm.now(), self.status.restarts + 1, self.status.code)

    def _unpack(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)
        self._layout.unpack(self._image, self._root)
        self._inside(self._image.folder).mkdir(parents=True, exist_ok=True)

    def _command(self) -> list[str]:
        first, *rest = self._image.command or ("/bin/sh",)
        program = sys.executable if PurePosixPath(first).name in ("python", "python3") else first
        return [program, *(str(self._inside(word)) if word.startswith("/") and self._inside(word).exists() else word for word in rest)]

    def _environment(self) -> dict[str, str]:
        own = {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin", "HOME": str(self._root), "LANG": "C.UTF-8"}
        image = {name: value for name, value in self._image.environment.items() if name != "PATH"}
        return {**own, **image, **self._given, "HOST": "127.0.0.1", "PORT": str(self.port)}

    def _inside(self, path: str) -> Path:
        return self._root / path.lstrip("/")

    def _note(self, line: str) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(line)
