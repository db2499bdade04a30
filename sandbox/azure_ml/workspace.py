"""The workspace itself: its making through a template deployment, its computes and datastores, and how its addresses are found."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sandbox import names
from sandbox.azure_ml import arm
from sandbox.azure_ml.blobs import Storage
from sandbox.world import World

PROVIDER = "Microsoft.MachineLearningServices"
ARTIFACTS = "azureml"  # the container of logs and artifacts
_GROUP_ID = f"/subscriptions/{names.SUBSCRIPTION}/resourceGroups/{names.RESOURCE_GROUP}"
_COMPUTE_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{1,22}[a-zA-Z0-9]")


def workspace_id(workspace: str) -> str:
    """The workspace's resource id."""
    return f"{_GROUP_ID}/providers/{PROVIDER}/workspaces/{workspace}"


class Workspaces:
    """Workspaces of the resource group, and what belongs to each by itself."""

    def __init__(self, world: World, storage: Storage) -> None:
        self._workspaces = world.state.table("azure.workspaces")
        self._deployments = world.state.table("azure.deployments")
        self._computes = world.state.table("azure.computes")
        self._storage = storage
        self._listeners: list[Callable[[], None]] = []

    def exists(self) -> bool:
        """Whether any workspace has been made."""
        return bool(self._workspaces)

    def on_creation(self, listener: Callable[[], None]) -> None:
        """Call the listener whenever a workspace has been made."""
        self._listeners.append(listener)

    def get(self, name: str) -> dict[str, Any]:
        """The workspace's document. Raises ArmError."""
        if name not in self._workspaces:
            raise arm.not_found(f"{PROVIDER}/workspaces", name)
        document: dict[str, Any] = self._workspaces[name]
        return document

    def compute(self, workspace: str, name: str) -> dict[str, Any]:
        """A compute's document. Raises ArmError."""
        if f"{workspace}/{name}" not in self._computes:
            raise arm.ArmError(404, "ResourceNotFound", f"Compute with name '{name}' was not found in workspace '{workspace}'.")
        document: dict[str, Any] = self._computes[f"{workspace}/{name}"]
        return document

    def container(self, datastore: str) -> str:
        """The blob container behind a datastore. Raises ArmError."""
        match datastore:
            case "workspaceblobstore":
                return f"azureml-blobstore-{next(iter(self._workspaces.values()))['properties']['workspaceId']}"
            case "workspaceartifactstore":
                return ARTIFACTS
            case _:
                raise arm.ArmError(404, "UserError", f"Datastore with name {datastore} was not found.")

    def guard(self) -> Middleware:
        """A middleware that answers 404 for whatever lies in a workspace that does not exist."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            if "workspace" in request.match_info:
                self.get(request.match_info["workspace"])
            return await handler(request)

        return middleware

    def routes(self) -> list[web.RouteDef]:
        """Workspaces, template deployments, computes and datastores."""
        deployments = arm.GROUP + "/providers/Microsoft.Resources/deployments/{deployment}"
        return [
            web.get(arm.GROUP + f"/providers/{PROVIDER}/workspaces", self._list),
            web.get(arm.WORKSPACE, self._get),
            web.patch(arm.WORKSPACE, self._update),
            web.put(deployments, self._deploy),
            web.get(deployments, self._deployment),
            web.get(arm.GROUP + "/deployments/{deployment}/operations", self._deployment_operations),  # as the SDK writes it
            web.get(arm.WORKSPACE + "/computes", self._list_computes),
            web.get(arm.WORKSPACE + "/computes/{name}", self._get_compute),
            web.put(arm.WORKSPACE + "/computes/{name}", self._put_compute),
            web.delete(arm.WORKSPACE + "/computes/{name}", self._delete_compute),
            web.get(arm.WORKSPACE + "/datastores", self._list_datastores),
            web.get(arm.WORKSPACE + "/datastores/{name}", self._get_datastore),
            web.post(arm.WORKSPACE + "/datastores/{name}/listSecrets", self._datastore_secrets),
        ]

    def discovery(self) -> list[web.RouteDef]:
        """How a client finds the workspace's API; asked without a token."""
        return [web.get("/discovery/workspaces/{id}", self._discover)]

    async def start(self) -> None:
        """Nothing to begin with."""

    async def stop(self) -> None:
        """Nothing runs here."""

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response({"value": list(self._workspaces.values())})

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(self.get(request.match_info["workspace"]))

    async def _update(self, request: web.Request) -> web.Response:
        document, wish = self.get(request.match_info["workspace"]), await arm.body(request)
        document["tags"] = wish.get("tags") or document["tags"]
        changes = {key: value for key, value in (wish.get("properties") or {}).items() if key in ("description", "friendlyName")}
        document["properties"] |= changes
        self._workspaces[document["name"]] = document
        return web.json_response(document)

    async def _deploy(self, request: web.Request) -> web.Response:
        """Deploy the SDK's template of a workspace: what it says about storage, keys and insights we have anyway."""
        name = request.match_info["deployment"]
        properties = (await arm.body(request)).get("properties") or {}
        parameters = {key: value.get("value") for key, value in (properties.get("parameters") or {}).items()}
        workspace, location = parameters.get("workspaceName"), parameters.get("location")
        if not workspace or not location:
            raise arm.invalid("The template parameters 'workspaceName' and 'location' are required.", "InvalidTemplate")
        if location.lower() != names.LOCATION:
            raise arm.invalid(
                f"The provided location '{location}' is not available for resource type '{PROVIDER}/workspaces'.",
                "LocationNotAvailableForResourceType",
            )
        if workspace not in self._workspaces:
            self._create(workspace, parameters)
        self._deployments[name] = {
            "id": f"{_GROUP_ID}/providers/Microsoft.Resources/deployments/{name}",
            "name": name,
            "type": "Microsoft.Resources/deployments",
            "properties": {"provisioningState": "Succeeded", "mode": "Incremental", "timestamp": arm.now(), "duration": "PT0.1S"},
        }
        return web.json_response(self._deployments[name], status=201)

    def _create(self, name: str, parameters: dict[str, Any]) -> None:
        key = str(uuid.uuid4())
        self._workspaces[name] = {
            "id": workspace_id(name),
            "name": name,
            "type": f"{PROVIDER}/workspaces",
            "location": names.LOCATION,
            "tags": parameters.get("tagValues") or {},
            "identity": {"type": "SystemAssigned", "principalId": str(uuid.uuid4()), "tenantId": names.TENANT},
            "sku": {"name": "Basic", "tier": "Basic"},
            "properties": {
                "workspaceId": key,
                "friendlyName": parameters.get("friendlyName") or name,
                "description": parameters.get("description") or "",
                "discoveryUrl": f"https://{names.AML_API}/discovery/workspaces/{key}",
                "mlFlowTrackingUri": f"azureml://{names.AML_API}/mlflow/v1.0{workspace_id(name)}",
                "storageAccount": f"{_GROUP_ID}/providers/Microsoft.Storage/storageAccounts/{names.STORAGE}",
                "containerRegistry": f"{_GROUP_ID}/providers/Microsoft.ContainerRegistry/registries/{names.REGISTRY}",
                "publicNetworkAccess": "Enabled",
                "hbiWorkspace": False,
                "provisioningState": "Succeeded",
                "creationTime": arm.now(),
            },
        }
        for datastore in ("workspaceblobstore", "workspaceartifactstore"):
            self._storage.folder(self.container(datastore))
        for listener in self._listeners:
            listener()

    async def _deployment(self, request: web.Request) -> web.Response:
        name = request.match_info["deployment"]
        if name not in self._deployments:
            raise arm.ArmError(404, "DeploymentNotFound", f"Deployment '{name}' could not be found.")
        return web.json_response(self._deployments[name])

    async def _deployment_operations(self, _: web.Request) -> web.Response:
        return web.json_response({"value": []})

    async def _list_computes(self, request: web.Request) -> web.Response:
        prefix = request.match_info["workspace"] + "/"
        return web.json_response({"value": [document for key, document in self._computes.items() if key.startswith(prefix)]})

    async def _get_compute(self, request: web.Request) -> web.Response:
        return web.json_response(self.compute(request.match_info["workspace"], request.match_info["name"]))

    async def _put_compute(self, request: web.Request) -> web.Response:
        workspace, name = request.match_info["workspace"], request.match_info["name"]
        wish = (await arm.body(request)).get("properties") or {}
        kind, details = wish.get("computeType"), wish.get("properties") or {}
        if not _COMPUTE_NAME.fullmatch(name):
            raise arm.invalid(f"The compute name '{name}' is invalid: 3 to 24 letters, digits and hyphens, a letter first.", "BadArgument")
        match kind:
            case "AmlCompute" if not details.get("vmSize"):
                raise arm.invalid("The property 'vmSize' is required for compute of type AmlCompute.", "BadArgument")
            case "Kubernetes" if not wish.get("resourceId"):
                raise arm.invalid("The property 'resourceId' is required for compute of type Kubernetes.", "BadArgument")
            case "AmlCompute" | "Kubernetes":
                pass
            case _:
                raise arm.invalid(f"The compute type '{kind}' is not supported.", "BadArgument")
        known = f"{workspace}/{name}" in self._computes
        if kind == "AmlCompute":
            details |= {"allocationState": "Steady", "currentNodeCount": 0, "targetNodeCount": 0}
        self._computes[f"{workspace}/{name}"] = {
            "id": f"{workspace_id(workspace)}/computes/{name}",
            "name": name,
            "type": f"{PROVIDER}/workspaces/computes",
            "location": names.LOCATION,
            "properties": wish | {"provisioningState": "Succeeded", "isAttachedCompute": kind == "Kubernetes", "properties": details},
        }
        return web.json_response(self._computes[f"{workspace}/{name}"], status=200 if known else 201)

    async def _delete_compute(self, request: web.Request) -> web.Response:
        workspace, name = request.match_info["workspace"], request.match_info["name"]
        self.compute(workspace, name)
        del self._computes[f"{workspace}/{name}"]
        return web.Response(status=204)

    async def _list_datastores(self, request: web.Request) -> web.Response:
        stores = [self._datastore(request.match_info["workspace"], name) for name in ("workspaceblobstore", "workspaceartifactstore")]
        if request.query.get("isDefault", "").lower() == "true":
            stores = stores[:1]
        return web.json_response({"value": stores})

    async def _get_datastore(self, request: web.Request) -> web.Response:
        return web.json_response(self._datastore(request.match_info["workspace"], request.match_info["name"]))

    async def _datastore_secrets(self, request: web.Request) -> web.Response:
        self.container(request.match_info["name"])
        return web.json_response({"secretsType": "AccountKey", "key": self._storage.key})

    def _datastore(self, workspace: str, name: str) -> dict[str, Any]:
        return {
            "id": f"{workspace_id(workspace)}/datastores/{name}",
            "name": name,
            "type": f"{PROVIDER}/workspaces/datastores",
            "properties": {
                "datastoreType": "AzureBlob",
                "accountName": names.STORAGE,
                "containerName": self.container(name),
                "endpoint": "core.windows.net",
                "protocol": "https",
                "isDefault": name == "workspaceblobstore",
                "credentials": {"credentialsType": "AccountKey"},
                "tags": {},
                "properties": {},
            },
        }

    async def _discover(self, request: web.Request) -> web.Response:
        if all(document["properties"]["workspaceId"] != request.match_info["id"] for document in self._workspaces.values()):
            raise arm.ArmError(404, "WorkspaceNotFound", f"Workspace not found: {request.match_info['id']}")
        root = f"https://{names.AML_API}"
        return web.json_response({"api": root, "history": root, "experimentation": root, "modelmanagement": root})
