"""The audit trail: who asked for what, what was decided about it, and what it changed. Appended to, never edited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bot.core.approvals import Decision
from bot.core.people import Account


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: a command, refusal, decision or write.

    `subject` is what it is about, as the board names it (`run/480/approval/<id>`, `model/diabetes`); `person` is a Slack user id, empty for
    the bot itself. `before` and `after` are the few facts that it changed. Where and when it was written is the store's to add.
    """

    person: str
    action: str
    subject: str
    decision: Decision
    why: str = ""
    account: Account | None = None
    model: str = ""
    before: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)
