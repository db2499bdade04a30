"""The local Slack, spoken to by the real slack_sdk and slack_bolt through the sandbox's proxy."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext, AsyncRespond
from slack_sdk.errors import SlackApiError
from slack_sdk.signature import SignatureVerifier
from slack_sdk.web.async_client import AsyncWebClient

from sandbox.names import ADA, ALAN, BOT, CHANNEL, GRACE, GROUPS, GUEST, PEOPLE
from sandbox.processes import free_port
from sandbox.slack.delivery import sign
from sandbox.slack.manifest import FILE
from sandbox.slack.person import HOME, Person
from sandbox.slack.server import Slack
from sandbox.world import World
from tests.sandboxes import proxy, sandbox, the, trust

pytestmark = pytest.mark.world

ELSEWHERE = "C0RANDOM0"  # a channel the bot is not in
PNG = bytes.fromhex("89504e470d0a1a0a") + b"not much of a picture"


@dataclass
class Bot:
    """A small bot on real Bolt, and the Slack it lives in."""

    slack: Slack
    app: AsyncApp
    client: AsyncWebClient

    @property
    def ada(self) -> Person:
        return Person(self.slack, ADA)


@asynccontextmanager
async def living(folder: Path, make: Callable[[World], Slack] = Slack) -> AsyncIterator[Bot]:
    """A bot that takes HTTP, as yet without listeners."""
    port = free_port()
    async with sandbox(folder, make, bot_url=f"http://127.0.0.1:{port}") as world:
        slack = the(world, Slack)
        client = AsyncWebClient(slack.bot_token, proxy=proxy(world), ssl=trust(world), retry_handlers=[])
        app = AsyncApp(client=client, signing_secret=slack.signing_secret, process_before_response=True)

        async def events(request: web.Request) -> web.Response:
            return await to_aiohttp_response(await app.async_dispatch(await to_bolt_request(request)))

        served = web.Application()
        served.router.add_post("/slack/events", events)
        runner = web.AppRunner(served, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield Bot(slack, app, client)
        await runner.cleanup()


@pytest.fixture
async def bot(tmp_path: Path) -> AsyncIterator[Bot]:
    async with living(tmp_path) as it:
        yield it


def button(action: str, **more: Any) -> dict[str, Any]:
    return {"type": "button", "action_id": action, "text": {"type": "plain_text", "text": action.title()}, "value": "42", **more}


def buttons(*elements: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "actions", "block_id": "decide", "elements": list(elements)}]


MODAL: dict[str, Any] = {
    "type": "modal",
    "callback_id": "reason",
    "title": {"type": "plain_text", "text": "Reject"},
    "submit": {"type": "plain_text", "text": "Reject"},
    "notify_on_close": True,
    "blocks": [
        {
            "type": "input",
            "block_id": "why",
            "label": {"type": "plain_text", "text": "Why?"},
            "element": {"type": "plain_text_input", "action_id": "text", "min_length": 3},
        },
        {
            "type": "input",
            "block_id": "where",
            "optional": True,
            "label": {"type": "plain_text", "text": "Where?"},
            "element": {
                "type": "static_select",
                "action_id": "pick",
                "options": [
                    {"text": {"type": "plain_text", "text": "QA"}, "value": "qa"},
                    {"text": {"type": "plain_text", "text": "Prod"}, "value": "prod"},
                ],
            },
        },
    ],
}


async def error(call: Awaitable[Any]) -> dict[str, Any]:
    """What Slack answered instead of ok."""
    with pytest.raises(SlackApiError) as caught:
        await call
    answer: dict[str, Any] = caught.value.response.data
    return answer


# Tokens and scopes


async def test_a_token_opens_the_door(bot: Bot) -> None:
    answer = await bot.client.auth_test()

    assert answer["user_id"] == BOT.slack
    assert "chat:write" in answer.headers["X-OAuth-Scopes"]


async def test_an_unknown_token_and_none_at_all_are_refused(bot: Bot) -> None:
    def with_token(token: str | None) -> AsyncWebClient:
        return AsyncWebClient(token, proxy=bot.client.proxy, ssl=bot.client.ssl)

    assert (await error(with_token("xoxb-nobody").auth_test()))["error"] == "invalid_auth"
    assert (await error(with_token(None).auth_test()))["error"] == "not_authed"
    assert (await error(with_token(bot.slack.app_token).chat_postMessage(channel=CHANNEL, text="x")))["error"] == "not_allowed_token_type"


async def test_a_missing_scope_is_named(bot: Bot) -> None:
    bot.slack.restrict({"commands"})

    answer = await error(bot.client.chat_postMessage(channel=CHANNEL, text="x"))

    assert answer == {"ok": False, "error": "missing_scope", "needed": "chat:write", "provided": "commands"}


async def test_a_scope_can_go_missing_for_one_call(bot: Bot) -> None:
    bot.slack.world.faults.arm("slack.missing_scope", scope="users:read")

    assert (await error(bot.client.users_info(user=ADA.slack)))["needed"] == "users:read"
    assert (await bot.client.users_info(user=ADA.slack))["user"]["id"] == ADA.slack


async def test_an_address_needs_its_own_scope(bot: Bot) -> None:
    with_it = await bot.client.users_info(user=GUEST.slack)
    bot.slack.restrict({"users:read"})
    without = await bot.client.users_info(user=GUEST.slack)

    assert with_it["user"]["profile"]["email"] == GUEST.email
    assert with_it["user"]["is_restricted"] is True
    assert "email" not in without["user"]["profile"]


async def test_people_and_groups_are_found(bot: Bot) -> None:
    assert (await bot.client.users_lookupByEmail(email=ADA.email))["user"]["id"] == ADA.slack
    assert (await bot.client.usergroups_users_list(usergroup="S0RELEASE"))["users"] == [
        it.slack for it in PEOPLE if "S0RELEASE" in it.groups
    ]
    assert {it["id"] for it in (await bot.client.usergroups_list())["usergroups"]} == set(GROUPS)
    assert (await error(bot.client.users_lookupByEmail(email="no@body.example")))["error"] == "users_not_found"
    assert (await error(bot.client.usergroups_users_list(usergroup="S0NOBODY")))["error"] == "no_such_subteam"
    assert (await error(bot.client.users_info(user="U0NOBODY")))["error"] == "user_not_found"


async def test_a_method_that_is_not_there_is_unknown(bot: Bot) -> None:
    assert (await error(bot.client.api_call("chat.postMassage")))["error"] == "unknown_method"


# Messages


async def test_a_message_is_posted_replaced_and_deleted(bot: Bot) -> None:
    blocks = buttons(button("go"))
    posted = await bot.client.chat_postMessage(channel=CHANNEL, text="one", blocks=blocks)
    ts = posted["ts"]
    with_blocks = await bot.client.chat_update(channel=CHANNEL, ts=ts, text="two", blocks=blocks)
    without = await bot.client.chat_update(channel=CHANNEL, ts=ts, text="three")

    assert "edited" not in with_blocks["message"]
    assert "blocks" not in without["message"]
    assert without["message"]["edited"]["user"] == BOT.slack
    assert [message["text"] for message in bot.ada.sees()] == ["three"]

    await bot.client.chat_delete(channel=CHANNEL, ts=ts)

    assert bot.ada.sees() == []
    assert (await error(bot.client.chat_update(channel=CHANNEL, ts=ts, text="x")))["error"] == "message_not_found"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"channel": "C0NOWHERE", "text": "x"}, "channel_not_found"),
        ({"channel": ELSEWHERE, "text": "x"}, "not_in_channel"),
        ({"channel": CHANNEL, "text": "x" * 40_001}, "msg_too_long"),
        ({"channel": CHANNEL, "text": "x", "blocks": "[{"}, "invalid_blocks_format"),
        ({"channel": CHANNEL, "text": "x", "thread_ts": "1.000000"}, "thread_not_found"),
        ({"channel": CHANNEL, "text": "x", "metadata": {"event_type": "x"}}, "invalid_metadata_format"),
        ({"channel": "", "text": "x"}, "invalid_arguments"),
    ],
)
async def test_a_message_is_refused_for_what_is_wrong_with_it(bot: Bot, arguments: dict[str, Any], expected: str) -> None:
    assert (await error(bot.client.chat_postMessage(**arguments)))["error"] == expected
    assert bot.slack.messages(CHANNEL) == []


async def test_a_message_without_anything_in_it_is_refused(bot: Bot) -> None:
    assert (await error(bot.client.api_call("chat.postMessage", json={"channel": CHANNEL})))["error"] == "no_text"


async def test_blocks_are_refused_with_a_pointer(bot: Bot) -> None:
    wide = [{"type": "table", "rows": [[{"type": "raw_text", "text": "x"}] * 21]}]

    answer = await error(bot.client.chat_postMessage(channel=CHANNEL, text="x", blocks=wide))

    assert answer["error"] == "invalid_blocks"
    assert answer["response_metadata"]["messages"] == ["[ERROR] no more than 20 items allowed [json-pointer:/blocks/0/rows/0]"]


async def test_nothing_goes_into_an_archived_channel(bot: Bot) -> None:
    channels = bot.slack.workspace.channels
    channels[CHANNEL] = {**channels[CHANNEL], "is_archived": True}

    assert (await error(bot.client.chat_postMessage(channel=CHANNEL, text="x")))["error"] == "is_archived"


async def test_another_s_message_is_not_the_bot_s_to_change(bot: Bot) -> None:
    message = await bot.ada.types("good morning")
    assert message is not None

    assert (await error(bot.client.chat_update(channel=CHANNEL, ts=message["ts"], text="x")))["error"] == "cant_update_message"
    assert (await error(bot.client.chat_delete(channel=CHANNEL, ts=message["ts"])))["error"] == "cant_delete_message"


async def test_metadata_comes_back_to_who_asks_for_it(bot: Bot) -> None:
    metadata = {"event_type": "run", "event_payload": {"run_id": 480}}
    await bot.client.chat_postMessage(channel=CHANNEL, text="x", metadata=metadata)

    with_it = await bot.client.conversations_history(channel=CHANNEL, include_all_metadata=True)
    without = await bot.client.conversations_history(channel=CHANNEL)

    assert with_it["messages"][0]["metadata"] == metadata
    assert "metadata" not in without["messages"][0]


async def test_history_comes_newest_first_in_pages_without_threads(bot: Bot) -> None:
    first = await bot.client.chat_postMessage(channel=CHANNEL, text="0")
    await bot.client.chat_postMessage(channel=CHANNEL, text="reply", thread_ts=first["ts"])
    for text in ("1", "2"):
        await bot.client.chat_postMessage(channel=CHANNEL, text=text)

    page = await bot.client.conversations_history(channel=CHANNEL, limit=2)
    rest = await bot.client.conversations_history(channel=CHANNEL, limit=2, cursor=page["response_metadata"]["next_cursor"])
    later = await bot.client.conversations_history(channel=CHANNEL, oldest=first["ts"])

    assert [message["text"] for message in page["messages"]] == ["2", "1"]
    assert page["has_more"] is True
    assert [message["text"] for message in rest["messages"]] == ["0"]
    assert [message["text"] for message in later["messages"]] == ["2", "1"]


async def test_a_thread_hangs_under_its_message(bot: Bot) -> None:
    parent = await bot.client.chat_postMessage(channel=CHANNEL, text="run")
    reply = await bot.client.chat_postMessage(channel=CHANNEL, text="details", thread_ts=parent["ts"])

    answer = await bot.client.conversations_replies(channel=CHANNEL, ts=parent["ts"])
    link = await bot.client.chat_getPermalink(channel=CHANNEL, message_ts=reply["ts"])

    assert [message["text"] for message in answer["messages"]] == ["run", "details"]
    assert answer["messages"][0]["reply_count"] == 1
    assert link["permalink"].endswith(f"?thread_ts={parent['ts']}&cid={CHANNEL}")
    assert [message["text"] for message in bot.ada.thread(parent["ts"])] == ["details"]


async def test_a_whisper_is_for_one_person_and_cannot_be_updated(bot: Bot) -> None:
    answer = await bot.client.chat_postEphemeral(channel=CHANNEL, user=ADA.slack, text="psst")

    assert [message["text"] for message in bot.ada.sees()] == ["psst"]
    assert Person(bot.slack, GRACE).sees() == []
    assert (await error(bot.client.chat_update(channel=CHANNEL, ts=answer["message_ts"], text="x")))["error"] == "message_not_found"
    assert (await bot.client.conversations_history(channel=CHANNEL))["messages"] == []


async def test_reactions_are_counted_once(bot: Bot) -> None:
    bot.slack.restrict({"chat:write", "reactions:write"})
    ts = (await bot.client.chat_postMessage(channel=CHANNEL, text="x"))["ts"]

    await bot.client.reactions_add(channel=CHANNEL, timestamp=ts, name="eyes")

    assert (await error(bot.client.reactions_add(channel=CHANNEL, timestamp=ts, name="eyes")))["error"] == "already_reacted"
    assert bot.slack.messages(CHANNEL)[0]["reactions"] == [{"name": "eyes", "users": [BOT.slack], "count": 1}]


async def test_a_message_to_a_person_is_direct(bot: Bot) -> None:
    posted = await bot.client.chat_postMessage(channel=ADA.slack, text="for you")

    assert [message["text"] for message in bot.ada.sees(posted["channel"])] == ["for you"]
    assert Person(bot.slack, GRACE).sees(posted["channel"]) == []


async def test_blocks_can_be_validated_without_a_token(bot: Bot) -> None:
    assert (await bot.client.blocks_validate(blocks=[{"type": "divider"}]))["ok"]
    assert (await error(bot.client.blocks_validate(view={"type": "window", "blocks": []})))["errors"][0]["pointer"] == "/view/type"


async def test_everything_lasting_survives_a_restart(tmp_path: Path) -> None:
    async with sandbox(tmp_path, Slack) as world:
        before = the(world, Slack)
        client = AsyncWebClient(before.bot_token, proxy=proxy(world), ssl=trust(world))
        await client.chat_postMessage(channel=CHANNEL, text="still here")
        await client.chat_postEphemeral(channel=CHANNEL, user=ADA.slack, text="psst")

    async with sandbox(tmp_path, Slack) as world:
        after = the(world, Slack)

        assert after.bot_token == before.bot_token
        assert [message["text"] for message in Person(after, ADA).sees()] == ["still here"]


# Limits and faults


async def test_a_burst_is_taken_and_then_slowed(bot: Bot) -> None:
    bot.slack.rates.burst = 2
    for _ in range(2):
        await bot.client.chat_postMessage(channel=CHANNEL, text="x")

    with pytest.raises(SlackApiError) as caught:
        await bot.client.chat_postMessage(channel=CHANNEL, text="x")

    assert caught.value.response.status_code == 429
    assert caught.value.response.headers["Retry-After"] == "1"
    assert caught.value.response["error"] == "ratelimited"


async def test_a_method_has_its_number_per_minute(bot: Bot) -> None:
    bot.slack.rates.per_minute["team.info"] = 1
    bot.slack.restrict({"team:read"})
    await bot.client.team_info()

    with pytest.raises(SlackApiError) as caught:
        await bot.client.team_info()

    assert caught.value.response.headers["Retry-After"] == "60"


async def test_a_fault_strikes_the_method_it_names(bot: Bot) -> None:
    bot.slack.world.faults.arm("slack.429", method="chat.update", retry_after=7)
    ts = (await bot.client.chat_postMessage(channel=CHANNEL, text="x"))["ts"]

    with pytest.raises(SlackApiError) as caught:
        await bot.client.chat_update(channel=CHANNEL, ts=ts, text="y")

    assert caught.value.response.headers["Retry-After"] == "7"


async def test_a_lost_answer_has_done_its_work(bot: Bot) -> None:
    bot.slack.world.faults.arm("slack.lost_answer", method="chat.postMessage")

    with pytest.raises(aiohttp.ClientError):
        await bot.client.chat_postMessage(channel=CHANNEL, text="once")

    assert [message["text"] for message in bot.slack.messages(CHANNEL)] == ["once"]
    assert bot.slack.calls[-1].error == "lost_answer"


async def test_plan_blocks_can_be_refused_once(bot: Bot) -> None:
    plan = [{"type": "plan", "title": "Running", "tasks": [{"type": "task_card", "task_id": "a", "title": "Train"}]}]
    bot.slack.world.faults.arm("slack.invalid_blocks")

    refused = await error(bot.client.chat_postMessage(channel=CHANNEL, text="x", blocks=plan))
    again = await bot.client.chat_postMessage(channel=CHANNEL, text="x", blocks=plan)

    assert refused["error"] == "invalid_blocks"
    assert again["ok"]


async def test_an_edit_can_come_too_late_and_slack_can_break(bot: Bot) -> None:
    ts = (await bot.client.chat_postMessage(channel=CHANNEL, text="x"))["ts"]
    bot.slack.world.faults.arm("slack.edit_window_closed")
    late = await error(bot.client.chat_update(channel=CHANNEL, ts=ts, text="y"))
    bot.slack.world.faults.arm("slack.500")

    with pytest.raises(SlackApiError) as caught:
        await bot.client.auth_test()

    assert late["error"] == "edit_window_closed"
    assert caught.value.response.status_code == 500


# Files


async def test_a_picture_appears_in_its_thread_once_slack_has_looked_at_it(bot: Bot) -> None:
    ts = (await bot.client.chat_postMessage(channel=CHANNEL, text="run"))["ts"]
    uploaded = await bot.client.files_upload_v2(content=PNG, filename="chart.png", title="Candidates", channel=CHANNEL, thread_ts=ts)
    file = uploaded["file"]["id"]
    image = [{"type": "image", "slack_file": {"id": file}, "alt_text": "Candidates"}]

    early = await error(bot.client.chat_postMessage(channel=CHANNEL, text="x", blocks=image))
    reply = await bot.slack.wait_for(lambda: bot.ada.thread(ts))
    late = await bot.client.chat_postMessage(channel=CHANNEL, text="x", blocks=image)

    assert early["response_metadata"]["messages"] == ["[ERROR] invalid slack file [json-pointer:/blocks/0/slack_file]"]
    assert reply[0]["files"][0]["title"] == "Candidates"
    assert late["ok"]


async def test_a_file_of_another_size_than_announced_is_refused(bot: Bot) -> None:
    place = await bot.client.files_getUploadURLExternal(filename="a.png", length=5)

    async with (
        aiohttp.ClientSession() as session,
        session.post(place["upload_url"], data=b"1234", proxy=bot.client.proxy, ssl=trust(bot.slack.world)) as response,
    ):
        status = response.status

    assert status == 400
    missing = await error(bot.client.files_completeUploadExternal(files=[{"id": place["file_id"], "title": "A"}]))
    assert missing["error"] == "file_not_found"


# Commands


async def test_a_command_arrives_escaped_and_is_answered_in_private(bot: Bot) -> None:
    seen: list[dict[str, Any]] = []

    @bot.app.command("/retrain")
    async def retrain(ack: AsyncAck, command: dict[str, Any]) -> None:
        seen.append(command)
        await ack("No such model.")

    answer = await bot.ada.types("/retrain <x> @grace #ml-delivery & more https://a.example/b?c=1&d=2.")

    assert answer is not None
    assert answer["text"] == "No such model."
    assert answer["is_ephemeral"]
    assert seen[0]["text"] == f"&lt;x&gt; <@{GRACE.slack}|grace> <#{CHANNEL}|ml-delivery> &amp; more <https://a.example/b?c=1&amp;d=2>."
    assert seen[0]["user_id"] == ADA.slack
    assert Person(bot.slack, GRACE).sees() == []


@pytest.mark.parametrize(
    ("text", "thread", "words"),
    [
        ("/nonsense", None, "is not a valid command"),
        ("/retrain diabetes", "1.000000", "is not supported in threads"),
        ("/promote diabetes", None, "failed with the error “dispatch_failed”"),
    ],
)
async def test_slack_itself_says_why_a_command_came_to_nothing(bot: Bot, text: str, thread: str | None, words: str) -> None:
    answer = await bot.ada.types(text, thread_ts=thread)

    assert answer is not None
    assert words in answer["text"]
    assert answer["user"] == "USLACKBOT"


async def test_a_bot_that_does_not_acknowledge_has_timed_out(bot: Bot) -> None:
    bot.slack.delivery.patience = 0.2
    release = asyncio.Event()

    @bot.app.command("/retrain")
    async def retrain(ack: AsyncAck) -> None:
        await release.wait()
        await ack()

    answer = await bot.ada.types("/retrain diabetes")
    release.set()

    assert answer is not None
    assert answer["text"] == "/retrain failed with the error “operation_timeout”"


async def test_a_response_url_is_good_five_times(bot: Bot) -> None:
    respond: list[AsyncRespond] = []

    @bot.app.command("/mlops")
    async def mlops(ack: AsyncAck, context: AsyncBoltContext) -> None:
        assert context.respond is not None
        respond.append(context.respond)
        await ack()

    await bot.ada.types("/mlops help")
    statuses = [(await respond[0](f"answer {index}", response_type="in_channel")).status_code for index in range(6)]

    assert statuses == [200, 200, 200, 200, 200, 404]
    assert [message["text"] for message in Person(bot.slack, GRACE).sees()] == [f"answer {index}" for index in range(5)]


# Clicks


async def test_a_click_carries_its_value_and_may_replace_what_was_clicked(bot: Bot) -> None:
    seen: list[dict[str, Any]] = []

    @bot.app.action("approve")
    async def approve(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond) -> None:
        seen.append(body)
        await ack()
        await respond("Approved.", replace_original=True)

    await bot.client.chat_postEphemeral(channel=CHANNEL, user=ADA.slack, text="Deploy?", blocks=buttons(button("approve")))
    message = bot.ada.sees()[0]

    assert await bot.ada.clicks(message, "approve") is None
    assert seen[0]["actions"][0]["value"] == "42"
    assert seen[0]["container"] == {"type": "message", "message_ts": message["ts"], "channel_id": CHANNEL, "is_ephemeral": True}
    assert [it["text"] for it in bot.ada.sees()] == ["Approved."]


async def test_nobody_clicks_what_they_do_not_see(bot: Bot) -> None:
    await bot.client.chat_postEphemeral(channel=CHANNEL, user=ADA.slack, text="x", blocks=buttons(button("approve")))
    whispered = bot.ada.sees()[0]

    with pytest.raises(LookupError, match="sees no message"):
        await Person(bot.slack, GRACE).clicks(whispered, "approve")
    with pytest.raises(LookupError, match="sees no 'reject' there, but approve"):
        await bot.ada.clicks(whispered, "reject")


async def test_a_confirm_that_is_declined_reaches_nobody(bot: Bot) -> None:
    asks = {key: {"type": "plain_text", "text": "Sure?"} for key in ("title", "text", "confirm", "deny")}
    ts = (await bot.client.chat_postMessage(channel=CHANNEL, text="x", blocks=buttons(button("go", confirm=asks))))["ts"]
    clicks: list[str] = []

    @bot.app.action("go")
    async def go(ack: AsyncAck, body: dict[str, Any]) -> None:
        clicks.append(body["user"]["id"])
        await ack()

    await bot.ada.clicks(ts, "go", confirm=False)
    await Person(bot.slack, ALAN).clicks(ts, "go")

    assert clicks == [ALAN.slack]


async def test_a_click_may_be_delivered_twice(bot: Bot) -> None:
    ts = (await bot.client.chat_postMessage(channel=CHANNEL, text="x", blocks=buttons(button("go"))))["ts"]
    triggers: list[str] = []

    @bot.app.action("go")
    async def go(ack: AsyncAck, body: dict[str, Any]) -> None:
        triggers.append(body["trigger_id"])
        bot.slack.workspace.stir()
        await ack()

    bot.slack.world.faults.arm("slack.duplicate_delivery")
    await bot.ada.clicks(ts, "go")
    await bot.slack.wait_for(lambda: len(triggers) == 2)

    assert triggers[0] == triggers[1]


async def test_a_click_the_bot_cannot_take_is_told(bot: Bot) -> None:
    ts = (await bot.client.chat_postMessage(channel=CHANNEL, text="x", blocks=buttons(button("unheard"))))["ts"]

    assert await bot.ada.clicks(ts, "unheard") == "Something went wrong with this app. (dispatch_failed)"


# Modals


async def opened(bot: Bot, view: dict[str, Any] | None = None) -> None:
    """A modal in front of Ada."""

    @bot.app.action("open")
    async def open_it(ack: AsyncAck, body: dict[str, Any], client: AsyncWebClient) -> None:
        await client.views_open(trigger_id=body["trigger_id"], view=view or MODAL)
        await ack()

    ts = (await bot.client.chat_postMessage(channel=CHANNEL, text="x", blocks=buttons(button("open"))))["ts"]
    await bot.ada.clicks(ts, "open")


async def test_a_modal_is_checked_by_slack_then_by_the_bot_then_closes(bot: Bot) -> None:
    seen: list[dict[str, Any]] = []

    @bot.app.view("reason")
    async def reason(ack: AsyncAck, view: dict[str, Any]) -> None:
        seen.append(view["state"]["values"])
        if len(seen) == 1:
            await ack(response_action="errors", errors={"why": "Say more."})
        else:
            await ack()

    await opened(bot)
    empty = await bot.ada.fills()
    short = await bot.ada.fills(None, {"why": "x"})
    refused = await bot.ada.fills(None, {"why": "because"})
    taken = await bot.ada.fills(None, {"why": "because it is late", "where": "Prod"})

    assert empty.errors == {"why": "Please complete this required field."}
    assert short.errors == {"why": "Please use at least 3 characters."}
    assert refused.errors == {"why": "Say more."}
    assert taken.accepted
    assert bot.ada.modal() is None
    assert seen[0]["where"]["pick"] == {"type": "static_select", "selected_option": None}
    assert seen[1]["where"]["pick"]["selected_option"]["value"] == "prod"


async def test_a_submission_may_show_another_view(bot: Bot) -> None:
    done = {"type": "modal", "title": {"type": "plain_text", "text": "Done"}, "blocks": [{"type": "divider"}]}
    actions: list[dict[str, Any]] = [{"response_action": "push", "view": done}, {"response_action": "clear"}]

    @bot.app.view({"type": "view_submission", "callback_id": "reason"})
    async def reason(ack: AsyncAck) -> None:
        await ack(**actions.pop(0))

    await opened(bot)
    pushed = await bot.ada.fills(None, {"why": "because"})
    await bot.ada.closes()
    back = bot.ada.modal()
    cleared = await bot.ada.fills(None, {"why": "because"})

    assert pushed.view is not None
    assert pushed.view["title"]["text"] == "Done"
    assert back is not None
    assert back["id"] == pushed.view["previous_view_id"]
    assert cleared.accepted
    assert bot.ada.modal() is None


async def test_a_closed_modal_is_reported(bot: Bot) -> None:
    closed: list[str] = []

    @bot.app.view_closed("reason")
    async def on_close(ack: AsyncAck, view: dict[str, Any]) -> None:
        closed.append(view["callback_id"])
        await ack()

    await opened(bot)
    await bot.ada.closes()

    assert closed == ["reason"]


async def test_a_trigger_is_good_once_and_not_for_long(bot: Bot) -> None:
    trigger = bot.slack.triggers.give(ADA.slack)
    await bot.client.views_open(trigger_id=trigger, view=MODAL)
    late = bot.slack.triggers.give(ADA.slack)
    bot.slack.world.faults.arm("slack.expired_trigger")

    assert (await error(bot.client.views_open(trigger_id=trigger, view=MODAL)))["error"] == "exchanged_trigger_id"
    assert (await error(bot.client.views_open(trigger_id=late, view=MODAL)))["error"] == "expired_trigger_id"
    assert (await error(bot.client.views_open(trigger_id="1.2.3", view=MODAL)))["error"] == "invalid_trigger_id"


async def test_a_view_changes_only_from_the_state_it_was_seen_in(bot: Bot) -> None:
    view = (await bot.client.views_open(trigger_id=bot.slack.triggers.give(ADA.slack), view=MODAL))["view"]
    changed = await bot.client.views_update(view_id=view["id"], hash=view["hash"], view=MODAL)

    assert changed["view"]["id"] == view["id"]
    assert (await error(bot.client.views_update(view_id=view["id"], hash=view["hash"], view=MODAL)))["error"] == "hash_conflict"
    assert (await error(bot.client.views_update(view_id="V0NOWHERE", view=MODAL)))["error"] == "not_found"


async def test_a_bad_view_is_refused_with_a_pointer(bot: Bot) -> None:
    view = {**MODAL, "title": {"type": "plain_text", "text": "x" * 25}}

    answer = await error(bot.client.views_open(trigger_id=bot.slack.triggers.give(ADA.slack), view=view))

    assert answer["error"] == "invalid_arguments"
    assert answer["response_metadata"]["messages"] == ["[ERROR] must be less than 25 characters [json-pointer:/view/title/text]"]


def without_home(folder: Path) -> Path:
    """The manifest of an app that does not ask to hear when its Home tab is opened."""
    manifest = json.loads(FILE.read_text())
    del manifest["settings"]["event_subscriptions"]
    file = folder / "manifest.json"
    file.write_text(json.dumps(manifest))
    return file


async def test_app_home_is_opened_published_and_clicked(bot: Bot) -> None:
    clicks: list[str] = []

    @bot.app.event("app_home_opened")
    async def home(event: dict[str, Any], client: AsyncWebClient) -> None:
        await client.views_publish(user_id=event["user"], view={"type": "home", "blocks": buttons(button("go"))})

    @bot.app.action("go")
    async def go(ack: AsyncAck, body: dict[str, Any]) -> None:
        clicks.append(body["container"]["type"])
        await ack()

    await bot.ada.opens_home()
    await bot.slack.wait_for(lambda: bot.slack.home(ADA.slack))
    await bot.ada.clicks(HOME, "go")

    assert clicks == ["view"]
    assert bot.slack.home(GRACE.slack) is None


async def test_an_app_that_did_not_ask_does_not_hear_of_its_home(tmp_path: Path) -> None:
    opened: list[str] = []
    async with living(tmp_path, lambda world: Slack(world, without_home(tmp_path))) as bot:

        @bot.app.event("app_home_opened")
        async def home(event: dict[str, Any]) -> None:
            opened.append(event["user"])

        await bot.ada.opens_home()
        await bot.ada.types("/nonsense")

        assert opened == []


# Socket Mode


@pytest.fixture
async def socket(bot: Bot) -> AsyncIterator[AsyncSocketModeHandler]:
    """The bot's connection over Socket Mode."""
    web_client = AsyncWebClient(bot.slack.app_token, proxy=bot.client.proxy, ssl=bot.client.ssl)
    handler = AsyncSocketModeHandler(bot.app, bot.slack.app_token, web_client=web_client, proxy=bot.client.proxy, ping_interval=1)
    await handler.client.connect()  # type: ignore[no-untyped-call]  # slack_sdk gives it no types
    yield handler
    await handler.client.close()  # type: ignore[no-untyped-call]  # likewise


