"""The local Azure: one service made of parts, each with its own resources behind management.azure.com."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from aiohttp import web

from sandbox.azure_ml import arm
from sandbox.world import World


class Part(Protocol):
    """One resource provider, or a piece of one."""

    def routes(self) -> list[web.RouteDef]:
        """What it answers on management.azure.com; the caller's token has been checked (`arm.PRINCIPAL`)."""
        ...

    async def start(self) -> None:
        """Called once the ports are served."""
        ...

    async def stop(self) -> None:
        """End every task and process the part started."""
        ...


@runtime_checkable
class HasHosts(Protocol):
    """A part that answers for hosts of its own, and checks its callers itself."""

    def hosts(self) -> Mapping[str, web.Application]:
        """Applications by host name."""
        ...


class AzureML:
    """Workspace, storage, assets, jobs, tracking, images, containers and endpoints of one subscription."""

    def __init__(self, world: World) -> None:
        self.operations = arm.Operations()
        self.parts: tuple[Part, ...] = (self.operations,)
        self._world = world

    def hosts(self) -> Mapping[str, web.Application]:
        """management.azure.com with every part's routes, and the parts' own hosts."""
        management = web.Application(middlewares=[arm.errors(), arm.guard(self._world)])
        for part in self.parts:
            management.add_routes(part.routes())
        own = {host: app for part in self.parts if isinstance(part, HasHosts) for host, app in part.hosts().items()}
        return {"management.azure.com": management} | own

    def pages(self) -> Mapping[str, web.Application]:
        """The studio's pages."""
        return {}

    async def start(self) -> None:
        """Start the parts in order."""
        for part in self.parts:
            await part.start()

    async def stop(self) -> None:
        """Stop the parts in the opposite order."""
        for part in reversed(self.parts):
            await part.stop()
