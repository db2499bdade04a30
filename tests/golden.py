"""Golden messages: what people see, committed, so that a change of it is read in review.

`UPDATE_GOLDEN=1 python -m pytest tests` writes them anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from bot.messages.kit import Home, Message, Modal
from bot.messages.limits import problems

FOLDER = Path(__file__).parent / "golden"


def matches(name: str, thing: Message | Modal | Home) -> bool:
    """Whether the message is the committed one; it must be within Slack's limits in any case."""
    assert problems(thing) == ()
    shown = json.dumps(_as_json(thing), indent=2, ensure_ascii=False) + "\n"
    path = FOLDER / f"{name}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(shown, encoding="utf-8")
    assert shown == path.read_text(encoding="utf-8")
    return True


def _as_json(thing: Message | Modal | Home) -> dict[str, object]:
    if isinstance(thing, Home):
        return {"blocks": list(thing.blocks)}
    if isinstance(thing, Modal):
        return {
            "title": thing.title,
            "callback": thing.callback,
            "submit": thing.submit,
            "close": thing.close,
            "state": dict(thing.state),
            "blocks": list(thing.blocks),
        }
    return {"text": thing.text, "blocks": list(thing.blocks), "plain": list(thing.plain)}
