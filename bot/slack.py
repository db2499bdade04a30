"""Edge: Slack's Web API through AsyncWebClient, over one session. It waits for no rate limit and repeats no call: callers decide."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import aiohttp
from slack_sdk.errors import SlackApiError, SlackRequestError
from slack_sdk.models.metadata import Metadata
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bot.board import BlocksRefused, Unchangeable
from bot.core.errors import Gone, NotNow, OutsideError, Refused, Uncertain
from bot.core.people import Member
from bot.messages.kit import Block, Home, Message, Modal
from bot.ports import File, Whisper

log = logging.getLogger(__name__)

TIMEOUT = aiohttp.ClientTimeout(total=10)
EVENT_TYPE = "callboard_card"
GROUPS_FRESH = 60.0  # seconds
LONGEST_STATE = 3000  # characters of private_metadata

# https://docs.slack.dev/reference/methods/chat.postMessage#errors and its neighbours
_BLOCKS = {
    "invalid_blocks",
    "invalid_blocks_format",
    "invalid_attachments",
    "only_one_table_allowed",
    "msg_blocks_too_long",
    "block_mismatch",
    "slack_file_not_ready",
}
_UNCHANGEABLE = {"message_not_found", "edit_window_closed", "cant_update_message"}
_GONE = {"user_not_found", "users_not_found", "channel_not_found", "thread_not_found", "no_such_subteam", "not_found", "file_not_found"}
_BUSY = {"ratelimited", "rate_limited", "service_unavailable", "team_added_to_org", "accesslimited"}
_UNSURE = {"internal_error", "fatal_error", "request_timeout"}  # "some aspect of the operation may have succeeded"
_SENTENCES = {
    "not_in_channel": "Callboard is not a member of this channel. Invite it with /invite.",
    "channel_not_found": "Slack does not know this channel, or Callboard may not see it. Invite it with /invite.",
    "is_archived": "This channel is archived.",
    "missing_scope": "Callboard's Slack app lacks a permission (scope). Run `python -m bot doctor`.",
    "invalid_auth": "Slack does not accept Callboard's token. Run `python -m bot doctor`.",
    "token_revoked": "Callboard's Slack token was revoked. Run `python -m bot doctor`.",
    "account_inactive": "Callboard's Slack app was removed. Run `python -m bot doctor`.",
    "expired_trigger_id": "Slack did not let Callboard open the dialog in time. Please try again.",
}


def session() -> aiohttp.ClientSession:
    """The one session for Slack: it honours HTTPS_PROXY, and its time-out is what the board's grace is measured by."""
    return aiohttp.ClientSession(trust_env=True, timeout=TIMEOUT)


def client(token: str, shared: aiohttp.ClientSession) -> AsyncWebClient:
    """A client that makes every call once: the SDK's own repetition after a broken connection posts twice."""
    return AsyncWebClient(token=token, session=shared, retry_handlers=[], logger=_quiet())


