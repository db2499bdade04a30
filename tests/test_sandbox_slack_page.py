"""The page of the local Slack: what a browser shows, what it lets happen, and what it keeps out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.names import ADA, BOT, CHANNEL, GRACE
from sandbox.processes import free_port
from sandbox.slack.server import Slack
from sandbox.world import World
from tests.browser import browsing
from tests.sandboxes import proxy, sandbox, the, trust

pytestmark = [pytest.mark.world, pytest.mark.page]

RUN = "dev.azure.com/contoso/ml-delivery/_build/results?buildId=1"
MODAL: dict[str, Any] = {
    "type": "modal",
    "callback_id": "reason",
    "title": {"type": "plain_text", "text": "Reject"},
    "submit": {"type": "plain_text", "text": "Send"},
    "blocks": [
        {
            "type": "input",
            "block_id": "why",
            "label": {"type": "plain_text", "text": "Why?"},
            "element": {"type": "plain_text_input", "action_id": "text"},
        }
    ],
}


def card(status: str, title: str) -> list[dict[str, Any]]:
    """A run's card with one stage, a link and a button that asks first."""
    sure = {
        key: {"type": "plain_text", "text": word}
        for key, word in (("title", "Sure?"), ("text", "Really."), ("confirm", "Yes"), ("deny", "No"))
    }
    return [
        {"type": "header", "text": {"type": "plain_text", "text": title}},
        {"type": "plan", "title": title, "tasks": [{"type": "task_card", "task_id": "1:train", "title": "Train", "status": status}]},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": f"<https://{RUN}|Run 1>"}]},
        {
            "type": "actions",
            "block_id": "do",
            "elements": [{"type": "button", "action_id": "reject", "text": {"type": "plain_text", "text": "Reject"}, "confirm": sure}],
        },
    ]  # fmt: skip


