"""The sandbox put together: its servers on two loopback ports, the proxy in front of them, and the environment that points a process at it.

A *service* (`sandbox.slack.server.Slack`, ...) takes the World and gives its hosts and pages; the World serves them.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

from aiohttp import web

from sandbox.authority import Authority
from sandbox.faults import Faults
from sandbox.names import HOSTS, Character
from sandbox.proxy import Proxy
from sandbox.state import State
from sandbox.tokens import LIFETIME, Tokens

log = logging.getLogger("sandbox")


class Service(Protocol):
    """One local service: applications by the host name they answer for, and pages by their prefix on the page's port."""

    def hosts(self) -> Mapping[str, web.Application]:
        """Applications served over TLS, by exact host name."""
        ...

    def pages(self) -> Mapping[str, web.Application]:
        """Applications served over plain HTTP on the page's port, by path prefix (`/slack`, `/dev.azure.com`)."""
        ...

    async def start(self) -> None:
        """Called once the ports are known and served."""
        ...

    async def stop(self) -> None:
        """End every task and process the service started."""
        ...


class World:
    """One running sandbox. `folder` holds everything it remembers; ports of 0 are chosen by the system."""

    def __init__(self, folder: Path, *, page_port: int = 0, bot_url: str = "http://127.0.0.1:8801", root: Path | None = None) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # keys of the sandbox's own are in it
        self.root = (root or Path.cwd()).resolve()  # the repository: what the pipeline checks out
        self.state = State(self.folder / "sandbox.sqlite3")
        self.tokens = Tokens(self.state)
        self.token_lifetime = LIFETIME  # seconds that an access token of somebody who signs in lasts
        self.faults = Faults()
        self.authority = Authority(self.folder / "certificates")
        self.page_port = page_port
        self.tls_port = 0
        self.bot_url = bot_url
        self.proxy: Proxy | None = None
        self.services: list[Service] = []
        self._identity_header = secrets.token_hex(16)
        self._identities: dict[str, Character] = {}
        self._runners: list[web.AppRunner] = []

    @property
    def page_url(self) -> str:
        """Where a browser finds the pages."""
        return f"http://127.0.0.1:{self.page_port}"

    async def start(self, services: Sequence[Service]) -> None:
        """Serve the services: TLS, pages, proxy; then start each of them."""
        self.services = list(services)
        outside = web.Application(client_max_size=512 * 1024 * 1024)
        for service in services:
            for host, app in service.hosts().items():
                outside.add_domain(host, app)
        pages = web.Application(client_max_size=64 * 1024 * 1024)
        pages.router.add_get("/", _home)
        pages.router.add_post("/_sandbox/faults", self._arm)
        pages.router.add_get("/identity/{key}", self._managed_identity)
        for service in services:
            for prefix, app in service.pages().items():
                pages.add_subapp(prefix, app)
        self.tls_port = await self._serve(outside, 0, tls=True)
        self.page_port = await self._serve(pages, self.page_port, tls=False)
        self.proxy = Proxy(HOSTS, self.tls_port)
        await self.proxy.start()
        for service in services:
            await service.start()

    async def stop(self) -> None:
        """Stop in the opposite order; nothing the sandbox started stays behind."""
        async with AsyncExitStack() as ends:  # runs them all from the last to the first, whatever one of them raises
            ends.callback(self.state.close)
            for runner in self._runners:
                ends.push_async_callback(runner.cleanup)
            if self.proxy:
                ends.push_async_callback(self.proxy.stop)
            for service in self.services:
                ends.push_async_callback(service.stop)

    def outside(self, who: Character) -> dict[str, str]:
        """The environment of a process that acts as in production under this identity: the whole difference to the real world."""
        assert self.proxy is not None
        key = next((key for key, known in self._identities.items() if known is who), None) or secrets.token_hex(8)
        self._identities[key] = who
        gone = {
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "NO_PROXY",
            "CURL_CA_BUNDLE",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "REQUESTS_CA_BUNDLE",
        }
        environment = {name: value for name, value in os.environ.items() if name.upper() not in gone}
        cache = self.folder / "azure-devops-cache"
        cache.mkdir(exist_ok=True)
        return environment | {
            "HTTPS_PROXY": f"http://127.0.0.1:{self.proxy.port}",
            "NO_PROXY": "127.0.0.1,localhost",
            "SSL_CERT_FILE": str(self.authority.ca),
            "REQUESTS_CA_BUNDLE": str(self.authority.ca),
            "SSL_CERT_DIR": "/nonexistent",
            "IDENTITY_ENDPOINT": f"{self.page_url}/identity/{key}",
            "IDENTITY_HEADER": self._identity_header,
            "AZURE_DEVOPS_CACHE_DIR": str(cache),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }

    async def _serve(self, app: web.Application, port: int, *, tls: bool) -> int:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=self.authority.context if tls else None)
        await site.start()
        self._runners.append(runner)
        address: tuple[str, int] = runner.addresses[0]
        return address[1]

    async def _managed_identity(self, request: web.Request) -> web.Response:
        """App Service's managed-identity endpoint, as azure-identity asks it.

        https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference
        """
        who = self._identities.get(request.match_info["key"])
        if who is None or not secrets.compare_digest(request.headers.get("X-IDENTITY-HEADER", ""), self._identity_header):
            return web.json_response({"statusCode": 401, "message": "The identity header is missing or wrong."}, status=401)
        audience = request.query.get("resource", "")
        if not audience:
            return web.json_response({"statusCode": 400, "message": "The resource is missing."}, status=400)
        token, expiry = self.tokens.issue(who, audience), int(time.time()) + LIFETIME
        return web.json_response(
            {"access_token": token, "expires_on": str(expiry), "resource": audience, "token_type": "Bearer", "client_id": who.oid}
        )

    async def _arm(self, request: web.Request) -> web.Response:
        """Arm a fault: `{"name": "slack.500", "times": 2}` and whatever more the fault wants to know."""
        if request.content_type != "application/json":  # what a page of somebody else's cannot send
            raise web.HTTPUnsupportedMediaType(text="Send JSON, as application/json.")
        try:
            asked = await request.json()
        except ValueError:
            asked = None
        if not isinstance(asked, dict) or not isinstance(asked.get("name"), str) or not isinstance(asked.get("times", 1), int):
            raise web.HTTPBadRequest(text='A fault is a JSON object like {"name": "slack.500", "times": 1}.')
        self.faults.arm(**asked)
        return web.json_response({"ok": True})


async def _home(_: web.Request) -> web.Response:
    raise web.HTTPFound("/slack/")
