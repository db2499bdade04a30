"""The production bot in the sandbox: how it starts, how soon a hook becomes a message, and what it takes while it waits."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.figure import Figure, Goal
from bench.load import Connection, post
from bench.processes import cpu_seconds, family, proportional, resident, serving
from bench.requests import hook, hook_request
from sandbox.azure_devops.agent import JobOutcome, Space, Watch
from sandbox.azure_devops.plan import PlanJob, Result
from sandbox.azure_devops.server import AzureDevOps
from sandbox.azure_ml.server import AzureML
from sandbox.entra.server import Entra
from sandbox.launch import BotProcess
from sandbox.names import ADA, CHANNEL
from sandbox.processes import free_port
from sandbox.slack.server import Call, Slack
from sandbox.town import Town
from sandbox.world import World

POSTS_APART = 1.1  # seconds: the bot posts once a second in a channel, as Slack asks
IDLE = 5.0  # seconds

# What a process takes that only loads the libraries the bot cannot do without.
LIBRARIES = """
import time
import aiohttp.web, alembic.command, azure.devops.v7_1.build, azure.devops.v7_1.git, azure.devops.v7_1.pipelines, procrastinate
import psycopg_pool, pydantic, slack_bolt.app.async_app, slack_sdk.web.async_client, structlog
print(time.process_time(), next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""


async def measure(folder: Path, rounds: int) -> list[Figure]:
    """Start the bot anew in each round; then send it hooks of fresh runs; then leave it alone."""
    latency = Figure("an idle bot, hook to Slack", "ms", Goal("ratio", 3))
    computed = Figure("start to ready, with a new PostgreSQL", "s CPU", Goal("value", 4))
    waited = Figure("start to ready, with a new PostgreSQL", "s")
    memory = Figure("idle memory, without the Azure ML worker", "MB", Goal("value", 150))
    database = Figure("its PostgreSQL beside it", "MB")
    async with _standing_town(folder / "town") as town:
        for _ in range(rounds):
            await town.bot.stop()
            shutil.rmtree(town.bot.data, ignore_errors=True)
            seconds, megabytes = await asyncio.to_thread(_libraries, folder)
            computed.floors.append(seconds)
            memory.floors.append(megabytes)
            began = time.monotonic()
            await town.bot.start()
            waited.rounds.append(time.monotonic() - began)
            computed.rounds.append(sum(map(cpu_seconds, _both(town.bot))))
        await _hooks_to_cards(town, folder, latency, 2 * rounds)
        await asyncio.sleep(IDLE)
        memory.rounds.append(resident(town.bot.pid))
        database.rounds.append(sum(map(proportional, family(_postmaster(town.bot)))))
    return [latency, computed, waited, memory, database]


@asynccontextmanager
async def _standing_town(folder: Path) -> AsyncIterator[Town]:
    """The sandbox with an agent that takes a job and never gets on with it: nothing computes but what is measured."""
    world = World(folder, bot_url=f"http://127.0.0.1:{free_port()}")
    slack, azure, ml = Slack(world), AzureDevOps(world, run_job=_stand), AzureML(world)
    entra = Entra(world)
    bot = BotProcess(world, slack, entra)
    slack.rates.posts_per_second = 100.0  # the floor does not pace itself
    try:
        await world.start([slack, azure, ml, entra])
        yield Town(world, slack, azure, ml, entra, bot)
    finally:
        await bot.stop()
        await world.stop()


async def _stand(job: PlanJob, space: Space, watch: Watch) -> JobOutcome:
    await watch.canceled.wait()
    return JobOutcome(Result.CANCELED, {})


async def _hooks_to_cards(town: Town, folder: Path, latency: Figure, rounds: int) -> None:
    """Milliseconds from sending a hook, or a request to the floor, until Slack has the card that is posted for it: the same for both."""
    environment = town.bot.environment()
    credentials = (environment["HOOKS_USERNAME"], environment["HOOKS_PASSWORD"], environment["HOOKS_SECRET"])
    async with (
        serving("bare", folder, CHANNEL, environment=environment) as floor_port,
        Connection(floor_port) as floor,
        Connection(town.bot.port) as bot,
    ):
        for number in range(rounds + 1):
            await _between_sweeps()
            run = await town.azure.queue(ADA)
            await asyncio.sleep(POSTS_APART)
            delivery = hook_request(hook(run, "run", {}, number), *credentials)
            latency.rounds.append(await _until_posted(town.slack, bot, delivery))
            await asyncio.sleep(POSTS_APART)
            again = {"run": run, "blocks": town.slack.messages(CHANNEL)[-1]["blocks"]}
            latency.floors.append(await _until_posted(town.slack, floor, post("/", json.dumps(again).encode(), {})))
    del latency.rounds[0], latency.floors[0]  # the first of each opened the connections


async def _between_sweeps() -> None:
    """Once a minute the bot looks for runs nobody told it of: its card of one would not come of the hook."""
    second = time.time() % 60
    if second > 55 or second < 3:
        await asyncio.sleep((63 - second) % 60)


async def _until_posted(slack: Slack, connection: Connection, request: bytes) -> float:
    def posted() -> list[Call]:
        return [call for call in slack.calls if call.at > began and call.method == "chat.postMessage" and not call.error]

    began = time.time()
    await connection.ask(request)
    return 1000 * ((await slack.wait_for(posted))[0].at - began)


def _libraries(folder: Path) -> tuple[float, float]:
    """CPU seconds and megabytes."""
    environment = os.environ | {"AZURE_DEVOPS_CACHE_DIR": str(folder)}
    said = subprocess.run([sys.executable, "-c", LIBRARIES], env=environment, check=True, capture_output=True, text=True).stdout.split()
    return float(said[0]), int(said[1]) / 1024


def _both(bot: BotProcess) -> list[int]:
    """Every process of the bot and of its PostgreSQL."""
    return family(bot.pid) + family(_postmaster(bot))


def _postmaster(bot: BotProcess) -> int:
    """The process id of the bot's PostgreSQL, which is no child of it."""
    return int((bot.data / "postgres" / "postmaster.pid").read_text().split()[0])
