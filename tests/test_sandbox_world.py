"""The sandbox's ground: its memory, its tokens, its proxy, its managed identity."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from sandbox.names import ADA, BOT
from sandbox.state import State
from sandbox.tokens import AZURE_DEVOPS, BadToken, Tokens
from sandbox.world import World

pytestmark = pytest.mark.world

PROBE = """
import sys
from azure.identity import DefaultAzureCredential
from azure.core.pipeline.transport import RequestsTransport
import requests
token = DefaultAzureCredential().get_token("499b84ac-1321-427f-aa17-267ca6975798/.default")
print(requests.get("https://dev.azure.com/who", headers={"Authorization": "Bearer " + token.token}, timeout=10).text)
"""


class Echo:
    """A service that says who calls it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def hosts(self) -> Mapping[str, web.Application]:
        app = web.Application()
        app.router.add_get("/who", self._who)
        return {"dev.azure.com": app}

    def pages(self) -> Mapping[str, web.Application]:
        app = web.Application()
        app.router.add_get("/", self._who)
        return {"/slack": app}

    async def start(self) -> None:
        assert self._world.page_port

    async def stop(self) -> None:
        pass

    async def _who(self, request: web.Request) -> web.Response:
        principal = self._world.tokens.check(request.headers.get("Authorization"), AZURE_DEVOPS)
        return web.Response(text=principal.who.name)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.start([Echo(world)])
    yield world
    await world.stop()


async def test_production_code_reaches_the_sandbox_by_its_environment_alone(world: World) -> None:
    environment = world.outside(BOT)

    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.stdout.strip() == BOT.name, done.stderr


async def test_the_proxy_refuses_a_third_party(world: World) -> None:
    assert world.proxy is not None
    trust = ssl.create_default_context(cafile=str(world.authority.ca))

    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientHttpProxyError) as refusal:
            await session.get("https://example.com/", proxy=f"http://127.0.0.1:{world.proxy.port}", ssl=trust)

    assert refusal.value.status == 403
    assert world.proxy.refused == ["CONNECT example.com:443"]


async def test_the_proxy_refuses_another_port_of_a_known_host(world: World) -> None:
    assert world.proxy is not None

    reader, writer = await asyncio.open_connection("127.0.0.1", world.proxy.port)
    writer.write(b"CONNECT slack.com:22 HTTP/1.1\r\n\r\n")
    answer = await reader.read()
    writer.close()

    assert answer.startswith(b"HTTP/1.1 403")


async def test_the_identity_endpoint_wants_its_header(world: World) -> None:
    environment = world.outside(BOT)

    async with aiohttp.ClientSession() as session:
        url = environment["IDENTITY_ENDPOINT"] + "?resource=https://management.azure.com"
        async with session.get(url, headers={"X-IDENTITY-HEADER": "guess"}) as wrong:
            assert wrong.status == 401
        async with session.get(url, headers={"X-IDENTITY-HEADER": environment["IDENTITY_HEADER"]}) as right:
            token = (await right.json())["access_token"]

    assert world.tokens.check(f"Bearer {token}", "https://management.azure.com").who is BOT


def test_a_token_is_good_for_its_audience_and_its_time(tmp_path: Path) -> None:
    tokens = Tokens(State(tmp_path / "state"))
    good = tokens.issue(ADA, "https://a")
    old = tokens.issue(ADA, "https://a", lifetime=-10)

    assert tokens.check(f"Bearer {good}", "https://a/").who is ADA
    for header, reason in ((None, "no bearer"), (f"Bearer {old}", "expired"), (f"Bearer {good}x", "invalid"), ("Basic x", "no bearer")):
        with pytest.raises(BadToken, match=reason):
            tokens.check(header, "https://a")
    with pytest.raises(BadToken, match="wrong audience"):
        tokens.check(f"Bearer {good}", "https://b")


def test_the_environment_has_no_hole_in_the_fence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "no_proxy", "ALL_PROXY", "SSL_CERT_DIR"):
        monkeypatch.setenv(name, "evil")

    async def environment() -> dict[str, str]:
        world = World(tmp_path)
        await world.start([Echo(world)])
        try:
            return world.outside(ADA)
        finally:
            await world.stop()

    assert "evil" not in asyncio.run(environment()).values()


@given(st.dictionaries(st.text(max_size=5), st.recursive(st.integers() | st.text(max_size=3), st.lists), max_size=5))
def test_what_is_written_is_there_after_a_restart(tmp_path_factory: pytest.TempPathFactory, documents: dict[str, object]) -> None:
    file = tmp_path_factory.mktemp("state") / "state.sqlite3"
    state = State(file)
    for key, value in documents.items():
        state.table("t")[key] = value
    number = state.next("n")
    state.close()

    again = State(file)

    assert dict(again.table("t")) == documents
    assert again.next("n") == number + 1
    again.close()


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ('{"name": "slack.500", "times": 2, "method": "chat.update"}', "application/json", 200),
        ('{"name": "slack.500"}', "text/plain", 415),
        ('{"times": 2}', "application/json", 400),
        ('{"name": "slack.500", "times": "often"}', "application/json", 400),
        ("[1]", "application/json", 400),
        ("{", "application/json", 400),
    ],
)
async def test_a_fault_is_armed_by_a_request_that_makes_sense(world: World, body: str, kind: str, status: int) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{world.page_url}/_sandbox/faults", data=body, headers={"Content-Type": kind}) as answer,
    ):
        assert answer.status == status, await answer.text()

    assert world.faults.armed("slack.500") == (status == 200)