class Slack:
    """`bot.ports.Chat`, `bot.board.Wall`, and the dialogs. `groups` are the user groups anybody asks about."""

    def __init__(self, web: AsyncWebClient, shared: aiohttp.ClientSession, groups: Iterable[str] = ()) -> None:
        self._web = web
        self._session = shared
        self._groups = frozenset(groups)
        self._members: dict[str, tuple[float, frozenset[str]]] = {}

    # For handlers

    async def member(self, person: str) -> Member:
        """The person behind a Slack user id, as they are now. Raises Gone."""
        user = (await _read(self._web.users_info(user=person)))["user"]
        profile = user.get("profile") or {}
        return Member(
            id=user["id"],
            name=profile.get("real_name") or user.get("real_name") or user.get("name") or user["id"],
            email=profile.get("email"),
            guest=bool(user.get("is_restricted") or user.get("is_ultra_restricted") or user.get("is_stranger")),
            bot=bool(user.get("is_bot") or user.get("is_workflow_bot")),
            deleted=bool(user.get("deleted")),
            groups=frozenset([group for group in self._groups if person in await self._members_of(group)]),
        )

    async def whisper(self, to: Whisper, message: Message) -> None:
        """Tell one person something, best effort: by the address Slack gave us, else as an ephemeral or a direct message."""
        for blocks in (message.blocks, message.plain, ()):
            try:
                if to.url is None or not await self._respond(to.url, message.text, blocks, replaces=to.replaces):
                    await self._tell(to, message.text, blocks)
            except BlocksRefused as error:
                log.warning("A whisper is told in plainer form: %s", error)
                continue
            except OutsideError as error:
                log.warning("A whisper to %s was lost: %s", to.person, error)
            return

    async def publish(self, person: str, home: Home) -> None:
        """Show one person this on the app's own page, in place of what was there."""
        await _write(self._web.views_publish(user_id=person, view={"type": "home", "blocks": _blocks(home.blocks)}))

    async def hand(self, person: str, file: File) -> None:
        """Give one person a file, in the app's direct messages with them. Raises Uncertain where they may have it."""
        opened = await _read(self._web.conversations_open(users=person))  # the same ones, however often they are opened
        uploaded = await self.upload(file.name, file.content)
        await self.share(uploaded, file.title, channel=str(opened["channel"]["id"]), thread=None)

    async def permalink(self, channel: str, ts: str) -> str:
        """The address of a message."""
        return str((await _read(self._web.chat_getPermalink(channel=channel, message_ts=ts)))["permalink"])

    # For the board

    async def post(self, channel: str, text: str, blocks: Sequence[Block], *, key: str, thread: str | None) -> str:
        """Post a message that carries the key; gives its ts. Uncertain where it may have been posted."""
        posted = await _write(
            self._web.chat_postMessage(
                channel=channel,
                text=text,
                blocks=_blocks(blocks) or None,
                thread_ts=thread,
                metadata=Metadata(EVENT_TYPE, {"key": key}),
                unfurl_links=False,
                unfurl_media=False,
            )
        )
        return str(posted["ts"])

    async def update(self, channel: str, ts: str, text: str, blocks: Sequence[Block]) -> None:
        """Replace a message's content."""
        await _write(self._web.chat_update(channel=channel, ts=ts, text=text, blocks=_blocks(blocks)))

    async def find(self, channel: str, key: str, *, since: datetime, thread: str | None) -> str | None:
        """The ts of the message that carries the key, if it was posted since then."""
        async for message in self._messages(channel, thread, since):
            metadata = message.get("metadata") or {}
            if metadata.get("event_type") == EVENT_TYPE and (metadata.get("event_payload") or {}).get("key") == key:
                return str(message["ts"])
        return None

    async def upload(self, name: str, content: bytes) -> str:
        """Give Slack a file that nobody sees yet; gives its id."""
        place = await _read(self._web.files_getUploadURLExternal(filename=name, length=len(content)))
        try:
            async with self._session.post(place["upload_url"], data=content) as answer:
                if answer.status != 200:
                    raise NotNow(f"Slack answered {answer.status} to an upload.")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NotNow(f"Slack could not be reached: {_named(error)}.") from error
        return str(place["file_id"])

    async def share(self, file: str, title: str, *, channel: str, thread: str | None) -> None:
        """Show an uploaded file in a thread, or in the channel itself. Uncertain where it may have been shown."""
        await _write(self._web.files_completeUploadExternal(files=[{"id": file, "title": title}], channel_id=channel, thread_ts=thread))

    async def shared(self, file: str, *, channel: str, thread: str) -> bool:
        """Whether the thread shows the file."""
        async for message in self._messages(channel, thread, None):
            if any(one.get("id") == file for one in message.get("files") or ()):
                return True
        return False

    # Dialogs

    async def open_modal(self, trigger: str, modal: Modal, origin: Mapping[str, str]) -> str:
        """Open a dialog for what a person has just done (Slack gives us 3 s); gives its id."""
        opened = await _write(self._web.views_open(trigger_id=trigger, view=view(modal, origin)))
        return str(opened["view"]["id"])

    async def fill_modal(self, id: str, modal: Modal, origin: Mapping[str, str]) -> None:
        """Replace what an open dialog shows. Raises Gone where the person has closed it."""
        await _write(self._web.views_update(view_id=id, view=view(modal, origin)))

    async def who_am_i(self) -> Mapping[str, Any]:
        """auth.test's answer, with the scopes of the token as `scopes`."""
        try:
            answer = await self._web.auth_test()
        except SlackApiError as error:
            raise translated(error, sure=True) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NotNow(f"Slack could not be reached: {_named(error)}.") from error
        return {**_data(answer), "scopes": answer.headers.get("x-oauth-scopes") or answer.headers.get("X-OAuth-Scopes") or ""}

    async def _tell(self, to: Whisper, text: str, blocks: Sequence[Block]) -> None:
        """An ephemeral message in the channel; what belongs to no channel goes into the app's direct messages with the person."""
        shown = _blocks(blocks) or None
        if to.channel:
            await _write(self._web.chat_postEphemeral(channel=to.channel, user=to.person, text=text, blocks=shown))
        else:
            await _write(self._web.chat_postMessage(channel=to.person, text=text, blocks=shown, unfurl_links=False, unfurl_media=False))

    async def _respond(self, url: str, text: str, blocks: Sequence[Block], *, replaces: bool) -> bool:
        """Answer by a response_url; False where Slack no longer takes it (30 minutes, 5 times)."""
        said: dict[str, Any] = {"response_type": "ephemeral", "replace_original": replaces, "text": text}
        if blocks:
            said["blocks"] = _blocks(blocks)
        try:
            async with self._session.post(url, json=said) as answer:
                if answer.status == 200:
                    return True
                if "invalid_blocks" in await answer.text():
                    raise BlocksRefused("Slack did not take the blocks.")
        except (aiohttp.ClientError, TimeoutError) as error:
            log.info("A response_url did not answer: %s", _named(error))
        return False

    async def _members_of(self, group: str) -> frozenset[str]:
        fresh, members = self._members.get(group, (0.0, frozenset()))
        if fresh < time.monotonic():
            try:
                found = await _read(self._web.usergroups_users_list(usergroup=group))
                members = frozenset(found["users"])
            except Gone:
                log.error("Slack has no user group %s, which callboard.toml names", group)  # noqa: TRY400 the sentence says it all
                members = frozenset()
            self._members[group] = (time.monotonic() + GROUPS_FRESH, members)
        return members

    async def _messages(self, channel: str, thread: str | None, since: datetime | None) -> Any:
        """Messages of a channel or a thread, page by page."""
        cursor = ""
        while True:
            common: dict[str, Any] = {"channel": channel, "include_all_metadata": True, "limit": 200, "cursor": cursor or None}
            if since is not None:
                common["oldest"] = f"{since.timestamp():.6f}"
            if thread is None:
                page = await _read(self._web.conversations_history(**common))
            else:
                page = await _read(self._web.conversations_replies(ts=thread, **common))
            for message in page["messages"]:
                yield message
            cursor = (page.get("response_metadata") or {}).get("next_cursor") or ""
            if not cursor:
                return


