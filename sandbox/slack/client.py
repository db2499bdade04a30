"""Slack's own client, on behalf of a person: what typing a command, pressing a button or sending a modal does, and shows.

The page and `sandbox.slack.person` are two ways to reach it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.names import APP, BOT, CHANNELS, GROUPS, TEAM, Character
from sandbox.slack import forms
from sandbox.slack.delivery import Delivery, DispatchError
from sandbox.slack.limits import check_blocks, check_view
from sandbox.slack.manifest import Manifest
from sandbox.slack.triggers import Triggers
from sandbox.slack.web_api import DEEPEST_STACK, WebApi
from sandbox.slack.workspace import DOMAIN, Message, View, Workspace, handle, named
from sandbox.state import Table

log = logging.getLogger("sandbox.slack")

SLACKBOT = "USLACKBOT"
TROUBLE = "We had some trouble connecting. Try again?"
RESPONSE_URL_LIFETIME = 30 * 60
RESPONSE_URL_USES = 5
LONGEST_TYPED = 12_000


@dataclass(frozen=True, slots=True)
class Submitted:
    """What came of sending a modal: errors by block_id, or the modal now on top (None: all closed), or that it failed."""

    errors: Mapping[str, str] = field(default_factory=dict)
    view: View | None = None
    failed: str | None = None

    @property
    def accepted(self) -> bool:
        """Whether the app took it."""
        return not self.errors and self.failed is None


class Client:
    """Acts for people in one workspace."""

    def __init__(
        self,
        workspace: Workspace,
        api: WebApi,
        delivery: Delivery,
        triggers: Triggers,
        *,
        manifest: Manifest,
        token: str,
        response_urls: Table,
    ) -> None:
        self._workspace = workspace
        self._api = api
        self._delivery = delivery
        self._triggers = triggers
        self._manifest = manifest
        self._token = token  # the old verification token; every payload carries it
        self._response_urls = response_urls
        self._events: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Let go of events that are still under way."""
        for task in self._events:
            task.cancel()
        await asyncio.gather(*self._events, return_exceptions=True)

    # Typing

    async def type(self, user: str, channel: str, text: str, thread_ts: str | None = None) -> Message | None:
        """Send what the person typed: a command, or words for everybody. Gives what appears at once, if anything does."""
        text = text.strip()[:LONGEST_TYPED]
        if not text or not self._may_see(user, channel):
            return None
        if not text.startswith("/"):
            return self._say(user, channel, text, thread_ts)
        name = text.split()[0]
        command = self._manifest.commands.get(name)
        if command is None:
            return self._complain(
                user,
                channel,
                f"`{escape(name)}` is not a valid command. In Slack, all messages that start with the “/” character are interpreted as "
                "commands.\nIf you are trying to send a message and not run a command, try preceding the “/” with an empty space.",
                thread_ts,
            )
        if thread_ts:
            return self._complain(user, channel, f"`{name}` is not supported in threads. Sorry!", thread_ts)
        words = escape(text.removeprefix(name).strip())
        if command.escapes:
            words = self._resolve(words)
        person = self._workspace.people[user]
        form = {
            "token": self._token,
            "team_id": TEAM,
            "team_domain": DOMAIN,
            "channel_id": channel,
            "channel_name": self._workspace.channels[channel]["name"],
            "user_id": user,
            "user_name": handle(person),
            "command": name,
            "text": words,
            "api_app_id": APP,
            "is_enterprise_install": "false",
            "response_url": self._response_url("commands", user, channel),
            "trigger_id": self._triggers.give(user),
        }
        try:
            answer = await self._delivery.command(form)
        except DispatchError as failure:
            return self._complain(user, channel, f"{name} failed with the error “{failure}”")
        if not answer.get("text") and not answer.get("blocks"):
            return None
        if (message := self._answer(user, channel, answer)) is None:
            return self._complain(user, channel, f"{name} failed with the error “invalid_command_response”")
        return message

    def _say(self, user: str, channel: str, text: str, thread_ts: str | None) -> Message:
        """A person's own message."""
        message: Message = {
            "type": "message",
            "user": user,
            "team": TEAM,
            "text": self._resolve(escape(text)),
            "ts": self._workspace.stamp(),
            "channel": channel,
        }
        if thread_ts and self._workspace.find(channel, thread_ts):
            message["thread_ts"] = thread_ts
        self._workspace.put(message)
        return message

    def _complain(self, user: str, channel: str, text: str, thread_ts: str | None = None) -> Message:
        """Slackbot's word to one person."""
        message: Message = {
            "type": "message",
            "user": SLACKBOT,
            "text": text,
            "ts": self._workspace.stamp(),
            "channel": channel,
            "is_ephemeral": True,
        }
        if thread_ts:
            message["thread_ts"] = thread_ts
        self._workspace.whisper(user, message)
        return message

    def _resolve(self, text: str) -> str:
        """`@name` and `#channel` as ids and addresses as links, which is what Slack sends with `should_escape`."""
        people = {handle(person): key for key, person in self._workspace.people.items()}
        groups = {name: key for key, name in GROUPS.items()}
        channels = {name: key for key, name in CHANNELS.items()}

        def mention(found: re.Match[str]) -> str:
            name = found[1].lower()
            if name in people:
                return f"<@{people[name]}|{name}>"
            return f"<!subteam^{groups[name]}|@{name}>" if name in groups else found[0]

        def place(found: re.Match[str]) -> str:
            return f"<#{channels[found[1]]}|{found[1]}>" if found[1] in channels else found[0]

        text = re.sub(r"(?<!\S)https?://[^\s|]*[^\s|.,;:!?)]", r"<\g<0>>", text)
        return re.sub(r"(?<!\S)#([a-z0-9_-]+)", place, re.sub(r"(?<!\S)@([\w.-]*\w)", mention, text))

    def _may_see(self, user: str, channel: str) -> bool:
        return user in self._workspace.channels.get(channel, {}).get("members", ())

    # Answers

    def _answer(self, user: str, channel: str, answer: Mapping[str, Any], thread_ts: str | None = None) -> Message | None:
        """Show what a command or a response_url answered; None where Slack would refuse it."""
        blocks = answer.get("blocks") or []
        if check_blocks(blocks) or not isinstance(answer.get("text", ""), str):
            return None
        content: dict[str, Any] = {"text": answer.get("text") or ""}
        if blocks:
            content["blocks"] = named(blocks)
        message = self._api.compose(channel, content)
        if thread_ts:
            message["thread_ts"] = thread_ts
        if answer.get("response_type") == "in_channel":
            self._workspace.put(message)
        else:
            message["is_ephemeral"] = True
            self._workspace.whisper(user, message)
        return message

    def _response_url(self, kind: str, user: str, channel: str, message: Message | None = None) -> str:
        """An address at which the app may answer for half an hour, five times."""
        now = time.time()
        for key in [key for key, it in self._response_urls.items() if it["until"] < now - RESPONSE_URL_LIFETIME]:
            del self._response_urls[key]
        secret = secrets.token_urlsafe(18)
        self._response_urls[secret] = {
            "user": user,
            "channel": channel,
            "until": now + RESPONSE_URL_LIFETIME,
            "left": RESPONSE_URL_USES,
            "ts": message["ts"] if message else None,
            "ephemeral": bool(message and message.get("is_ephemeral")),
        }
        return f"https://hooks.slack.com/{kind}/{TEAM}/{secrets.randbelow(10**13)}/{secret}"

    def respond(self, secret: str, answer: Mapping[str, Any]) -> str | None:
        """Take what came to a response_url; gives Slack's error word, or None.

        https://docs.slack.dev/interactivity/handling-user-interaction#message_responses
        """
        url = self._response_urls.get(secret)
        if url is None or url["until"] < time.time():
            return "expired_url"
        if url["left"] <= 0:
            return "used_url"
        user, channel, ts = url["user"], url["channel"], url["ts"]
        original = None
        if ts:
            original = self._workspace.whispered(user, ts) if url["ephemeral"] else self._workspace.find(channel, ts)
        if not answer.get("delete_original"):
            if not answer.get("text") and not answer.get("blocks"):
                return "no_text"
            if check_blocks(answer.get("blocks") or []):
                return "invalid_blocks"
        self._response_urls[secret] = {**url, "left": url["left"] - 1}
        if answer.get("delete_original"):
            if original and url["ephemeral"]:
                self._workspace.unwhisper(user, original["ts"])
            elif original:
                self._workspace.remove(original)
        elif answer.get("replace_original") and original:
            self._replace(user, original, answer)
        else:
            self._answer(user, channel, answer, answer.get("thread_ts"))
        return None

    def _replace(self, user: str, original: Message, answer: Mapping[str, Any]) -> None:
        kept = {key: value for key, value in original.items() if key not in {"text", "blocks"}}
        message = {**kept, "text": answer.get("text") or ""}
        if answer.get("blocks"):
            message["blocks"] = named(answer["blocks"])
        if original.get("is_ephemeral"):
            self._workspace.whisper(user, message)
        else:
            self._workspace.put(message)

    # Pressing

    async def press(
        self,
        user: str,
        place: Mapping[str, str],
        block_id: str,
        action_id: str,
        *,
        given: Any = None,
        values: forms.Values | None = None,
        occurrence: int = 0,
        copy: Message | None = None,
    ) -> str | None:
        """Use the element of a message (`channel`, `ts`) or view (`view`); gives what went wrong, fit for the person.

        `given` is what was chosen or typed, `values` the state of the other inputs; `occurrence` tells table rows apart.
        `copy` is the message as a screen that has fallen behind still shows it.
        """
        found = self._surface(user, place)
        if found is None:
            return "That is no longer there."
        blocks, about = found
        if copy is not None:
            blocks = copy["blocks"]
        fitting = [
            element for block, element in forms.elements(blocks) if block["block_id"] == block_id and element.get("action_id") == action_id
        ]
        if occurrence >= len(fitting):
            return "That is no longer there."
        payload = {
            **self._person(user),
            "type": "block_actions",
            **about,
            "trigger_id": self._triggers.give(user),
            "state": {"values": forms.state(blocks, values or {})},
            "actions": [self._action(fitting[occurrence], block_id, given)],
        }
        try:
            await self._delivery.interaction(payload)
        except DispatchError as failure:
            notice = "This app didn’t respond in time." if str(failure) == "operation_timeout" else "Something went wrong with this app."
            text = f"{notice} ({failure})"
            self._workspace.tell("notice", {"text": text, **place}, user)
            return text
        return None

    def _surface(self, user: str, place: Mapping[str, str]) -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
        """The blocks the person acts on, and what a payload says about them."""
        if view_id := place.get("view"):
            home = self._workspace.homes.get(user)
            view = next((it for it in self._workspace.modals.get(user, []) if it["id"] == view_id), None) or home
            if view is None or view["id"] != view_id:
                return None
            return view["blocks"], {"view": _sent(view), "container": {"type": "view", "view_id": view_id}}
        channel, ts = place.get("channel", ""), place.get("ts", "")
        if not self._may_see(user, channel):
            return None
        whispered = self._workspace.whispered(user, ts)
        message = whispered or self._workspace.find(channel, ts)
        if message is None:
            return None
        container = {"type": "message", "message_ts": ts, "channel_id": channel, "is_ephemeral": whispered is not None}
        if message.get("thread_ts"):
            container["thread_ts"] = message["thread_ts"]
        about = {
            "container": container,
            "channel": {"id": channel, "name": self._workspace.channels[channel]["name"]},
            "message": {key: value for key, value in message.items() if key != "channel"},
            "response_url": self._response_url("actions", user, channel, message),
        }
        return message.get("blocks", []), about

    @staticmethod
    def _action(element: Mapping[str, Any], block_id: str, given: Any) -> dict[str, Any]:
        action = {"type": element["type"], "action_id": element["action_id"], "block_id": block_id, "action_ts": f"{time.time():.6f}"}
        if element["type"] in {"button", "icon_button"}:
            return action | {key: element[key] for key in ("text", "value", "style", "url") if key in element}
        if element["type"] == "feedback_buttons":
            return action | {"value": str(given)}
        return action | forms.chosen(element, "" if given is None else given)

    def _person(self, user: str) -> dict[str, Any]:
        """The part of a payload that is the same everywhere."""
        person: Character = self._workspace.people[user]
        return {
            "user": {"id": user, "username": handle(person), "name": handle(person), "team_id": TEAM},
            "api_app_id": APP,
            "token": self._token,
            "team": {"id": TEAM, "domain": DOMAIN},
            "enterprise": None,
            "is_enterprise_install": False,
        }

    # Modals

    async def submit(self, user: str, view_id: str, values: forms.Values) -> Submitted:
        """Send the modal on top with what the person put in.

        https://docs.slack.dev/surfaces/modals#view_submission
        """
        view = self._workspace.modal(user)
        if view is None or view["id"] != view_id:
            return Submitted(failed="That is no longer there.")
        told = forms.state(view["blocks"], values)
        if wrong := forms.mistakes(view["blocks"], told):
            return Submitted(errors=wrong, view=view)
        view["state"] = {"values": told}
        payload = {
            **self._person(user),
            "type": "view_submission",
            "trigger_id": self._triggers.give(user),
            "view": _sent(view),
            "response_urls": [],
        }
        try:
            answer = await self._delivery.interaction(payload)
        except DispatchError as failure:
            log.warning("a modal could not be sent: %s", failure)
            return Submitted(failed=TROUBLE, view=view)
        return self._after_submission(user, view, answer)

    def _after_submission(self, user: str, view: View, answer: Mapping[str, Any]) -> Submitted:
        """Do what the app answered to a submission."""
        stack = self._workspace.modals.get(user, [])
        match answer.get("response_action"):
            case None:
                if stack and stack[-1]["id"] == view["id"]:
                    stack.pop()
            case "clear":
                stack.clear()
            case "errors":
                errors = answer.get("errors")
                inputs = {block["block_id"] for block in view["blocks"] if block["type"] == "input"}
                if not isinstance(errors, dict) or not errors or not set(errors) <= inputs:
                    return Submitted(failed=TROUBLE, view=view)
                return Submitted(errors={block: str(text) for block, text in errors.items()}, view=view)
            case "update" | "push" as action:
                given = answer.get("view")
                deep = action == "push" and len(stack) >= DEEPEST_STACK
                if check_view(given) or not isinstance(given, dict) or not stack or deep:
                    return Submitted(failed=TROUBLE, view=view)
                if action == "update":
                    stack[-1] = self._workspace.make_view(given, user, like=view)
                else:
                    stack.append(self._workspace.make_view(given, user, under=view))
            case _:
                return Submitted(failed=TROUBLE, view=view)
        self._workspace.show_modals(user)
        return Submitted(view=self._workspace.modal(user))

    async def close(self, user: str, view_id: str) -> None:
        """Close the modal on top, or all of them where it says so; the app hears of it if it wants to."""
        stack = self._workspace.modals.get(user, [])
        if not stack or stack[-1]["id"] != view_id:
            return
        view = stack.pop()
        if view["clear_on_close"]:
            stack.clear()
        self._workspace.show_modals(user)
        if view["notify_on_close"]:
            payload = {**self._person(user), "type": "view_closed", "view": _sent(view), "is_cleared": view["clear_on_close"]}
            try:
                await self._delivery.interaction(payload)
            except DispatchError as failure:
                log.warning("the bot did not hear of a closed modal: %s", failure)

    # App Home

    def open_home(self, user: str, tab: str = "home") -> None:
        """The person looks at the app's own page; the app hears of it where its manifest asks for that."""
        if "app_home_opened" not in self._manifest.events:
            return
        event: dict[str, Any] = {
            "type": "app_home_opened",
            "user": user,
            "channel": self._workspace.direct(user)["id"],
            "tab": tab,
            "event_ts": self._workspace.stamp(),
        }
        if tab == "home" and user in self._workspace.homes:
            event["view"] = _sent(self._workspace.homes[user])
        callback = {
            "token": self._token,
            "team_id": TEAM,
            "api_app_id": APP,
            "event": event,
            "type": "event_callback",
            "event_id": "Ev" + secrets.token_hex(5).upper(),
            "event_time": int(time.time()),
            "authorizations": [
                {"enterprise_id": None, "team_id": TEAM, "user_id": BOT.slack, "is_bot": True, "is_enterprise_install": False}
            ],
            "is_ext_shared_channel": False,
        }
        task = asyncio.get_running_loop().create_task(self._delivery.event(callback))
        self._events.add(task)
        task.add_done_callback(self._events.discard)


def escape(text: str) -> str:
    """What Slack does to everything people type."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _sent(view: View) -> dict[str, Any]:
    """A view as payloads carry it."""
    return {key: value for key, value in view.items() if key != "user"}
