"""The local Azure: one service made of parts, each with its own resources behind management.azure.com."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sandbox import names
from sandbox.azure_ml import arm
from sandbox.azure_ml.assets import Assets
from sandbox.azure_ml.blobs import Storage
from sandbox.azure_ml.containers import ContainerInstances
from sandbox.azure_ml.endpoints import OnlineEndpoints
from sandbox.azure_ml.jobs import Jobs
from sandbox.azure_ml.mlflow import Tracking
from sandbox.azure_ml.page import Studio
from sandbox.azure_ml.registry import Registry
from sandbox.azure_ml.workspace import Workspaces
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
        self._world = world
        self.operations = arm.Operations()
        self.storage = Storage(world)
        self.workspaces = Workspaces(world, self.storage)
        self.assets = Assets(world, self.storage, self.workspaces)
        self.tracking = Tracking(world)
        self.jobs = Jobs(world, self.storage, self.workspaces, self.assets, self.tracking)
        self.registry = Registry(world)
        self.containers = ContainerInstances(world, self.registry, self.operations)
        self.endpoints = OnlineEndpoints(world, self.registry, self.operations, self.workspaces, self.assets)
        self.parts: tuple[Part, ...] = (
            self.operations,
            self.storage,
            self.workspaces,
            self.assets,
            self.tracking,
            self.jobs,
            self.registry,
            self.containers,
            self.endpoints,
        )
        self._studio = Studio(self.assets, self.jobs, self.tracking, self.endpoints, self.containers)
        self.workspaces.on_creation(self.tracking.warm)

    def versions(self, name: str) -> list[dict[str, Any]]:
        """Every registered version of a model, newest first: `version`, `tags` and the rest of its properties."""
        return [{"version": document["name"], **document["properties"]} for document in self.assets.versions("models", name)]

    def champion(self, name: str) -> str | None:
        """The version that is tagged as champion."""
        return next((found["version"] for found in self.versions(name) if found["tags"].get("stage") == "champion"), None)

    def hosts(self) -> Mapping[str, web.Application]:
        """management.azure.com with every part's routes, the workspace's API, the studio, and the parts' own hosts."""
        management = web.Application(middlewares=[arm.errors(), arm.guard(self._world), self.workspaces.guard()])
        for part in self.parts:
            management.add_routes(part.routes())
        data = web.Application(middlewares=[arm.errors(), _members_only(self._world), self.workspaces.guard()])
        data.add_routes([*self.workspaces.discovery(), *self.jobs.data_routes(), *self.tracking.data_routes()])
        own = {host: app for part in self.parts if isinstance(part, HasHosts) for host, app in part.hosts().items()}
        return {"management.azure.com": management, names.AML_API: data, "ml.azure.com": self._studio.application("")} | own

    def pages(self) -> Mapping[str, web.Application]:
        """The studio's pages."""
        return {"/ml.azure.com": self._studio.application("/ml.azure.com")}

    async def start(self) -> None:
        """Start the parts in order."""
        for part in self.parts:
            await part.start()
        if self.workspaces.exists():
            self.tracking.warm()

    async def stop(self) -> None:
        """Stop the parts in the opposite order."""
        for part in reversed(self.parts):
            await part.stop()


def _members_only(world: World) -> Middleware:
    """A middleware that checks the caller's token, except where a client asks for the way."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith("/discovery/"):
            request[arm.PRINCIPAL] = arm.identify(world, request)
        return await handler(request)

    return middleware