async def test_a_socket_carries_commands_and_their_answers(bot: Bot, socket: AsyncSocketModeHandler) -> None:
    @bot.app.command("/retrain")
    async def retrain(ack: AsyncAck) -> None:
        await ack({"text": "over the socket", "response_type": "in_channel"})

    bot.slack.world.bot_url = "http://127.0.0.1:9"
    answer = await bot.ada.types("/retrain diabetes")

    assert answer is not None
    assert answer["text"] == "over the socket"
    assert bot.slack.delivery.sockets == 1


async def test_a_socket_is_opened_anew_when_slack_asks(bot: Bot, socket: AsyncSocketModeHandler) -> None:
    @bot.app.command("/retrain")
    async def retrain(ack: AsyncAck) -> None:
        await ack("back")

    bot.slack.world.faults.arm("slack.refresh_socket")
    answer = await bot.ada.types("/retrain diabetes")

    assert answer is not None
    assert answer["text"] == "back"
    assert [call.method for call in bot.slack.calls].count("apps.connections.open") == 2


async def test_a_bot_token_opens_no_socket(bot: Bot) -> None:
    assert (await error(bot.client.apps_connections_open(app_token=bot.slack.bot_token)))["error"] == "not_allowed_token_type"


# Signatures


def test_a_delivery_is_signed_as_slack_signs() -> None:
    body, stamp = b"command=%2Fretrain", str(int(time.time()))

    signature = sign("secret", stamp, body)

    assert SignatureVerifier("secret").is_valid(body, stamp, signature)
    assert not SignatureVerifier("another").is_valid(body, stamp, signature)


def test_the_manifest_is_what_slack_takes() -> None:
    manifest = json.loads(FILE.read_text())

    commands = manifest["features"]["slash_commands"]
    assert [it["command"] for it in commands] == ["/retrain", "/promote", "/approve", "/mlops"]
    assert all(it["should_escape"] and len(it["description"]) <= 140 and len(it["usage_hint"]) <= 1000 for it in commands)
    assert len(manifest["display_information"]["name"]) <= 35
    assert len(manifest["display_information"]["description"]) <= 140
    assert 174 <= len(manifest["display_information"]["long_description"]) <= 4000
