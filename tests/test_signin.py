"""From a command to what it was for, by way of Entra: the whole bot, with a local Slack and a local Entra."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from cryptography.fernet import Fernet
from slack_sdk.web.async_client import AsyncWebClient

from bot.app import AGAIN, Callboard
from bot.database import Database
from bot.identity import EntraIdentities, Keys
from bot.messages.kit import Message, Reply
from bot.ports import Bot, Hands, Identities
from bot.routing import Click, Request, Router
from bot.slack import TIMEOUT
from sandbox.entra.person import Browser
from sandbox.entra.server import HOST, PREFIX, Entra
from sandbox.names import ADA, CLIENT_ID, TENANT
from sandbox.processes import free_port
from sandbox.slack.person import Person
from sandbox.slack.server import Slack
from sandbox.story import sign_in_link
from sandbox.world import World
from tests.browser import browsing
from tests.fakes import World as Around
from tests.sandboxes import proxy, sandbox, the, trust
from tests.test_app import settings
from tests.test_azure_devops import point_at
from tests.test_identity import Guarded

pytestmark = pytest.mark.world


@dataclass
class Town:
    """A bot with one command that is done under people's own names, and Ada in front of it. `done`: by whom, for which request."""

    world: World
    slack: Slack
    database: Database
    done: list[tuple[str, str]] = field(default_factory=list)

    @property
    def ada(self) -> Person:
        return Person(self.slack, ADA)

    @property
    def router(self) -> Router:
        router = Router()

        @router.command("retrain", "")
        async def retrain(bot: Bot, request: Request) -> Reply:
            """Train."""
            acting = await bot.identities.acting(request.person)
            self.done.append((acting.me.name, request.id))
            return Message(f"done as {acting.me.name}")

        @router.click("open_signin")
        async def opened(_: Bot, __: Click) -> Reply:
            return None

        return router

    async def told(self, text: str) -> None:
        """Return once Ada has been told this."""
        await self.slack.wait_for(lambda: any(text in message["text"] for message in self.ada.sees()))

    async def link(self) -> str:
        """Where the button that Ada sees leads."""
        await self.slack.wait_for(lambda: sign_in_link(self.ada) is not None)
        link = sign_in_link(self.ada)
        assert link is not None
        return link


@pytest.fixture
async def town(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    port, around = free_port(), Around()
    async with sandbox(tmp_path, Slack, Entra, bot_url=f"http://127.0.0.1:{port}") as world:
        point_at(world, monkeypatch)
        slack, entra = the(world, Slack), the(world, Entra)
        town = Town(world, slack, database)

        def hands(token: Callable[[], str]) -> Hands:
            return Guarded(world, token)

        def identities(workspace: Callable[[], str]) -> Identities:
            return EntraIdentities(
                database,
                tenant=TENANT,
                client=CLIENT_ID,
                secret=entra.client_secret,
                keys=Keys(Fernet.generate_key().decode()),
                redirect=entra.rules.redirect,
                hands=hands,
                workspace=workspace,
            )

        connector = aiohttp.TCPConnector(ssl=trust(world))
        async with aiohttp.ClientSession(connector=connector, proxy=proxy(world), timeout=TIMEOUT) as shared:
            callboard = Callboard(
                settings(SLACK_SIGNING_SECRET=slack.signing_secret, CALLBOARD_URL=f"http://127.0.0.1:{port}"),
                town.router,
                database=database,
                web_client=AsyncWebClient(slack.bot_token, session=shared, proxy=proxy(world), ssl=trust(world), retry_handlers=[]),
                session=shared,
                pipelines=around.pipelines,
                identities=identities,
                models=around.models,
            )
            runner = web.AppRunner(callboard.application(), access_log=None, shutdown_timeout=1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            try:
                yield town
            finally:
                await runner.cleanup()


async def test_what_was_asked_for_goes_on_by_itself_and_once(town: Town) -> None:
    await town.ada.types("/retrain")
    link = await town.link()
    async with Browser(town.world) as browser:
        page = await browser.signs_in(link, ADA)
        first, second = await asyncio.gather(browser.presses(page, "Link them"), browser.presses(page, "Link them"))
    await town.told("done as Ada Lovelace")
    await town.ada.types("/retrain")
    await town.slack.wait_for(lambda: len(town.done) >= 2)

    assert {first.status, second.status} == {200, 400}
    assert [name for name, _ in town.done] == [ADA.name] * 2
    assert len({request for _, request in town.done}) == 2, "the interrupted one, and the one after it"


async def test_what_was_asked_for_long_ago_is_left_to_the_person(town: Town) -> None:
    await town.ada.types("/retrain")
    link = await town.link()
    async with town.database.pool.connection() as connection:
        await connection.execute("update delivery set received = now() - interval '11 minutes'")

    async with Browser(town.world) as browser:
        await browser.presses(await browser.signs_in(link, ADA), "Link them")
    await town.told(AGAIN)

    assert town.done == []


async def test_in_a_browser_the_pages_are_dressed_and_the_cookie_tells_it_again(town: Town) -> None:
    await town.ada.types("/retrain")
    parts = urlsplit(await town.link())
    assert parts.hostname == HOST
    async with browsing(f"{town.world.page_url}{PREFIX}{parts.path}?{parts.query}") as page:
        await page.get_by_role("button", name=ADA.name).click()
        await page.get_by_role("button", name="Accept").click()
        await page.get_by_role("heading", name="Are both of these you?").wait_for()
        assert await page.evaluate("document.cookie") == "", "scripts do not see what tells the browser again"
        corner = "getComputedStyle(document.querySelector('main')).borderRadius"
        assert await page.evaluate(corner) == "12px", "the style sheet passed the page's own policy"
        assert "in Contoso" in await page.inner_text("main")
        await page.get_by_role("button", name="Link them").click()
        await page.get_by_role("heading", name="You are signed in").wait_for()
    await town.told("done as Ada Lovelace")

    assert len(town.done) == 1
