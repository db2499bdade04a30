"""Keeping a service hook for good, and acknowledging a slash command: how much, how fast, beside handlers that keep nothing."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from statistics import median, quantiles

from bench.figure import Figure, Goal
from bench.load import latencies, throughput
from bench.processes import serving
from bench.requests import commands, hooks

CONNECTIONS = 32
SECONDS = 1.5
PAUSE = 0.02  # seconds between two requests that are sent one after the other
TYPING = 0.1  # seconds between two commands: one is worked off before the next one comes
SETTLE = 12.0  # seconds until the hooks' wake-ups have come, too
HOOKS, COMMANDS, SYNCS = 75, 15, 30  # of those, in each round


async def measure(folder: Path, rounds: int) -> list[Figure]:
    """Figures of the doors; in each round one server after the other, the floor first."""
    kept = Figure(f"hooks kept for good, {CONNECTIONS} connections", "a second", Goal("ratio", 0.3, at_least=True))
    ceiling = Figure("the load generator by itself", "a second")
    usual, rare = Figure("a hook kept, p50 at 50 a second", "ms"), Figure("a hook kept, p99 at 50 a second", "ms")
    acked = Figure("a slash command acknowledged, p50", "ms", Goal("ratio", 2))
    disk = Figure("the disk by itself: 8 KiB to stay, p50", "ms")
    async with (
        serving("echo", folder) as echo,
        serving("floor", folder) as floor,
        serving("bot", folder, str(folder / "bot"), str(floor)) as bot,
    ):
        hook, command = hooks(), commands(f"http://127.0.0.1:{floor}/response")
        for _ in range(rounds):
            ceiling.rounds.append(await throughput(echo, CONNECTIONS, SECONDS / 3, hook))
            kept.floors.append(await throughput(floor, CONNECTIONS, SECONDS, hook))
            kept.rounds.append(await throughput(bot, CONNECTIONS, SECONDS, hook))
            for port, p50, p99 in ((floor, usual.floors, rare.floors), (bot, usual.rounds, rare.rounds)):
                taken = await latencies(port, PAUSE, HOOKS, hook)
                p50.append(median(taken))
                p99.append(quantiles(taken, n=100, method="inclusive")[98])
        await asyncio.sleep(SETTLE)
        for _ in range(rounds):
            acked.floors.append(median(await latencies(floor, TYPING, COMMANDS, command)))
            acked.rounds.append(median(await latencies(bot, TYPING, COMMANDS, command)))
            disk.rounds.append(median(await asyncio.to_thread(_syncs, folder)))
    return [kept, ceiling, usual, rare, acked, disk]


def _syncs(folder: Path) -> list[float]:
    """Milliseconds of each write that waits until the disk has it: what nothing durable can do without."""
    taken = []
    file = os.open(folder / "disk", os.O_CREAT | os.O_WRONLY)
    os.write(file, bytes(1024 * 1024))
    os.fsync(file)
    for place in range(SYNCS):
        time.sleep(PAUSE)
        os.pwrite(file, bytes([1]) * 8192, 8192 * place)
        began = time.perf_counter()
        os.fdatasync(file)  # as PostgreSQL does
        taken.append(1000 * (time.perf_counter() - began))
    os.close(file)
    return taken
