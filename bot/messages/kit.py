"""The things we show in Slack, a message, a modal and a page, and the one way to write text into them.

In mrkdwn, text from outside goes through `escape`; in plain_text and rich_text Slack shows it as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bot.core.people import Asker
from bot.core.team import ADO, People

Block = Mapping[str, Any]  # Slack's own JSON

WEB = re.compile(r"https?://[^\s<>|\"'`\\]+")
BESIDE = re.compile(r" \([^()\s]+@[^()\s]+\)$")
USER = re.compile(r"[UW][A-Z0-9]{2,20}")
GROUP = re.compile(r"S[A-Z0-9]{2,20}")
CHANNEL = re.compile(r"[CGD][A-Z0-9]{2,20}")


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


@dataclass(frozen=True, slots=True)
class Home:
    """The app's own page for one person, always the whole of it."""

    blocks: Sequence[Block]


Reply = Message | Modal | None


# Text


def escape(text: str) -> str:
    """Make text from outside harmless in mrkdwn.

    https://docs.slack.dev/messaging/formatting-message-text#escaping
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def short(text: str, most: int) -> str:
    """The text on one line, cut with … where it is longer than `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def code(text: str) -> str:
    """The text in a code span; a back-tick would end it."""
    return f"`{escape(text.replace('`', 'ˋ'))}`"


def web(url: str) -> str | None:
    """The address, if it is one that Slack accepts and a person may be sent to."""
    return url if WEB.fullmatch(url) and len(url) <= 2500 else None


def link(url: str, text: str) -> str:
    """The text as a link; only the text where the address is none."""
    return f"<{escape(url)}|{escape(text.replace('|', '¦'))}>" if web(url) else escape(text)


def mention(user: str) -> str:
    """A Slack user, who is told; the bare id where it is no user's."""
    return f"<@{user}>" if USER.fullmatch(user) else escape(user)


def place(environment: str) -> str:
    """An environment as people say it: QA, Prod."""
    return environment.upper() if len(environment) <= 3 else f"{environment[:1].upper()}{environment[1:]}"


def channel_link(channel: str) -> str:
    """A channel of the workspace."""
    return f"<#{channel}>" if CHANNEL.fullmatch(channel) else escape(channel)


def when(at: datetime, form: str = "{date_short_pretty} at {time}") -> str:
    """A moment in the reader's own time zone."""
    return f"<!date^{int(at.timestamp())}^{form}|{utc(at)}>"


def utc(at: datetime) -> str:
    """A moment for those who cannot have it in their own time zone."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def asked(asker: Asker | None) -> str:
    """Who asked for a run, in mrkdwn; only who asked in Slack is mentioned."""
    if asker is None:
        return "nobody we know"
    return mention(asker.slack) if asker.slack else escape(_name(asker)) or "nobody we know"


def asked_plainly(asker: Asker | None) -> str:
    """Who asked for a run, without markup."""
    return (_name(asker) if asker is not None else "") or "somebody"


def _name(asker: Asker) -> str:
    """The name without the address that runs carry beside it (deploy/README.md)."""
    return short(BESIDE.sub("", asker.name), 100)


def these(people: People) -> str:
    """Who is listed, in mrkdwn: user groups and users by name, others in words."""
    names = []
    for name in sorted(people.members):
        if GROUP.fullmatch(name):
            names.append(f"<!subteam^{name}>")
        elif USER.fullmatch(name):
            names.append(mention(name))
        elif name.startswith(ADO):
            names.append(f"{escape(short(name.removeprefix(ADO), 100))} (in Azure DevOps)")
        else:
            names.append(escape(short(name, 100)))
    return ", ".join(names) or "nobody (see `callboard.toml`)"


# Parts


def plain_text(text: str) -> Block:
    """A text object without markup; Slack refuses an empty one."""
    return {"type": "plain_text", "text": text or "–"}


def mrkdwn(text: str) -> Block:
    """A text object with markup. `verbatim` keeps Slack from making mentions and links out of what people wrote."""
    return {"type": "mrkdwn", "text": text or "–", "verbatim": True}


def button(action: str, text: str, value: str, *, style: str | None = None, confirm: Block | None = None) -> Block:
    """A button that asks the bot; `value` carries ids and proves nothing."""
    made: dict[str, Any] = {"type": "button", "action_id": action, "text": plain_text(text), "value": value}
    if style is not None:
        made["style"] = style
    if confirm is not None:
        made["confirm"] = confirm
    return made


def confirm(title: str, text: str, yes: str) -> Block:
    """The question Slack asks before it sends the click."""
    return {"title": plain_text(title), "text": plain_text(text), "confirm": plain_text(yes), "deny": plain_text("Cancel")}


def link_buttons(*links: tuple[str, str, str]) -> list[Block]:
    """Buttons (action, text, address) that open a page; those without a proper address are left out."""
    return [{"type": "button", "action_id": action, "text": plain_text(text), "url": url} for action, text, url in links if web(url)]


def rich(*inline: Block) -> Block:
    """A line of rich text."""
    return {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": list(inline)}]}


def inline(text: str, *, bold: bool = False) -> Block:
    """Text inside rich text; Slack refuses an empty one."""
    return {"type": "text", "text": text or "–", **({"style": {"bold": True}} if bold else {})}


def moment(at: datetime, form: str = "{time}") -> Block:
    """A moment inside rich text, in the reader's own time zone."""
    return {"type": "date", "timestamp": int(at.timestamp()), "format": form, "fallback": utc(at)}


# Blocks


def header(text: str) -> Block:
    """The headline; plain text of at most 150 characters."""
    return {"type": "header", "text": plain_text(short(text, 150))}


def section(text: str) -> Block:
    """A paragraph in mrkdwn."""
    return {"type": "section", "text": mrkdwn(text)}


def facts(*pairs: tuple[str, str]) -> Block:
    """Labels and values (mrkdwn) in two columns; what has no value is left out."""
    return {"type": "section", "fields": [mrkdwn(f"*{label}*\n{value}") for label, value in pairs if value]}


def context(*texts: str) -> Block:
    """Small print in mrkdwn, on one line as long as it fits."""
    return {"type": "context", "elements": [mrkdwn("  ·  ".join(text for text in texts if text))]}


def actions(id: str, *elements: Block) -> Block:
    """Buttons. `id` changes with each revision of the message, so that a click on a stale copy can be told."""
    return {"type": "actions", "block_id": id, "elements": list(elements)}


def preformatted(lines: Sequence[str]) -> Block:
    """Lines as they are, in a fixed width."""
    return {"type": "rich_text", "elements": [{"type": "rich_text_preformatted", "elements": [inline("\n".join(lines))]}]}


def bullets(sentences: Sequence[str]) -> str:
    """Sentences from outside as a list in mrkdwn."""
    return "\n".join(f"• {escape(sentence)}" for sentence in sentences)
