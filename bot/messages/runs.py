"""The living card of a run or a release."""

from __future__ import annotations

from typing import Any

from bot.core.people import Asker
from bot.core.redaction import redact
from bot.core.references import Thing
from bot.core.runs import Run, Stage, State, branch, called, kept_champion, made_by_hand, parameter, took, what_happened
from bot.core.team import Model
from bot.messages.kit import (
    Block,
    Message,
    asked,
    asked_plainly,
    code,
    context,
    escape,
    facts,
    header,
    inline,
    link,
    moment,
    rich,
    section,
    short,
    web,
    when,
)
from bot.messages.limits import fit

ICONS = {
    State.PENDING: "🕓",
    State.RUNNING: "⏳",
    State.WAITING: "🚦",
    State.CANCELING: "🚫",
    State.SUCCEEDED: "✅",
    State.PARTIAL: "⚠️",
    State.FAILED: "❌",
    State.REJECTED: "⛔",
    State.CANCELED: "🚫",
    State.SKIPPED: "⏭️",
}
# Slack knows four states of a task. A skipped stage has done nothing, so it has no tick.
STATUS = {
    State.PENDING: "pending",
    State.RUNNING: "in_progress",
    State.WAITING: "in_progress",
    State.CANCELING: "in_progress",
    State.SUCCEEDED: "complete",
    State.PARTIAL: "complete",
    State.FAILED: "error",
    State.REJECTED: "error",
    State.CANCELED: "error",
    State.SKIPPED: "pending",
}


def run_card(run: Run, model: Model, asker: Asker | None) -> Message:
    """The whole truth about a run or a release: its state in words, what it is about, and its stages."""
    done = sum(stage.state in {State.SUCCEEDED, State.PARTIAL} for stage in run.stages)
    happened = what_happened(run)
    top = [header(f"{icon(run)} {model.name}: {called(run)} {happened}"), facts(*_about(run, model, asker))]
    if kept_champion(run):
        top.append(section("Nothing better was found: the champion stays, nothing is registered and nobody is asked to approve."))
    end = [context(*_small_print(run, done))]
    text = f"{icon(run)} {escape(model.name)}: {escape(called(run))} {escape(happened)}, asked for by {escape(asked_plainly(asker))}"
    stages = f" ({done} of {len(run.stages)} stages done)" if run.stages else ""
    return fit(
        Message(
            f"{text}{stages}.",
            blocks=[*top, *([_plan(run, happened)] if run.stages else []), *end],
            plain=[*top, *([section(_lines(run))] if run.stages else []), *end],
        )
    )


def icon(run: Run) -> str:
    """The state of a run at a glance."""
    if kept_champion(run):
        return "🏆"
    if any(stage.state is State.WAITING for stage in run.stages) and not run.state.finished:
        return ICONS[State.WAITING]
    if any(stage.state is State.REJECTED for stage in run.stages):
        return ICONS[State.REJECTED]
    return ICONS[run.state]


def commit_link(run: Run) -> str:
    """The commit by its first eight digits, as a link, and its message, in mrkdwn."""
    if not run.commit:
        return ""
    message = f" {escape(short(run.commit_message, 80))}" if run.commit_message else ""
    return f"{link(run.commit_url, run.commit[:8])}{message}"


def source_link(run: Run) -> str:
    """The run that a release deploys, as a link, in mrkdwn; nothing of a run."""
    if run.source is None:
        return ""
    return link(run.source_url, f"run {short(run.source_number or str(run.source), 60)}")


def _about(run: Run, model: Model, asker: Asker | None) -> list[tuple[str, str]]:
    promoted = parameter(run, "action") == "promote"
    return [
        ("Model", f"{code(model.name)}{' version ' + code(parameter(run, 'version') or '?') if promoted else ''}"),
        ("Deploys", source_link(run)),
        ("Asked for by", asked(asker)),
        ("Release made by", escape(short(run.requested_for.name, 100)) if made_by_hand(run) and run.requested_for else ""),
        ("Branch", code(short(branch(run), 100))),
        ("Commit", commit_link(run)),
        ("Settings", code(short(parameter(run, "settings") or "", 300)) if parameter(run, "settings") else ""),
    ]


def _small_print(run: Run, done: int) -> list[str]:
    length = took(run)
    return [
        link(run.url, f"{called(run, first=True)} in Azure DevOps"),
        f"{done} of {len(run.stages)} stages done" if run.stages else "",
        f"took {length}" if length else f"{'queued' if run.thing is Thing.RUN else 'made'} {when(run.created)}",
    ]


def _plan(run: Run, happened: str) -> Block:
    return {
        "type": "plan",
        "title": _sentence(happened.removeprefix("is ")),
        "tasks": [_task(run, stage) for stage in run.stages],
    }


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}"


def _task(run: Run, stage: Stage) -> Block:
    task: dict[str, Any] = {
        "type": "task_card",
        "task_id": f"{run.id}:{stage.name}" if run.thing is Thing.RUN else f"{run.ref}:{stage.name}",
        "title": f"{stage.title} (attempt {stage.attempt})" if stage.attempt > 1 else stage.title,
        "status": STATUS[stage.state],
    }
    output = _output(stage)
    if output:
        task["output"] = rich(*output)
    if stage.state is State.FAILED and web(run.url):
        task["sources"] = [{"type": "url", "url": run.url, "text": "Open in Azure DevOps"}]
    return task


def _output(stage: Stage) -> list[Block]:
    """What there is to say about a stage: how long it took or since when it works, and its first error."""
    length = took(stage)
    match stage.state:
        case State.PENDING:
            return []
        case State.SKIPPED:
            return [inline("Skipped")]
        case State.WAITING:
            return [inline("Waits for approval")]
        case State.RUNNING | State.CANCELING:
            return [inline("Since "), moment(stage.started)] if stage.started else []
        case State.SUCCEEDED:
            return [inline(length)] if length else []
        case _:
            words = f"{stage.state.value.capitalize()}{' after ' + length if length else ''}"
            error = first_error(stage)
            return [inline(f"{words}: {error}" if error else words)]


def first_error(stage: Stage) -> str:
    """The first error that a stage reported, on one line and without secrets."""
    reported = [error for job in stage.jobs for errors in (*(step.errors for step in job.steps), job.errors) for error in errors]
    return short(redact(reported[0]), 200) if reported else ""


def _lines(run: Run) -> str:
    """The stages without a plan: a line each."""
    lines = []
    for stage in run.stages:
        length = took(stage)
        lines.append(f"{ICONS[stage.state]} *{escape(short(stage.title, 60))}*: {stage.state.value}{', ' + length if length else ''}")
    return "\n".join(lines[:50])
