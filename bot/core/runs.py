"""A run of a pipeline and its parts, as Azure DevOps sees them now."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from bot.core.approvals import Allowed, Decision, Denied
from bot.core.people import Asker, Person
from bot.core.redaction import redact
from bot.core.references import Ref, Thing

# Stages of the delivery pipeline that mean something to us (deploy/README.md).
EVALUATE = "evaluate"
TAIL = 20  # lines of a log
LINE = 300  # characters of a line
# What the agent writes around a step's own output. Its marks at the start of a line (`##[error]`) only colour it.
# https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands#formatting-commands
BEGINS = "= Starting Command Output ="
AROUND = ("[command]", "##[command]", "##[section]Finishing:")
MARK = re.compile(r"^##\[(?:error|warning|section|debug|group)\]")


class State(StrEnum):
    """Where a run, stage, job or step stands: Azure DevOps' state and result in one word."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"  # for an approval or another check
    CANCELING = "canceling"
    SUCCEEDED = "succeeded"
    PARTIAL = "partially succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELED = "canceled"
    SKIPPED = "skipped"

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen unless somebody retries."""
        return self not in {State.PENDING, State.RUNNING, State.WAITING, State.CANCELING}


@dataclass(frozen=True, slots=True)
class Step:
    """One task of a job; `log_id` is there once the step has finished."""

    name: str
    state: State
    started: datetime | None = None
    finished: datetime | None = None
    log_id: int | None = None
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a stage, with its steps in order."""

    name: str
    state: State
    started: datetime | None = None
    finished: datetime | None = None
    steps: tuple[Step, ...] = ()
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a run: `name` is the identifier in the YAML, `title` what people read; attempts count from 1."""

    name: str
    title: str
    state: State
    attempt: int = 1
    started: datetime | None = None
    finished: datetime | None = None
    jobs: tuple[Job, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a pipeline, or one classic release; `stages` is empty in listings and in order of execution otherwise.

    Of a release `pipeline_id` and `pipeline` are its definition's, and `source` is the id of the run whose artifacts it deploys.
    """

    id: int
    number: str
    pipeline_id: int
    pipeline: str
    state: State
    branch: str
    commit: str
    url: str
    created: datetime
    started: datetime | None = None
    finished: datetime | None = None
    reason: str = "manual"
    requested_by: Person | None = None
    requested_for: Person | None = None
    committer: Person | None = None
    commit_message: str = ""
    commit_url: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    thing: Thing = Thing.RUN
    source: int | None = None
    source_number: str = ""
    source_url: str = ""

    @property
    def ref(self) -> Ref:
        """What tells it from all others."""
        return Ref(self.thing, self.id)

    def stage(self, name: str) -> Stage | None:
        """The stage of that name, if the run has one."""
        return next((stage for stage in self.stages if stage.name == name), None)


@dataclass(frozen=True, slots=True)
class FailedTest:
    """A failing test that the run published."""

    name: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run failed: the place, the first error line, and the end of that step's log, oldest line first."""

    stage: str
    job: str
    step: str
    error: str
    tail: tuple[str, ...] = ()
    tests: tuple[FailedTest, ...] = ()
    log_url: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """A run to be started: `token` travels inside it, so that it can be found again after a lost answer."""

    pipeline_id: int
    branch: str
    token: str
    parameters: Mapping[str, str]


def duration(seconds: float) -> str:
    """A length of time as people say it: `under 1 s`, `40 s`, `3 min 05 s`, `1 h 02 min`."""
    whole = round(seconds)
    if whole < 1:
        return "under 1 s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def took(part: Run | Stage | Job) -> str | None:
    """How long it took, once it has finished."""
    if part.started is None or part.finished is None:
        return None
    return duration((part.finished - part.started).total_seconds())


def called(run: Run, *, first: bool = False) -> str:
    """What people call it: `run 20261123.1`, `release Release-12`; with a capital letter where it comes first."""
    return f"{run.thing.value.capitalize() if first else run.thing.value} {run.number}"


def made_by_hand(run: Run) -> bool:
    """Whether a person made the release, and not the run that it deploys."""
    return run.thing is Thing.RELEASE and run.reason == "manual"


def settled(run: Run) -> bool:
    """Whether nothing more happens until somebody does something: a release may rest before it has been deployed anywhere."""
    return run.state.finished or (run.thing is Thing.RELEASE and run.state is State.PENDING)


def with_source(release: Run, source: Run) -> Run:
    """A release together with what only the run knows that it deploys: its settings, its commit, and who asked for it.

    Whoever made the release by hand stays the one it was made for; whoever asked for the run is then known beside them.
    """
    asked, by_hand = source.requested_for or source.requested_by, made_by_hand(release)
    return replace(
        release,
        branch=source.branch,
        commit=source.commit,
        commit_message=source.commit_message,
        commit_url=source.commit_url,
        committer=source.committer,
        parameters=source.parameters,
        requested_for=release.requested_for if by_hand else asked or release.requested_for,
        requested_by=asked or release.requested_by if by_hand else release.requested_by,
        source_number=source.number,
        source_url=source.url,
    )


