"""A person who uses Slack, for the story and the tests: types, clicks, fills in, and sees only what they may see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.names import CHANNEL, Character
from sandbox.slack import forms
from sandbox.slack.client import Submitted
from sandbox.slack.server import Slack
from sandbox.slack.workspace import Message, View

HOME = "home"


class Person:
    """One person at their Slack."""

    def __init__(self, slack: Slack, who: Character) -> None:
        self.slack = slack
        self.who = who

    async def types(self, text: str, channel: str = CHANNEL, thread_ts: str | None = None) -> Message | None:
        """Send a command or a message; gives what appears at once (an ephemeral answer, or the message), if anything does."""
        return await self.slack.client.type(self.who.slack, channel, text, thread_ts)

    async def clicks(
        self,
        on: str | Message | View,
        action_id: str,
        channel: str = CHANNEL,
        index: int = 0,
        *,
        confirm: bool = True,
        choose: Any = None,
    ) -> str | None:
        """Use an element of a message (or its ts), of a view, or of App Home (`"home"`); gives what went wrong, if anything did.

        `index` tells elements with the same action apart, `confirm` answers its dialog, `choose` is what a select is set to.
        Raises LookupError where the person sees no such thing.
        """
        place, blocks = self._place(on, channel)
        fitting = [(block, element) for block, element in forms.elements(blocks) if element.get("action_id") == action_id]
        if not fitting:
            seen = ", ".join(element.get("action_id", "?") for _, element in forms.elements(blocks)) or "nothing to click"
            raise LookupError(f"{self.who.name} sees no {action_id!r} there, but {seen}.")
        block, element = fitting[index]
        if "confirm" in element and not confirm:
            return None
        earlier = [it for it, _ in fitting[:index] if it["block_id"] == block["block_id"]]
        return await self.slack.client.press(self.who.slack, place, block["block_id"], action_id, given=choose, occurrence=len(earlier))

    def _place(self, on: str | Message | View, channel: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
        """Where a click goes, and the blocks that are there."""
        if on == HOME:
            home = self.slack.home(self.who.slack)
            if home is None:
                raise LookupError(f"Nothing is on {self.who.name}'s App Home.")
            return {"view": home["id"]}, home["blocks"]
        if isinstance(on, dict) and "ts" not in on:
            return {"view": on["id"]}, on["blocks"]
        ts = on if isinstance(on, str) else on["ts"]
        channel = channel if isinstance(on, str) else on["channel"]
        for message in self._visible(channel):
            if message["ts"] == ts:
                return {"channel": channel, "ts": ts}, message.get("blocks", [])
        raise LookupError(f"{self.who.name} sees no message {ts} in {channel}.")

    async def fills(self, view: View | None = None, values: Mapping[str, Any] | None = None) -> Submitted:
        """Fill in the modal (the one on top) by block_id, and send it."""
        view = view or self.modal()
        if view is None:
            raise LookupError(f"{self.who.name} sees no modal.")
        return await self.slack.client.submit(self.who.slack, view["id"], values or {})

    def modal(self) -> View | None:
        """The modal the person sees."""
        return self.slack.workspace.modal(self.who.slack)

    async def closes(self) -> None:
        """Close the modal on top."""
        if view := self.modal():
            await self.slack.client.close(self.who.slack, view["id"])

    def sees(self, channel: str = CHANNEL) -> list[Message]:
        """The messages of a channel, without those inside threads, with what only this person sees, oldest first."""
        return [message for message in self._visible(channel) if message.get("thread_ts") in {None, message["ts"]}]

    def thread(self, ts: str, channel: str = CHANNEL) -> list[Message]:
        """The replies under a message, oldest first."""
        return [message for message in self._visible(channel) if message.get("thread_ts") == ts and message["ts"] != ts]

    def _visible(self, channel: str) -> list[Message]:
        workspace = self.slack.workspace
        if self.who.slack not in workspace.channels[channel]["members"]:
            return []
        own = [message for message in workspace.ephemerals.get(self.who.slack, ()) if message["channel"] == channel]
        return sorted([*map(workspace.shown, workspace.messages(channel)), *own], key=lambda message: float(message["ts"]))

    async def opens_home(self) -> None:
        """Look at the app's Home tab."""
        self.slack.client.open_home(self.who.slack)
