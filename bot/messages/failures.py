"""The card that says why a run failed."""

from __future__ import annotations

from bot.core.people import Person
from bot.core.redaction import redact
from bot.core.references import StageAttempt, Thing
from bot.core.runs import Failure, Run, Stage, called, tail, took
from bot.core.team import Model
from bot.messages.kit import (
    Block,
    Message,
    actions,
    button,
    code,
    confirm,
    context,
    escape,
    facts,
    header,
    link_buttons,
    mention,
    preformatted,
    section,
    short,
)
from bot.messages.limits import fit
from bot.messages.runs import commit_link, first_error

TESTS = 5  # failing tests to name


def refused_card(run: Run, model: Model, failure: Failure) -> Message:
    """Why a run failed before it came to any stage: its YAML was refused."""
    error = short(redact(failure.error), 300) or "Azure DevOps gives no reason."
    blocks: list[Block] = [header(f"❌ {model.name}: {called(run)} could not begin"), section(f"*{escape(error)}*")]
    end = tail(failure.tail)
    if end:
        blocks.append(preformatted(end))
    links = link_buttons(("open_log", "Open run", failure.log_url or run.url))
    if links:
        blocks.append(actions(f"log:{run.id}", *links))
    return fit(Message(f"❌ {escape(model.name)}: {escape(called(run))} could not begin: {escape(error)}", blocks=blocks))


def failure_card(run: Run, model: Model, stage: Stage, failure: Failure | None, retried_by: str | None = None) -> Message:
    """Why the stage failed, who committed, and what can be done.

    `failure` is None where Azure DevOps has no log of it; `retried_by` is the Slack user who had the stage retried.
    """
    error = short(redact(failure.error), 300) if failure is not None and failure.error else first_error(stage)
    error = error or "Azure DevOps gives no reason."
    length = took(stage)
    blocks: list[Block] = [
        header(f"❌ {model.name}: {stage.title} failed{f' after {length}' if length else ''}"),
        section(f"*{escape(error)}*"),
        facts(
            ("Stage, job and step", _where(stage, failure)),
            ("Commit", commit_link(run)),
            ("Committed by", _person(run.committer)),
        ),
    ]
    if failure is not None and failure.tests:
        blocks.append(section(_tests(failure)))
    end = tail(failure.tail) if failure is not None else ()
    if end:
        blocks.append(preformatted(end))
    return fit(
        Message(
            f"❌ {escape(model.name)}: {escape(called(run))} failed at {escape(short(stage.title, 100))}: {escape(error)}",
            blocks=[*blocks, *_what_now(run, stage, failure, retried_by)],
        )
    )


def _what_now(run: Run, stage: Stage, failure: Failure | None, retried_by: str | None) -> list[Block]:
    log = failure.log_url if failure is not None and failure.log_url else run.url
    links = link_buttons(("open_log", "Open log", log))
    reference = StageAttempt(run.ref, stage.name, stage.attempt)
    if retried_by is not None:
        buttons = [actions(f"log:{reference}", *links)] if links else []
        again = "had the failed jobs run again" if run.thing is Thing.RUN else "had it deployed again"
        return [*buttons, context(f"🔁 {mention(retried_by)} {again}.")]
    again = (
        f"The failed jobs of {stage.title} run again, with the same code and settings."
        if run.thing is Thing.RUN
        else f"{stage.title} is deployed again. Approvals for it are asked for again."
    )
    retry = button(
        "retry_stage",
        "Retry failed stage",
        str(reference),
        confirm=confirm("Retry the stage?", short(again, 300), "Retry"),
    )
    return [actions(f"retry:{reference}", retry, *links)]


def _where(stage: Stage, failure: Failure | None) -> str:
    """The place, from the stage on; what has the same name is said once."""
    names = [stage.title, *([failure.job, failure.step] if failure is not None else [])]
    once = " › ".join(escape(short(name, 100)) for name in dict.fromkeys(names) if name)
    return f"{once} (attempt {stage.attempt})" if stage.attempt > 1 else once


def _person(person: Person | None) -> str:
    """Who committed, by name and e-mail address: nobody is notified for a name in a log."""
    if person is None:
        return ""
    return escape(short(f"{person.name} ({person.email})" if person.email else person.name, 150))


def _tests(failure: Failure) -> str:
    lines = [f"• {code(short(test.name, 150))} {escape(short(redact(test.message), 150))}".rstrip() for test in failure.tests[:TESTS]]
    more = len(failure.tests) - TESTS
    rest = [f"… and {more} more"] if more > 0 else []
    return "\n".join([f"*Failing tests: {len(failure.tests)}*", *lines, *rest])
