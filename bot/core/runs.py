"""A run of a pipeline and its parts, as Azure DevOps sees them now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from bot.core.people import Person


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
    """One run of a pipeline; `stages` is empty in listings and in order of execution otherwise."""

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
