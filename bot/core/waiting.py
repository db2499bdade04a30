"""Approvals that wait: for whom, how long already, and when people are told of them again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from bot.core.deciding import Case
from bot.core.team import Environment

APART = timedelta(hours=4)  # between two messages about one approval that mention somebody


class Whom(StrEnum):
    """Whom a reminder mentions."""

    APPROVERS = "approvers"
    ON_CALL = "on call"


@dataclass(frozen=True, slots=True)
class Reminder:
    """A message that is due so long after an approval was asked for."""

    after: timedelta
    whom: Whom


@dataclass(frozen=True, slots=True)
class Sent:
    """A reminder that was sent."""

    reminder: Reminder
    at: datetime


def due(environment: Environment, created: datetime, sent: Iterable[Sent], now: datetime) -> Reminder | None:
    """The one reminder to send now about an approval that was asked for at `created`, if any.

    Each is sent once, whatever the clock does. What fell due before the last one was sent is not sent any more: after an outage there is
    one message, not one for every hour that was missed. Whoever is on call comes first, because they are called only once.
    """
    sent = tuple(sent)
    if any(abs(now - one.at) < APART for one in sent):
        return None
    waited = now - created
    if environment.escalate is not None and environment.escalate <= waited and all(one.reminder.whom is Whom.APPROVERS for one in sent):
        return Reminder(environment.escalate, Whom.ON_CALL)
    newest = max((after for after in environment.remind if after <= waited), default=None)
    if newest is None or any(one.at >= created + newest or one.reminder == Reminder(newest, Whom.APPROVERS) for one in sent):
        return None
    return Reminder(newest, Whom.APPROVERS)


def so_long(waited: timedelta) -> str:
    """How long something has waited, as people say it: in whole minutes, hours or days, never more than it was."""
    minutes = max(waited // timedelta(minutes=1), 0)
    if minutes < 1:
        return "less than a minute"
    number, unit = (minutes, "minute") if minutes < 60 else (minutes // 60, "hour") if minutes < 48 * 60 else (minutes // (24 * 60), "day")
    return f"{number} {unit}{'' if number == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Yours:
    """An approval that one person may answer; `obstacle` says why nobody can approve it at present."""

    case: Case
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for one person, oldest first; `more` also do, and are not shown, `others` wait for somebody else."""

    yours: tuple[Yours, ...] = ()
    more: int = 0
    others: int = 0
