"""The part of the local Azure that serves models, without jobs and tracking: what tests of images, containers and endpoints need."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp
from aiohttp import web

from sandbox import names
from sandbox.azure_ml import arm
from sandbox.azure_ml.assets import Assets
from sandbox.azure_ml.blobs import Storage
from sandbox.azure_ml.containers import ContainerInstances
from sandbox.azure_ml.endpoints import OnlineEndpoints
from sandbox.azure_ml.registry import Registry
from sandbox.azure_ml.workspace import Workspaces
from sandbox.names import AGENT
from sandbox.world import World


class Serving:
    """A service for `sandbox(tmp_path, Serving)`."""

    def __init__(self, world: World) -> None:
        operations, storage = arm.Operations(), Storage(world)
        workspaces = Workspaces(world, storage)
        assets = Assets(world, storage, workspaces)
        self.registry = Registry(world)
        self._world = world
        self._own = (storage, self.registry)
        self._parts = (
            operations,
            storage,
            workspaces,
            assets,
            self.registry,
            ContainerInstances(world, self.registry, operations),
            OnlineEndpoints(world, self.registry, operations, workspaces, assets),
        )

    def hosts(self) -> Mapping[str, web.Application]:
        management = web.Application(middlewares=[arm.errors(), arm.guard(self._world)])
        for part in self._parts:
            management.add_routes(part.routes())
        return {"management.azure.com": management} | {host: app for part in self._own for host, app in part.hosts().items()}

    def pages(self) -> Mapping[str, web.Application]:
        return {}

    async def start(self) -> None:
        for part in self._parts:
            await part.start()

    async def stop(self) -> None:
        for part in reversed(self._parts):
            await part.stop()


async def workspace(world: World) -> None:
    """The workspace and its cluster, made as a client would."""
    token = world.tokens.issue(AGENT, "https://management.azure.com")
    root = f"https://127.0.0.1:{world.tls_port}/subscriptions/{names.SUBSCRIPTION}/resourceGroups/ml/providers"
    cluster = f"/subscriptions/{names.SUBSCRIPTION}/resourceGroups/ml/providers/Microsoft.ContainerService/managedClusters/aks"
    parameters = {"workspaceName": {"value": names.WORKSPACE}, "location": {"value": names.LOCATION}}
    wishes = {
        f"{root}/Microsoft.Resources/deployments/first": {"properties": {"parameters": parameters}},
        f"{root}/Microsoft.MachineLearningServices/workspaces/{names.WORKSPACE}/computes/{names.KUBERNETES}": {
            "properties": {"computeType": "Kubernetes", "resourceId": cluster, "properties": {}}
        },
    }
    headers = {"Authorization": f"Bearer {token}", "Host": "management.azure.com"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for url, wish in wishes.items():
            async with session.put(f"{url}?api-version=2023-04-01", json=wish, ssl=False) as answer:
                assert answer.ok, await answer.text()
