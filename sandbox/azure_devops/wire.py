"""How Azure DevOps speaks HTTP: route discovery, versions, sign-in, error documents. What it says is in `rest`."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from aiohttp import web

from sandbox.azure_devops.records import new_id
from sandbox.azure_devops.views import Json
from sandbox.faults import Faults
from sandbox.names import ADO_MEMBERS, ORGANIZATION, PROJECT, PROJECT_ID, TENANT, Character
from sandbox.tokens import AZURE_DEVOPS, BadToken, Tokens

# What some scopes include. https://learn.microsoft.com/azure/devops/integrate/get-started/authentication/oauth#scopes
_INCLUDES: Mapping[str, tuple[str, ...]] = {
    "vso.build_execute": ("vso.build",),
    "vso.code_write": ("vso.code",),
    "vso.environment_manage": ("vso.build",),
    "vso.release_execute": ("vso.release",),
    "vso.release_manage": ("vso.release", "vso.release_execute"),
}
_EVERYTHING = frozenset({"user_impersonation", "vso.full", ".default"})

_SIGN_IN = """<!DOCTYPE html>
<html lang="en"><head><title>Azure DevOps Services | Sign In</title></head>
<body><h1>Sign in to continue to Azure DevOps</h1></body></html>
"""


# What it may be told to answer (`ado.409`), each for one method if wanted; only what writes can conflict.
_REFUSALS: Mapping[int, tuple[str, str, str]] = {
    403: ("ado.403", "AccessDeniedException", "Access denied: you need permission for this. Contact your administrator."),
    409: ("ado.409", "ConcurrentUpdateException", "The item was changed by another request at the same moment."),
    500: ("ado.500", "VssServiceException", "TF30063: An unexpected error occurred."),
}
_LARGEST = 2**31 - 1  # numbers of the service have 32 bits


class ApiError(Exception):
    """An answer that is not a success, in the service's words."""

    def __init__(self, status: int, key: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.key = key


class NotSignedIn(Exception):
    """Somebody we do not know; `answer` shows them where to sign in."""

    def __init__(self, answer: web.Response) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(frozen=True)
class Call:
    """One request that was let in: who asks, the route's values, and what was sent."""

    request: web.Request
    who: Character
    values: Mapping[str, str]
    body: Any

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The query by lower-case names, without the `$` of OData."""
        return {name.lower().lstrip("$"): value for name, value in self.request.query.items()}

    @property
    def accepts(self) -> str:
        """The media type asked for."""
        return self.request.headers.get("Accept", "").partition(";")[0].strip().lower()

    def number(self, name: str) -> int:
        """A value of the route that is a number."""
        return int(self.values[name])

    def top(self, default: int = 1000) -> int:
        """How many are asked for at most."""
        return self.asked("top", default)

    def asked(self, name: str, default: int) -> int:
        """A number of the query. Raises ApiError."""
        return whole(self.query.get(name.lower()), name, default)

    def numbers(self, name: str) -> frozenset[int]:
        """A list of numbers of the query; empty where it is not given. Raises ApiError."""
        return frozenset(whole(word, name, 0) for word in self.names(name.lower()))

    def between(self, lines: Sequence[str]) -> Sequence[str]:
        """Those from `startLine` to `endLine`, which count from 1. Raises ApiError."""
        return lines[max(self.asked("startLine", 1) - 1, 0) : self.asked("endLine", len(lines))]

    def time(self, name: str) -> datetime | None:
        """A time of the query; None where it is not given. Raises ApiError."""
        return moment(self.query.get(name), name)

    def names(self, name: str) -> tuple[str, ...]:
        """A list of the query, in lower case; empty where it is not given."""
        return tuple(word.strip().lower() for word in self.query.get(name, "").split(",") if word.strip())

    def document(self) -> Json:
        """The body, which must be an object."""
        if not isinstance(self.body, dict):
            raise ApiError(400, "InvalidRequestContentException", "The request body must be a JSON object.")
        return self.body


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Scopes:
    """Which scopes of a delegated token open a route, to read and to write; none means any token does."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


@dataclass(frozen=True)
class Location:
    """One entry of the route table: what OPTIONS tells, and who answers."""

    id: str
    area: str
    resource: str
    template: str
    version: int
    scopes: Scopes
    methods: Mapping[str, Handler]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The path below the organisation, in any case of letters; what is a number takes digits only."""
        parts = []
        segments = self.template.split("/")
        for place, segment in enumerate(segments):
            if not segment.startswith("{"):
                parts.append("/" + re.escape(segment))
                continue
            name = segment.strip("{}*")
            if name in {"area", "resource"}:
                parts.append("/" + re.escape({"area": self.area, "resource": self.resource}[name]))
                continue
            kind = r"[0-9]{1,10}" if name in _NUMBERS else r"[^/]+"
            optional = name == "project" or place == len(segments) - 1
            parts.append(f"(?:/(?P<{name}>{kind})){'?' if optional else ''}")
        return re.compile("".join(parts) + "/?$", re.IGNORECASE)

    def told(self) -> Json:
        """The entry as OPTIONS tells it; versions are texts on the wire."""
        return {
            "id": self.id,
            "area": self.area,
            "resourceName": self.resource,
            "routeTemplate": self.template,
            "resourceVersion": self.version,
            "minVersion": "1.0",
            "maxVersion": "7.2",
            "releasedVersion": "7.1",
        }


def route(key: str, name: str, template: str, version: int, scopes: Scopes = Scopes(), **methods: Handler) -> Location:
    """A Location whose `name` is its area and resource."""
    area, resource = name.split("/")
    return Location(key, area, resource, template, version, scopes, methods)


_NUMBERS = frozenset(
    {
        *("pipelineId", "runId", "buildId", "logId", "definitionId", "environmentId", "notificationId", "testCaseResultId", "id"),
        *("releaseId", "attemptId", "releaseDeployPhaseId", "taskId", "revision"),
    }
)


class Host:
    """One host of Azure DevOps: lets requests in, finds their handler, and dresses its answers."""

    def __init__(self, locations: Sequence[Location], tokens: Tokens, faults: Faults, unlicensed: Collection[str]) -> None:
        self._locations = locations
        self._unlicensed = unlicensed
        self._tokens = tokens
        self._faults = faults

    def app(self) -> web.Application:
        """The application that answers for the host."""
        app = web.Application(client_max_size=32 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            answer = await self._let_in(request)
        except ApiError as error:
            answer = failure(error.status, error.key, str(error))
        except NotSignedIn as stranger:
            answer = stranger.answer
        answer.headers.setdefault("ActivityId", new_id())
        answer.headers.setdefault("X-VSS-E2EID", new_id())
        answer.headers.setdefault("X-TFS-Session", request.headers.get("X-TFS-Session", new_id()))
        answer.headers.setdefault("X-TFS-ProcessId", PROJECT_ID)
        return answer

    async def _let_in(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/")
        organization, _, rest = path.lstrip("/").partition("/")
        if organization.lower() != ORGANIZATION:
            raise ApiError(404, "HostNotFoundException", f"The service host {organization} does not exist or is not reachable.")
        who, scopes = self._who(request)
        if request.method == "OPTIONS":
            return ok({"count": len(self._locations), "value": [location.told() for location in self._locations]})
        if fault := await self._misbehave(request):
            return fault
        location, values = self._find(f"/{rest}")
        handler = location.methods.get(request.method)
        if handler is None:
            raise ApiError(405, "RequestContentException", f"The requested resource does not support http method '{request.method}'.")
        _check_version(request)
        _check_scopes(who, scopes, location.scopes.read if request.method == "GET" else location.scopes.write)
        if values.get("project", PROJECT).lower() not in {PROJECT, PROJECT_ID}:
            raise _no_project(values["project"])
        lost = request.method != "GET" and self._faults.take("ado.lost_answer") is not None
        answer = await handler(Call(request, who, values, await _body(request)))
        if lost and request.transport is not None:
            request.transport.abort()
        answer.headers.setdefault("X-VSS-UserData", f"{who.oid}:{who.email}")
        return answer

    def _who(self, request: web.Request) -> tuple[Character, frozenset[str]]:
        """Who asks, by their token alone."""
        given = request.headers.get("Authorization", "")
        if given.lower().startswith("basic "):
            # A personal access token that is not (or no longer) valid is answered with the page to sign in, as a success.
            raise NotSignedIn(web.Response(status=203, text=_SIGN_IN, content_type="text/html"))
        if not given and request.headers.get("Accept", "").startswith("text/html"):
            place = f"https://login.microsoftonline.com/{TENANT}/oauth2/authorize?resource={AZURE_DEVOPS}"
            raise NotSignedIn(web.Response(status=302, headers={"Location": place}))
        try:
            principal = self._tokens.check(given, AZURE_DEVOPS)
        except BadToken as bad:
            raise _sign_in(str(bad)) from None
        if principal.who not in ADO_MEMBERS:
            raise unauthorized(principal.who)
        if principal.who.oid in self._unlicensed:
            raise ApiError(401, "UnauthorizedRequestException", unlicensed(principal.who))
        return principal.who, principal.scopes

    async def _misbehave(self, request: web.Request) -> web.Response | None:
        if slow := self._faults.take("ado.slow"):
            await asyncio.sleep(float(slow.get("seconds", 2)))
        if (limit := self._faults.take("ado.429")) is not None:
            answer = failure(
                429, "RequestBlockedException", "TF400733: The request has been canceled: Request was blocked due to exceeding usage."
            )
            if limit.get("retry_after", 1) is not None:
                answer.headers["Retry-After"] = str(limit.get("retry_after", 1))
            answer.headers.update({"X-RateLimit-Resource": "Core", "X-RateLimit-Limit": "200", "X-RateLimit-Remaining": "0"})
            return answer
        if self._faults.take("ado.503") is not None:
            return web.Response(status=503, text="The service is unavailable.", content_type="text/html")
        for status, (name, key, said) in _REFUSALS.items():
            possible = status != 409 or request.method != "GET"
            if possible and self._faults.take(name, method=request.method) is not None:
                return failure(status, key, said)
        if self._faults.take("ado.html") is not None:
            return web.Response(status=203, text=_SIGN_IN, content_type="text/html")
        return None

    def _find(self, path: str) -> tuple[Location, dict[str, str]]:
        for location in self._locations:
            if found := location.pattern.match(path):
                return location, {name: value for name, value in found.groupdict().items() if value is not None}
        raise ApiError(404, "HttpException", f"The controller for path '{path}' was not found or does not implement IController.")


def ok(document: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    answer = web.Response(status=status, body=json.dumps(document).encode(), headers=headers)
    answer.headers["Content-Type"] = "application/json; charset=utf-8; api-version=7.1"
    return answer


def failure(status: int, key: str, message: str) -> web.Response:
    """An error as Azure DevOps writes it."""
    document = {
        "$id": "1",
        "innerException": None,
        "message": message,
        "typeName": f"Microsoft.VisualStudio.Services.WebApi.{key}, Microsoft.VisualStudio.Services.WebApi",
        "typeKey": key,
        "errorCode": 0,
        "eventId": 3000,
    }
    answer = ok(document, status=status)
    answer.headers["X-TFS-ServiceError"] = message.replace("\n", " ").encode("ascii", "replace").decode()
    return answer


def unauthorized(who: Character) -> ApiError:
    """Somebody who is nobody here, or whose token does not reach so far."""
    return ApiError(401, "UnauthorizedRequestException", f"TF400813: The user '{who.oid}' is not authorized to access this resource.")


def unlicensed(who: Character) -> str:
    """What a member without a licence is told.

    The words are ours, and so is the code in front of them: which calls the service answers in which words without a licence is documented
    nowhere. What tells it from no membership (TF400813, 401, too) is the access level that it asks for.
    """
    return f"VS403366: {who.name} is a member of the organization and needs the Basic access level or higher to perform this action."


def whole(value: object, name: str, default: int) -> int:
    """A number that came as one or as a text; the default where nothing came. Raises ApiError."""
    if value is None or value == "":
        return default
    text = "" if isinstance(value, bool) else str(value)
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > _LARGEST:
        raise ApiError(400, "InvalidArgumentValueException", f"The value '{value}' is not valid for {name}: it must be a whole number.")
    return int(text)


def mapping(value: object, name: str) -> Json:
    """An object inside a body; empty where it is not given. Raises ApiError."""
    if value is not None and not isinstance(value, dict):
        raise ApiError(400, "InvalidRequestContentException", f"{name} must be an object.")
    return value or {}


def listing(value: object, name: str) -> list[Any]:
    """A list inside a body; empty where it is not given. Raises ApiError."""
    if value is not None and not isinstance(value, list):
        raise ApiError(400, "InvalidRequestContentException", f"{name} must be a list.")
    return value or []


def moment(value: object, name: str) -> datetime | None:
    """A time, in UTC where it names no zone; None where none is given. Raises ApiError."""
    if value is None or value == "":
        return None
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        raise ApiError(400, "InvalidArgumentValueException", f"The value of {name} is not a time: {value}") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _sign_in(why: str) -> NotSignedIn:
    page = f"<!DOCTYPE html><html><head><title>Access Denied</title></head><body><h1>Access Denied</h1><p>{why}</p></body></html>"
    refused = web.Response(status=401, text=page, content_type="text/html")
    refused.headers.add("WWW-Authenticate", f"Bearer authorization_uri=https://login.microsoftonline.com/{TENANT}")
    refused.headers.add("WWW-Authenticate", 'Basic realm="https://dev.azure.com/"')
    refused.headers.add("WWW-Authenticate", "TFS-Federated")
    return NotSignedIn(refused)


def _no_project(name: str) -> ApiError:
    return ApiError(
        404,
        "ProjectDoesNotExistWithNameException",
        f"TF200016: The following project does not exist: {name}. Verify that the name of the project is correct and that the project "
        "exists on the specified Azure DevOps Server.",
    )


def _check_version(request: web.Request) -> None:
    """Whoever writes names the version they speak."""
    given = "api-version" in request.query or "api-version=" in request.headers.get("Accept", "")
    if request.method != "GET" and not given:
        raise ApiError(
            400,
            "VssVersionNotSpecifiedException",
            f'No api-version was supplied for the "{request.method}" request. The version must be supplied either as part of the Accept '
            'header (e.g. "application/json; api-version=1.0") or as a query parameter (e.g. "?api-version=1.0").',
        )


def _check_scopes(who: Character, scopes: frozenset[str], needed: Sequence[str]) -> None:
    """A delegated token reaches as far as its scopes; a service identity's carries none and reaches as far as its permissions."""
    held = scopes | {more for scope in scopes for more in _INCLUDES.get(scope, ())}
    if scopes and needed and not held & _EVERYTHING and not held & set(needed):
        raise unauthorized(who)


async def _body(request: web.Request) -> Any:
    if not request.can_read_body:
        return None
    try:
        return json.loads(await request.read())
    except ValueError:
        raise ApiError(400, "InvalidRequestContentException", "The request body is not valid JSON.") from None