def view(modal: Modal, origin: Mapping[str, str]) -> dict[str, Any]:
    """A modal in Slack's JSON. Its `state`, and where it came from, travel unseen in private_metadata."""
    kept = json.dumps({"state": dict(modal.state), "origin": dict(origin)})
    if len(kept) > LONGEST_STATE:  # the response_url is a comfort, the state is not
        kept = json.dumps({"state": dict(modal.state), "origin": {name: value for name, value in origin.items() if name != "url"}})
    shown: dict[str, Any] = {
        "type": "modal",
        "title": {"type": "plain_text", "text": modal.title[:24]},
        "close": {"type": "plain_text", "text": modal.close[:24]},
        "blocks": _blocks(modal.blocks),
        "private_metadata": kept,
    }
    if modal.callback:
        shown["callback_id"] = modal.callback
    if modal.submit:
        shown["submit"] = {"type": "plain_text", "text": modal.submit[:24]}
    return shown


def loading(title: str) -> Modal:
    """What a dialog shows until its content is there."""
    return Modal(title, [{"type": "section", "text": {"type": "mrkdwn", "text": ":hourglass_flowing_sand: One moment…"}}])


def translated(error: SlackApiError, *, sure: bool) -> OutsideError:
    """Slack's refusal, named by what can be done about it; `sure`: the call changes nothing, so a lost answer loses nothing."""
    response = error.response
    data = _data(response)
    status = int(getattr(response, "status_code", None) or getattr(response, "status", None) or 0)
    code = str(data.get("error") or "")
    if status == 429 or code in _BUSY:
        return NotNow(f"Slack asks for a pause ({code or status}).", _seconds(getattr(response, "headers", {})))
    if status >= 500 or code in _UNSURE or not code:
        sentence = f"Slack answered {code or status}."
        return NotNow(sentence) if sure else Uncertain(sentence)
    if code in _BLOCKS:
        return BlocksRefused(f"Slack answered {code}: {_details(data)}")
    sentence = _SENTENCES.get(code, f"Slack answered {code}.")
    if code in _UNCHANGEABLE:
        return Unchangeable(sentence)
    return Gone(sentence) if code in _GONE else Refused(sentence)


async def _read(call: Awaitable[AsyncSlackResponse]) -> Mapping[str, Any]:
    """Make a call that changes nothing."""
    return await _call(call, sure=True)


async def _write(call: Awaitable[AsyncSlackResponse]) -> Mapping[str, Any]:
    """Make a call that changes something."""
    return await _call(call, sure=False)


async def _call(call: Awaitable[AsyncSlackResponse], *, sure: bool) -> Mapping[str, Any]:
    try:
        return _data(await call)
    except SlackApiError as error:
        raise translated(error, sure=sure) from error
    except aiohttp.ClientConnectorError as error:  # nothing was sent
        raise NotNow(f"Slack could not be reached: {_named(error)}.") from error
    except (aiohttp.ClientError, TimeoutError, SlackRequestError) as error:
        sentence = f"Slack's answer was lost: {_named(error)}."
        raise (NotNow(sentence) if sure else Uncertain(sentence)) from error


def _data(response: Any) -> Mapping[str, Any]:
    data = getattr(response, "data", None)
    return data if isinstance(data, dict) else {}


def _details(data: Mapping[str, Any]) -> str:
    messages = (data.get("response_metadata") or {}).get("messages") or data.get("errors") or []
    return "; ".join(str(message) for message in messages)[:500] or "no details"


def _seconds(headers: Mapping[str, str]) -> float | None:
    value = headers.get("Retry-After") or headers.get("retry-after") or ""
    return float(value) if value.isdigit() else None


def _named(error: BaseException) -> str:
    """What kind of error, without its text: that may carry an address with a secret in it."""
    return type(error).__name__


def _blocks(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    return [dict(block) for block in blocks]


def _quiet() -> logging.Logger:
    """The SDK logs whole requests at DEBUG, tokens hidden but texts not."""
    logger = logging.getLogger("slack_sdk")
    logger.setLevel(logging.WARNING)
    return logger
