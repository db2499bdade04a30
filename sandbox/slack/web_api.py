"""The Web API's methods: what each needs, refuses and answers, as https://docs.slack.dev/reference/methods says."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import mimetypes
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.faults import Faults
from sandbox.names import APP, BOT, GROUPS, TEAM
from sandbox.slack.limits import Problem, check_blocks, check_view
from sandbox.slack.triggers import Triggers
from sandbox.slack.workspace import BOT_ID, DOMAIN, Message, SlackError, View, Workspace, group, members, mint, named, profile

LONGEST_TEXT = 40_000
LARGEST_METADATA = 16_000
LARGEST_FILE = 32 * 1024 * 1024
LONGEST_PAGE = 999
DEEPEST_STACK = 3


class Arguments:
    """The arguments of one call, merged from query, form and JSON, read by type."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def text(self, name: str) -> str:
        """A required text. Raises invalid_arguments."""
        value = self.maybe(name)
        if not value:
            raise invalid(f"missing required field: {name}")
        return value

    def maybe(self, name: str) -> str | None:
        """A text that may be missing."""
        value = self._given.get(name)
        return None if value is None else str(value)

    def flag(self, name: str) -> bool:
        """Yes or no, in any of the ways clients write it."""
        return str(self._given.get(name, "")).lower() in {"1", "true"}

    def number(self, name: str, default: int) -> int:
        """A whole number."""
        try:
            return int(self._given.get(name) or default)
        except (TypeError, ValueError):
            raise invalid(f"must be a number [json-pointer:/{name}]") from None

    def json(self, name: str, error: str = "invalid_arguments") -> Any:
        """A JSON value, as itself or written as text; None where it is missing."""
        value = self._given.get(name)
        if not isinstance(value, str) or not value:
            return None if value == "" else value
        try:
            return json.loads(value)
        except ValueError:
            raise SlackError(error) from None


