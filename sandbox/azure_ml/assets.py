"""Versioned assets of the workspace: code, environments and models, with tags, archiving and automatic numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from sandbox import names
from sandbox.azure_ml import arm
from sandbox.azure_ml.blobs import BlobError, Storage
from sandbox.azure_ml.workspace import PROVIDER, Workspaces, workspace_id
from sandbox.world import World

KINDS = ("codes", "environments", "models")
# What may not change in a version that exists.
_LASTING = {"codes": "codeUri", "environments": "condaFile", "models": "modelUri"}
_DATASTORE_URI = re.compile(r"azureml://(?:subscriptions/.+/workspaces/[^/]+/)?datastores/(?P<store>[^/]+)/(?:paths/)?(?P<path>.+)")
_JOB_URI = re.compile(r"azureml://jobs/(?P<job>[^/]+)/outputs/(?P<output>[^/]+)(?:/paths)?/?(?P<path>.*)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")


class Assets:
    """Containers (a name) and their versions, newest first."""

    def __init__(self, world: World, storage: Storage, workspaces: Workspaces) -> None:
        self._storage = storage
        self._workspaces = workspaces
        self._versions = {kind: world.state.table(f"azure.{kind}") for kind in KINDS}
        self._archived = world.state.table("azure.archived")  # containers that are hidden
        self._uploads = world.state.table("azure.uploads")
        self.job_output: Callable[[str, str], str] = _no_jobs

    def get(self, kind: str, name: str, version: str) -> dict[str, Any]:
        """One version's document. Raises ArmError."""
        key = f"{name}/{version}"
        if key not in self._versions[kind]:
            raise arm.ArmError(404, "UserError", f"Asset {kind.removesuffix('s')} with name {name} and version {version} was not found.")
        document: dict[str, Any] = self._versions[kind][key]
        return document

    def versions(self, kind: str, name: str) -> list[dict[str, Any]]:
        """All versions of a name, newest first; none for a name nobody has used."""
        return [document for key, document in list(self._versions[kind].items())[::-1] if key.rpartition("/")[0] == name]

    def names(self, kind: str) -> list[str]:
        """Every name that has a version, in order of the first one."""
        return list(dict.fromkeys(key.rpartition("/")[0] for key in self._versions[kind]))

    def find(self, kind: str, id: str) -> dict[str, Any]:
        """The version behind a resource id or `azureml:name:version`. Raises ArmError."""
        short = re.fullmatch(r"azureml:(?P<name>[^:/]+):(?P<version>[^:/]+)", id)
        long = re.search(rf"/{kind}/(?P<name>[^/]+)/versions/(?P<version>[^/]+)$", id)
        found = short or long
        if found is None:
            raise arm.invalid(f"'{id}' is not the id of one of the workspace's {kind}.", "UserError")
        return self.get(kind, found["name"], found["version"])

    def files(self, kind: str, name: str, version: str) -> Path:
        """The folder (or file) that holds the content of a model or code version. Raises ArmError."""
        properties = self.get(kind, name, version)["properties"]
        return self.content(properties[_LASTING[kind]])

    def content(self, uri: str) -> Path:
        """The local path behind a datastore's URI or a blob's URL, which must hold something. Raises ArmError."""
        root = f"https://{names.BLOBS}/"
        try:
            if uri.startswith(root):
                container, _, path = uri.removeprefix(root).partition("/")
                found = self._storage.path(container, path) if path else self._storage.folder(container)
            elif parts := _DATASTORE_URI.fullmatch(uri):
                found = self._storage.path(self._workspaces.container(parts["store"]), parts["path"])
            else:
                raise arm.invalid(f"The asset's path '{uri}' is not an address this workspace knows.", "UserError")
        except BlobError as problem:
            raise arm.invalid(f"The asset's path '{uri}' cannot be read: {problem}", "UserError") from None
        if not found.is_file() and not any(_content(found)):
            raise arm.invalid(f"No files were found at the asset's path '{uri}'.", "UserError")
        return found

    def routes(self) -> list[web.RouteDef]:
        """The same for every kind."""
        kind = arm.WORKSPACE + "/{kind:" + "|".join(KINDS) + "}"
        return [
            web.get(kind, self._list_names),
            web.get(kind + "/{name}", self._get_name),
            web.put(kind + "/{name}", self._put_name),
            web.get(kind + "/{name}/versions", self._list_versions),
            web.get(kind + "/{name}/versions/{version}", self._get_version),
            web.put(kind + "/{name}/versions/{version}", self._put_version),
            web.delete(kind + "/{name}/versions/{version}", self._delete_version),
            web.post(kind + "/{name}/versions/{version}/startPendingUpload", self._start_upload),
        ]

    async def start(self) -> None:
        """Nothing to begin with."""

    async def stop(self) -> None:
        """Nothing runs here."""

    async def _list_names(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        documents = [self._container(request, kind, name) for name in self.names(kind)]
        return web.json_response({"value": [document for document in documents if _visible(document, request)]})

    async def _get_name(self, request: web.Request) -> web.Response:
        kind, name = request.match_info["kind"], request.match_info["name"]
        if not self.versions(kind, name):
            raise arm.ArmError(404, "UserError", f"Asset {kind.removesuffix('s')} with name {name} was not found.")
        return web.json_response(self._container(request, kind, name))

    async def _put_name(self, request: web.Request) -> web.Response:
        kind, name = request.match_info["kind"], request.match_info["name"]
        properties = (await arm.body(request)).get("properties") or {}
        self._archived[f"{kind}/{name}"] = bool(properties.get("isArchived"))
        return web.json_response(self._container(request, kind, name))

    async def _list_versions(self, request: web.Request) -> web.Response:
        kind, name = request.match_info["kind"], request.match_info["name"]
        if digest := request.query.get("hash"):
            # The name in the path is made up by the client: it wants any code with this content.
            found = [
                document
                for document in self._versions[kind].values()
                if digest in (document["properties"].get("properties") or {}).values()
            ]
        else:
            found = self.versions(kind, name)
        found = [document for document in found if _visible(document, request)]
        if (top := request.query.get("$top", "")).isdigit():
            found = found[: int(top)]
        return web.json_response({"value": found})

    async def _get_version(self, request: web.Request) -> web.Response:
        return web.json_response(self.get(request.match_info["kind"], request.match_info["name"], request.match_info["version"]))

    async def _put_version(self, request: web.Request) -> web.Response:
        kind, name, version = request.match_info["kind"], request.match_info["name"], request.match_info["version"]
        properties: dict[str, Any] = (await arm.body(request)).get("properties") or {}
        if not _NAME.fullmatch(name) or not _NAME.fullmatch(version):
            raise arm.invalid(f"The name '{name}' or version '{version}' has characters that are not allowed.", "UserError")
        if kind == "models":
            properties |= self._model(properties)
        elif kind == "codes":
            self.content(properties.get("codeUri") or "")
        known = self._versions[kind].get(f"{name}/{version}")
        lasting = _LASTING[kind]
        if known and known["properties"].get(lasting) != properties.get(lasting):
            raise arm.ArmError(
                409,
                "UserError",
                f"A {kind.removesuffix('s')} with this name and version already exists. If you are trying to create a new "
                f"{kind.removesuffix('s')}, use a different name or version.",
            )
        who = {"createdBy": request[arm.PRINCIPAL].who.name, "createdByType": "Application", "createdAt": arm.now()}
        document: dict[str, Any] = {
            "id": f"{workspace_id(request.match_info['workspace'])}/{kind}/{name}/versions/{version}",
            "name": version,
            "type": f"{PROVIDER}/workspaces/{kind}/versions",
            "properties": {"isArchived": False, "isAnonymous": False, "provisioningState": "Succeeded", **properties},
            "systemData": known["systemData"] if known else who,
        }
        for table in ("tags", "properties"):
            document["properties"][table] = document["properties"].get(table) or {}
        self._versions[kind][f"{name}/{version}"] = document
        return web.json_response(document, status=200 if known else 201)

    async def _delete_version(self, request: web.Request) -> web.Response:
        kind, name, version = request.match_info["kind"], request.match_info["name"], request.match_info["version"]
        if self._versions[kind].pop(f"{name}/{version}", None) is None:
            return web.Response(status=204)
        return web.Response(status=200)

    async def _start_upload(self, request: web.Request) -> web.Response:
        # The client writes to the container's root and takes what lies there for already uploaded: each upload gets a fresh one.
        container = self._storage.new_container()
        return web.json_response(
            {
                "pendingUploadId": container,
                "pendingUploadType": "TemporaryBlobReference",
                "blobReferenceForConsumption": {
                    "blobUri": self._storage.address(container),
                    "storageAccountArmId": self._workspaces.get(request.match_info["workspace"])["properties"]["storageAccount"],
                    "credential": {"credentialType": "SAS", "sasUri": self._storage.sas(container)},
                },
            }
        )

    def _model(self, properties: dict[str, Any]) -> dict[str, Any]:
        """What registering a model adds to it: where a job's output really lies, and what an MLflow model says of itself."""
        uri: str = properties.get("modelUri") or ""
        added: dict[str, Any] = {"flavors": {}}
        if job := _JOB_URI.fullmatch(uri):
            path = job["path"].rstrip("/")
            uri = self.job_output(job["job"], job["output"]) + path
            added |= {"jobName": job["job"]}
        if place := _DATASTORE_URI.fullmatch(uri):  # clients send the long form back for what they were given in the short one
            uri = f"azureml://datastores/{place['store']}/paths/{place['path'].rstrip('/')}"
        content = self.content(uri)
        if properties.get("modelType") == "mlflow_model":
            description = content / "MLmodel"
            if not description.is_file():
                raise arm.invalid("The MLmodel file could not be found in the model's path.", "UserError")
            flavors = yaml.safe_load(description.read_text(encoding="utf-8")).get("flavors") or {}
            added["flavors"] = {name: {"data": {key: str(value) for key, value in data.items()}} for name, data in flavors.items()}
        return added | {"modelUri": uri}

    def _container(self, request: web.Request, kind: str, name: str) -> dict[str, Any]:
        versions = self.versions(kind, name)
        numbers = [int(document["name"]) for document in versions if document["name"].isdigit()]
        return {
            "id": f"{workspace_id(request.match_info['workspace'])}/{kind}/{name}",
            "name": name,
            "type": f"{PROVIDER}/workspaces/{kind}",
            "properties": {
                "isArchived": bool(self._archived.get(f"{kind}/{name}")),
                "latestVersion": versions[0]["name"] if versions else None,
                "nextVersion": str(max(numbers, default=0) + 1),
                "tags": {},
                "properties": {},
            },
        }


def _visible(document: dict[str, Any], request: web.Request) -> bool:
    match request.query.get("listViewType", "ActiveOnly"):
        case "All":
            return True
        case "ArchivedOnly":
            return bool(document["properties"]["isArchived"])
        case _:
            return not document["properties"]["isArchived"]


def _content(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _no_jobs(job: str, output: str) -> str:
    raise arm.invalid(f"Job {job} has no output {output}.", "UserError")
