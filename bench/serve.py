"""The servers under test, each a process of its own: `python -m bench.serve bot|floor|bare|echo <port> [...]`, until SIGTERM."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from azure.devops.v7_1.build import BuildClient
from msrest.authentication import BasicTokenAuthentication
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.app.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.context.ack.async_ack import AsyncAck

from bench.null_azure import NullIdentities, NullModels, NullPipelines
from bench.requests import PASSWORD, SECRET, SIGNING_SECRET, USERNAME
from bot import database, settings, slack
from bot.app import Callboard
from bot.credential import AZURE_DEVOPS, Credential
from bot.logs import set_up
from handlers import router
from sandbox.names import ORGANIZATION, PROJECT, TEAM

TOKEN = "xoxb-" + "1" * 20


@asynccontextmanager
async def bot(folder: Path, slack_port: int) -> AsyncIterator[web.Application]:
    """Callboard as it is, on a PostgreSQL of its own that waits for the disk; Azure answers at once, Slack is the floor's."""
    environment = {
        "SLACK_BOT_TOKEN": TOKEN,
        "SLACK_SIGNING_SECRET": SIGNING_SECRET,
        "HOOKS_USERNAME": USERNAME,
        "HOOKS_PASSWORD": PASSWORD,
        "HOOKS_SECRET": SECRET,
        "ENTRA_TENANT": "contoso.example",
        "ENTRA_CLIENT_ID": "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a4001",
        "ENTRA_CLIENT_SECRET": "not-asked",
        "CALLBOARD_KEYS": base64.urlsafe_b64encode(b"k" * 32).decode(),
        "CALLBOARD_URL": "https://callboard.contoso.example",
    }
    set_up("info", "json")
    with database.serve(folder) as url:
        base = database.Database(url)
        await base.open()
        async with slack.session() as session:
            web_client = slack.client(TOKEN, session)
            web_client.base_url = f"http://127.0.0.1:{slack_port}/api/"
            callboard = Callboard(
                settings.load(environment),
                router,
                database=base,
                web_client=web_client,
                session=session,
                pipelines=NullPipelines(),
                identities=lambda _: NullIdentities(),
                models=NullModels(),
            )
            yield callboard.application()
        await base.close()


@asynccontextmanager
async def floor() -> AsyncIterator[web.Application]:
    """The least that could answer: a handler that checks a hook and parses it, and bare Bolt with one listener. And a Slack for the bot."""
    app = web.Application()
    app.router.add_post("/hooks/azure-devops", _checked_and_parsed)
    app.router.add_post("/slack/events", _bare_bolt())
    app.router.add_post("/api/{method}", _slack)
    app.router.add_post("/response", _slack)
    yield app


@asynccontextmanager
async def bare(channel: str) -> AsyncIterator[web.Application]:
    """One read of Azure DevOps and one post of the given blocks for each request, with the SDKs that the bot uses, and nothing else."""
    token = await asyncio.to_thread(Credential().token, AZURE_DEVOPS)
    builds = BuildClient(f"https://dev.azure.com/{ORGANIZATION}", BasicTokenAuthentication({"access_token": token}))
    builds.config.keep_alive = True
    async with slack.session() as session:
        web_client = slack.client(os.environ["SLACK_BOT_TOKEN"], session)

        async def take(request: web.Request) -> web.Response:
            asked = await request.json()
            build = await asyncio.to_thread(builds.get_build, PROJECT, asked["run"])
            await web_client.chat_postMessage(channel=channel, text=f"Run {build.build_number} is {build.status}.", blocks=asked["blocks"])
            return web.Response()

        app = web.Application()
        app.router.add_post("/", take)
        yield app


async def _checked_and_parsed(request: web.Request) -> web.Response:
    expected = b"Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode())
    credentials = hmac.compare_digest(request.headers.get("Authorization", "").encode(), expected)
    secret = hmac.compare_digest(request.headers.get("X-Callboard-Secret", "").encode(), SECRET.encode())
    if not (credentials and secret):
        return web.Response(status=401)
    json.loads(await request.read())
    return web.json_response({"kept": False})


def _bare_bolt() -> Any:
    async def authorize() -> AuthorizeResult:
        return AuthorizeResult(enterprise_id=None, team_id=None, bot_token=TOKEN)

    app = AsyncApp(authorize=authorize, signing_secret=SIGNING_SECRET, process_before_response=True)

    @app.command("/mlops")
    async def command(ack: AsyncAck) -> None:
        await ack()

    async def take(request: web.Request) -> web.Response:
        return await to_aiohttp_response(await app.async_dispatch(await to_bolt_request(request)))

    return take


async def _slack(_: web.Request) -> web.Response:
    return web.json_response(
        {"ok": True, "user": "callboard", "team": "Contoso", "team_id": TEAM, "ts": "1790000000.000100", "channel": "C0MLDELIV"}
    )


class Echo(asyncio.Protocol):
    """Answers whatever looks like the end of a hook: what the load generator itself can do."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody is there."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Part of a request, mostly all of it."""
        if data.endswith(b"}") and self._transport is not None:
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n" + b'{"kept": true}')


async def main(what: str, port: int, *more: str) -> None:
    """Serve until SIGTERM."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if what == "echo":
        server = await loop.create_server(Echo, "127.0.0.1", port)
        await stop.wait()
        server.close()
        return
    servers: Mapping[str, Callable[[], AbstractAsyncContextManager[web.Application]]] = {
        "bot": lambda: bot(Path(more[0]), int(more[1])),
        "floor": floor,
        "bare": lambda: bare(more[0]),
    }
    async with servers[what]() as app:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            await stop.wait()
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
