"""Azure Resource Manager as every local Azure server speaks it: errors, the check of a token, and long-running operations."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sandbox import names
from sandbox.tokens import BadToken, Principal
from sandbox.world import World

log = logging.getLogger("sandbox.azure")

AUDIENCES = ("https://management.azure.com", "https://management.core.windows.net", "https://ml.azure.com")
# Resource Manager ignores the case of its own words; the SDKs write `resourcegroups` and `resourceGroups`.
GROUP = "/subscriptions/{subscription}/{_groups:resource[gG]roups}/{group}"
WORKSPACE = GROUP + "/providers/Microsoft.MachineLearningServices/workspaces/{workspace}"
PRINCIPAL = web.RequestKey("principal", Principal)
_REMEMBERED = 1000  # operations that can still be polled


class ArmError(Exception):
    """An answer that is an error: a status, Resource Manager's code word and a sentence."""

    def __init__(self, status: int, code: str, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}

    @property
    def document(self) -> dict[str, Any]:
        """The body, as Resource Manager writes it."""
        return {"error": {"code": self.code, "message": self.message}}


def not_found(kind: str, name: str) -> ArmError:
    """What Resource Manager says of a resource that does not exist; kind is like `Microsoft.ContainerInstance/containerGroups`."""
    return ArmError(404, "ResourceNotFound", f"The Resource '{kind}/{name}' under resource group '{names.RESOURCE_GROUP}' was not found.")


def invalid(message: str, code: str = "InvalidRequestContent") -> ArmError:
    """A request that makes no sense."""
    return ArmError(400, code, message)


async def body(request: web.Request) -> dict[str, Any]:
    """The request's JSON object. Raises ArmError."""
    try:
        document = await request.json()
    except ValueError:
        raise invalid("The request content was invalid and could not be deserialized.") from None
    if not isinstance(document, dict):
        raise invalid("The request content must be a JSON object.")
    return document


def now() -> str:
    """The present as Azure writes it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def identify(world: World, request: web.Request, *audiences: str) -> Principal:
    """Who asks. Raises ArmError 401 as Resource Manager does, and 403 for a guest, who has no role in the subscription."""
    try:
        principal = world.tokens.check(request.headers.get("Authorization"), *(audiences or AUDIENCES))
    except BadToken as problem:
        missing = "Authorization" not in request.headers
        code = "AuthenticationFailed" if missing else "InvalidAuthenticationToken"
        challenge = f'Bearer authorization_uri="https://login.microsoftonline.com/{names.TENANT}", error="invalid_token"'
        raise ArmError(401, code, str(problem), headers={"WWW-Authenticate": challenge}) from None
    if principal.who.guest:
        raise ArmError(
            403,
            "AuthorizationFailed",
            f"The client '{principal.who.email}' with object id '{principal.who.oid}' does not have authorization to perform action "
            f"'{request.method} {request.path}' or the scope is invalid.",
        )
    return principal


def errors() -> Middleware:
    """A middleware that writes every error as Resource Manager does."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ArmError as problem:
            return web.json_response(problem.document, status=problem.status, headers=problem.headers)
        except web.HTTPNotFound:
            unknown = ArmError(404, "InvalidResourceType", f"The resource {request.method} {request.path} could not be found.")
            return web.json_response(unknown.document, status=unknown.status)
        except web.HTTPMethodNotAllowed:
            unknown = ArmError(405, "HttpMethodNotAllowed", f"The method {request.method} is not allowed on {request.path}.")
            return web.json_response(unknown.document, status=unknown.status)

    return middleware


def guard(world: World) -> Middleware:
    """A middleware that lets only known identities in, and only to the one subscription and resource group there is."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[PRINCIPAL] = identify(world, request)
        if "api-version" not in request.query:
            raise invalid("The api-version query parameter (?api-version=) is required for all requests.", "MissingApiVersionParameter")
        subscription = request.match_info.get("subscription", names.SUBSCRIPTION)
        if subscription.lower() != names.SUBSCRIPTION:
            raise ArmError(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")
        group = request.match_info.get("group", names.RESOURCE_GROUP)
        if group.lower() != names.RESOURCE_GROUP:
            raise ArmError(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")
        return await handler(request)

    return middleware


class Operations:
    """Long-running operations: begun by a request, worked off in a task, polled at the `Azure-AsyncOperation` address.

    They live in memory: a poller that outlives a restart gets 404, and reads the resource itself.
    """

    def __init__(self) -> None:
        self._documents: dict[str, dict[str, Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def routes(self) -> list[web.RouteDef]:
        """Where operations are polled."""
        return [web.get("/subscriptions/{subscription}/providers/{provider}/locations/{location}/operations/{operation}", self._get)]

    def begin(self, provider: str, work: Coroutine[Any, Any, None]) -> dict[str, str]:
        """Start the work; returns the headers that tell the caller (201 or 202) where to poll, and to do so every 0.2 s.

        An ArmError of the work becomes the operation's error; `provider` is like `Microsoft.ContainerInstance`.
        """
        name = str(uuid.uuid4())
        path = f"/subscriptions/{names.SUBSCRIPTION}/providers/{provider}/locations/{names.LOCATION}/operations/{name}"
        document: dict[str, Any] = {"id": path, "name": name, "status": "InProgress", "startTime": now()}
        self._documents[name] = document
        for old in list(self._documents)[:-_REMEMBERED]:
            del self._documents[old]
        task = asyncio.create_task(self._work(document, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Azure's own `Retry-After` counts whole seconds and would win over the finer header.
        return {"Azure-AsyncOperation": f"https://management.azure.com{path}?api-version=2023-04-01", "x-ms-retry-after-ms": "200"}

    async def start(self) -> None:
        """Nothing to begin with."""

    async def stop(self) -> None:
        """Cancel what is still under way."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self, document: dict[str, Any], work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
            document["status"] = "Succeeded"
        except ArmError as problem:
            document |= {"status": "Failed"} | problem.document
        except Exception:
            log.exception("a long-running operation broke")
            document |= {"status": "Failed", "error": {"code": "InternalServerError", "message": "The operation broke; see the log."}}
        finally:
            document["endTime"] = now()

    async def _get(self, request: web.Request) -> web.Response:
        document = self._documents.get(request.match_info["operation"])
        if document is None:
            raise ArmError(404, "OperationNotFound", f"The operation '{request.match_info['operation']}' could not be found.")
        headers = {"x-ms-retry-after-ms": "200"} if document["status"] == "InProgress" else {}
        return web.json_response(document, headers=headers)
