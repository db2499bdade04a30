"""What the local Slack knows: channels, messages, files, views; and whoever wants to hear when something changes.

Messages, files and App Homes survive a restart; ephemeral messages and open modals do not, as at Slack they end with the session.
"""

from __future__ import annotations

import asyncio
import secrets
import string
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sandbox.names import APP, BOT, CHANNEL, CHANNELS, GROUPS, PEOPLE, TEAM, Character
from sandbox.state import State, Table

Message = dict[str, Any]
View = dict[str, Any]
T = TypeVar("T")

MESSAGES_KEPT = 3_000
FILES_KEPT = 300
EPHEMERALS_KEPT = 200
BOT_ID = "B0CALLBRD"
DOMAIN = "contoso"


class SlackError(Exception):
    """What a method answers instead of `ok`: Slack's error word, and what else stands in the answer."""

    def __init__(self, error: str, **more: Any) -> None:
        super().__init__(error)
        self.error = error
        self.more = more


@dataclass(frozen=True, slots=True)
class Change:
    """Something a page would show: `only` names the person who may know, where it is private."""

    kind: str  # message, removed, ephemeral, ephemeral_removed, view, home, notice
    body: Mapping[str, Any]
    only: str | None = None


@dataclass(eq=False)
class Watcher:
    """A page that listens on behalf of one person; None in the queue ends it."""

    user: str
    queue: asyncio.Queue[Change | None] = field(default_factory=lambda: asyncio.Queue(1_000))


def mint(prefix: str, length: int = 10) -> str:
    """A fresh id as Slack's look."""
    return prefix + "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(length - len(prefix)))


