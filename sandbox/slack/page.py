"""The page: a channel view in the browser, fed by server-sent events. It shows what the workspace knows and decides nothing.

Whoever opens it may be any person of the sandbox; what is private is sent to that person's pages only. Requests that change something must
come from the page itself.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from sandbox.names import APP, BOT, CHANNEL, GROUPS, HOSTS, PEOPLE
from sandbox.slack.client import SLACKBOT, Client
from sandbox.slack.manifest import Manifest
from sandbox.slack.workspace import DOMAIN, Watcher, Workspace, handle

WEB = Path(__file__).parent / "web"
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
SHOWN = 500  # messages of a channel that a page begins with
HEARTBEAT = 15.0  # seconds
PICTURES = {"image/png", "image/jpeg", "image/gif", "image/webp"}
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class Page:
    """Serves the page of one workspace."""

    def __init__(self, workspace: Workspace, client: Client, manifest: Manifest, files: Path) -> None:
        self._workspace = workspace
        self._client = client
        self._manifest = manifest
        self._files = files

    def application(self) -> web.Application:
        """What is mounted under `/slack`."""
        app = web.Application(middlewares=[_guard])
        app.router.add_get("", _to_slash)
        app.router.add_get("/", _index)
        app.router.add_get("/web/{name}", _asset)
        app.router.add_get("/files/{id}/{name}", self._file)
        app.router.add_get("/api/state", self._state)
        app.router.add_get("/api/news", self._news)
        app.router.add_post("/api/type", self._type)
        app.router.add_post("/api/press", self._press)
        app.router.add_post("/api/submit", self._submit)
        app.router.add_post("/api/close", self._close)
        app.router.add_post("/api/dismiss", self._dismiss)
        app.router.add_post("/api/home", self._home)
        return app

    async def _state(self, request: web.Request) -> web.Response:
        """Everything a page begins with, for one person; their ephemeral messages only since the page was opened."""
        user, since = self._user(request.query), _number(request.query.get("since"))
        workspace = self._workspace
        channels = [channel for channel in workspace.channels.values() if user in channel["members"]]
        direct = workspace.direct(user)
        if direct not in channels:
            channels.append(direct)
        newest = {channel["id"]: workspace.messages(channel["id"]) for channel in channels}
        return web.json_response(
            {
                "now": time.time(),
                "workspace": DOMAIN.capitalize(),
                "domain": DOMAIN,
                "me": user,
                "app": {"id": APP, "user": BOT.slack, "name": BOT.name, "home": self._manifest.home},
                "slackbot": SLACKBOT,
                "start": CHANNEL,
                "hosts": HOSTS,
                "people": [{"id": it.slack, "name": it.name, "handle": handle(it), "title": it.title, "guest": it.guest} for it in PEOPLE],
                "groups": GROUPS,
                "commands": [
                    {"name": it.name, "description": it.description, "usage": it.usage} for it in self._manifest.commands.values()
                ],
                "channels": [{"id": it["id"], "name": it["name"], "im": it["is_im"]} for it in channels],
                "messages": [workspace.shown(message) for there in newest.values() for message in there[-SHOWN:]],
                "shortened": [channel for channel, there in newest.items() if len(there) > SHOWN],
                "ephemerals": [it for it in workspace.ephemerals.get(user, ()) if float(it["ts"]) >= since],
                "home": workspace.homes.get(user),
                "view": workspace.modal(user),
            }
        )

    async def _news(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events for one person, until either side ends."""
        watcher = self._workspace.watch(self._user(request.query))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        try:
            await response.prepare(request)
            await response.write(b"retry: 1000\n\nevent: hello\ndata: {}\n\n")
            await self._forward(watcher, response)
        except ConnectionError:
            pass  # the page was closed
        finally:
            self._workspace.unwatch(watcher)
        return response

    @staticmethod
    async def _forward(watcher: Watcher, response: web.StreamResponse) -> None:
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT):
                    change = await watcher.queue.get()
            except TimeoutError:
                await response.write(b":\n\n")  # finds out whether the page is still there
                continue
            if change is None:
                return
            await response.write(f"event: {change.kind}\ndata: {json.dumps(change.body)}\n\n".encode())

    async def _type(self, request: web.Request) -> web.Response:
        asked = await _body(request)
        message = await self._client.type(self._user(asked), _text(asked, "channel"), _text(asked, "text"), asked.get("thread_ts"))
        return web.json_response({"ok": True, "ts": message["ts"] if message else None})

    async def _press(self, request: web.Request) -> web.Response:
        asked = await _body(request)
        place: dict[str, str] = {key: _text(asked, key) for key in ("channel", "ts", "view") if key in asked}
        problem = await self._client.press(
            self._user(asked),
            place,
            _text(asked, "block_id"),
            _text(asked, "action_id"),
            given=asked.get("given"),
            values=asked.get("values"),
            occurrence=int(asked.get("occurrence", 0)),
        )
        return web.json_response({"ok": problem is None, "problem": problem})

    async def _submit(self, request: web.Request) -> web.Response:
        asked = await _body(request)
        done = await self._client.submit(self._user(asked), _text(asked, "view"), asked.get("values") or {})
        return web.json_response({"ok": done.accepted, "errors": done.errors, "problem": done.failed, "view": done.view})

    async def _close(self, request: web.Request) -> web.Response:
        asked = await _body(request)
        await self._client.close(self._user(asked), _text(asked, "view"))
        return web.json_response({"ok": True})

    async def _dismiss(self, request: web.Request) -> web.Response:
        asked = await _body(request)
        self._workspace.unwhisper(self._user(asked), _text(asked, "ts"))
        return web.json_response({"ok": True})

    async def _home(self, request: web.Request) -> web.Response:
        asked = await _body(request)
        self._client.open_home(self._user(asked), _text(asked, "tab"))
        return web.json_response({"ok": True})

    async def _file(self, request: web.Request) -> web.StreamResponse:
        """A picture of a thread; anything else is only ever downloaded."""
        name = request.match_info["id"]
        file = self._workspace.files.get(name)
        if file is None or file["state"] != "ready":
            raise web.HTTPNotFound
        picture = file["mimetype"] in PICTURES
        headers = {
            "Content-Type": file["mimetype"] if picture else "application/octet-stream",
            "Content-Disposition": "inline" if picture else "attachment",
            "Cache-Control": "private, max-age=86400",
        }
        return web.FileResponse(self._files / name, headers=headers)

    def _user(self, asked: Mapping[str, Any]) -> str:
        """The person a request speaks for; who has not chosen yet is the first one."""
        user = str(asked.get("user") or PEOPLE[0].slack)
        if user not in self._workspace.people or user == BOT.slack:
            raise web.HTTPBadRequest(text="No such person.")
        return user


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Loopback names only, changes from the page itself only, and strict headers on every answer."""
    if urlsplit(f"//{request.host}").hostname not in LOOPBACK:
        raise web.HTTPForbidden(text="This page is for this machine only.")
    if request.method not in {"GET", "HEAD"}:
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
        if (origin is not None and origin != f"http://{request.host}") or site not in {None, "same-origin"}:
            raise web.HTTPForbidden(text="Requests from other sites are refused.")
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="JSON, please.")
    response = await handler(request)
    if not response.prepared:
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers.setdefault("Cache-Control", "no-store")
    return response


async def _to_slash(_: web.Request) -> web.Response:
    raise web.HTTPFound("/slack/")


async def _index(_: web.Request) -> web.FileResponse:
    return web.FileResponse(WEB / "index.html")


async def _asset(request: web.Request) -> web.FileResponse:
    name = request.match_info["name"]
    if name not in {file.name for file in WEB.iterdir()}:
        raise web.HTTPNotFound
    return web.FileResponse(WEB / name)


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="A JSON object, please.")
    return body


def _number(text: str | None) -> float:
    """A time, where one was given; later than everything otherwise."""
    try:
        return float(text or "inf")
    except ValueError:
        raise web.HTTPBadRequest(text="That is no time.") from None


def _text(asked: Mapping[str, Any], key: str) -> str:
    value = asked.get(key)
    if not isinstance(value, str):
        raise web.HTTPBadRequest(text=f"{key} is missing.")
    return value
