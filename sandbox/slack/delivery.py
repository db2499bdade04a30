"""How Slack reaches the bot: signed HTTP requests to its address, or envelopes over its open Socket Mode connections.

https://docs.slack.dev/authentication/verifying-requests-from-slack and https://docs.slack.dev/apis/events-api/using-socket-mode
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp
from aiohttp import web

from sandbox.faults import Faults
from sandbox.names import APP
from sandbox.slack.workspace import SlackError

log = logging.getLogger("sandbox.slack")

PATIENCE = 3.0  # seconds an app has to acknowledge
MOST_SOCKETS = 10
TICKET_LIFETIME = 30.0


class DispatchError(Exception):
    """The bot did not acknowledge; the word is what Slack shows to the person (`operation_timeout`, `dispatch_failed`)."""


@dataclass(eq=False)
class _Connection:
    """One open socket of the app, and the envelopes that await its acknowledgement."""

    socket: web.WebSocketResponse
    awaited: dict[str, asyncio.Future[Any]] = field(default_factory=dict)


class Delivery:
    """Delivers commands, interactions and events. Process-wide: one HTTP session, without a proxy, to loopback only."""

    def __init__(self, faults: Faults, bot_url: str, signing_secret: str) -> None:
        self._faults = faults
        self._url = bot_url + "/slack/events"
        self._secret = signing_secret
        self.patience = PATIENCE
        self._session: aiohttp.ClientSession | None = None
        self._tickets: dict[str, float] = {}
        self._connections: list[_Connection] = []
        self._connected = asyncio.Event()
        self._awaits_socket = False  # the bot has been asked to come back over a new one
        self._background: set[asyncio.Task[Any]] = set()

    @property
    def sockets(self) -> int:
        """How many Socket Mode connections are open."""
        return len(self._connections)

    async def start(self) -> None:
        """Open the HTTP session."""
        self._session = aiohttp.ClientSession(trust_env=False)

    async def stop(self) -> None:
        """Hang up everywhere."""
        for connection in list(self._connections):
            await connection.socket.close()
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._session:
            await self._session.close()

    # What is delivered

    async def command(self, form: Mapping[str, Any]) -> dict[str, Any]:
        """A slash command; gives what the bot answered. Raises DispatchError."""
        return await self._deliver("slash_commands", dict(form), urlencode(form).encode())

    async def interaction(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """A click, a submission, a closed modal; gives what the bot answered. Raises DispatchError."""
        return await self._deliver("interactive", dict(payload), urlencode({"payload": json.dumps(payload)}).encode())

    async def event(self, callback: Mapping[str, Any]) -> None:
        """An event; tried again once, as Slack does at first, and then given up."""
        body = json.dumps(callback).encode()
        for attempt in range(2):
            retry = {"X-Slack-Retry-Num": str(attempt), "X-Slack-Retry-Reason": "http_error"} if attempt else {}
            try:
                await self._deliver("events_api", dict(callback), body, "application/json", retry)
            except DispatchError as failure:
                log.warning("the bot did not take an event: %s", failure)
            else:
                return

    async def _deliver(
        self,
        kind: str,
        payload: dict[str, Any],
        body: bytes,
        content_type: str = "application/x-www-form-urlencoded",
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        if self._faults.take("slack.refresh_socket") is not None:
            await self.refresh_sockets()
        twice = self._faults.take("slack.duplicate_delivery") is not None
        if self._connections or self._awaits_socket:
            first = self._over_socket(kind, payload)
            second = self._over_socket(kind, payload) if twice else None
        else:
            first = self._over_http(body, content_type, headers or {})
            second = self._over_http(body, content_type, headers or {}) if twice else None
        if second is not None:
            self._keep(asyncio.create_task(second))
        return await first

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._background.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            log.warning("a second delivery failed: %s", failure)

    # Over HTTP

    async def _over_http(self, body: bytes, content_type: str, headers: Mapping[str, str]) -> dict[str, Any]:
        assert self._session is not None
        stamp = str(int(time.time()))
        signed = {
            "Content-Type": content_type,
            "User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)",
            "X-Slack-Request-Timestamp": stamp,
            "X-Slack-Signature": sign(self._secret, stamp, body),
            **headers,
        }
        timeout = aiohttp.ClientTimeout(total=self.patience)
        try:
            async with self._session.post(self._url, data=body, headers=signed, timeout=timeout, allow_redirects=False) as response:
                answer = await response.read()
                if response.status != 200:
                    log.warning("the bot answered %s", response.status)
                    raise DispatchError("dispatch_failed")
                return _answer(answer, response.content_type)
        except TimeoutError:
            raise DispatchError("operation_timeout") from None
        except aiohttp.ClientError as failure:
            log.warning("the bot cannot be reached: %s", failure)
            raise DispatchError("dispatch_failed") from None

    # Over Socket Mode

    def ticket(self, host: str) -> str:
        """The address of a socket to be opened soon."""
        now = time.monotonic()
        self._tickets = {ticket: until for ticket, until in self._tickets.items() if until > now}
        ticket = secrets.token_urlsafe(24)
        self._tickets[ticket] = now + TICKET_LIFETIME
        return f"wss://{host}/link/?ticket={ticket}&app_id={APP}"

    def check_room(self) -> None:
        """Refuse an eleventh socket."""
        if len(self._connections) >= MOST_SOCKETS:
            raise SlackError("too_many_websockets")

    async def serve_socket(self, request: web.Request) -> web.StreamResponse:
        """One Socket Mode connection, until either side hangs up."""
        if self._tickets.pop(request.query.get("ticket", ""), 0.0) < time.monotonic():
            return web.Response(status=403, text="invalid ticket")
        socket = web.WebSocketResponse(heartbeat=10)
        await socket.prepare(request)
        connection = _Connection(socket)
        self._connections.append(connection)
        hello = {
            "type": "hello",
            "num_connections": len(self._connections),
            "connection_info": {"app_id": APP},
            "debug_info": {"host": "applink-sandbox", "build_number": 1, "approximate_connection_time": 18_060},
        }
        await socket.send_json(hello)
        self._awaits_socket = False
        self._connected.set()
        try:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    _acknowledge(connection, message.data)
        finally:
            if connection in self._connections:
                self._connections.remove(connection)
            for future in connection.awaited.values():
                if not future.done():
                    future.set_exception(DispatchError("dispatch_failed"))
        return socket

    async def refresh_sockets(self) -> None:
        """Ask every socket to be opened anew, and close it, as Slack does every hour or so."""
        leaving, self._connections = self._connections, []
        self._awaits_socket = bool(leaving)
        self._connected.clear()
        for connection in leaving:
            with contextlib.suppress(ConnectionError):
                await connection.socket.send_json(
                    {"type": "disconnect", "reason": "refresh_requested", "debug_info": {"host": "applink-sandbox"}}
                )
            self._keep(asyncio.create_task(_close_soon(connection.socket)))

    async def _over_socket(self, kind: str, payload: dict[str, Any]) -> dict[str, Any]:
        key = secrets.token_hex(16)
        envelope: dict[str, Any] = {
            "envelope_id": key,
            "type": kind,
            "accepts_response_payload": kind != "events_api",
            "payload": payload,
        }
        if kind == "events_api":
            envelope |= {"retry_attempt": 0, "retry_reason": ""}
        try:
            async with asyncio.timeout(self.patience):
                if not self._connections:
                    await self._connected.wait()
                connection = self._connections[0]
                self._connections.append(self._connections.pop(0))  # any socket may get it: in turn
                future = connection.awaited[key] = asyncio.get_running_loop().create_future()
                try:
                    await connection.socket.send_json(envelope)
                    answer = await future
                finally:
                    connection.awaited.pop(key, None)
        except TimeoutError:
            raise DispatchError("operation_timeout") from None
        except ConnectionError:
            raise DispatchError("dispatch_failed") from None
        return answer if isinstance(answer, dict) else {"text": answer} if answer else {}


def sign(secret: str, stamp: str, body: bytes) -> str:
    """Slack's signature of a request."""
    return "v0=" + hmac.new(secret.encode(), b"v0:" + stamp.encode() + b":" + body, hashlib.sha256).hexdigest()


def _answer(body: bytes, content_type: str) -> dict[str, Any]:
    """What an acknowledgement says: JSON, or plain text."""
    if not body.strip():
        return {}
    if content_type == "application/json":
        try:
            parsed = json.loads(body)
        except ValueError:
            raise DispatchError("dispatch_failed") from None
        return parsed if isinstance(parsed, dict) else {}
    return {"text": body.decode(errors="replace")}


def _acknowledge(connection: _Connection, text: str) -> None:
    """Hand the bot's answer to whoever waits for it."""
    try:
        frame = json.loads(text)
    except ValueError:
        log.warning("a socket sent something that is not JSON")
        return
    future = connection.awaited.get(frame.get("envelope_id", "")) if isinstance(frame, dict) else None
    if future is not None and not future.done():
        future.set_result(frame.get("payload"))


async def _close_soon(socket: web.WebSocketResponse) -> None:
    await asyncio.sleep(1.0)  # late acknowledgements still arrive
    await socket.close()