class Workspace:
    """The state of one workspace, and its news."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.channels: Table = state.table("slack_channels")
        self.files: Table = state.table("slack_files")
        self.homes: Table = state.table("slack_homes")
        self._messages: Table = state.table("slack_messages")
        self.ephemerals: dict[str, deque[Message]] = {}
        self.modals: dict[str, list[View]] = {}
        self.people: dict[str, Character] = {person.slack: person for person in (*PEOPLE, BOT)}
        self._watchers: set[Watcher] = set()
        self._ended = False
        self._waiting: set[asyncio.Future[None]] = set()
        self._last = max((float(message["ts"]) for message in self._messages.values()), default=0.0)
        everyone = [person.slack for person in PEOPLE]
        for channel, name in CHANNELS.items():
            if channel not in self.channels:
                members = [*everyone, BOT.slack] if channel == CHANNEL else everyone
                self.channels[channel] = {"id": channel, "name": name, "is_archived": False, "is_im": False, "members": members}

    # News

    def watch(self, user: str) -> Watcher:
        """Listen on behalf of a person, until `unwatch`."""
        watcher = Watcher(user)
        if self._ended:
            watcher.queue.put_nowait(None)
        self._watchers.add(watcher)
        return watcher

    def unwatch(self, watcher: Watcher) -> None:
        """Listen no more."""
        self._watchers.discard(watcher)

    def end_watching(self) -> None:
        """Send every listener home, and whoever comes later, too."""
        self._ended = True
        for watcher in self._watchers:
            if watcher.queue.full():
                watcher.queue.get_nowait()
            watcher.queue.put_nowait(None)

    def tell(self, kind: str, body: Mapping[str, Any], only: str | None = None) -> None:
        """Spread the news; a listener that fell far behind is sent home, to begin again."""
        change = Change(kind, body, only)
        for watcher in list(self._watchers):
            if only not in {None, watcher.user}:
                continue
            if watcher.queue.full():
                self._watchers.discard(watcher)
                watcher.queue.get_nowait()
                watcher.queue.put_nowait(None)
            else:
                watcher.queue.put_nowait(change)
        self.stir()

    def stir(self) -> None:
        """Wake everyone who waits for something to become true."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    async def wait_for(self, predicate: Callable[[], T], seconds: float) -> T:
        """What the predicate gives once it is truthy, looked at again after every change. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not (found := predicate()):
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.add(future)
                try:
                    await future
                finally:
                    self._waiting.discard(future)
            return found

    # Channels

    def channel(self, name: str | None) -> dict[str, Any]:
        """The channel by id, by `#name`, or the direct messages with a person by their user id. Raises channel_not_found."""
        if name is not None and name in self.channels:
            found: dict[str, Any] = self.channels[name]
            return found
        if name in self.people and name != BOT.slack:
            return self.direct(name)
        for channel in self.channels.values():
            if name and channel["name"] == name.removeprefix("#"):
                return dict(channel)
        raise SlackError("channel_not_found")

    def direct(self, user: str) -> dict[str, Any]:
        """The direct messages between a person and the app."""
        channel = "D" + user[1:]
        if channel not in self.channels:
            self.channels[channel] = {
                "id": channel,
                "name": "directmessage",
                "is_archived": False,
                "is_im": True,
                "user": user,
                "members": [user, BOT.slack],
            }
        found: dict[str, Any] = self.channels[channel]
        return found

    def audience(self, channel: str) -> str | None:
        """The only person who may read the channel, or None where everybody may."""
        it = self.channels.get(channel, {})
        return str(it["user"]) if it.get("is_im") else None

    # Messages

    def stamp(self) -> str:
        """A ts that no message of the workspace has."""
        self._last = max(time.time(), self._last + 0.000_001)
        text = f"{self._last:.6f}"
        self._last = float(text)
        return text

    def messages(self, channel: str) -> list[Message]:
        """Everything in the channel and its threads, oldest first."""
        return [message for message in self._messages.values() if message["channel"] == channel]

    def find(self, channel: str, ts: str) -> Message | None:
        """The message, if it is there."""
        found: Message | None = self._messages.get(f"{channel}/{ts}")
        return found

    def replies(self, channel: str, ts: str) -> list[Message]:
        """The thread under a message, without the message."""
        return [message for message in self.messages(channel) if message.get("thread_ts") == ts and message["ts"] != ts]

    def put(self, message: Message) -> None:
        """Keep a new or changed message and show it; the oldest go when there are too many."""
        self._messages[f"{message['channel']}/{message['ts']}"] = message
        while len(self._messages) > MESSAGES_KEPT:
            del self._messages[next(iter(self._messages))]
        self.tell("message", self.shown(message), self.audience(message["channel"]))
        parent_ts = message.get("thread_ts")
        if parent_ts and parent_ts != message["ts"]:
            self._count(message["channel"], parent_ts)

    def remove(self, message: Message) -> None:
        """Forget a message."""
        channel, ts = message["channel"], message["ts"]
        self._messages.pop(f"{channel}/{ts}", None)
        self.tell("removed", {"channel": channel, "ts": ts}, self.audience(channel))
        if message.get("thread_ts") not in {None, ts}:
            self._count(channel, message["thread_ts"])

    def _count(self, channel: str, parent_ts: str) -> None:
        """Write the thread's size on its first message, as Slack does."""
        parent = self.find(channel, parent_ts)
        if parent is None:
            return
        replies = self.replies(channel, parent_ts)
        for key in ("thread_ts", "reply_count", "reply_users", "latest_reply"):
            parent.pop(key, None)
        if replies:
            parent["thread_ts"] = parent_ts
            parent["reply_count"] = len(replies)
            parent["reply_users"] = list(dict.fromkeys(reply["user"] for reply in replies))
            parent["latest_reply"] = replies[-1]["ts"]
        self._messages[f"{channel}/{parent_ts}"] = parent
        self.tell("message", self.shown(parent), self.audience(channel))

    def shown(self, message: Message) -> Message:
        """The message as a page shows it: with its files as they are now, without its metadata."""
        shown = {key: value for key, value in message.items() if key != "metadata"}
        if "files" in shown:
            shown["files"] = [self.file(name) for name in shown["files"] if name in self.files]
        return shown

    def file(self, id: str) -> dict[str, Any]:
        """What everybody may know about a file."""
        return {key: value for key, value in self.files[id].items() if key not in {"secret", "share"}}

    def keep_file(self, file: Mapping[str, Any]) -> list[str]:
        """Keep a file's record; the ids of those that had to go."""
        self.files[file["id"]] = dict(file)
        gone = []
        while len(self.files) > FILES_KEPT:
            oldest = next(iter(self.files))
            del self.files[oldest]
            gone.append(oldest)
        return gone

    def whisper(self, user: str, message: Message) -> None:
        """Show an ephemeral message to one person."""
        kept = self.ephemerals.setdefault(user, deque(maxlen=EPHEMERALS_KEPT))
        for index, earlier in enumerate(kept):
            if earlier["ts"] == message["ts"]:
                kept[index] = message
                break
        else:
            kept.append(message)
        self.tell("ephemeral", message, user)

    def whispered(self, user: str, ts: str) -> Message | None:
        """The ephemeral message of that person."""
        return next((message for message in self.ephemerals.get(user, ()) if message["ts"] == ts), None)

    def unwhisper(self, user: str, ts: str) -> None:
        """Take an ephemeral message away."""
        kept = self.ephemerals.get(user)
        if kept is not None and (message := self.whispered(user, ts)) is not None:
            kept.remove(message)
            self.tell("ephemeral_removed", {"channel": message["channel"], "ts": ts}, user)

    # Modals and App Home

    def modal(self, user: str) -> View | None:
        """The modal the person sees, on top of its stack."""
        stack = self.modals.get(user)
        return stack[-1] if stack else None

    def show_modals(self, user: str) -> None:
        """Tell the person's pages which modal is on top now."""
        self.tell("view", {"view": self.modal(user)}, user)

    def make_view(self, given: Mapping[str, Any], user: str, *, under: View | None = None, like: View | None = None) -> View:
        """A view as Slack keeps it: with ids and a hash; `like` is the view it takes the place of, `under` the one it lies on."""
        name = like["id"] if like else mint("V", 11)
        return {
            "id": name,
            "team_id": TEAM,
            "type": given["type"],
            "blocks": named(given.get("blocks", [])),
            "private_metadata": given.get("private_metadata", ""),
            "callback_id": given.get("callback_id", ""),
            "state": like["state"] if like else {"values": {}},
            "hash": f"{self.stamp()}.{secrets.token_hex(4)}",
            "title": given.get("title"),
            "clear_on_close": bool(given.get("clear_on_close", False)),
            "notify_on_close": bool(given.get("notify_on_close", False)),
            "close": given.get("close"),
            "submit": given.get("submit"),
            "previous_view_id": like["previous_view_id"] if like else (under["id"] if under else None),
            "root_view_id": like["root_view_id"] if like else (under["root_view_id"] if under else name),
            "app_id": APP,
            "external_id": given.get("external_id", ""),
            "app_installed_team_id": TEAM,
            "bot_id": BOT_ID,
            "user": user,
        }


