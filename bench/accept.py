"""Keeping a service hook for good, and acknowledging a slash command: how much, how fast, beside handlers that keep nothing."""

from __future__ import annotations

from pathlib import Path
from statistics import median, quantiles

from bench.figure import Figure, Goal
from bench.load import latencies, throughput
from bench.processes import serving
from bench.requests import commands, hooks

CONNECTIONS = 32
SECONDS = 1.5
RATE = 50  # a second
HOOKS, COMMANDS = 75, 40  # one after the other, in each round


async def measure(folder: Path, rounds: int) -> list[Figure]:
    """Figures of the doors, one server after the other in each round."""
    async with (
        serving("echo", folder) as echo,
        serving("floor", folder) as floor,
        serving("bot", folder, str(folder / "bot-under-test"), str(floor)) as bot,
    ):
        kept, bare, ceiling = [], [], []
        usual, rare, usual_bare, rare_bare = [], [], [], []
        acked, acked_bare = [], []
        hook, command = hooks(), commands(f"http://127.0.0.1:{floor}/response")
        for _ in range(rounds):
            ceiling.append(await throughput(echo, CONNECTIONS, SECONDS / 3, hook))
            bare.append(await throughput(floor, CONNECTIONS, SECONDS, hook))
            kept.append(await throughput(bot, CONNECTIONS, SECONDS, hook))
            for port, p50, p99 in ((floor, usual_bare, rare_bare), (bot, usual, rare)):
                taken = await latencies(port, 1 / RATE, HOOKS, hook)
                p50.append(median(taken))
                p99.append(quantiles(taken, n=100)[98])
            acked_bare.append(median(await latencies(floor, 1 / RATE, COMMANDS, command)))
            acked.append(median(await latencies(bot, 1 / RATE, COMMANDS, command)))
    return [
        Figure("hooks kept durably, 32 connections", "a second", kept, bare, Goal("ratio", 0.3, at_least=True)),
        Figure("the load generator alone", "a second", ceiling),
        Figure("a hook kept, p50 at 50 a second", "ms", usual, usual_bare),
        Figure("a hook kept, p99 at 50 a second", "ms", rare, rare_bare),
        Figure("a slash command acknowledged, p50", "ms", acked, acked_bare, Goal("ratio", 2)),
    ]
