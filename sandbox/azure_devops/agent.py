"""The build agent: runs one job's steps as real processes and speaks `##vso` with them, as the Azure Pipelines agent does.

It knows nothing of runs, approvals or REST; whoever starts a job hands it a Space and listens with a Watch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

from sandbox.azure_devops.expressions import Scope
from sandbox.azure_devops.plan import PlanJob, Result


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Space:
    """Where and as whom a job runs.

    `folder`: Pipeline.Workspace, made if missing; the agent itself sets every variable that names a folder in it.
    `repository`, `commit`: what `checkout: self` clones. `artifacts`: the run's artifacts, one folder each, shared by all its jobs.
    `scope.variables`: the run's and the stage's variables, `Build.*` and `System.*` among them; its dependencies serve the job's `$[ ... ]`.
    `secrets`: names of those variables whose values are masked and not exported. `environment`: of every process, from `World.outside(AGENT)`.
    """

    folder: Path
    repository: Path
    commit: str
    artifacts: Path
    environment: Mapping[str, str]
    scope: Scope = field(default_factory=Scope)
    secrets: frozenset[str] = frozenset()
    clock: Callable[[], datetime] = now


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """How the job ended. `outputs` are named as others read them: `step.variable`, in a deployment job `job.step.variable`."""

    result: Result
    outputs: Mapping[str, str]


class Watch(Protocol):
    """Who wants to know; `step` counts the job's steps from 0. Files are to be read before returning."""

    @property
    def canceled(self) -> asyncio.Event:
        """Set to cancel the job: the running step is killed, later ones run only if their condition says so (`always()`)."""
        ...

    def step_started(self, step: int) -> None:
        """The step's process or task begins; a skipped step never starts."""
        ...

    def step_finished(self, step: int, result: Result) -> None:
        """Every step finishes, skipped ones as SKIPPED."""
        ...

    def line(self, step: int, text: str) -> None:
        """One line of the step's log, with its time in front and secrets masked."""
        ...

    def issue(self, step: int, kind: Literal["error", "warning"], message: str) -> None:
        """An issue for the timeline record of the step, secrets masked."""
        ...

    def artifact(self, name: str, folder: Path, kind: Literal["Container", "PipelineArtifact"]) -> None:
        """An artifact is published, or more files are in it; `folder` is `Space.artifacts / name`."""
        ...

    def tests(self, file: Path, title: str) -> None:
        """A JUnit XML file is published as a test run of that title (may be empty)."""
        ...

    def attachment(self, name: str, file: Path) -> None:
        """A Markdown file is added to the run's summary."""
        ...

    def build_number(self, number: str) -> None:
        """A step renamed the run."""
        ...

    def build_tag(self, tag: str) -> None:
        """A step tagged the run."""
        ...


async def run_job(job: PlanJob, space: Space, watch: Watch) -> JobOutcome:
    """Run the job's steps in order and say how it ended.

    Cancelling this coroutine kills the running step's processes at once and runs nothing more (the sandbox is stopping).
    """
    raise NotImplementedError
