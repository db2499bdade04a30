"""Our own server processes, and what Linux says about any process: its CPU time, its memory, its children."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from sandbox.processes import end, free_port, start

TICKS = os.sysconf("SC_CLK_TCK")


class DidNotStart(Exception):
    """A server did not come up; the message has the end of its log."""


@asynccontextmanager
async def serving(what: str, folder: Path, *arguments: str, environment: Mapping[str, str] = os.environ) -> AsyncIterator[int]:
    """`python -m bench.serve <what>` as a process of its own for the time of the block; gives its port. Raises DidNotStart."""
    port, log = free_port(), folder / f"{what}.log"
    command = [sys.executable, "-m", "bench.serve", what, str(port), *arguments]
    process = await start(command, folder=Path.cwd(), environment=environment, output=log)
    try:
        async with asyncio.timeout(30):
            while not await _answers(port):
                if process.returncode is not None:
                    raise DidNotStart(f"{what}:\n{log.read_text()[-2000:]}")
                await asyncio.sleep(0.05)
        yield port
    finally:
        await end(process, 15)


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children = _children()
    found = [pid]
    for parent in found:
        found += children.get(parent, ())
    return found


def cpu_seconds(pid: int) -> float:
    """What a process and its ended children have computed so far."""
    return sum(int(ticks) for ticks in _stat(pid)[11:15]) / TICKS


def resident(pid: int) -> float:
    """Megabytes that a process has in memory, shared ones too."""
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmRSS") / 1024


def proportional(pid: int) -> float:
    """Megabytes that a process has in memory, shared ones divided by how many share them: fit to be added up."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss") / 1024


def _kilobytes(file: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(f"{name}:"))


def _stat(pid: int) -> list[str]:
    """What /proc says of a process after its name, from its state on. https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _children() -> dict[int, list[int]]:
    """Every process by its parent."""
    found: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            found.setdefault(int(_stat(int(folder.name))[1]), []).append(int(folder.name))
    return found


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
