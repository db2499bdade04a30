"""The container registry: builds as Azure Container Registry's tasks offer them, and images behind its own host.

Resource Manager: listBuildSourceUploadUrl, scheduleRun (DockerBuildRequest), runs, their logs.
Data plane: https://github.com/opencontainers/distribution-spec (reading), with the registry's own exchange of tokens.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from sandbox import names
from sandbox.azure_ml import arm
from sandbox.azure_ml.oci import LAYER, MANIFEST, BuildFailed, Corrupt, Image, Layout, Unknown
from sandbox.tokens import BadToken
from sandbox.world import World

logger = logging.getLogger("sandbox.azure.registry")

LOGIN_SERVER = f"{names.REGISTRY}.azurecr.io"
KIND = "Microsoft.ContainerRegistry/registries"
REGISTRY = arm.GROUP + "/providers/" + KIND + "/{registry}"
AUDIENCE = "https://containerregistry.azure.net"
_ID = f"/subscriptions/{names.SUBSCRIPTION}/resourceGroups/{names.RESOURCE_GROUP}/providers/{KIND}/{names.REGISTRY}"
_SOURCES = "source"
_LOGS = "logs"


class Inaccessible(Exception):
    """There is no such image here, or its reference names another registry."""


class Registry:
    """One registry: a folder with an image layout per repository, and the runs that built them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._folder = world.folder / "registry"
        self._runs = world.state.table("registry.runs")
        self._signatures = world.state.table("registry.signatures")  # of upload and log addresses, by path
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def image(self, reference: str) -> tuple[Image, Layout]:
        """What `server/repository@sha256:...` or `server/repository:tag` names. Raises Inaccessible."""
        server, _, rest = reference.partition("/")
        repository, _, wanted = rest.partition("@") if "@" in rest else rest.partition(":")
        if server != LOGIN_SERVER:
            raise Inaccessible(reference)
        layout = self._layout(repository)
        try:
            return layout.image(wanted or "latest"), layout
        except (Unknown, Corrupt):
            raise Inaccessible(reference) from None

    def routes(self) -> list[web.RouteDef]:
        """The registry and its tasks on management.azure.com."""
        return [
            web.get(REGISTRY, self._get),
            web.post(REGISTRY + "/listBuildSourceUploadUrl", self._upload_url),
            web.post(REGISTRY + "/scheduleRun", self._schedule),
            web.get(REGISTRY + "/runs", self._list_runs),
            web.get(REGISTRY + "/runs/{run}", self._run),
            web.post(REGISTRY + "/runs/{run}/listLogSasUrl", self._log_url),
        ]

    def hosts(self) -> Mapping[str, web.Application]:
        """The registry's data plane, and the storage that takes a build's source and keeps its log."""
        images = web.Application(middlewares=[_distribution_errors])
        images.add_routes(
            [
                web.get("/v2/", self._challenge),
                web.post("/oauth2/exchange", self._exchange),
                web.post("/oauth2/token", self._token),
                web.get("/v2/{repository:.+}/tags/list", self._tags),
                web.get("/v2/{repository:.+}/manifests/{reference}", self._manifest),
                web.get("/v2/{repository:.+}/blobs/{digest}", self._blob),
            ]
        )
        storage = web.Application(client_max_size=512 * 1024 * 1024)
        storage.add_routes([web.put(f"/{{kind:{_SOURCES}}}/{{name}}", self._upload), web.get(f"/{{kind:{_LOGS}}}/{{name}}", self._log)])
        return {LOGIN_SERVER: images, names.BUILD_STORAGE: storage}

    async def start(self) -> None:
        """A run that was under way when the sandbox stopped did not survive it."""
        for name, run in self._runs.items():
            if run["status"] in ("Queued", "Running"):
                self._runs[name] = run | {"status": "Error", "finishTime": arm.now(), "runErrorMessage": "The agent went away."}

    async def stop(self) -> None:
        """Leave no build behind."""
        for task in tuple(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    # Resource Manager

    async def _get(self, request: web.Request) -> web.Response:
        self._known(request)
        properties = {"loginServer": LOGIN_SERVER, "provisioningState": "Succeeded", "adminUserEnabled": False}
        sku = {"name": "Standard", "tier": "Standard"}
        document = {"id": _ID, "name": names.REGISTRY, "type": KIND, "location": names.LOCATION, "sku": sku, "properties": properties}
        return web.json_response(document)

    async def _upload_url(self, request: web.Request) -> web.Response:
        self._known(request)
        path = f"{_SOURCES}/{secrets.token_hex(16)}.tar.gz"
        return web.json_response({"uploadUrl": self._signed(path, "cw"), "relativePath": path})

    async def _schedule(self, request: web.Request) -> web.Response:
        self._known(request)
        asked = await arm.body(request)
        if asked.get("type") != "DockerBuildRequest":
            raise arm.invalid(f"The sandbox's registry runs DockerBuildRequest, not '{asked.get('type')}'.", "InvalidRequest")
        if not asked.get("dockerFilePath") or not asked.get("platform", {}).get("os"):
            raise arm.invalid("The parameters 'dockerFilePath' and 'platform.os' are required.", "InvalidParameter")
        source = str(asked.get("sourceLocation", ""))
        if source not in self._signatures or not (self._folder / source).is_file():
            raise arm.invalid(f"The source location '{source}' could not be found.", "InvalidSourceLocation")
        name = f"ca{self._world.state.next('registry.run'):x}"
        run: dict[str, Any] = {
            "runId": name,
            "status": "Queued",
            "runType": "QuickBuild",
            "provisioningState": "Succeeded",
            "platform": asked["platform"],
            "createTime": arm.now(),
            "lastUpdatedTime": arm.now(),
            "outputImages": [],
        }
        self._runs[name] = run
        self._tasks[name] = asyncio.create_task(self._build(name, asked))
        return web.json_response(_document(run))

    async def _list_runs(self, request: web.Request) -> web.Response:
        self._known(request)
        return web.json_response({"value": [_document(run) for run in reversed(list(self._runs.values()))]})

    async def _run(self, request: web.Request) -> web.Response:
        return web.json_response(_document(self._known_run(request)))

    async def _log_url(self, request: web.Request) -> web.Response:
        run = self._known_run(request)
        return web.json_response({"logLink": self._signed(f"{_LOGS}/{run['runId']}.log", "r")})

    def _known(self, request: web.Request) -> None:
        if (name := request.match_info["registry"]).lower() != names.REGISTRY:
            raise arm.not_found(KIND, name)

    def _known_run(self, request: web.Request) -> dict[str, Any]:
        self._known(request)
        name = request.match_info["run"]
        if name not in self._runs:
            raise arm.ArmError(404, "RunNotFound", f"The run '{name}' could not be found in the registry '{names.REGISTRY}'.")
        run: dict[str, Any] = self._runs[name]
        return run

    # Builds

    async def _build(self, name: str, asked: Mapping[str, Any]) -> None:
        def moved(**what: Any) -> None:
            self._runs[name] = self._runs[name] | {"lastUpdatedTime": arm.now()} | what

        log = self._folder / _LOGS / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        moved(status="Running", startTime=arm.now())
        try:
            images = await asyncio.to_thread(self._carry_out, asked, log)
        except BuildFailed as problem:
            with log.open("a", encoding="utf-8") as lines:
                lines.write(f"{problem}\nRun ID: {name} failed. Error: failed during run, err: exit status 1\n")
            moved(status="Failed", finishTime=arm.now(), runErrorMessage="failed during run, err: exit status 1")
        except Exception as problem:  # a client would poll for ever
            logger.exception("build %s broke", name)
            moved(status="Error", finishTime=arm.now(), runErrorMessage=f"The sandbox could not build: {problem}")
        else:
            moved(status="Succeeded", finishTime=arm.now(), outputImages=images)
        finally:
            self._tasks.pop(name, None)
            self._signatures.pop(asked["sourceLocation"], None)
            (self._folder / asked["sourceLocation"]).unlink(missing_ok=True)

    def _carry_out(self, asked: Mapping[str, Any], log: Path) -> list[dict[str, str]]:
        with log.open("w", encoding="utf-8", buffering=1) as lines, tempfile.TemporaryDirectory() as scratch:

            def say(line: str) -> None:
                lines.write(line + "\n")

            try:
                with tarfile.open(self._folder / asked["sourceLocation"]) as source:
                    source.extractall(scratch, filter="data")
            except (tarfile.TarError, zlib.error, EOFError) as problem:
                raise BuildFailed(f"failed to extract the source: {problem}") from None
            arguments = {argument["name"]: str(argument.get("value", "")) for argument in asked.get("arguments") or ()}
            wanted = [_repository_and_tag(image) for image in asked.get("imageNames", ())]
            if not wanted or not asked.get("isPushEnabled"):
                Layout(Path(scratch) / ".image").build(Path(scratch), asked["dockerFilePath"], say, arguments)
                return []
            built: list[dict[str, str]] = []
            for repository, tag in wanted:
                layout = self._layout(repository)
                digest = layout.build(Path(scratch), asked["dockerFilePath"], say, arguments)
                layout.tag(digest, tag)
                say(f"Successfully tagged {LOGIN_SERVER}/{repository}:{tag}\n{tag}: digest: {digest}")
                built.append({"registry": LOGIN_SERVER, "repository": repository, "tag": tag, "digest": digest})
            return built

    def _layout(self, repository: str) -> Layout:
        return Layout(self._folder / "images" / repository.replace("/", "__").replace("..", "__"))

    # Storage of sources and logs

    def _signed(self, path: str, permission: str) -> str:
        signature = secrets.token_urlsafe(24)
        self._signatures[path] = signature
        return f"https://{names.BUILD_STORAGE}/{path}?sp={permission}&sig={signature}"

    def _signed_path(self, request: web.Request) -> str:
        path = f"{request.match_info['kind']}/{request.match_info['name']}"
        if not secrets.compare_digest(str(self._signatures.get(path, secrets.token_hex())), request.query.get("sig", "")):
            code = "AuthenticationFailed"
            raise web.HTTPForbidden(text=f"<Error><Code>{code}</Code></Error>", headers={"x-ms-error-code": code})
        return path

    async def _upload(self, request: web.Request) -> web.Response:
        file = self._folder / self._signed_path(request)
        if request.headers.get("x-ms-blob-type") != "BlockBlob":
            code = "MissingRequiredHeader"
            raise web.HTTPBadRequest(text=f"<Error><Code>{code}</Code></Error>", headers={"x-ms-error-code": code})
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as target:
            async for chunk in request.content.iter_chunked(1 << 20):
                target.write(chunk)
        return web.Response(status=201)

    async def _log(self, request: web.Request) -> web.Response:
        file = self._folder / self._signed_path(request)
        if not file.is_file():
            raise web.HTTPNotFound(text="<Error><Code>BlobNotFound</Code></Error>", headers={"x-ms-error-code": "BlobNotFound"})
        return web.Response(text=file.read_text(encoding="utf-8"))

    # Data plane

    async def _challenge(self, request: web.Request) -> web.Response:
        self._may_pull(request)
        return web.json_response({})

    async def _exchange(self, request: web.Request) -> web.Response:
        """An Entra token for a refresh token of the registry.

        https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md
        """
        form = await request.post()
        try:
            who = self._world.tokens.check(f"Bearer {form.get('access_token', '')}", AUDIENCE, *arm.AUDIENCES).who
        except BadToken as problem:
            raise _refused(401, "UNAUTHORIZED", str(problem)) from None
        return web.json_response({"refresh_token": self._world.tokens.issue(who, f"{LOGIN_SERVER}/refresh")})

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        try:
            who = self._world.tokens.check(f"Bearer {form.get('refresh_token', '')}", f"{LOGIN_SERVER}/refresh").who
        except BadToken as problem:
            raise _refused(401, "UNAUTHORIZED", str(problem)) from None
        if form.get("service") != LOGIN_SERVER or not form.get("scope"):
            raise _refused(400, "UNSUPPORTED", "service and scope are required")
        return web.json_response({"access_token": self._world.tokens.issue(who, LOGIN_SERVER, (str(form["scope"]),))})

    async def _tags(self, request: web.Request) -> web.Response:
        repository = self._may_pull(request)
        tags = sorted(self._layout(repository).tags())
        if not tags:
            raise _refused(404, "NAME_UNKNOWN", f'repository "{repository}" is not found')
        return web.json_response({"name": repository, "tags": tags})

    async def _manifest(self, request: web.Request) -> web.Response:
        repository, reference = self._may_pull(request), request.match_info["reference"]
        layout = self._layout(repository)
        try:
            digest = layout.resolve(reference)
            content = layout.blob(digest)
        except Unknown:
            raise _refused(404, "MANIFEST_UNKNOWN", f'manifest tagged by "{reference}" is not found') from None
        return web.Response(body=content, content_type=MANIFEST, headers={"Docker-Content-Digest": digest})

    async def _blob(self, request: web.Request) -> web.Response:
        repository, digest = self._may_pull(request), request.match_info["digest"]
        try:
            content = self._layout(repository).blob(digest)
        except Unknown:
            raise _refused(404, "BLOB_UNKNOWN", "blob unknown to registry") from None
        return web.Response(body=content, content_type=LAYER, headers={"Docker-Content-Digest": digest})

    def _may_pull(self, request: web.Request) -> str:
        """The repository asked for, if the token's scope lets it be read."""
        repository = request.match_info.get("repository", "")
        scope = f"repository:{repository}:pull" if repository else ""
        try:
            scopes = self._world.tokens.check(request.headers.get("Authorization"), LOGIN_SERVER).scopes
        except BadToken:
            scopes = frozenset()
        if not scopes or (repository and scope not in scopes):
            challenge = f'Bearer realm="https://{LOGIN_SERVER}/oauth2/token",service="{LOGIN_SERVER}",scope="{scope}"'
            raise _refused(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})
        return repository


class _Refused(Exception):
    def __init__(self, response: web.Response) -> None:
        super().__init__(response.text)
        self.response = response


def _refused(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> _Refused:
    return _Refused(web.json_response({"errors": [{"code": code, "message": message}]}, status=status, headers=headers))


@web.middleware
async def _distribution_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except _Refused as refused:
        return refused.response


def _document(run: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": f"{_ID}/runs/{run['runId']}", "name": run["runId"], "type": f"{KIND}/runs", "properties": dict(run)}


def _repository_and_tag(image: str) -> tuple[str, str]:
    """`server/repository:tag` or `repository:tag`, as `docker build -t` reads it."""
    name = image.removeprefix(f"{LOGIN_SERVER}/")
    repository, _, tag = name.partition(":")
    return repository, tag or "latest"
