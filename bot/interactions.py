"""What Slack sends when somebody does something, as the types a feature knows: `Click`, `Request`, `Submission`, `Visit`. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bot.routing import Click, Request, Submission, Visit

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Origin:
    """Who did something, where, and how they can be answered: `url` for half an hour, `view` while the dialog is open.

    What belongs to no channel was done on the app's own page. `resumed` where it goes on after its person has signed in.
    """

    person: str
    channel: str
    url: str | None = None
    view: str | None = None
    ephemeral: bool = False
    team: str = ""
    resumed: bool = False

    @property
    def at_home(self) -> bool:
        """Whether it was done on the app's own page."""
        return not self.channel

    def kept(self) -> dict[str, str]:
        """What travels with a dialog, so that its submission can be answered, too."""
        return {"channel": self.channel} | ({"url": self.url} if self.url else {})


def command(body: Body, prefix: str) -> Request:
    """A slash command; `/<prefix> retrain x` is the same as `/retrain x`, and the prefix alone asks for help."""
    name, words = str(body.get("command", "")).removeprefix("/"), str(body.get("text") or "").split()
    if name == prefix:
        name, words = (words[0].lower(), words[1:]) if words else ("help", [])
    return Request(command_key(body), str(body.get("user_id", "")), str(body.get("channel_id", "")), name, tuple(words))


def command_key(body: Body) -> str:
    """The same however often Slack delivers the command."""
    return f"command:{body['trigger_id']}" if body.get("trigger_id") else f"command:{_digest(body)}"


def command_origin(body: Body) -> Origin:
    """Where a command came from."""
    person, channel, team = (str(body.get(name) or "") for name in ("user_id", "channel_id", "team_id"))
    return Origin(person, channel, body.get("response_url"), team=team)


def click(body: Body) -> Click:
    """A button pressed, or a menu chosen from."""
    action = _action(body)
    origin = click_origin(body)
    return Click(
        id=click_key(body),
        person=origin.person,
        channel=origin.channel,
        action=str(action.get("action_id", "")),
        value=_chosen(action),
        ts=str((body.get("container") or {}).get("message_ts") or ""),
    )


def click_key(body: Body) -> str:
    """The same however often Slack delivers the click; another press is another click."""
    return f"click:{body['trigger_id']}" if body.get("trigger_id") else f"click:{_digest(body)}"


def click_origin(body: Body) -> Origin:
    """Where a click came from: a message, or a dialog that knows where it came from itself."""
    container = body.get("container") or {}
    kept = _metadata(body).get("origin") or {}
    return Origin(
        person=str((body.get("user") or {}).get("id", "")),
        channel=str((body.get("channel") or {}).get("id") or container.get("channel_id") or kept.get("channel") or ""),
        url=body.get("response_url") or kept.get("url"),
        ephemeral=bool(container.get("is_ephemeral")),
        team=_team(body),
    )


def is_link(body: Body) -> bool:
    """Whether the button only opens an address: Slack tells us all the same, and nobody waits for an answer."""
    action = _action(body)
    blocks = (body.get("message") or body.get("view") or {}).get("blocks") or []
    elements = (element for block in blocks for element in (*(block.get("elements") or ()), block.get("accessory") or {}))
    return any(
        isinstance(element, Mapping) and element.get("action_id") == action.get("action_id") and element.get("url") for element in elements
    )


def submission(body: Body) -> Submission:
    """A dialog sent off."""
    view = body.get("view") or {}
    kept = _metadata(body)
    state = kept.get("state") or {}
    return Submission(
        id=submission_key(body),
        person=str((body.get("user") or {}).get("id", "")),
        channel=str((kept.get("origin") or {}).get("channel") or ""),
        callback=str(view.get("callback_id") or ""),
        values={
            block: _chosen(next(iter(inputs.values()), {})) for block, inputs in ((view.get("state") or {}).get("values") or {}).items()
        },
        state={str(name): str(value) for name, value in state.items()},
    )


def submission_key(body: Body) -> str:
    """The same however often Slack delivers it, and however often one open dialog is sent off."""
    view = body.get("view") or {}
    return f"submission:{view.get('id')}:{view.get('hash')}" if view.get("id") else f"submission:{_digest(body)}"


def submission_origin(body: Body) -> Origin:
    """Where the dialog was opened."""
    kept = _metadata(body).get("origin") or {}
    return Origin(str((body.get("user") or {}).get("id", "")), str(kept.get("channel") or ""), kept.get("url"), team=_team(body))


def visit(body: Body) -> Visit | None:
    """Somebody looks at the app's own page; None where they look at another of its tabs."""
    event = body.get("event") or {}
    return Visit(f"visit:{body.get('event_id')}", str(event.get("user", ""))) if event.get("tab") == "home" else None


def visit_origin(body: Body) -> Origin:
    """Who looks at the app's own page."""
    return Origin(str((body.get("event") or {}).get("user", "")), "", team=str(body.get("team_id") or ""))


def evidence(body: Body, view: str | None) -> bytes:
    """What is kept of an interaction: all of it but Slack's old verification token, and the dialog opened for it."""
    return json.dumps({"body": {name: value for name, value in body.items() if name != "token"}, "view": view}).encode()


def recalled(payload: bytes) -> tuple[Body, str | None]:
    """What `evidence` kept."""
    kept = json.loads(payload)
    return kept["body"], kept["view"]


def _team(body: Body) -> str:
    """The workspace that the person belongs to: not the channel's, which may be shared between two."""
    user = body.get("user") or {}
    return str(user.get("team_id") or (body.get("team") or {}).get("id") or "")


def _action(body: Body) -> Mapping[str, Any]:
    actions = body.get("actions") or [{}]
    first: Mapping[str, Any] = actions[0]
    return first


def _chosen(element: Mapping[str, Any]) -> str:
    """The value of an element of any kind, as one text."""
    match element:
        case {"value": str(value)}:
            return value
        case {"selected_option": {"value": str(value)}}:
            return value
        case {"selected_options": [*options]}:
            return ",".join(str(option.get("value", "")) for option in options)
        case (
            {"selected_user": str(value)}
            | {"selected_channel": str(value)}
            | {"selected_conversation": str(value)}
            | {"selected_date": str(value)}
            | {"selected_time": str(value)}
        ):
            return value
        case {"selected_date_time": int(value)}:
            return str(value)
        case _:
            return ""


def _metadata(body: Body) -> Mapping[str, Any]:
    """What we put into the dialog's private_metadata; nothing where it is none of ours."""
    try:
        kept = json.loads((body.get("view") or {}).get("private_metadata") or "{}")
    except ValueError:
        return {}
    return kept if isinstance(kept, dict) else {}


def _digest(body: Body) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
