"""The whole town: a World with its four services, and the bot that lives in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox.azure_devops.server import AzureDevOps
from sandbox.azure_ml.server import AzureML
from sandbox.entra.server import Entra
from sandbox.launch import BotProcess
from sandbox.processes import free_port
from sandbox.slack.server import Slack
from sandbox.world import World


@dataclass(frozen=True, slots=True)
class Town:
    """Everything that `town()` started."""

    world: World
    slack: Slack
    azure: AzureDevOps
    ml: AzureML
    entra: Entra
    bot: BotProcess


@asynccontextmanager
async def town(
    folder: Path, *, page_port: int = 0, bot_port: int = 0, socket_mode: bool = False, root: Path | None = None
) -> AsyncIterator[Town]:
    """Start the sandbox (not yet the bot); everything, the bot too, has ended when the block has."""
    world = World(folder, page_port=page_port, bot_url=f"http://127.0.0.1:{bot_port or free_port()}", root=root)
    slack, azure, ml, entra = Slack(world), AzureDevOps(world), AzureML(world), Entra(world)
    bot = BotProcess(world, slack, entra, socket_mode=socket_mode)
    try:
        await world.start([slack, azure, ml, entra])
        yield Town(world, slack, azure, ml, entra, bot)
    finally:
        await bot.stop()
        await world.stop()
