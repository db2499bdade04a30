"""What people ask to see: models and their versions, recent runs, how things stand, and help."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from bot.core.approvals import Approval
from bot.core.models import ModelVersion, champion_of, shown
from bot.core.references import Thing
from bot.core.runs import Run, asker, branch, called, parameter, what_happened
from bot.core.team import Model
from bot.messages.kit import Block, Message, asked, channel_link, code, context, escape, header, inline, link, rich, section, short, when
from bot.messages.limits import fit
from bot.messages.runs import icon

VERSIONS = 15
RUNS = 10


@dataclass(frozen=True, slots=True)
class Standing:
    """How one model stands; `versions` and `runs` are None where nobody could say."""

    model: Model
    versions: tuple[ModelVersion, ...] | None
    runs: tuple[Run, ...] | None = None
    waiting: tuple[Approval, ...] = ()


def models_list(standings: Sequence[Standing]) -> Message:
    """Every model with its champion and its newest version."""
    lines = [
        f"*{escape(one.model.name)}* in {channel_link(one.model.channel)}: {champion_words(one.versions)}{newest_words(one.versions)}"
        for one in standings
    ]
    return fit(Message(f"Models: {'; '.join(lines)}", blocks=[header("Models"), *(section(line) for line in lines[:40])]))


def versions_list(model: Model, versions: Sequence[ModelVersion]) -> Message:
    """The versions of a model, newest first, with their metrics."""
    if not versions:
        return fit(Message(f"Nothing has been registered for {escape(model.name)} yet: `/retrain {escape(model.name)}` makes the first."))
    metrics = model.metrics[:8]
    titles = ["Version", "Algorithm", *(metric.label for metric in metrics)]
    rows: list[list[Block]] = [[_cell(title) for title in titles]]
    lines = []
    for version in versions[:VERSIONS]:
        values = [shown(metric, version.metrics.get(metric.name)) for metric in metrics]
        name = f"{short(version.version, 40)} 🏆" if version.champion else short(version.version, 40)
        rows.append([_cell(name, bold=version.champion), _cell(version.algorithm), *(_cell(value) for value in values)])
        pairs = ", ".join(f"{short(metric.label, 40)} {value}" for metric, value in zip(metrics, values, strict=True))
        lines.append(f"• *{escape(name)}* {escape(short(version.algorithm, 40))} {escape(pairs)}".rstrip())
    champion = champion_of(versions)
    now = f"version {champion.version} is the champion" if champion else "no champion yet"
    text = f"{escape(model.name)}: {_count(len(versions), 'version')}, {escape(now)}, newest is {escape(short(versions[0].version, 40))}."
    top = header(f"{model.name}: {_count(len(versions), 'version')}, {now}")
    end = [context(f"The newest {VERSIONS} are shown.")] if len(versions) > VERSIONS else []
    settings = [{"is_wrapped": True}, {"is_wrapped": True}, *({"align": "right"} for _ in metrics)]
    return fit(
        Message(
            text,
            blocks=[top, {"type": "table", "column_settings": settings, "rows": rows}, *end],
            plain=[top, section("\n".join(lines)), *end],
        )
    )


def runs_list(runs: Sequence[Run], days: int) -> Message:
    """Recent runs and releases, newest first."""
    if not runs:
        return fit(Message(f"Nothing has run in the last {days} days."))
    lines = [run_line(run) for run in runs[:RUNS]]
    more = [context(f"The newest {RUNS} of {len(runs)} are shown.")] if len(runs) > RUNS else []
    newest = f"{escape(called(runs[0]))} {escape(what_happened(runs[0]))}"
    return fit(
        Message(
            f"{_counted(runs)} in the last {days} days; the newest, {newest}.",
            blocks=[header(f"{_counted(runs)} in the last {days} days"), *(section(line) for line in lines), *more],
        )
    )


def status_card(standings: Sequence[Standing]) -> Message:
    """What Prod serves, what runs and what waits, for every model; and what could not be read."""
    blocks: list[Block] = [header("How things stand")]
    said = []
    for one in standings[:15]:
        active = [run for run in one.runs or () if not run.state.finished]
        runs = "Azure DevOps does not answer" if one.runs is None else _at_work(active, one.waiting)
        said.append(f"{escape(one.model.name)}: {_serves(one.versions)}; {runs}")
        lines = [
            f"*{escape(one.model.name)}* in {channel_link(one.model.channel)}",
            f"Prod: {_serves(one.versions)}",
            f"Runs: {runs}{': `/approve` lists them' if one.waiting else ''}",
            *(run_line(run) for run in active[:5]),
        ]
        blocks.append(section("\n".join(lines)))
    return fit(Message(f"How things stand: {'. '.join(said)}.", blocks=blocks))


def help_card(commands: Iterable[tuple[str, str, str]], prefix: str, short_names: Collection[str] = ()) -> Message:
    """Every command: its name, its usage, what it does. Those with a short name can be given without the prefix."""
    ordered = sorted(commands, key=lambda command: (command[0] not in short_names, command[0] == "help"))  # what one comes for first
    known = [(_spelled(name, usage, prefix, short_names), escape(what)) for name, usage, what in ordered]
    also = f" Commands without `/{escape(prefix)}` work with it, too." if short_names else ""
    return fit(
        Message(
            f"What you can say: {'; '.join(command for command, _ in known)}",
            blocks=[
                header("What you can say"),
                section("\n".join(f"• `{command}` {what}" for command, what in known)),
                context(
                    "Only you see the answers. Whatever changes something asks first. A model's commands belong to its channel." + also
                ),
            ],
        )
    )


def _spelled(name: str, usage: str, prefix: str, short_names: Collection[str]) -> str:
    return escape(f"/{name if name in short_names else f'{prefix} {name}'} {usage}".rstrip())


def run_line(run: Run) -> str:
    """A run or a release on one line: its state, what it is about, who asked for it, when."""
    about = " ".join(word for word in (parameter(run, "action"), parameter(run, "model")) if word)
    if run.source is not None:
        about = f"deploys run {run.source_number or run.source}"
    state = f"{icon(run)} {link(run.url, called(run))} {escape(what_happened(run))}"
    return " · ".join([state, f"{escape(short(about, 80))} {code(short(branch(run), 60))}", asked(asker(run)), when(run.created)])


def _at_work(active: Sequence[Run], waiting: Sequence[Approval]) -> str:
    """How many run and how many wait, each run in one of the two."""
    wait = {approval.ref for approval in waiting}
    working = sum(run.ref not in wait for run in active)
    words = [f"{working} running"] if working else []
    return ", ".join([*words, *([f"{len(wait)} waiting for approval"] if wait else [])]) or "none at work"


def _counted(runs: Sequence[Run]) -> str:
    """How many runs and how many releases."""
    numbers = [(sum(run.thing is thing for run in runs), thing.value) for thing in Thing]
    return " and ".join(_count(number, noun) for number, noun in numbers if number)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _serves(versions: tuple[ModelVersion, ...] | None) -> str:
    if versions is None:
        return "Azure ML does not answer"
    champion = champion_of(versions)
    return f"serves version {escape(short(champion.version, 40))}" if champion else "nothing is served yet"


def champion_words(versions: tuple[ModelVersion, ...] | None) -> str:
    """Which version is the champion."""
    if versions is None:
        return "Azure ML does not answer"
    champion = champion_of(versions)
    return f"the champion is version {escape(short(champion.version, 40))}" if champion else "no champion yet"


def newest_words(versions: tuple[ModelVersion, ...] | None) -> str:
    """Which version is the newest, to follow the champion."""
    return f", newest is version {escape(short(versions[0].version, 40))}" if versions else ""


def _cell(text: str, *, bold: bool = False) -> Block:
    shortened = short(text, 80) or "–"
    return rich(inline(shortened, bold=True)) if bold else {"type": "raw_text", "text": shortened}
