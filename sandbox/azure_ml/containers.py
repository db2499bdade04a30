"""Azure Container Instances: container groups whose one container is a real process, from an image of the local registry.

https://learn.microsoft.com/rest/api/container-instances/container-groups
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from sandbox import names
from sandbox.azure_ml import arm
from sandbox.azure_ml.oci import Image, Layout
from sandbox.azure_ml.registry import LOGIN_SERVER, Inaccessible, Registry
from sandbox.azure_ml.serving import Container, Phase
from sandbox.processes import free_port
from sandbox.world import World

PROVIDER = "Microsoft.ContainerInstance"
KIND = f"{PROVIDER}/containerGroups"
GROUPS = arm.GROUP + f"/providers/{KIND}"
_GROUP = GROUPS + "/{name}"


class ContainerInstances:
    """Container groups: their documents survive a restart of the sandbox, and their processes are then started again."""

    def __init__(self, world: World, registry: Registry, operations: arm.Operations) -> None:
        self._folder = world.folder / "containers"
        self._groups = world.state.table("containers.groups")
        self._registry = registry
        self._operations = operations
        self._running: dict[str, Container] = {}

    def routes(self) -> list[web.RouteDef]:
        """Container groups on management.azure.com."""
        return [
            web.get(arm.GROUP.partition("/{_groups")[0] + f"/providers/{KIND}", self._list),
            web.get(GROUPS, self._list),
            web.get(_GROUP, self._get),
            web.put(_GROUP, self._put),
            web.delete(_GROUP, self._delete),
            web.post(_GROUP + "/{action:restart|start|stop}", self._act),
            web.get(_GROUP + "/containers/{container}/logs", self._logs),
        ]

    def all(self) -> list[dict[str, Any]]:
        """Every container group's document."""
        return [self._document(name, group) for name, group in self._groups.items()]

    async def start(self) -> None:
        """Start the groups that ran when the sandbox stopped."""
        for name, group in self._groups.items():
            if not group["stopped"]:
                with contextlib.suppress(arm.ArmError):  # the group has failed, and says so
                    await self._launch(name, group)

    async def stop(self) -> None:
        """End every process; the groups stay known."""
        for container in self._running.values():
            await container.stop()
        self._running.clear()

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response({"value": self.all()})

    async def _get(self, request: web.Request) -> web.Response:
        name, group = self._known(request)
        return web.json_response(self._document(name, group))

    async def _put(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        asked = await arm.body(request)
        container = _checked(name, asked)
        self._pull(name, asked, container["properties"]["image"])
        known = name in self._groups
        preferred = self._groups[name]["port"] if known else 0
        group = {"asked": asked, "port": preferred, "stopped": False, "provisioning": "Creating", "created": arm.now()}
        self._groups[name] = group
        headers = self._operations.begin(PROVIDER, self._replace(name, group))
        return web.json_response(self._document(name, group), status=200 if known else 201, headers=headers)

    async def _delete(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self._groups:
            return web.Response(status=204)
        group = self._groups.pop(name)
        document = self._document(name, group)
        if container := self._running.pop(name, None):
            await container.stop()
        return web.json_response(document)

    async def _act(self, request: web.Request) -> web.Response:
        name, group = self._known(request)
        action = request.match_info["action"]
        if action == "restart" and group["stopped"]:
            raise arm.ArmError(409, "ContainerGroupStopped", f"The container group '{name}' is stopped and cannot be restarted.")
        if action == "start" and not group["stopped"]:
            return web.Response(status=204)
        if container := self._running.pop(name, None):
            await container.stop()
        group["stopped"] = action == "stop"
        self._groups[name] = group
        if action == "stop":
            return web.Response(status=204)
        headers = self._operations.begin(PROVIDER, self._replace(name, group))
        return web.Response(status=204 if action == "restart" else 202, headers=headers)

    async def _logs(self, request: web.Request) -> web.Response:
        name, group = self._known(request)
        wanted = request.match_info["container"]
        if wanted != group["asked"]["properties"]["containers"][0]["name"]:
            raise arm.ArmError(404, "ContainerNotFound", f"The container '{wanted}' was not found in the container group '{name}'.")
        container = self._running.get(name)
        tail = request.query.get("tail", "")
        return web.json_response({"content": container.logs(int(tail) if tail.isdigit() else None) if container else ""})

    def _known(self, request: web.Request) -> tuple[str, dict[str, Any]]:
        name = request.match_info["name"]
        if name not in self._groups:
            raise arm.not_found(KIND, name)
        return name, self._groups[name]

    def _pull(self, name: str, asked: Mapping[str, Any], reference: str) -> tuple[Image, Layout]:
        """The image, if it exists and the group has an identity or a password for its registry. Raises ArmError."""
        identities = {identity.lower() for identity in (asked.get("identity") or {}).get("userAssignedIdentities") or {}}
        credentials = asked["properties"].get("imageRegistryCredentials") or ()
        allowed = any(entry.get("server") == LOGIN_SERVER and entry.get("identity", "").lower() in identities for entry in credentials)
        try:
            if not allowed:
                raise Inaccessible(reference)
            return self._registry.image(reference)
        except Inaccessible:
            raise arm.ArmError(
                400,
                "InaccessibleImage",
                f"The image '{reference}' in container group '{name}' is not accessible. Please check the image and registry credential.",
            ) from None

    async def _replace(self, name: str, group: dict[str, Any]) -> None:
        if container := self._running.pop(name, None):
            await container.stop()
        await self._launch(name, group)

    async def _launch(self, name: str, group: dict[str, Any]) -> None:
        specification = group["asked"]["properties"]["containers"][0]["properties"]
        try:
            image, layout = self._pull(name, group["asked"], specification["image"])
        except arm.ArmError:
            self._groups[name] = group | {"provisioning": "Failed"}
            raise
        environment = {
            each["name"]: str(each.get("secureValue") or each.get("value") or "")
            for each in specification.get("environmentVariables") or ()
        }
        group |= {"port": free_port(group["port"]), "provisioning": "Succeeded"}
        self._groups[name] = group
        always = group["asked"]["properties"].get("restartPolicy", "Always") == "Always"
        container = Container(image, layout, self._folder_of(name), environment, group["port"], always=always)
        self._running[name] = container
        await container.start()

    def _folder_of(self, name: str) -> Path:
        return self._folder / name

    def _document(self, name: str, group: Mapping[str, Any]) -> dict[str, Any]:
        """The group as Azure shows it: with its state, without its secrets."""
        asked = group["asked"]
        first = asked["properties"]["containers"][0]
        shown = {key: value for key, value in first["properties"].items() if key != "environmentVariables"}
        variables = [
            {"name": each["name"]} | ({} if each.get("secureValue") else {"value": each.get("value", "")})
            for each in first["properties"].get("environmentVariables") or ()
        ]
        running = self._running.get(name)
        view: dict[str, Any] = (
            _view(running) if running else {"currentState": {"state": Phase.WAITING.value}, "restartCount": 0, "events": []}
        )
        state = "Stopped" if group["stopped"] else {"Waiting": "Pending"}.get(view["currentState"]["state"], view["currentState"]["state"])
        properties = {
            **{
                key: value
                for key, value in asked["properties"].items()
                if key not in ("containers", "ipAddress", "imageRegistryCredentials")
            },
            "provisioningState": group["provisioning"],
            "containers": [
                {"name": first["name"], "properties": {**shown, "environmentVariables": variables, "instanceView": view}},
            ],
            "imageRegistryCredentials": [
                {key: value for key, value in entry.items() if key != "password"}
                for entry in asked["properties"].get("imageRegistryCredentials") or ()
            ],
            "instanceView": {"state": state, "events": []},
        }
        if "ipAddress" in asked["properties"]:
            # The port is the one the process really has: all groups of the sandbox share one address.
            port = {"protocol": "TCP", "port": group["port"]}
            address = {"type": asked["properties"]["ipAddress"].get("type", "Public"), "ports": [port]}
            properties["ipAddress"] = address | ({"ip": "127.0.0.1"} if group["port"] else {})
        return {
            "id": f"/subscriptions/{names.SUBSCRIPTION}/resourceGroups/{names.RESOURCE_GROUP}/providers/{KIND}/{name}",
            "name": name,
            "type": KIND,
            "location": asked["location"],
            "tags": asked.get("tags") or {},
            "identity": asked.get("identity"),
            "properties": properties,
        }


def _checked(name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The group's one container. Raises ArmError for what Azure refuses, and for what the sandbox does not run."""
    properties = asked.get("properties") or {}
    containers = properties.get("containers") or []
    if not asked.get("location"):
        raise arm.invalid("The location property is required for this definition.", "LocationRequired")
    if not containers:
        raise arm.invalid(f"The container group '{name}' has no containers.", "MissingContainers")
    if len(containers) > 1:
        raise arm.invalid("The sandbox runs groups of one container.", "UnsupportedContainerGroup")
    container: dict[str, Any] = containers[0]
    specification = container.get("properties") or {}
    if not specification.get("image"):
        raise arm.invalid(f"The image of container '{container.get('name')}' in container group '{name}' is missing.", "MissingImage")
    if not (specification.get("resources") or {}).get("requests"):
        message = f"The resource requests for container '{container.get('name')}' in container group '{name}' are not specified."
        raise arm.invalid(message, "ResourceRequestsNotSpecified")
    if properties.get("osType") != "Linux":
        raise arm.invalid(f"The OS type '{properties.get('osType')}' of container group '{name}' is invalid.", "InvalidOsType")
    return container


def _view(container: Container) -> dict[str, Any]:
    status = container.status
    state: dict[str, Any] = {"state": status.phase.value, "startTime": status.since, "detailStatus": ""}
    match status.phase:
        case Phase.TERMINATED:
            detail = "Completed" if status.code == 0 else "Error"
            state |= {"exitCode": status.code, "finishTime": status.since, "detailStatus": detail}
        case Phase.WAITING if status.restarts:
            state |= {"detailStatus": "CrashLoopBackOff: Back-off restarting failed"}
        case _:
            pass
    view: dict[str, Any] = {"currentState": state, "restartCount": status.restarts, "events": []}
    if status.restarts:
        view["previousState"] = {"state": Phase.TERMINATED.value, "exitCode": status.code, "detailStatus": "Error"}
    return view
