"""The sandbox's child processes: each leads a group of its own, is ended with all of it, and never outlives the sandbox."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_WARDEN = Path(__file__).with_name("warden.py")
_GRACE = 5.0  # seconds between asking a process to end and killing it


def free_port(preferred: int = 0) -> int:
    """A loopback port nobody listens on: the preferred one if possible.

    It lies below the range that the system hands out by itself, so that nothing takes it while the process still starts.
    """
    for port in (preferred, *(20000 + secrets.randbelow(12000) for _ in range(50))):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                if port:
                    probe.bind(("127.0.0.1", port))
                    return port
    raise OSError("no free port on loopback")


async def start(
    command: Sequence[str], *, folder: Path, environment: Mapping[str, str], output: Path | IO[bytes]
) -> asyncio.subprocess.Process:
    """Start a process; what it prints goes to `output`: a log that it is appended to, or an open file."""
    if isinstance(output, Path):
        output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("ab") if isinstance(output, Path) else contextlib.nullcontext(output) as sink:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    _warden.watch(process.pid)
    return process


async def end(process: asyncio.subprocess.Process, seconds: float = _GRACE) -> None:
    """End a process and all it started: SIGTERM, and SIGKILL for who has not heard it in time. Done twice, it does nothing."""
    _tell(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), seconds)
    await kill(process)


async def kill(process: asyncio.subprocess.Process) -> None:
    """End a process and all it started at once: SIGKILL."""
    clear(process)
    await process.wait()


def clear(process: asyncio.subprocess.Process) -> None:
    """Kill what a process left in its group, without waiting for it."""
    _tell(process, signal.SIGKILL)
    _warden.forget(process.pid)


def _tell(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.pid in _warden.groups:  # one that was forgotten has ended, and its number may be somebody else's by now
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


class _Warden:
    """The watch of `sandbox.warden` over every group this process started; it begins with the first."""

    def __init__(self) -> None:
        self.groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, group: int) -> None:
        self.groups.add(group)
        self._note(f"+{group}\n")

    def forget(self, group: int) -> None:
        if group in self.groups:
            self.groups.remove(group)
            self._note(f"-{group}\n")

    def close(self) -> None:
        """End the watch; it ends what is still there."""
        if self._process is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.communicate()

    def _note(self, line: str) -> None:
        if self._process is None:
            # -I and -S: it needs nothing but the standard library, and starts in a few milliseconds without the rest.
            command = [sys.executable, "-I", "-S", str(_WARDEN), str(_GRACE)]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                bufsize=0,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # somebody ended the watch: then nobody watches
            self._process.stdin.write(line.encode())


_warden = _Warden()
atexit.register(_warden.close)