def named(blocks: Any) -> list[dict[str, Any]]:
    """The blocks, each with a block_id; Slack gives one to those that have none, and an action_id to elements without."""
    return [_named(dict(block)) for block in blocks]


def _named(block: dict[str, Any]) -> dict[str, Any]:
    block.setdefault("block_id", secrets.token_urlsafe(4)[:5])
    if isinstance(block.get("elements"), list) and block["type"] in {"actions", "context_actions"}:
        block["elements"] = [{"action_id": secrets.token_urlsafe(4)[:5], **element} for element in block["elements"]]
    for key in ("accessory", "element"):
        if isinstance(block.get(key), dict) and block[key].get("type") != "image":
            block[key] = {"action_id": secrets.token_urlsafe(4)[:5], **block[key]}
    if isinstance(block.get("child_blocks"), list):
        block["child_blocks"] = named(block["child_blocks"])
    return block


def profile(person: Character, *, with_email: bool) -> dict[str, Any]:
    """A user as users.info shows them.

    https://docs.slack.dev/reference/objects/user-object
    """
    is_bot = person is BOT
    details: dict[str, Any] = {
        "real_name": person.name,
        "display_name": person.name.split()[0].lower(),
        "title": person.title,
        "team": TEAM,
    }
    if is_bot:
        details["api_app_id"] = APP
        details["bot_id"] = BOT_ID
    elif with_email:
        details["email"] = person.email
    return {
        "id": person.slack,
        "team_id": TEAM,
        "name": handle(person),
        "real_name": person.name,
        "deleted": False,
        "is_bot": is_bot,
        "is_app_user": False,
        "is_admin": False,
        "is_restricted": person.guest,
        "is_ultra_restricted": False,
        "tz": "Europe/Amsterdam",
        "tz_offset": 3600,
        "updated": 1_760_000_000,
        "profile": details,
    }


def handle(person: Character) -> str:
    """The name behind the @."""
    return person.email.partition("@")[0]


def group(id: str) -> dict[str, Any]:
    """A user group as usergroups.list shows it."""
    users = members(id)
    return {
        "id": id,
        "team_id": TEAM,
        "is_usergroup": True,
        "name": GROUPS[id].replace("-", " ").capitalize(),
        "handle": GROUPS[id],
        "date_delete": 0,
        "user_count": len(users),
        "users": users,
    }


def members(id: str) -> list[str]:
    """Who belongs to a user group."""
    return [person.slack for person in PEOPLE if id in person.groups]