def current(run: Run) -> Stage | None:
    """The stage that matters now: the first that waits for people, else the first at work."""
    for wanted in ({State.WAITING}, {State.RUNNING, State.CANCELING}):
        for stage in run.stages:
            if stage.state in wanted:
                return stage
    return None


def broken(run: Run) -> Stage | None:
    """The first stage that failed or was rejected."""
    return next((stage for stage in run.stages if stage.state in {State.FAILED, State.REJECTED}), None)


def kept_champion(run: Run) -> bool:
    """Whether the evaluation found nothing better: it succeeded, and everything after it is skipped."""
    names = [stage.name for stage in run.stages]
    if EVALUATE not in names:
        return False
    place = names.index(EVALUATE)
    after = run.stages[place + 1 :]
    return run.stages[place].state is State.SUCCEEDED and bool(after) and all(stage.state is State.SKIPPED for stage in after)


def reached(run: Run, stage: Stage) -> bool:
    """Whether the run has come to the stage: it has begun to wait or work, or everything before it is over."""
    if stage.state is not State.PENDING:
        return True
    before = run.stages[: run.stages.index(stage)]
    return not run.state.finished and bool(before) and all(one.state.finished for one in before)


def what_happened(run: Run) -> str:
    """The state of the run in a few words that follow its number: `failed at Train`, `is running: Train`."""
    stage, failed = current(run), broken(run)
    if run.state in {State.SUCCEEDED, State.PARTIAL} and kept_champion(run):
        return "kept the champion"
    if run.state in {State.FAILED, State.REJECTED} and failed is not None:
        return f"{'failed' if failed.state is State.FAILED else 'was rejected'} at {failed.title}"
    if run.state in {State.RUNNING, State.WAITING} and stage is not None:
        return f"{'waits for approval' if stage.state is State.WAITING else 'is running'}: {stage.title}"
    if run.thing is Thing.RELEASE and run.state is State.PENDING:
        return "is not deployed yet"
    return _WORDS[run.state]


_WORDS = {
    State.PENDING: "is queued",
    State.RUNNING: "is running",
    State.WAITING: "waits",
    State.CANCELING: "is being canceled",
    State.SUCCEEDED: "succeeded",
    State.PARTIAL: "succeeded in part",
    State.FAILED: "failed",
    State.REJECTED: "was rejected",
    State.CANCELED: "was canceled",
    State.SKIPPED: "was skipped",
}


def branch(run: Run) -> str:
    """The branch as people say it."""
    return run.branch.removeprefix("refs/heads/")


def parameter(run: Run, name: str) -> str | None:
    """A parameter of the run; `none` stands for nothing, because parameters of Azure Pipelines may not be empty."""
    value = run.parameters.get(name, "none")
    return None if value in {"", "none"} else value


def asker(run: Run, slack: str | None = None) -> Asker | None:
    """Who asked for the run: the Slack person whose operation it is, who the run says, or whom Azure DevOps queued it for.

    For a release that is who asked for the run that it deploys, also where somebody else made the release by hand.
    """
    said = parameter(run, "requestedBy")
    known = run.requested_by if made_by_hand(run) else run.requested_for or run.requested_by
    if said is not None:
        return Asker(said, slack)
    if known is not None:
        return Asker(known.name, slack, known.email)
    return Asker("", slack) if slack is not None else None


def may_retry(run: Run, stage: str, attempt: int) -> Decision:
    """Whether this attempt of the stage is still the last one, and failed."""
    now = run.stage(stage)
    if now is None:
        return Denied(f"There is no stage {stage} in {called(run)}.")
    if now.attempt != attempt:
        return Denied(f"{now.title} has been retried since: attempt {now.attempt} is {now.state.value}. Use the newest message about it.")
    if now.state is not State.FAILED:
        return Denied(f"{now.title} has not failed: it is {now.state.value}.")
    return Allowed()


def failed_stages(run: Run) -> tuple[Stage, ...]:
    """The stages whose last attempt failed."""
    return tuple(stage for stage in run.stages if stage.state is State.FAILED)


def tail(lines: tuple[str, ...]) -> tuple[str, ...]:
    """The end of a log, fit to be shown: no secrets, none of the agent's own words, at most 20 lines, none endless, no blank ends."""
    # Cut generously first: what is hidden must have been seen whole.
    shown = redact("\n".join(line[: 10 * LINE] for line in lines[-10 * TAIL :])).split("\n")
    shown = _said_by_the_step(shown) or shown
    while shown and not shown[-1].strip():
        shown.pop()
    return tuple(line if len(line) <= LINE else f"{line[: LINE - 1]}…" for line in shown[-TAIL:])


def _said_by_the_step(lines: list[str]) -> list[str]:
    begin = max((place + 1 for place, line in enumerate(lines) if BEGINS in line), default=0)
    return [MARK.sub("", line) for line in lines[begin:] if not line.startswith(AROUND)]
