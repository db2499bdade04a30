"""The sandbox's child processes: ended with all they started, and ended even where the sandbox is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox import processes
from tests.sandboxes import ROOT

# Each writes its own number, so that a test can ask whether it still lives; the inner one is a child of a child.
FAMILY = "sleep 100 & echo $! > child; echo $$ > parent; wait"
DEAF = "trap '' TERM; (trap '' TERM; sleep 100) & echo $! > child; echo $$ > parent; while true; do sleep 1; done"
# A sandbox in short: it starts a family and never ends by itself.
SANDBOX = """
import asyncio, os, sys
from pathlib import Path
from sandbox import processes

async def main() -> None:
    folder = Path(sys.argv[1])
    await processes.start(["/bin/bash", "-c", sys.argv[2]], folder=folder, environment=os.environ, output=folder / "log")
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def started(script: str, folder: Path) -> asyncio.subprocess.Process:
    """A family of processes that has written its numbers down."""
    process = await processes.start(["/bin/bash", "-c", script], folder=folder, environment=os.environ, output=folder / "log")
    await written(folder / "parent")
    return process


async def written(file: Path) -> None:
    """Return once the file has a line."""
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(lambda: file.exists() and file.read_text().endswith("\n")):  # noqa: ASYNC110 a file raises no event
            await asyncio.sleep(0.01)


async def gone(*files: Path) -> bool:
    """Whether the processes whose numbers are in the files end soon."""
    numbers = [int(file.read_text()) for file in files]
    try:
        async with asyncio.timeout(20):
            while any(lives(number) for number in numbers):  # noqa: ASYNC110 nor does somebody else's child
                await asyncio.sleep(0.01)
    except TimeoutError:
        return False
    return True


def lives(number: int) -> bool:
    """Whether the process runs; one that nobody has buried yet does not."""
    try:
        return (Path("/proc") / str(number) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
async def child_of_ours(tmp_path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A family, ended after the test whatever becomes of it."""
    process = await started(FAMILY, tmp_path)
    yield process
    await processes.kill(process)


async def test_a_process_ends_with_its_children(child_of_ours: asyncio.subprocess.Process, tmp_path: Path) -> None:
    await processes.end(child_of_ours)

    assert child_of_ours.returncode == -signal.SIGTERM
    assert await gone(tmp_path / "parent", tmp_path / "child")


async def test_who_does_not_hear_the_wish_is_made_to_end(tmp_path: Path) -> None:
    process = await started(DEAF, tmp_path)

    await processes.end(process, seconds=0.05)

    assert process.returncode == -signal.SIGKILL
    assert await gone(tmp_path / "parent", tmp_path / "child")


async def test_what_a_process_left_behind_is_cleared_away(tmp_path: Path) -> None:
    process = await started("sleep 100 & echo $! > child; echo $$ > parent", tmp_path)
    await process.wait()
    assert lives(int((tmp_path / "child").read_text()))

    processes.clear(process)

    assert await gone(tmp_path / "child")


async def test_to_end_what_has_ended_does_nothing(child_of_ours: asyncio.subprocess.Process) -> None:
    await processes.kill(child_of_ours)

    await processes.end(child_of_ours)

    assert child_of_ours.returncode == -signal.SIGKILL


async def test_children_and_their_children_do_not_outlive_a_killed_sandbox(tmp_path: Path) -> None:
    log = (tmp_path / "sandbox.log").open("wb")
    sandbox = await asyncio.create_subprocess_exec(sys.executable, "-c", SANDBOX, str(tmp_path), FAMILY, cwd=ROOT, stdout=log, stderr=log)
    log.close()
    await written(tmp_path / "parent")

    sandbox.kill()
    await sandbox.wait()

    assert await gone(tmp_path / "parent", tmp_path / "child")


async def test_the_warden_makes_those_end_who_do_not_hear_it(tmp_path: Path) -> None:
    process = await started(DEAF, tmp_path)
    warden = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "sandbox" / "warden.py"), "0.05", stdin=asyncio.subprocess.PIPE
    )

    await warden.communicate(f"+{process.pid}\n".encode())

    assert await gone(tmp_path / "child")
    assert await process.wait() == -signal.SIGKILL


async def test_the_warden_leaves_alone_whom_it_was_told_to_forget(child_of_ours: asyncio.subprocess.Process) -> None:
    warden = await asyncio.create_subprocess_exec(sys.executable, str(ROOT / "sandbox" / "warden.py"), "5", stdin=asyncio.subprocess.PIPE)

    await warden.communicate(f"+{child_of_ours.pid}\n-{child_of_ours.pid}\n".encode())

    assert lives(child_of_ours.pid)


async def test_what_a_process_prints_is_added_to_its_log(tmp_path: Path) -> None:
    for word in ("first", "second"):
        process = await processes.start(["/bin/echo", word], folder=tmp_path, environment={}, output=tmp_path / "deep" / "log")
        await process.wait()
        processes.clear(process)

    assert (tmp_path / "deep" / "log").read_text() == "first\nsecond\n"


def test_a_preferred_port_is_kept_where_it_is_free() -> None:
    port = processes.free_port()

    assert processes.free_port(port) == port
