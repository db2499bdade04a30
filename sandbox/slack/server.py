"""The local Slack: what slack.com, hooks.slack.com, files.slack.com and the Socket Mode host answer, and the page of its channels."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from sandbox.slack import manifest
from sandbox.slack.client import Client
from sandbox.slack.delivery import Delivery
from sandbox.slack.page import Page
from sandbox.slack.rates import Rates
from sandbox.slack.triggers import Triggers
from sandbox.slack.web_api import METHODS, Arguments, Method, WebApi
from sandbox.slack.workspace import Message, SlackError, View, Workspace
from sandbox.world import World

log = logging.getLogger("sandbox.slack")

T = TypeVar("T")
SOCKET_HOST = "wss-primary.slack.com"
CALLS_KEPT = 2_000


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a Web API method: `error` is None where it was answered with ok; `at` is a Unix time."""

    method: str
    channel: str | None
    error: str | None
    at: float


class Slack:
    """One workspace with the app of the manifest installed. A `sandbox.world.Service`.

    Faults it knows (`world.faults`), where a detail `method` limits those of the Web API to one method:

    | fault | detail | what goes wrong |
    |---|---|---|
    | `slack.429` | `retry_after` | a call is turned away |
    | `slack.500` | | a call fails |
    | `slack.slow` | `seconds` | a call takes its time |
    | `slack.lost_answer` | | a call does its work, and the connection breaks |
    | `slack.error` | `error` | a call is refused with this word |
    | `slack.missing_scope` | `scope` | a call is refused as if the token had not the scope |
    | `slack.invalid_blocks` | | a message with a plan is refused |
    | `slack.edit_window_closed` | | an update comes too late |
    | `slack.expired_trigger` | | a trigger id has run out |
    | `slack.duplicate_delivery` | | a command, click or event reaches the bot twice |
    | `slack.refresh_socket` | | every socket is closed before a delivery, which goes to the next one |
    """

    def __init__(self, world: World, manifest_file: Path = manifest.FILE) -> None:
        self.world = world
        self.manifest = manifest.read(manifest_file)
        app = world.state.table("slack_app")
        for key, prefix in (("bot_token", "xoxb-"), ("app_token", "xapp-1-"), ("signing_secret", ""), ("verification_token", "")):
            if key not in app:
                app[key] = prefix + secrets.token_hex(16)
        self.bot_token: str = app["bot_token"]
        self.app_token: str = app["app_token"]
        self.signing_secret: str = app["signing_secret"]
        self.rates = Rates()
        self.calls: deque[Call] = deque(maxlen=CALLS_KEPT)
        self.workspace = Workspace(world.state)
        self.triggers = Triggers(world.faults)
        self.delivery = Delivery(world.faults, world.bot_url, self.signing_secret)
        self.api = WebApi(self.workspace, self.triggers, world.faults, world.folder / "slack-files", self._connection_url)
        self.client = Client(
            self.workspace,
            self.api,
            self.delivery,
            self.triggers,
            manifest=self.manifest,
            token=app["verification_token"],
            response_urls=world.state.table("slack_response_urls"),
        )
        self.page = Page(self.workspace, self.client, self.manifest, world.folder / "slack-files")
        self._scopes = {"bot": self.manifest.scopes, "app": frozenset({"connections:write"})}

    # A service of the world

    def hosts(self) -> Mapping[str, web.Application]:
        """The applications that answer for Slack's hosts."""
        api = web.Application(client_max_size=4 * 1024 * 1024)
        api.router.add_route("*", "/api/{method}", self._call)
        hooks = web.Application()
        hooks.router.add_post(r"/{kind:commands|actions}/{team}/{number}/{secret}", self._respond)
        files = web.Application(client_max_size=64 * 1024 * 1024)
        files.router.add_post("/upload/v1/{secret}", self._upload)
        sockets = web.Application()
        sockets.router.add_get("/link/", self.delivery.serve_socket)
        return {"slack.com": api, "hooks.slack.com": hooks, "files.slack.com": files, SOCKET_HOST: sockets}

    def pages(self) -> Mapping[str, web.Application]:
        """The page."""
        return {"/slack": self.page.application()}

    async def start(self) -> None:
        """Begin to deliver."""
        await self.delivery.start()
        self.api.start()

    async def stop(self) -> None:
        """Hang up on pages, sockets and whatever is under way."""
        self.workspace.end_watching()
        await self.client.stop()
        await self.api.stop()
        await self.delivery.stop()

    # For the story and the tests

    def restrict(self, scopes: Collection[str]) -> None:
        """Give the bot token these scopes and no others, until the sandbox restarts."""
        self._scopes["bot"] = frozenset(scopes)

    def messages(self, channel: str) -> list[Message]:
        """Everything in a channel and its threads, oldest first."""
        return self.workspace.messages(channel)

    def home(self, user: str) -> View | None:
        """The App Home published for a person."""
        return self.workspace.homes.get(user)

    async def refresh_sockets(self) -> None:
        """Ask every Socket Mode connection to come back anew."""
        await self.delivery.refresh_sockets()

    async def wait_for(self, predicate: Callable[[], T], seconds: float = 30.0) -> T:
        """What the predicate gives once it is truthy; looked at again whenever something happens in Slack. Raises TimeoutError."""
        return await self.workspace.wait_for(predicate, seconds)

    # The Web API over HTTP

    def _connection_url(self) -> str:
        self.delivery.check_room()
        return self.delivery.ticket(SOCKET_HOST)

    async def _call(self, request: web.Request) -> web.StreamResponse:
        """One call: faults first, then the token, its scope, the rate, and the method."""
        name, faults = request.match_info["method"], self.world.faults
        given = await _arguments(request)
        channel = given.get("channel") or given.get("channel_id")
        if (detail := faults.take("slack.slow", method=name)) is not None:
            await asyncio.sleep(float(detail.get("seconds", 1.0)))
        if faults.take("slack.500", method=name) is not None:
            return self._done(name, channel, "internal_error", web.Response(status=500, text="Internal Server Error"))
        if (detail := faults.take("slack.429", method=name)) is not None:
            return self._limited(name, channel, int(detail.get("retry_after", 1)))
        try:
            method = METHODS.get(name)
            if method is None:
                raise SlackError("unknown_method", req_method=name)
            scopes = self._authorized(method, request, given)
            if method.scope and (detail := faults.take("slack.missing_scope", scope=method.scope, method=name)) is not None:
                scopes -= {method.scope}
            if method.scope and method.scope not in scopes:
                raise SlackError("missing_scope", needed=method.scope, provided=",".join(sorted(scopes)))
            if wait := self.rates.retry_after(name, channel):
                return self._limited(name, channel, wait)
            if (detail := faults.take("slack.error", method=name)) is not None:
                raise SlackError(str(detail.get("error", "internal_error")))
            self.api.scopes = scopes
            answer = {"ok": True, **method.run(self.api, Arguments(given))}
        except SlackError as error:
            return self._done(name, channel, error.error, web.json_response({"ok": False, "error": error.error, **error.more}))
        if faults.take("slack.lost_answer", method=name) is not None:
            self._log(name, channel, "lost_answer")
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        response = web.json_response(answer)
        response.headers["X-OAuth-Scopes"] = ",".join(sorted(scopes))
        return self._done(name, channel, None, response)

    def _authorized(self, method: Method, request: web.Request, given: Mapping[str, Any]) -> frozenset[str]:
        """The scopes of the caller's token. Raises SlackError."""
        if method.token is None:
            return frozenset()
        header = request.headers.get("Authorization", "")
        token = header.removeprefix("Bearer ").strip() if header.startswith("Bearer ") else str(given.get("token") or "")
        if not token:
            raise SlackError("not_authed")
        kind = next((kind for kind, known in self._tokens() if secrets.compare_digest(known, token)), None)
        if kind is None:
            raise SlackError("invalid_auth")
        if kind != method.token and method.scope:
            raise SlackError("not_allowed_token_type")
        return self._scopes[kind]

    def _tokens(self) -> tuple[tuple[str, str], ...]:
        return (("bot", self.bot_token), ("app", self.app_token))

    def _limited(self, method: str, channel: str | None, seconds: int) -> web.Response:
        body = {"ok": False, "error": "ratelimited"}
        return self._done(method, channel, "ratelimited", web.json_response(body, status=429, headers={"Retry-After": str(seconds)}))

    def _done(self, method: str, channel: str | None, error: str | None, response: web.Response) -> web.Response:
        self._log(method, channel, error)
        return response

    def _log(self, method: str, channel: str | None, error: str | None) -> None:
        self.calls.append(Call(method, channel, error, time.time()))
        if error:
            log.info("%s answered %s", method, error)
        self.workspace.stir()

    async def _respond(self, request: web.Request) -> web.Response:
        """A response_url."""
        try:
            answer = await request.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            return web.json_response({"ok": False, "error": "invalid_payload"}, status=400)
        error = self.client.respond(request.match_info["secret"], answer)
        self._log("response_url", None, error)
        if error:
            return web.json_response({"ok": False, "error": error}, status=404 if error.endswith("_url") else 400)
        return web.Response(text="ok") if request.match_info["kind"] == "commands" else web.json_response({"ok": True})

    async def _upload(self, request: web.Request) -> web.Response:
        """An upload address: raw bytes, or one file of a form."""
        if request.content_type == "multipart/form-data":
            fields = await request.post()
            content = next((field.file.read() for field in fields.values() if isinstance(field, web.FileField)), b"")
        else:
            content = await request.read()
        if not self.api.take_upload(request.match_info["secret"], content):
            return web.Response(status=400, text="The upload was not expected, or its size is not what was announced.")
        return web.Response(text=f"OK - {len(content)}")


async def _arguments(request: web.Request) -> dict[str, Any]:
    """Query, form and JSON in one: clients put their arguments anywhere."""
    given: dict[str, Any] = dict(request.query)
    if request.content_type == "application/json":
        try:
            body = json.loads(await request.read() or b"{}")
        except ValueError:
            body = {}
        given |= body if isinstance(body, dict) else {}
    elif request.can_read_body:
        given |= {key: value for key, value in (await request.post()).items() if isinstance(value, str)}
    return given
