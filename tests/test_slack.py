"""The edge to Slack: the real SDK against the local Slack, which refuses what Slack refuses and loses answers on request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.board import BlocksRefused, Unchangeable, Wall
from bot.core.errors import Gone, NotNow, OutsideError, Refused, Uncertain
from bot.core.people import Member
from bot.messages.kit import Home, Message, Modal
from bot.ports import Chat, File, Whisper
from bot.slack import LONGEST_STATE, TIMEOUT, Slack, client, session, translated, view
from sandbox.names import ADA, BOT, CHANNEL, GUEST
from sandbox.slack.person import Person
from sandbox.slack.server import Slack as LocalSlack
from tests.sandboxes import proxy, sandbox, the, trust

BLOCK = {"type": "section", "text": {"type": "mrkdwn", "text": "Hello"}}
TABLE = {"type": "table", "rows": [[{"type": "raw_text", "text": "x"}] * 21]}
ELSEWHERE = "C0RANDOM0"  # a channel the bot is not in
PNG = bytes.fromhex("89504e470d0a1a0a") + b"not much of a picture"


@dataclass
class There:
    """The edge, and the local Slack it talks to."""

    edge: Slack
    local: LocalSlack

    def arm(self, fault: str, **detail: Any) -> None:
        """Let the local Slack misbehave once."""
        self.local.world.faults.arm(fault, **detail)

    @property
    def texts(self) -> list[str]:
        return [message["text"] for message in self.local.messages(CHANNEL)]


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[There]:
    """A local Slack and our edge to it."""
    async with sandbox(tmp_path, LocalSlack) as world:
        local = the(world, LocalSlack)
        connector = aiohttp.TCPConnector(ssl=trust(world))
        async with aiohttp.ClientSession(connector=connector, proxy=proxy(world), timeout=TIMEOUT) as shared:
            web_client = AsyncWebClient(local.bot_token, session=shared, proxy=proxy(world), ssl=trust(world), retry_handlers=[])
            yield There(Slack(web_client, shared, {"S0MLTEAM", "S0RELEASE", "S0NOTHING"}), local)


def a_minute_ago() -> datetime:
    """Before anything in a test happened."""
    return datetime.now(UTC) - timedelta(minutes=1)


@pytest.mark.world
async def test_a_message_is_posted_updated_and_linked(there: There) -> None:
    wall: Wall = there.edge

    ts = await wall.post(CHANNEL, "running", [BLOCK], key="run 480", thread=None)
    await wall.update(CHANNEL, ts, "done", [BLOCK])
    link = await wall.permalink(CHANNEL, ts)

    assert there.texts == ["done"]
    assert link.endswith(f"/archives/{CHANNEL}/p{ts.replace('.', '')}")


@pytest.mark.world
async def test_a_message_is_found_by_its_key_in_the_channel_and_in_a_thread(there: There) -> None:
    parent = await there.edge.post(CHANNEL, "run", [], key="run 480", thread=None)
    reply = await there.edge.post(CHANNEL, "table", [], key="comparison of 480", thread=parent)

    found = [
        await there.edge.find(CHANNEL, "run 480", since=a_minute_ago(), thread=None),
        await there.edge.find(CHANNEL, "comparison of 480", since=a_minute_ago(), thread=parent),
        await there.edge.find(CHANNEL, "run 481", since=a_minute_ago(), thread=None),
        await there.edge.find(CHANNEL, "run 480", since=datetime.now(UTC) + timedelta(minutes=1), thread=None),
    ]

    assert found == [parent, reply, None, None]


@pytest.mark.world
async def test_a_post_whose_answer_is_lost_is_made_once_and_said_to_be_uncertain(there: There) -> None:
    there.arm("slack.lost_answer", method="chat.postMessage")

    with pytest.raises(Uncertain):
        await there.edge.post(CHANNEL, "running", [], key="run 480", thread=None)

    assert there.texts == ["running"]
    assert await there.edge.find(CHANNEL, "run 480", since=a_minute_ago(), thread=None) is not None


@pytest.mark.world
async def test_a_rate_limit_is_handed_on_with_its_pause(there: There) -> None:
    there.arm("slack.429", method="chat.update", retry_after=7)
    ts = await there.edge.post(CHANNEL, "running", [], key="run 480", thread=None)

    with pytest.raises(NotNow) as busy:
        await there.edge.update(CHANNEL, ts, "done", [])

    assert busy.value.after == 7


@pytest.mark.world
async def test_refused_blocks_have_an_error_of_their_own(there: There) -> None:
    with pytest.raises(BlocksRefused):
        await there.edge.post(CHANNEL, "table", [TABLE], key="table", thread=None)


@pytest.mark.world
async def test_a_message_that_is_gone_or_closed_has_an_error_of_its_own(there: There) -> None:
    ts = await there.edge.post(CHANNEL, "running", [], key="run 480", thread=None)
    there.arm("slack.edit_window_closed")

    with pytest.raises(Unchangeable):
        await there.edge.update(CHANNEL, ts, "done", [])
    with pytest.raises(Unchangeable):
        await there.edge.update(CHANNEL, "1.000001", "done", [])


@pytest.mark.world
async def test_a_channel_without_the_bot_says_what_to_do(there: There) -> None:
    with pytest.raises(Refused, match="Invite it"):
        await there.edge.post(ELSEWHERE, "hello", [], key="x", thread=None)


@pytest.mark.world
async def test_a_missing_scope_says_what_to_do(there: There) -> None:
    there.arm("slack.missing_scope", method="chat.postMessage")

    with pytest.raises(Refused, match="doctor"):
        await there.edge.post(CHANNEL, "hello", [], key="x", thread=None)


@pytest.mark.world
async def test_a_picture_is_put_into_a_thread(there: There) -> None:
    thread = await there.edge.post(CHANNEL, "run", [], key="run 480", thread=None)

    file = await there.edge.upload("candidates.png", PNG)
    before = await there.edge.shared(file, channel=CHANNEL, thread=thread)
    await there.edge.share(file, "Candidates", channel=CHANNEL, thread=thread)
    await there.local.wait_for(lambda: len(there.local.messages(CHANNEL)) == 2)
    after = await there.edge.shared(file, channel=CHANNEL, thread=thread)

    assert (before, after) == (False, True)


@pytest.mark.world
async def test_a_file_is_handed_to_one_person_in_their_direct_messages(there: There) -> None:
    chat: Chat = there.edge

    await chat.hand(ADA.slack, File("audit.csv", "Audit trail", b"id,at"))
    direct = f"D{ADA.slack[1:]}"
    await there.local.wait_for(lambda: there.local.messages(direct))

    (message,) = there.local.messages(direct)
    assert [there.local.workspace.files[file]["title"] for file in message["files"]] == ["Audit trail"]
    assert "thread_ts" not in message
    assert there.texts == []
    with pytest.raises(Gone):
        await chat.hand("U0NOBODY0", File("audit.csv", "Audit trail", b"id,at"))


@pytest.mark.world
async def test_a_member_comes_with_email_and_groups(there: There) -> None:
    chat: Chat = there.edge

    ada, guest, bot = [await chat.member(one.slack) for one in (ADA, GUEST, BOT)]

    assert ada == Member(ADA.slack, "Ada Lovelace", "ada@contoso.example", groups=frozenset(ADA.groups))
    assert (guest.guest, guest.groups) == (True, frozenset())
    assert bot.bot
    with pytest.raises(Gone):
        await chat.member("U0NOBODY0")


@pytest.mark.world
async def test_groups_are_asked_for_once_a_minute(there: There) -> None:
    for _ in range(3):
        await there.edge.member(ADA.slack)

    asked = [call.method for call in there.local.calls if call.method == "usergroups.users.list"]
    assert len(asked) == 3  # one for each group that was named


@pytest.mark.world
@pytest.mark.parametrize("url", [None, "https://hooks.slack.com/commands/T0/1/expired"])
async def test_a_whisper_reaches_one_person(there: There, url: str | None) -> None:
    await there.edge.whisper(Whisper(ADA.slack, CHANNEL, url), Message("You may not.", [BLOCK]))

    (message,) = Person(there.local, ADA).sees()
    assert (message["text"], message["is_ephemeral"]) == ("You may not.", True)
    assert there.texts == []


@pytest.mark.world
async def test_a_whisper_in_refused_blocks_is_told_in_plain_ones_or_in_words(there: There) -> None:
    await there.edge.whisper(Whisper(ADA.slack, CHANNEL), Message("first", [TABLE], [BLOCK]))
    await there.edge.whisper(Whisper(ADA.slack, CHANNEL), Message("second", [TABLE], [TABLE]))

    assert [message["text"] for message in Person(there.local, ADA).sees()] == ["first", "second"]


@pytest.mark.world
async def test_a_whisper_that_cannot_be_told_is_lost_quietly(there: There, caplog: pytest.LogCaptureFixture) -> None:
    await there.edge.whisper(Whisper(ADA.slack, ELSEWHERE), Message("hello"))

    assert "was lost" in caplog.text


@pytest.mark.world
async def test_a_dialog_needs_a_fresh_trigger_and_an_open_view(there: There) -> None:
    modal = Modal("Train a model", [BLOCK])

    with pytest.raises(OutsideError):
        await there.edge.open_modal("1.2.3", modal, {})
    with pytest.raises(Gone):
        await there.edge.fill_modal("V0NOTHING", modal, {})


@pytest.mark.world
async def test_what_belongs_to_no_channel_is_told_in_a_direct_message(there: There) -> None:
    await there.edge.whisper(Whisper(ADA.slack, ""), Message("Approved.", [BLOCK]))

    direct = there.local.workspace.direct(ADA.slack)["id"]
    assert [message["text"] for message in there.local.messages(direct)] == ["Approved."]


@pytest.mark.world
async def test_the_page_of_one_person_is_published_and_replaced(there: There) -> None:
    chat: Chat = there.edge
    await chat.publish(ADA.slack, Home([BLOCK]))
    await chat.publish(ADA.slack, Home([BLOCK, {"type": "divider"}]))

    shown = there.local.home(ADA.slack)
    assert shown is not None
    assert [block["type"] for block in shown["blocks"]] == ["section", "divider"]
    assert there.local.home(GUEST.slack) is None
    with pytest.raises(Refused):
        await chat.publish(ADA.slack, Home([TABLE]))


@pytest.mark.world
async def test_a_dialog_is_opened_and_filled(there: There) -> None:
    trigger = there.local.triggers.give(ADA.slack)

    opened = await there.edge.open_modal(trigger, Modal("Train a model", [BLOCK]), {"channel": CHANNEL})
    await there.edge.fill_modal(opened, Modal("Train diabetes", [BLOCK], state={"run": "480"}), {"channel": CHANNEL})

    shown = Person(there.local, ADA).modal()
    assert shown is not None
    assert (shown["id"], shown["title"]["text"]) == (opened, "Train diabetes")


@pytest.mark.world
async def test_we_know_who_we_are_and_what_we_may(there: There) -> None:
    me = await there.edge.who_am_i()

    assert me["user_id"] == BOT.slack
    assert "chat:write" in me["scopes"].split(",")


async def test_where_slack_cannot_be_reached_nothing_was_done() -> None:
    async with aiohttp.ClientSession() as shared:
        edge = Slack(AsyncWebClient("xoxb-1", base_url="http://127.0.0.1:9/api/", session=shared, retry_handlers=[]), shared)

        with pytest.raises(NotNow):
            await edge.post(CHANNEL, "hello", [], key="x", thread=None)
        with pytest.raises(NotNow):
            await edge.who_am_i()


async def test_the_client_makes_every_call_once_over_the_one_session() -> None:
    async with session() as shared:
        made = client("xoxb-1", shared)

        assert made.retry_handlers == []
        assert made.session is shared
        assert shared.trust_env


@dataclass
class Answer:
    """What Slack answered, as the SDK hands it on."""

    status_code: int
    data: object
    headers: dict[str, str]


@pytest.mark.parametrize(
    ("answer", "read", "written"),
    [
        (Answer(500, "Internal Server Error", {}), NotNow, Uncertain),
        (Answer(200, {"ok": False, "error": "fatal_error"}, {}), NotNow, Uncertain),
        (Answer(200, {"ok": False, "error": "service_unavailable"}, {}), NotNow, NotNow),
        (Answer(429, {}, {"Retry-After": "30"}), NotNow, NotNow),
        (Answer(200, {"ok": False, "error": "invalid_blocks"}, {}), BlocksRefused, BlocksRefused),
        (Answer(200, {"ok": False, "error": "user_not_found"}, {}), Gone, Gone),
        (Answer(200, {"ok": False, "error": "anything_else"}, {}), Refused, Refused),
    ],
)
def test_every_error_is_named_by_what_can_be_done(answer: Answer, read: type[Exception], written: type[Exception]) -> None:
    error = SlackApiError("said no", answer)  # type: ignore[no-untyped-call]  # the SDK's

    assert type(translated(error, sure=True)) is read
    assert type(translated(error, sure=False)) is written


def test_a_long_state_leaves_no_room_for_the_way_back() -> None:
    origin = {"channel": CHANNEL, "url": "https://hooks.slack.com/commands/1"}

    roomy = view(Modal("Approve", [], "approve", "Approve", state={"run": "480"}), origin)
    tight = view(Modal("A title that is far too long", [], state={"run": "4" * (LONGEST_STATE - 80)}), origin)

    assert (roomy["callback_id"], roomy["submit"]["text"]) == ("approve", "Approve")
    assert "hooks.slack.com" in roomy["private_metadata"]
    assert "hooks.slack.com" not in tight["private_metadata"]
    assert len(tight["private_metadata"]) <= LONGEST_STATE
    assert len(tight["title"]["text"]) == 24
