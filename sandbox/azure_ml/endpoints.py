"""Online endpoints, managed and on Kubernetes: deployments as real processes, and a scoring address per endpoint that checks keys.

https://learn.microsoft.com/azure/machine-learning/concept-endpoints-online
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import secrets
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from sandbox import names
from sandbox.azure_ml import arm
from sandbox.azure_ml.assets import Assets
from sandbox.azure_ml.registry import Inaccessible, Registry
from sandbox.azure_ml.serving import Container, Phase
from sandbox.azure_ml.workspace import Workspaces
from sandbox.processes import free_port
from sandbox.world import World

log = logging.getLogger("sandbox.azure.endpoints")

PROVIDER = "Microsoft.MachineLearningServices"
KIND = f"{PROVIDER}/workspaces/onlineEndpoints"
ENDPOINTS = arm.WORKSPACE + "/onlineEndpoints"
_ENDPOINT = ENDPOINTS + "/{endpoint}"
_DEPLOYMENT = _ENDPOINT + "/deployments/{deployment}"
_ID = f"/subscriptions/{names.SUBSCRIPTION}/resourceGroups/{names.RESOURCE_GROUP}/providers/{PROVIDER}/workspaces/{names.WORKSPACE}"
_NAME = re.compile(r"[a-zA-Z][-a-zA-Z0-9]{1,30}[a-zA-Z0-9]")
_PATIENCE = 120.0  # seconds that a deployment may take until its readiness probe succeeds
_CRASHES = 2  # after so many ends of its process it has failed
_HELP = "Please see troubleshooting guide, available here: https://aka.ms/oe-tsg"


class OnlineEndpoints:
    """Endpoints and their deployments; known again after a restart of the sandbox, and then started again."""

    def __init__(self, world: World, registry: Registry, operations: arm.Operations, workspaces: Workspaces, assets: Assets) -> None:
        self._folder = world.folder / "endpoints"
        self._endpoints = world.state.table("endpoints")
        self._deployments = world.state.table("endpoints.deployments")  # by "endpoint/deployment"
        self._registry = registry
        self._operations = operations
        self._workspaces = workspaces
        self._assets = assets
        self._running: dict[str, Container] = {}
        self._gateways: dict[str, web.AppRunner] = {}
        self._session: aiohttp.ClientSession | None = None

    def routes(self) -> list[web.RouteDef]:
        """Endpoints and deployments on management.azure.com."""
        return [
            web.get(ENDPOINTS, self._list),
            web.get(_ENDPOINT, self._get),
            web.put(_ENDPOINT, self._put),
            web.delete(_ENDPOINT, self._delete),
            web.post(_ENDPOINT + "/listKeys", self._keys),
            web.post(_ENDPOINT + "/regenerateKeys", self._regenerate),
            web.get(_ENDPOINT + "/deployments", self._list_deployments),
            web.get(_DEPLOYMENT, self._get_deployment),
            web.put(_DEPLOYMENT, self._put_deployment),
            web.delete(_DEPLOYMENT, self._delete_deployment),
            web.post(_DEPLOYMENT + "/getLogs", self._logs),
        ]

    def all(self) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Every endpoint's document, each with those of its deployments."""
        return [
            (self._document(name), [self._deployment_document(key) for key in self._deployments if key.startswith(f"{name}/")])
            for name in self._endpoints
        ]

    async def start(self) -> None:
        """Open the scoring addresses and start the deployments that served when the sandbox stopped."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        for name in self._endpoints:
            await self._open(name)
        for key, deployment in self._deployments.items():
            if deployment["state"] == "Succeeded":
                try:
                    await self._launch(key)
                except arm.ArmError as problem:
                    log.warning("the deployment %s does not start again: %s", key, problem)
                    self._deployments[key] = deployment | {"state": "Failed"}
            elif deployment["state"] != "Failed":
                self._deployments[key] = deployment | {"state": "Failed"}

    async def stop(self) -> None:
        """Close the addresses and end every process."""
        for runner in self._gateways.values():
            await runner.cleanup()
        self._gateways.clear()
        await asyncio.gather(*(container.stop() for container in self._running.values()))
        self._running.clear()
        if self._session:
            await self._session.close()

    # Endpoints

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response({"value": [self._document(name) for name in self._endpoints]})

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(self._document(self._known(request)))

    async def _put(self, request: web.Request) -> web.Response:
        name = request.match_info["endpoint"]
        asked = await arm.body(request)
        known = name in self._endpoints
        kept: dict[str, Any] = (
            self._endpoints[name]
            if known
            else {
                "port": 0,
                "state": "Creating",
                "keys": {"primaryKey": secrets.token_urlsafe(24), "secondaryKey": secrets.token_urlsafe(24)},
            }
        )
        self._check(request.match_info["workspace"], name, asked)
        self._endpoints[name] = kept | {"asked": asked}
        headers = self._operations.begin(PROVIDER, self._settle(name))
        return web.json_response(self._document(name), status=200 if known else 201, headers=headers)

    async def _delete(self, request: web.Request) -> web.Response:
        name = request.match_info["endpoint"]
        if name not in self._endpoints:
            return web.Response(status=204)
        return web.Response(status=202, headers=self._operations.begin(PROVIDER, self._remove(name)))

    async def _keys(self, request: web.Request) -> web.Response:
        return web.json_response(self._endpoints[self._known(request)]["keys"])

    async def _regenerate(self, request: web.Request) -> web.Response:
        name = self._known(request)
        which = {"Primary": "primaryKey", "Secondary": "secondaryKey"}.get(str((await arm.body(request)).get("keyType")))
        if which is None:
            raise arm.invalid("keyType must be Primary or Secondary.", "UserError")
        endpoint = self._endpoints[name]
        self._endpoints[name] = endpoint | {"keys": endpoint["keys"] | {which: secrets.token_urlsafe(24)}}
        return web.Response(status=202, headers=self._operations.begin(PROVIDER, asyncio.sleep(0)))

    def _check(self, workspace: str, name: str, asked: Mapping[str, Any]) -> None:
        """Refuse what the service refuses of an endpoint. Raises ArmError."""
        properties = asked.get("properties") or {}
        if not _NAME.fullmatch(name):
            raise arm.invalid(f"Endpoint name '{name}' is invalid: 3 to 32 letters, digits and dashes, a letter first.", "BadArgument")
        if properties.get("authMode") != "Key":
            raise arm.invalid(f"The sandbox's endpoints authenticate by Key, not by '{properties.get('authMode')}'.", "BadArgument")
        if compute := properties.get("compute"):
            found = self._workspaces.compute(workspace, str(compute).rpartition("/")[2])
            if found["properties"]["computeType"] != "Kubernetes":
                raise arm.invalid(f"The compute '{found['name']}' is no attached Kubernetes cluster.", "BadArgument")
        traffic: Mapping[str, int] = properties.get("traffic") or {}
        for deployment in traffic:
            if f"{name}/{deployment}" not in self._deployments:
                raise arm.invalid(f"Deployment '{deployment}' in the traffic rules does not exist under endpoint '{name}'.", "BadArgument")
        if sum(traffic.values()) not in (0, 100):
            raise arm.invalid(f"The sum of all traffic percentages must be 0 or 100; it is {sum(traffic.values())}.", "BadArgument")

    async def _settle(self, name: str) -> None:
        if name not in self._gateways:
            await self._open(name)
        self._endpoints[name] = self._endpoints[name] | {"state": "Succeeded"}

    async def _remove(self, name: str) -> None:
        for key in [key for key in self._deployments if key.startswith(f"{name}/")]:
            await self._end(key)
        if runner := self._gateways.pop(name, None):
            await runner.cleanup()
        self._endpoints.pop(name, None)

    def _known(self, request: web.Request) -> str:
        name = request.match_info["endpoint"]
        if name not in self._endpoints:
            raise arm.not_found(KIND, f"{names.WORKSPACE}/{name}")
        return name

    def _document(self, name: str) -> dict[str, Any]:
        endpoint = self._endpoints[name]
        asked, port = endpoint["asked"], endpoint["port"]
        address = f"http://127.0.0.1:{port}/api/v1/endpoint/{name}" if port else None
        return {
            "id": f"{_ID}/onlineEndpoints/{name}",
            "name": name,
            "type": KIND,
            "location": asked.get("location", names.LOCATION),
            "tags": asked.get("tags") or {},
            "kind": "K8S" if asked["properties"].get("compute") else "Managed",
            "identity": asked.get("identity"),
            "properties": {
                "mirrorTraffic": {},
                "properties": {},
                **{key: value for key, value in asked["properties"].items() if value is not None},
                "traffic": asked["properties"].get("traffic") or {},
                "provisioningState": endpoint["state"],
                "scoringUri": f"{address}/score" if address else None,
                "swaggerUri": f"{address}/swagger.json" if address else None,
            },
        }

    # Deployments

    async def _list_deployments(self, request: web.Request) -> web.Response:
        name = self._known(request)
        keys = [key for key in self._deployments if key.startswith(f"{name}/")]
        return web.json_response({"value": [self._deployment_document(key) for key in keys]})

    async def _get_deployment(self, request: web.Request) -> web.Response:
        return web.json_response(self._deployment_document(self._known_deployment(request)))

    async def _put_deployment(self, request: web.Request) -> web.Response:
        endpoint, name = self._known(request), request.match_info["deployment"]
        asked = await arm.body(request)
        key = f"{endpoint}/{name}"
        deployment = self._accepted(name, asked, kubernetes=bool(self._endpoints[endpoint]["asked"]["properties"].get("compute")))
        known = self._deployments.get(key)
        if known and known["state"] not in ("Succeeded", "Failed"):
            raise arm.ArmError(409, "ResourceOperationInProgress", f"Deployment '{name}' is being changed; try again when that is done.")
        self._deployments[key] = deployment | {"port": known["port"] if known else 0, "state": "Updating" if known else "Creating"}
        headers = self._operations.begin(PROVIDER, self._deploy(key))
        return web.json_response(self._deployment_document(key), status=200 if known else 201, headers=headers)

    async def _delete_deployment(self, request: web.Request) -> web.Response:
        endpoint, name = self._known(request), request.match_info["deployment"]
        if f"{endpoint}/{name}" not in self._deployments:
            return web.Response(status=204)
        if share := self._traffic(endpoint).get(name):
            message = (
                f"Deployment '{name}' has {share}% of the traffic of endpoint '{endpoint}': set it to 0 before deleting the deployment."
            )
            raise arm.invalid(message, "BadArgument")
        return web.Response(status=202, headers=self._operations.begin(PROVIDER, self._end(f"{endpoint}/{name}")))

    async def _logs(self, request: web.Request) -> web.Response:
        container = self._running.get(self._known_deployment(request))
        tail = (await arm.body(request)).get("tail")
        return web.json_response({"content": container.logs(tail) if container else ""})

    def _known_deployment(self, request: web.Request) -> str:
        key = f"{self._known(request)}/{request.match_info['deployment']}"
        if key not in self._deployments:
            raise arm.not_found(f"{KIND}/deployments", f"{names.WORKSPACE}/{key}")
        return key

    def _accepted(self, name: str, asked: Mapping[str, Any], *, kubernetes: bool) -> dict[str, Any]:
        """The deployment to make: its image and its routes. Raises ArmError for what the service, or the sandbox, refuses."""
        properties = asked.get("properties") or {}
        if not _NAME.fullmatch(name):
            raise arm.invalid(f"Deployment name '{name}' is invalid: 3 to 32 letters, digits and dashes, a letter first.", "BadArgument")
        if properties.get("endpointComputeType") != ("Kubernetes" if kubernetes else "Managed"):
            raise arm.invalid("The endpoint and its deployments must be of one kind, Managed or Kubernetes.", "BadArgument")
        if not kubernetes and not properties.get("instanceType"):
            raise arm.invalid("A managed deployment needs an instance type.", "BadArgument")
        environment = self._assets.find("environments", properties.get("environmentId") or "")["properties"]
        routes = environment.get("inferenceConfig")
        if not environment.get("image") or not routes:
            raise arm.invalid("The sandbox serves environments with an image and an inference configuration of their own.", "BadArgument")
        return {
            "asked": asked,
            "image": environment["image"],
            "scoring": routes["scoringRoute"]["path"],
            "ready": (routes.get("readinessRoute") or routes["scoringRoute"])["path"],
        }

    async def _deploy(self, key: str) -> None:
        """Start the deployment and wait for its readiness. Raises ArmError, and leaves it failed."""
        if container := self._running.pop(key, None):
            await container.stop()
        try:
            container = await self._launch(key)
            await self._ready(container, self._deployments[key]["ready"])
        except arm.ArmError:
            self._deployments[key] = self._deployments[key] | {"state": "Failed"}
            if container := self._running.get(key):  # its log can still be read
                await container.stop()
            raise
        self._deployments[key] = self._deployments[key] | {"state": "Succeeded"}

    async def _launch(self, key: str) -> Container:
        deployment = self._deployments[key]
        try:
            image, layout = self._registry.image(deployment["image"])
        except Inaccessible:
            message = f"The image '{deployment['image']}' cannot be pulled: it was not found, or its registry does not let us in. {_HELP}"
            raise arm.invalid(message + "#error-imagepullloopbackoff", "ImagePullLoopBackOff") from None
        self._deployments[key] = deployment | {"port": free_port(deployment["port"])}
        environment = deployment["asked"]["properties"].get("environmentVariables") or {}
        container = Container(image, layout, self._folder_of(key), environment, self._deployments[key]["port"])
        self._running[key] = container
        await container.start()
        return container

    async def _ready(self, container: Container, path: str) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                while not await container.healthy(path):
                    if container.status.restarts + (container.status.phase is Phase.TERMINATED) >= _CRASHES:
                        message = f"User container has crashed or terminated. {_HELP}#error-resourcenotready"
                        raise arm.ArmError(400, "ResourceNotReady", message)
                    await asyncio.sleep(0.1)
        except TimeoutError:
            message = f"The readiness probe of the user container failed for {_PATIENCE:.0f} s. {_HELP}#error-resourcenotready"
            raise arm.ArmError(400, "ResourceNotReady", message) from None

    async def _end(self, key: str) -> None:
        if container := self._running.pop(key, None):
            await container.stop()
        self._deployments.pop(key, None)

    def _folder_of(self, key: str) -> Path:
        return self._folder / key

    def _traffic(self, endpoint: str) -> dict[str, int]:
        return {name: share for name, share in (self._endpoints[endpoint]["asked"]["properties"].get("traffic") or {}).items() if share}

    def _deployment_document(self, key: str) -> dict[str, Any]:
        endpoint, _, name = key.partition("/")
        deployment = self._deployments[key]
        asked = deployment["asked"]
        return {
            "id": f"{_ID}/onlineEndpoints/{endpoint}/deployments/{name}",
            "name": name,
            "type": f"{KIND}/deployments",
            "location": asked.get("location", names.LOCATION),
            "tags": asked.get("tags") or {},
            "sku": asked.get("sku") or {"name": "Default", "capacity": 1},
            "properties": {
                "scaleSettings": {"scaleType": "Default"},
                "containerResourceRequirements": {},
                "properties": {},
                **{field: value for field, value in asked["properties"].items() if value is not None},
                "provisioningState": deployment["state"],
            },
        }

    # Scoring

    async def _open(self, name: str) -> None:
        """Listen on the endpoint's scoring address."""
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.add_routes([web.post(f"/api/v1/endpoint/{name}/score", partial(self._score, name))])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
        await runner.setup()
        port = free_port(self._endpoints[name]["port"])
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self._gateways[name] = runner
        self._endpoints[name] = self._endpoints[name] | {"port": port}

    async def _score(self, name: str, request: web.Request) -> web.Response:
        """Pass a request on to a deployment.

        https://learn.microsoft.com/azure/machine-learning/how-to-troubleshoot-online-endpoints#http-status-codes
        """
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        known = self._endpoints[name]["keys"].values()
        if scheme.lower() != "bearer" or not any(secrets.compare_digest(key.encode(), each.encode()) for each in known):
            return web.Response(status=401, text="key_auth_access_denied", headers={"WWW-Authenticate": "Bearer"})
        wanted = request.headers.get("azureml-model-deployment") or _chosen(self._traffic(name))
        deployment = self._deployments.get(f"{name}/{wanted}")
        container = self._running.get(f"{name}/{wanted}")
        if wanted is None or deployment is None or deployment["state"] != "Succeeded":
            return web.Response(status=404, text="The endpoint has no valid deployment for the request.")
        headers = {"azureml-model-deployment": wanted}
        if container is None:
            return web.Response(status=502, text="The deployment's container does not run.", headers=headers)
        assert self._session is not None
        try:
            content = await request.read()
            kind = {"Content-Type": request.headers.get("Content-Type", "application/json")}
            url = f"http://127.0.0.1:{container.port}{deployment['scoring']}"
            async with self._session.post(url, data=content, headers=kind) as answer:
                body, status = await answer.read(), answer.status
                content_type = answer.content_type
        except (aiohttp.ClientError, TimeoutError):
            return web.Response(status=502, text="The deployment's container does not answer.", headers=headers)
        if status >= 400 and deployment["asked"]["properties"]["endpointComputeType"] == "Managed":
            # A managed endpoint tells its own errors from the model's by this status.
            headers |= {"ms-azureml-model-error-statuscode": str(status)}
            status = 424
        return web.Response(body=body, status=status, content_type=content_type, headers=headers)


def _chosen(traffic: Mapping[str, int]) -> str | None:
    return random.choices(list(traffic), list(traffic.values()))[0] if traffic else None