@pytest.fixture
async def slack(tmp_path: Path) -> AsyncIterator[Slack]:
    """A Slack with a small bot: /retrain whispers, the button opens a modal that finds fault once."""
    port = free_port()
    async with sandbox(tmp_path, Slack, bot_url=f"http://127.0.0.1:{port}") as world:
        app = AsyncApp(client=client(world), signing_secret=the(world, Slack).signing_secret, process_before_response=True)
        answers: list[dict[str, Any]] = [{"response_action": "errors", "errors": {"why": "Say more."}}, {}]

        @app.command("/retrain")
        async def retrain(ack: AsyncAck) -> None:
            await ack("No such model.")

        @app.action("reject")
        async def reject(ack: AsyncAck, body: dict[str, Any], client: AsyncWebClient) -> None:
            await client.views_open(trigger_id=body["trigger_id"], view=MODAL)
            await ack()

        @app.view("reason")
        async def reason(ack: AsyncAck) -> None:
            await ack(**answers.pop(0))

        async def events(request: web.Request) -> web.Response:
            return await to_aiohttp_response(await app.async_dispatch(await to_bolt_request(request)))

        served = web.Application()
        served.router.add_post("/slack/events", events)
        runner = web.AppRunner(served, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield the(world, Slack)
        await runner.cleanup()


def client(world: World) -> AsyncWebClient:
    return AsyncWebClient(the(world, Slack).bot_token, proxy=proxy(world), ssl=trust(world))


def address(slack: Slack, path: str = "") -> str:
    return f"{slack.world.page_url}/slack/{path}"


async def test_a_whisper_is_shown_to_its_person_until_the_page_is_loaded_anew(slack: Slack) -> None:
    async with browsing(address(slack)) as page:
        await page.fill("#composer-text", "/ret")
        await page.get_by_role("option").wait_for()
        await page.keyboard.press("Tab")
        await page.keyboard.type("churn")
        await page.keyboard.press("Enter")
        await page.get_by_text("Only visible to you").wait_for()

        await page.click("#switch")
        await page.click(f'[data-user="{GRACE.slack}"]')
        await page.locator("#switch", has_text=GRACE.name).wait_for()
        seen_by_grace = await page.get_by_text("No such model.").count()

        await page.click("#switch")
        await page.click(f'[data-user="{ADA.slack}"]')
        await page.get_by_text("No such model.").wait_for()

        await page.reload()
        await page.locator("#switch", has_text=ADA.name).wait_for()

        assert seen_by_grace == 0
        assert await page.get_by_text("No such model.").count() == 0


async def test_a_card_changes_in_place_and_its_button_opens_a_modal(slack: Slack) -> None:
    bot = client(slack.world)
    posted = await bot.chat_postMessage(channel=CHANNEL, text="run 1", blocks=card("in_progress", "Running"))

    async with browsing(address(slack)) as page:
        await page.get_by_role("img", name="In progress").first.wait_for()
        await bot.chat_update(channel=CHANNEL, ts=posted["ts"], text="run 1", blocks=card("complete", "Succeeded"))
        await page.get_by_role("img", name="Done").first.wait_for()
        link = await page.get_by_role("link", name="Run 1").get_attribute("href")

        await page.get_by_role("button", name="Reject").click()
        await page.get_by_role("button", name="No", exact=True).click()
        declined = slack.workspace.modal(ADA.slack)
        await page.get_by_role("button", name="Reject").click()
        await page.get_by_role("button", name="Yes").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_role("button", name="Send").click()
        await dialog.get_by_text("Please complete this required field.").wait_for()
        await dialog.get_by_label("Why?").fill("no")
        await dialog.get_by_role("button", name="Send").click()
        await dialog.get_by_text("Say more.").wait_for()
        kept = await dialog.get_by_label("Why?").input_value()
        await dialog.get_by_role("button", name="Send").click()
        await dialog.wait_for(state="detached")

        assert await page.get_by_role("img", name="In progress").count() == 0
        assert link == f"/{RUN}"
        assert declined is None
        assert kept == "no"


async def test_text_from_outside_stays_text(slack: Slack) -> None:
    bot = client(slack.world)
    hostile = "&lt;img src=x onerror=alert(1)&gt; <javascript:alert(1)|press me> <https://example.com/|fine> *bold* `code`"
    await bot.chat_postMessage(channel=CHANNEL, text=hostile)
    await bot.chat_postMessage(
        channel=CHANNEL, text="x", blocks=[{"type": "header", "text": {"type": "plain_text", "text": "<script>alert(1)</script>"}}]
    )

    async with browsing(address(slack)) as page:
        message = page.locator(".message-text")
        await message.wait_for()

        assert "<img src=x onerror=alert(1)> press me fine bold code" in await message.inner_text()
        assert [await link.get_attribute("href") for link in await message.locator("a").all()] == ["https://example.com/"]
        assert await message.locator("img").count() == 0
        assert await page.get_by_role("heading", name="<script>alert(1)</script>").count() == 1
        assert await message.locator("strong").inner_text() == "bold"


async def test_a_thread_opens_beside_the_channel_and_takes_replies(slack: Slack) -> None:
    bot = client(slack.world)
    ts = (await bot.chat_postMessage(channel=CHANNEL, text="run 1"))["ts"]
    rows = [[{"type": "raw_text", "text": text} for text in row] for row in (("Metric", "ridge"), ("mae", "41.20"))]
    await bot.chat_postMessage(channel=CHANNEL, thread_ts=ts, text="table", blocks=[{"type": "table", "rows": rows}])

    async with browsing(address(slack)) as page:
        await page.get_by_text("1 reply").click()
        await page.get_by_role("cell", name="41.20").wait_for()
        await page.fill("#thread-text", "well done")
        await page.keyboard.press("Enter")
        await page.locator("#thread").get_by_text("well done").wait_for()

        assert [reply["text"] for reply in slack.workspace.replies(CHANNEL, ts)] == ["table", "well done"]


async def test_the_page_ends_with_the_sandbox(tmp_path: Path) -> None:
    async with sandbox(tmp_path, Slack) as world, aiohttp.ClientSession() as session:
        news = await session.get(f"{world.page_url}/slack/api/news?user={ADA.slack}")
        first = await news.content.readuntil(b"data: {}\n\n")
        the(world, Slack).workspace.end_watching()
        rest = await asyncio.wait_for(news.read(), 5)

    assert b"event: hello" in first
    assert rest == b""


async def test_only_the_page_itself_changes_anything(slack: Slack) -> None:
    words = {"user": ADA.slack, "channel": CHANNEL, "text": "hello"}
    home = slack.world.page_url
    refused = [
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
    ]

    async with aiohttp.ClientSession() as session:
        statuses = [(await session.post(address(slack, "api/type"), json=words, headers=headers)).status for headers in refused]
        plain = (await session.post(address(slack, "api/type"), data="{}", headers={"Content-Type": "text/plain"})).status
        elsewhere = (await session.get(address(slack), headers={"Host": "evil.example"})).status
        same = (
            await session.post(address(slack, "api/type"), json=words, headers={"Origin": home, "Sec-Fetch-Site": "same-origin"})
        ).status

    assert statuses == [403] * 5
    assert (plain, elsewhere, same) == (415, 403, 200)
    assert [message["text"] for message in slack.messages(CHANNEL)] == ["hello"]


async def test_what_is_private_goes_to_its_person_only(slack: Slack) -> None:
    bot = client(slack.world)
    await bot.chat_postEphemeral(channel=CHANNEL, user=ADA.slack, text="psst")
    await bot.chat_postMessage(channel=ADA.slack, text="direct")

    async def state(user: str) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session, session.get(address(slack, f"api/state?user={user}&since=0")) as response:
            told: dict[str, Any] = await response.json()
            return told

    ada, grace = await state(ADA.slack), await state(GRACE.slack)

    assert [message["text"] for message in ada["ephemerals"]] == ["psst"]
    assert "direct" in [message["text"] for message in ada["messages"]]
    assert grace["ephemerals"] == []
    assert grace["messages"] == []


async def test_nobody_is_the_bot_and_nothing_is_served_from_outside_its_folder(slack: Slack) -> None:
    async with aiohttp.ClientSession() as session:
        bot = (await session.get(address(slack, f"api/state?user={BOT.slack}"))).status
        outside = (await session.get(address(slack, "web/..%2fserver.py"))).status
        page = await session.get(address(slack))

    assert (bot, outside, page.status) == (400, 404, 200)
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert page.headers["X-Content-Type-Options"] == "nosniff"
