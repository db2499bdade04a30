"""A running sandbox for a test: chosen services in a folder of the test's own."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from sandbox.world import Service, World

S = TypeVar("S", bound=Service)
ROOT = Path(__file__).parent.parent


@asynccontextmanager
async def sandbox(
    folder: Path, *services: Callable[[World], Service], bot_url: str = "http://127.0.0.1:9", root: Path = ROOT
) -> AsyncIterator[World]:
    """A world with one service of each kind (`sandbox(tmp_path, Slack)`), stopped at the end. Port 9 is where no bot is."""
    world = World(folder, bot_url=bot_url, root=root)
    try:
        await world.start([make(world) for make in services])
        yield world
    finally:
        await world.stop()


def the(world: World, kind: type[S]) -> S:
    """The world's service of that kind."""
    return next(service for service in world.services if isinstance(service, kind))


def trust(world: World) -> ssl.SSLContext:
    """TLS for a client in this process: trusts the world's certificate authority and no other."""
    return ssl.create_default_context(cafile=str(world.authority.ca))


def proxy(world: World) -> str:
    """The way to the local hosts for a client in this process."""
    assert world.proxy is not None
    return f"http://127.0.0.1:{world.proxy.port}"
