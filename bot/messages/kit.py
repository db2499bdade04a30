"""The two things we show in Slack, a message and a modal, and the one way to write text into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Block = Mapping[str, Any]  # Slack's own JSON


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message: `text` alone must make sense, `blocks` are what is shown, `plain` replaces them where Slack refuses them."""

    text: str
    blocks: Sequence[Block] = ()
    plain: Sequence[Block] = ()


@dataclass(frozen=True, slots=True)
class Modal:
    """A dialog: `callback` names the `@router.submit` that takes it, `state` travels to it unseen (3,000 characters)."""

    title: str
    blocks: Sequence[Block]
    callback: str = ""
    submit: str | None = None
    close: str = "Close"
    state: Mapping[str, str] = field(default_factory=dict)


Reply = Message | Modal | None


def escape(text: str) -> str:
    """Make text from outside harmless in mrkdwn.

    https://docs.slack.dev/messaging/formatting-message-text#escaping
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
