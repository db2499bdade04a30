"""The audit trail: who asked for what, what was decided about it, and what it changed. Appended to, never edited.

Each line's hash is made of the line and of the hash before it, so that nobody can change, remove or add a line in the middle unseen. What
the chain cannot show from inside is that its end was cut off, or that all of it was written anew: for that, keep a hash somewhere else.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum

from bot.core.approvals import Decision, Denied
from bot.core.people import Account
from bot.core.redaction import redact
from bot.core.references import Unknown

GENESIS = "0" * 64  # what the first line follows

# PostgreSQL keeps no NUL and UTF-8 no half of a character; a line must not be lost for one.
_UNKEEPABLE = re.compile("[\\x00\\ud800-\\udfff]")
_MENTION = re.compile(r"<@([UW][A-Z0-9]{2,20})(?:\|[^>]*)?>")
_NUMBER = re.compile(r"[0-9]{1,18}")

# What makes a formula of a cell. https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


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


@dataclass(frozen=True, slots=True)
class Line:
    """An entry as it is kept: flat, without secrets, with the Slack team it comes from and the delivery it was written for.

    A person who had not signed in has no `tenant`, `oid` and `username`.
    """

    workspace: str
    person: str
    tenant: str
    oid: str
    username: str
    action: str
    subject: str
    model: str
    allowed: bool
    reason: str
    why: str
    before: Mapping[str, str]
    after: Mapping[str, str]
    correlation: str


@dataclass(frozen=True, slots=True)
class Recorded(Line):
    """A line in its place: numbered without gaps from 1, with the moment it was written and its hash (hexadecimal)."""

    id: int
    at: datetime
    hash: str


def line(entry: Entry, *, workspace: str, correlation: str) -> Line:
    """The entry as it is to be kept."""
    account = entry.account
    return Line(
        workspace=_kept(workspace),
        person=_kept(entry.person),
        tenant=_kept(account.tenant) if account else "",
        oid=_kept(account.oid) if account else "",
        username=_kept(account.username) if account else "",
        action=_kept(entry.action),
        subject=redact(_kept(entry.subject)),  # of a command it holds the words that somebody typed
        model=_kept(entry.model),
        allowed=not isinstance(entry.decision, Denied),
        reason=redact(_kept(entry.decision.reason)) if isinstance(entry.decision, Denied) else "",
        why=redact(_kept(entry.why)),
        before=_without_secrets(entry.before),
        after=_without_secrets(entry.after),
        correlation=_kept(correlation),
    )


# The chain


def canonical(kept: Line) -> str:
    """The line as JSON, the same wherever it is made: names in order, no spaces, ASCII. Number, moment and hash are no part of it."""
    return _json({each.name: _plain(getattr(kept, each.name)) for each in fields(Line)})


def digest(previous: str, row: Recorded) -> str:
    """The hash that belongs to the line where it follows the hash `previous`: SHA-256 of canonical JSON."""
    whole = f'{{"at":"{_moment(row.at)}","id":{row.id},"line":{canonical(row)},"previous":"{previous}"}}'
    return hashlib.sha256(whole.encode()).hexdigest()


class Why(StrEnum):
    """What is wrong with a line."""

    EDITED = "edited"
    MISSING = "missing"
    INSERTED = "inserted"
    START = "start"  # the first line does not follow the genesis value


@dataclass(frozen=True, slots=True)
class Break:
    """The first line that does not fit, and a sentence about it."""

    line: int
    why: Why
    said: str

    def __str__(self) -> str:
        return self.said


@dataclass(frozen=True, slots=True)
class Whole:
    """A chain that holds: how many lines, from when to when, its last hash, and whether the expected hash is in it."""

    count: int
    first: datetime | None
    last: datetime | None
    hash: str
    contains: bool

    def __str__(self) -> str:
        if self.first is None or self.last is None:
            return "The audit trail is empty."
        span = f"from {self.first.astimezone(UTC):%Y-%m-%d} to {self.last.astimezone(UTC):%Y-%m-%d}"
        return f"{self.count:,} line{'' if self.count == 1 else 's'}, {span}. The chain holds. Last hash: {self.hash}"


def check(rows: Iterable[Recorded], expect: str = GENESIS) -> Whole | Break:
    """Whether the rows, in the order of their numbers, are a whole chain; `expect` is a hash that was kept elsewhere."""
    count, contains = 0, expect == GENESIS
    first: datetime | None = None
    earlier, before = GENESIS, None
    for row, after in _with_next(rows):
        wrong = _wrong(earlier, before, row, after)
        if wrong is not None:
            return wrong
        count, contains, first = count + 1, contains or row.hash == expect, first or row.at
        earlier, before = (before.hash if before else GENESIS), row
    return Whole(count, first, before.at if before else None, before.hash if before else GENESIS, contains)


def broken(rows: Iterable[Recorded]) -> Break | None:
    """The first of the rows, in the order of their numbers, that does not fit; None where the chain holds."""
    checked = check(rows)
    return checked if isinstance(checked, Break) else None


def _wrong(earlier: str, before: Recorded | None, row: Recorded, after: Recorded | None) -> Break | None:
    """What is wrong with a row between its neighbours; `earlier` is the hash that the one before it follows."""
    expected, previous = (before.id + 1, before.hash) if before is not None else (1, GENESIS)
    if row.id > expected:
        gone = f"Line {expected} is" if row.id == expected + 1 else f"Lines {expected} to {row.id - 1} are"
        return Break(expected, Why.MISSING, f"{gone} missing.")
    if row.id < expected:
        return Break(expected, Why.INSERTED, f"Line {row.id} stands where line {expected} should: it was inserted.")
    if _follows(previous, row):
        return None
    if after is not None and _follows(previous, replace(after, id=row.id)):
        return Break(row.id, Why.INSERTED, f"Line {row.id} was inserted: the line behind it was written as line {row.id}.")
    if before is None:
        return Break(row.id, Why.START, "Line 1 was changed, or the chain did not begin with it: it does not follow the genesis value.")
    if _follows(earlier, replace(row, id=before.id)):  # whoever inserted it gave it a proper hash
        return Break(before.id, Why.INSERTED, f"Line {before.id} was inserted: the line behind it was written as line {before.id}.")
    because = f"its hash is not what it and line {before.id} make, unless line {before.id} was changed and given a new hash."
    return Break(row.id, Why.EDITED, f"Line {row.id} was changed: {because}")


def _follows(previous: str, row: Recorded) -> bool:
    return digest(previous, row) == row.hash


def _with_next(rows: Iterable[Recorded]) -> Iterator[tuple[Recorded, Recorded | None]]:
    """Each row with the one behind it."""
    left: Recorded | None = None
    for row in rows:
        if left is not None:
            yield left, row
        left = row
    if left is not None:
        yield left, None


# What people ask to read


class Scope(StrEnum):
    """What lines are asked for by."""

    RUN = "run"
    RELEASE = "release"
    ENVIRONMENT = "environment"
    MODEL = "model"
    PERSON = "person"
    CHANNEL = "channel"


@dataclass(frozen=True, slots=True)
class About:
    """What somebody wants to read: the lines about a run, a release, an environment, a model, of a person, or of a channel's models."""

    scope: Scope
    name: str

    def __str__(self) -> str:
        return f"{self.scope.value}/{self.name}"

    @classmethod
    def asked(cls, words: tuple[str, ...], channel: str) -> About | None:
        """What the words of a command ask for, given in the channel; None where they make no sense."""
        match words:
            case ():
                return cls(Scope.CHANNEL, channel)
            case (word,) if _NUMBER.fullmatch(word.removeprefix("#")):
                return cls(Scope.RUN, word.removeprefix("#"))
            case (word,) if mentioned := _MENTION.fullmatch(word):
                return cls(Scope.PERSON, mentioned[1])
            case (word,) if word.startswith(("run/", "release/", "environment/")):
                return cls.asked(tuple(word.split("/", 1)), channel)
            case (word,) if not word.startswith(("@", "<", "#")):
                return cls(Scope.MODEL, word)
            case ("run" | "release" as thing, number) if _NUMBER.fullmatch(number.removeprefix("#")):
                return cls(Scope(thing), number.removeprefix("#"))
            case ("environment", name) if name:
                return cls(Scope.ENVIRONMENT, name)
            case _:
                return None

    @classmethod
    def read(cls, value: str) -> About:
        """What a button carries. Raises Unknown."""
        scope, _, name = value.partition("/")
        if scope not in set(Scope) or not name:
            raise Unknown("This button is none of ours, or very old. Give the command again.")
        return cls(Scope(scope), name)


# CSV


def csv_lines(rows: Iterable[Recorded]) -> Iterator[str]:
    """The rows as CSV, a line at a time, titles first; no cell is taken for a formula where it is opened as a spreadsheet."""
    yield _csv(COLUMNS)
    for row in rows:
        yield _csv(tuple(_cell(getattr(row, column)) for column in COLUMNS))


COLUMNS = ("id", "at", *(each.name for each in fields(Line)), "hash")


def _csv(cells: tuple[str, ...]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue()


def _cell(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case datetime():
            return _moment(value)
        case Mapping():
            return _json(dict(value), ascii_only=False) if value else ""
        case _:
            text = str(value)
            return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def _json(value: object, *, ascii_only: bool = True) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=ascii_only)


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _kept(text: str) -> str:
    return _UNKEEPABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _without_secrets(facts: Mapping[str, str]) -> dict[str, str]:
    """The facts with what looks like a secret hidden, be it by itself or because of its name."""
    made = {}
    for name, value in facts.items():
        shown = redact(_kept(name))
        made[shown] = redact(f"{shown}={_kept(value)}").removeprefix(f"{shown}=")
    return made
