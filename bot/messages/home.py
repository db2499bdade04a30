"""The app's own page: what waits for one person, what they have asked for, and how everything stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from bot.core.approvals import Denied
from bot.core.deciding import Lock
from bot.core.models import ModelVersion, champion_of
from bot.core.people import Account
from bot.core.runs import Run
from bot.core.team import Model
from bot.core.waiting import Waiting
from bot.messages.approvals import waiting_blocks
from bot.messages.kit import Block, Home, channel_link, code, context, escape, header, mention, place, section, short, when
from bot.messages.limits import fit
from bot.messages.lists import champion_words, newest_words, run_line

RUNS = 5
MODELS = 15
LOCKS = 10
SILENT = section("Azure DevOps does not answer.")


@dataclass(frozen=True, slots=True)
class Served:
    """A model and what the environments serve of it: Prod the champion, others (by name) the version that was deployed there last."""

    model: Model
    versions: tuple[ModelVersion, ...] | None
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    guarded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything on one person's page; `waiting` and `runs` are None where nobody could say.

    `account` is what they are signed in with. `service`: nobody signs in, Azure DevOps records the bot.
    """

    now: datetime
    days: int
    prefix: str
    waiting: Waiting | None = None
    runs: tuple[Run, ...] | None = None
    models: tuple[Served, ...] = ()
    locks: tuple[Lock, ...] = ()
    account: Account | None = None
    service: bool = False


def home_page(it: Overview) -> Home:
    """The whole page; what cannot be read is said where it would stand."""
    return fit(
        Home(
            [
                context(f"As of {when(it.now, '{time}')}", _signed_in(it)),
                header("Waits for you"),
                *_waiting(it),
                header("Your runs"),
                *_runs(it),
                header("Models"),
                *(section(_model(one)) for one in it.models[:MODELS]),
                *_locks(it.locks),
            ]
        )
    )


def closed_page(denied: Denied) -> Home:
    """Why somebody sees nothing here."""
    return fit(Home([section(f"🔒 {escape(denied.reason)}")]))


def _signed_in(it: Overview) -> str:
    if it.service:
        return "Azure DevOps records what you decide here under this app's identity, with your name in the comment"
    if it.account is None:
        return f"Not signed in to Azure DevOps: {code(f'/{it.prefix} signin')}"
    return f"Signed in as {code(short(it.account.username, 100))}"


def _waiting(it: Overview) -> Sequence[Block]:
    if it.waiting is None:
        return [SILENT]
    nothing = [] if it.waiting.yours else [section("Nothing waits for you.")]
    return [*nothing, *waiting_blocks(it.waiting, it.now)]


def _runs(it: Overview) -> Sequence[Block]:
    if it.runs is None:
        return [SILENT]
    if not it.runs:
        return [section(f"You have asked for nothing in the last {it.days} days. `/retrain` starts a training.")]
    more = [context(f"The newest {RUNS} of {len(it.runs)} in the last {it.days} days.")] if len(it.runs) > RUNS else []
    return [*(section(run_line(run)) for run in it.runs[:RUNS]), *more]


def _model(one: Served) -> str:
    head = f"*{escape(one.model.name)}* in {channel_link(one.model.channel)}: {champion_words(one.versions)}{newest_words(one.versions)}"
    champion = champion_of(one.versions or ())
    guarded = dict.fromkeys(one.guarded if one.versions is not None else (), champion.version if champion else None)
    served = [_serves(name, version) for name, version in {**one.elsewhere, **guarded}.items()]
    return "\n".join([head, *([" · ".join(served)] if served else [])])


def _serves(environment: str, version: str | None) -> str:
    return f"{escape(place(environment))} serves {f'version {escape(short(version, 40))}' if version else 'nothing yet'}"


def _locks(locks: Sequence[Lock]) -> Sequence[Block]:
    if not locks:
        return []
    lines = (
        f"🔒 *{escape(place(one.environment))}* is locked by {mention(one.owner)} since {when(one.since)}: {escape(short(one.reason, 300))}"
        for one in locks[:LOCKS]
    )
    return [header("Locks"), *(section(line) for line in lines)]