Run = Callable[["WebApi", Arguments], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Method:
    """One method: the scope it needs (None: none), the kind of token it takes (None: it needs no token)."""

    run: Run
    scope: str | None = None
    token: str | None = "bot"


def invalid(*messages: str) -> SlackError:
    """invalid_arguments with Slack's explanations."""
    return SlackError("invalid_arguments", response_metadata={"messages": [f"[ERROR] {message}" for message in messages]})


def refused(problems: list[Problem]) -> SlackError:
    """The error for blocks that are refused: the first problem's word, and all explanations."""
    return SlackError(
        problems[0].code,
        errors=[str(problem) for problem in problems],
        response_metadata={"messages": [f"[ERROR] {problem}" for problem in problems]},
    )


class WebApi:
    """The methods over one workspace."""

    def __init__(self, workspace: Workspace, triggers: Triggers, faults: Faults, folder: Path, connect: Callable[[], str]) -> None:
        self._workspace = workspace
        self._triggers = triggers
        self._faults = faults
        self._folder = folder
        self._connect = connect
        self._sharing: set[asyncio.Task[None]] = set()
        self.scopes: frozenset[str] = frozenset()  # of the bot token, as the latest caller's
        self.file_delay = 0.3  # seconds until an uploaded file is ready

    def start(self) -> None:
        """Go on with files that were not ready when the sandbox stopped."""
        for name, file in self._workspace.files.items():
            if file["state"] == "completed":
                self._share_soon(name)

    async def stop(self) -> None:
        """Let go of what is under way; `start` takes it up again."""
        for task in self._sharing:
            task.cancel()
        await asyncio.gather(*self._sharing, return_exceptions=True)

    # Team, people, groups

    def auth_test(self, _: Arguments) -> dict[str, Any]:
        return {
            "url": f"https://{DOMAIN}.slack.com/",
            "team": DOMAIN.capitalize(),
            "user": "callboard",
            "team_id": TEAM,
            "user_id": BOT.slack,
            "bot_id": BOT_ID,
            "is_enterprise_install": False,
        }

    def team_info(self, _: Arguments) -> dict[str, Any]:
        return {"team": {"id": TEAM, "name": DOMAIN.capitalize(), "domain": DOMAIN, "url": f"https://{DOMAIN}.slack.com/"}}

    def users_info(self, given: Arguments) -> dict[str, Any]:
        person = self._workspace.people.get(given.text("user"))
        if person is None:
            raise SlackError("user_not_found")
        return {"user": profile(person, with_email="users:read.email" in self.scopes)}

    def users_by_email(self, given: Arguments) -> dict[str, Any]:
        email = given.text("email").lower()
        for person in self._workspace.people.values():
            if person.email == email and person is not BOT:
                return {"user": profile(person, with_email=True)}
        raise SlackError("users_not_found")

    def users_list(self, _: Arguments) -> dict[str, Any]:
        people = self._workspace.people.values()
        return {
            "members": [profile(person, with_email="users:read.email" in self.scopes) for person in people],
            "response_metadata": {"next_cursor": ""},
        }

    def groups_list(self, given: Arguments) -> dict[str, Any]:
        groups = [group(name) for name in GROUPS]
        if not given.flag("include_users"):
            for it in groups:
                del it["users"]
        return {"usergroups": groups}

    def group_users(self, given: Arguments) -> dict[str, Any]:
        name = given.text("usergroup")
        if name not in GROUPS:
            raise SlackError("no_such_subteam")
        return {"users": members(name)}

    # Conversations

    def readable(self, given: Arguments) -> dict[str, Any]:
        """The channel the bot wants to read."""
        channel = self._workspace.channel(given.text("channel"))
        if BOT.slack not in channel["members"]:
            raise SlackError("not_in_channel")
        return channel

    def writable(self, given: Arguments) -> dict[str, Any]:
        """The channel the bot wants to write to."""
        channel = self.readable(given)
        if channel["is_archived"]:
            raise SlackError("is_archived")
        return channel

    def history(self, given: Arguments) -> dict[str, Any]:
        channel = self.readable(given)
        found = [
            message
            for message in reversed(self._workspace.messages(channel["id"]))
            if message.get("thread_ts") in {None, message["ts"]} or message.get("reply_broadcast")
        ]
        return self._page(_between(found, given), given)

    def thread(self, given: Arguments) -> dict[str, Any]:
        channel, ts = self.readable(given), given.text("ts")
        message = self._workspace.find(channel["id"], ts)
        if message is None:
            raise SlackError("thread_not_found")
        if message.get("thread_ts", ts) != ts:
            return self._page([message], given)
        return self._page([message, *_between(self._workspace.replies(channel["id"], ts), given)], given)

    def _page(self, messages: list[Message], given: Arguments) -> dict[str, Any]:
        limit = given.number("limit", 100)
        if not 1 <= limit <= LONGEST_PAGE:
            raise SlackError("invalid_limit")
        start = _cursor(given.maybe("cursor"))
        page = messages[start : start + limit]
        more = start + limit < len(messages)
        metadata = given.flag("include_all_metadata")
        return {
            "messages": [_public(self._workspace.shown(message), message if metadata else {}) for message in page],
            "has_more": more,
            "response_metadata": {"next_cursor": base64.b64encode(f"next:{start + limit}".encode()).decode() if more else ""},
        }

    def channel_info(self, given: Arguments) -> dict[str, Any]:
        return {"channel": _channel(self._workspace.channel(given.text("channel")))}

    def channel_list(self, given: Arguments) -> dict[str, Any]:
        kinds = (given.maybe("types") or "public_channel").split(",")
        channels = [
            _channel(channel)
            for channel in self._workspace.channels.values()
            if ("im" if channel["is_im"] else "public_channel") in kinds and not (given.flag("exclude_archived") and channel["is_archived"])
        ]
        return {"channels": channels, "response_metadata": {"next_cursor": ""}}

    def channel_members(self, given: Arguments) -> dict[str, Any]:
        channel = self._workspace.channel(given.text("channel"))
        return {"members": channel["members"], "response_metadata": {"next_cursor": ""}}

    def open_direct(self, given: Arguments) -> dict[str, Any]:
        users = given.text("users").split(",")
        if len(users) != 1:
            raise SlackError("too_many_users")
        if users[0] not in self._workspace.people or users[0] == BOT.slack:
            raise SlackError("user_not_found")
        return {"channel": {"id": self._workspace.direct(users[0])["id"]}}

    # Messages

    def content(self, given: Arguments) -> dict[str, Any]:
        """The text and blocks of a message, checked."""
        text = given.maybe("text") or ""
        blocks = given.json("blocks", "invalid_blocks_format")
        if not text and not blocks:
            raise SlackError("no_text")
        if len(text) > LONGEST_TEXT:
            raise SlackError("msg_too_long")
        content: dict[str, Any] = {"text": text}
        if blocks:
            self.check(blocks)
            content["blocks"] = named(blocks)
        return content

    def check(self, blocks: Any) -> None:
        """Raise Slack's error for blocks a message may not have."""
        if problems := [*check_blocks(blocks), *self._unready(blocks)]:
            raise refused(problems)
        if any(block["type"] == "plan" for block in blocks) and self._faults.take("slack.invalid_blocks") is not None:
            at = next(index for index, block in enumerate(blocks) if block["type"] == "plan")
            raise refused([Problem(f"/blocks/{at}/type", "unsupported type: plan")])

    def _unready(self, blocks: list[Any]) -> list[Problem]:
        """Pictures whose file Slack does not hold, or has not looked at yet."""
        problems = []
        for index, block in enumerate(blocks):
            if isinstance(block, dict) and block.get("type") == "image" and isinstance(block.get("slack_file"), dict):
                file = self._workspace.files.get(str(block["slack_file"].get("id")))
                if file is None or file["state"] != "ready":
                    problems.append(Problem(f"/blocks/{index}/slack_file", "invalid slack file"))
        return problems

    def metadata(self, given: Arguments) -> dict[str, Any] | None:
        """The metadata of a message, checked.

        https://docs.slack.dev/messaging/message-metadata
        """
        metadata = given.json("metadata", "invalid_metadata_format")
        if metadata is None:
            return None
        match metadata:
            case {"event_type": str(), "event_payload": dict()}:
                if len(json.dumps(metadata)) > LARGEST_METADATA:
                    raise SlackError("metadata_too_large")
                return dict(metadata)
        raise SlackError("invalid_metadata_format")

    def parent(self, channel: str, given: Arguments) -> str | None:
        """The ts of the thread a message is for."""
        ts = given.maybe("thread_ts")
        if not ts:
            return None
        message = self._workspace.find(channel, ts)
        if message is None:
            raise SlackError("thread_not_found")
        return str(message.get("thread_ts") or ts)

    def post(self, given: Arguments) -> dict[str, Any]:
        channel = self.writable(given)
        content, metadata = self.content(given), self.metadata(given)
        message = self.compose(channel["id"], content)
        if thread_ts := self.parent(channel["id"], given):
            message["thread_ts"] = thread_ts
            if given.flag("reply_broadcast"):
                message["reply_broadcast"] = True
        if metadata:
            message["metadata"] = metadata
        self._workspace.put(message)
        return {"channel": channel["id"], "ts": message["ts"], "message": _public(message, message)}

    def compose(self, channel: str, content: Mapping[str, Any]) -> Message:
        """A message of the bot, not yet kept."""
        return {
            "type": "message",
            "user": BOT.slack,
            "bot_id": BOT_ID,
            "app_id": APP,
            "team": TEAM,
            "bot_profile": {"id": BOT_ID, "app_id": APP, "name": BOT.name, "team_id": TEAM, "deleted": False},
            "ts": self._workspace.stamp(),
            "channel": channel,
            **content,
        }

    def mine(self, channel: str, ts: str, error: str) -> Message:
        """The bot's own message."""
        message = self._workspace.find(channel, ts)
        if message is None:
            raise SlackError("message_not_found")
        if message["user"] != BOT.slack:
            raise SlackError(error)
        return message

    def update(self, given: Arguments) -> dict[str, Any]:
        ts = given.text("ts")
        channel = self.writable(given)
        message = self.mine(channel["id"], ts, "cant_update_message")
        if self._faults.take("slack.edit_window_closed") is not None:
            raise SlackError("edit_window_closed")
        content, metadata = self.content(given), self.metadata(given)
        kept = {key: value for key, value in message.items() if key not in {"text", "blocks", "edited"}}
        message = {**kept, **content}
        if "blocks" not in content:  # Slack marks an edit only where there are no blocks
            message["edited"] = {"user": BOT.slack, "ts": self._workspace.stamp()}
        if metadata:
            message["metadata"] = metadata
        self._workspace.put(message)
        return {"channel": channel["id"], "ts": ts, "text": message["text"], "message": _public(message, message)}

    def delete(self, given: Arguments) -> dict[str, Any]:
        ts = given.text("ts")
        channel = self.writable(given)
        self._workspace.remove(self.mine(channel["id"], ts, "cant_delete_message"))
        return {"channel": channel["id"], "ts": ts}

    def whisper(self, given: Arguments) -> dict[str, Any]:
        channel, user = self.writable(given), given.text("user")
        if user not in channel["members"]:
            raise SlackError("user_not_in_channel")
        message = self.compose(channel["id"], self.content(given))
        if thread_ts := self.parent(channel["id"], given):
            message["thread_ts"] = thread_ts
        message["is_ephemeral"] = True
        self._workspace.whisper(user, message)
        return {"message_ts": message["ts"]}

    def permalink(self, given: Arguments) -> dict[str, Any]:
        ts = given.text("message_ts")
        channel = self.readable(given)
        message = self._workspace.find(channel["id"], ts)
        if message is None:
            raise SlackError("message_not_found")
        address = f"https://{DOMAIN}.slack.com/archives/{channel['id']}/p{ts.replace('.', '')}"
        if message.get("thread_ts", ts) != ts:
            address += f"?thread_ts={message['thread_ts']}&cid={channel['id']}"
        return {"channel": channel["id"], "permalink": address}

    def react(self, given: Arguments) -> dict[str, Any]:
        return self._react(given, add=True)

    def unreact(self, given: Arguments) -> dict[str, Any]:
        return self._react(given, add=False)

    def _react(self, given: Arguments, *, add: bool) -> dict[str, Any]:
        name, ts = given.text("name").strip(":"), given.text("timestamp")
        if not re.fullmatch(r"[a-z0-9_+'-]+(::skin-tone-[2-6])?", name):
            raise SlackError("invalid_name")
        message = self._workspace.find(self.writable(given)["id"], ts)
        if message is None:
            raise SlackError("message_not_found")
        reactions = {it["name"]: list(it["users"]) for it in message.get("reactions", [])}
        if add == (BOT.slack in reactions.get(name, [])):
            raise SlackError("already_reacted" if add else "no_reaction")
        if add:
            reactions.setdefault(name, []).append(BOT.slack)
        else:
            reactions[name].remove(BOT.slack)
        message["reactions"] = [{"name": key, "users": users, "count": len(users)} for key, users in reactions.items() if users]
        self._workspace.put(message)
        return {}

    def validate(self, given: Arguments) -> dict[str, Any]:
        view, message = given.json("view"), given.json("message")
        if view is not None:
            problems = check_view(view)
        else:
            blocks = message.get("blocks", []) if isinstance(message, dict) else given.json("blocks", "invalid_blocks_format")
            problems = check_blocks(blocks)
        if problems:
            errors = [{"pointer": it.pointer, "code": it.code, "message": it.message} for it in problems]
            raise SlackError("invalid_blocks", errors=errors)
        return {}

    # Views

    def view(self, given: Arguments, kind: str = "modal") -> Mapping[str, Any]:
        """The view in the arguments, checked. Raises invalid_arguments."""
        view = given.json("view")
        if view is None:
            raise invalid("missing required field: view")
        problems = check_view(view)
        if problems:
            raise invalid(*(str(problem) for problem in problems))
        if view["type"] != kind:
            raise invalid(f"must be a valid enum value: {kind} [json-pointer:/view/type]")
        checked: Mapping[str, Any] = view
        return checked

    def open_view(self, given: Arguments) -> dict[str, Any]:
        view = self.view(given)
        user = self._triggers.exchange(given.text("trigger_id"))
        made = self._workspace.make_view(view, user)
        self._workspace.modals[user] = [made]
        self._workspace.show_modals(user)
        return {"view": made}

    def push_view(self, given: Arguments) -> dict[str, Any]:
        view = self.view(given)
        user = self._triggers.exchange(given.text("trigger_id"))
        stack = self._workspace.modals.setdefault(user, [])
        if len(stack) >= DEEPEST_STACK:
            raise SlackError("push_limit_reached")
        made = self._workspace.make_view(view, user, under=stack[-1] if stack else None)
        stack.append(made)
        self._workspace.show_modals(user)
        return {"view": made}

    def update_view(self, given: Arguments) -> dict[str, Any]:
        view, view_id, external = self.view(given), given.maybe("view_id"), given.maybe("external_id")
        if not view_id and not external:
            raise invalid("missing required field: view_id or external_id")
        for user, stack in self._workspace.modals.items():
            for index, old in enumerate(stack):
                if old["id"] == view_id or (external and old["external_id"] == external):
                    self._unchanged(given, old)
                    stack[index] = self._workspace.make_view(view, user, like=old)
                    self._workspace.show_modals(user)
                    return {"view": stack[index]}
        raise SlackError("not_found")

    def publish_view(self, given: Arguments) -> dict[str, Any]:
        view, user = self.view(given, "home"), given.text("user_id")
        if user not in self._workspace.people or user == BOT.slack:
            raise invalid("user_not_found [json-pointer:/user_id]")
        old: View | None = self._workspace.homes.get(user)
        if old:
            self._unchanged(given, old)
        made = self._workspace.make_view(view, user, like=old)
        self._workspace.homes[user] = made
        self._workspace.tell("home", {"view": made}, user)
        return {"view": made}

    @staticmethod
    def _unchanged(given: Arguments, view: View) -> None:
        """Refuse a change that was made for an older state of the view."""
        if (asked := given.maybe("hash")) and asked != view["hash"]:
            raise SlackError("hash_conflict")

    # Files

    def upload_url(self, given: Arguments) -> dict[str, Any]:
        name, length = Path(given.text("filename")).name, given.number("length", 0)
        if length <= 0:
            raise invalid("must be more than 0 [json-pointer:/length]")
        if length > LARGEST_FILE:
            raise SlackError("file_upload_size_restricted")
        file_id, secret = mint("F", 11), secrets.token_urlsafe(24)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        record = {
            "id": file_id,
            "name": name,
            "title": name,
            "mimetype": kind,
            "size": length,
            "user": BOT.slack,
            "alt_txt": given.maybe("alt_txt") or "",
            "url_private": f"https://files.slack.com/files-pri/{TEAM}-{file_id}/{name}",
            "secret": secret,
            "state": "announced",
            "share": None,
        }
        for gone in self._workspace.keep_file(record):
            (self._folder / gone).unlink(missing_ok=True)
        return {"upload_url": f"https://files.slack.com/upload/v1/{secret}", "file_id": file_id}

    def take_upload(self, secret: str, content: bytes) -> bool:
        """Keep the bytes sent to an upload address; False where there is none."""
        for file in self._workspace.files.values():
            if file["secret"] == secret and file["state"] == "announced":
                if len(content) != file["size"]:
                    return False
                self._folder.mkdir(parents=True, exist_ok=True)
                (self._folder / file["id"]).write_bytes(content)
                self._workspace.files[file["id"]] = {**file, "state": "uploaded"}
                return True
        return False

    def complete_upload(self, given: Arguments) -> dict[str, Any]:
        wanted = given.json("files")
        if not isinstance(wanted, list) or not wanted:
            raise invalid("missing required field: files")
        share: dict[str, Any] | None = None
        if given.maybe("channel_id") or given.maybe("channels"):
            name = given.maybe("channel_id") or given.text("channels").split(",")[0]
            channel = self.writable(Arguments({"channel": name}))
            share = {
                "channel": channel["id"],
                "thread_ts": self.parent(channel["id"], given),
                "comment": given.maybe("initial_comment") or "",
            }
        files = [self._workspace.files.get(str(it.get("id"))) if isinstance(it, dict) else None for it in wanted]
        for file in files:
            if file is None or file["state"] != "uploaded":
                raise SlackError("file_not_found")
        done = []
        for it, file in zip(wanted, files, strict=True):
            assert file is not None
            last = {**share, "files": [it["id"] for it in wanted]} if share and it is wanted[-1] else None
            changed = {**file, "title": it.get("title") or file["name"], "state": "completed", "share": last}
            self._workspace.files[file["id"]] = changed
            self._share_soon(file["id"])
            done.append({"id": file["id"], "title": changed["title"]})
        return {"files": done}

    def _share_soon(self, id: str) -> None:
        task = asyncio.get_running_loop().create_task(self._share(id))
        self._sharing.add(task)
        task.add_done_callback(self._sharing.discard)

    async def _share(self, id: str) -> None:
        """Slack looks at a file first; only then it can be shown and appears where it was shared."""
        await asyncio.sleep(self.file_delay)
        file = self._workspace.files.get(id)
        if file is None:
            return
        self._workspace.files[id] = {**file, "state": "ready", "share": None}
        if share := file["share"]:
            message = self.compose(share["channel"], {"text": share["comment"], "files": share["files"]})
            if share["thread_ts"]:
                message["thread_ts"] = share["thread_ts"]
            self._workspace.put(message)
        self._workspace.stir()

    def file_info(self, given: Arguments) -> dict[str, Any]:
        file = self._workspace.files.get(given.text("file"))
        if file is None or file["state"] in {"announced", "uploaded"}:
            raise SlackError("file_not_found")
        shown = {key: value for key, value in file.items() if key not in {"secret", "share", "state"}}
        if file["state"] != "ready":
            shown["mimetype"] = ""  # what tells a file that is still being looked at
        return {"file": shown}

    # Socket Mode

    def open_connection(self, _: Arguments) -> dict[str, Any]:
        return {"url": self._connect()}


def _between(messages: list[Message], given: Arguments) -> list[Message]:
    """Those within `oldest` and `latest`."""
    oldest, latest, inclusive = given.maybe("oldest") or "0", given.maybe("latest"), given.flag("inclusive")
    try:
        low, high = float(oldest), float(latest) if latest else float("inf")
    except ValueError:
        raise SlackError("invalid_ts_oldest") from None
    return [message for message in messages if low < float(message["ts"]) < high or (inclusive and message["ts"] in {oldest, latest})]


def _cursor(cursor: str | None) -> int:
    if not cursor:
        return 0
    try:
        word, _, start = base64.b64decode(cursor, validate=True).decode().partition(":")
        if word == "next":
            return int(start)
    except (binascii.Error, ValueError):
        pass
    raise SlackError("invalid_cursor")


def _public(message: Message, whole: Message) -> Message:
    """A message as methods answer it: without its channel; with metadata where the whole message gives some."""
    shown = {key: value for key, value in message.items() if key not in {"channel", "metadata"}}
    if "metadata" in whole:
        shown["metadata"] = whole["metadata"]
    return shown


def _channel(channel: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": channel["id"],
        "name": channel["name"],
        "is_channel": not channel["is_im"],
        "is_im": channel["is_im"],
        "is_private": channel["is_im"],
        "is_archived": channel["is_archived"],
        "is_member": BOT.slack in channel["members"],
        "num_members": len(channel["members"]),
    }


METHODS: Mapping[str, Method] = {
    "apps.connections.open": Method(WebApi.open_connection, "connections:write", token="app"),
    "auth.test": Method(WebApi.auth_test),
    "blocks.validate": Method(WebApi.validate, token=None),
    "chat.delete": Method(WebApi.delete, "chat:write"),
    "chat.getPermalink": Method(WebApi.permalink),
    "chat.postEphemeral": Method(WebApi.whisper, "chat:write"),
    "chat.postMessage": Method(WebApi.post, "chat:write"),
    "chat.update": Method(WebApi.update, "chat:write"),
    "conversations.history": Method(WebApi.history, "channels:history"),
    "conversations.info": Method(WebApi.channel_info, "channels:read"),
    "conversations.list": Method(WebApi.channel_list, "channels:read"),
    "conversations.members": Method(WebApi.channel_members, "channels:read"),
    "conversations.open": Method(WebApi.open_direct, "im:write"),
    "conversations.replies": Method(WebApi.thread, "channels:history"),
    "files.completeUploadExternal": Method(WebApi.complete_upload, "files:write"),
    "files.getUploadURLExternal": Method(WebApi.upload_url, "files:write"),
    "files.info": Method(WebApi.file_info, "files:read"),
    "reactions.add": Method(WebApi.react, "reactions:write"),
    "reactions.remove": Method(WebApi.unreact, "reactions:write"),
    "team.info": Method(WebApi.team_info, "team:read"),
    "usergroups.list": Method(WebApi.groups_list, "usergroups:read"),
    "usergroups.users.list": Method(WebApi.group_users, "usergroups:read"),
    "users.info": Method(WebApi.users_info, "users:read"),
    "users.list": Method(WebApi.users_list, "users:read"),
    "users.lookupByEmail": Method(WebApi.users_by_email, "users:read.email"),
    "views.open": Method(WebApi.open_view),
    "views.publish": Method(WebApi.publish_view),
    "views.push": Method(WebApi.push_view),
    "views.update": Method(WebApi.update_view),
}
