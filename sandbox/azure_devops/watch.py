"""Writes down what the agent reports of a job, whoever the job belongs to: its steps, their logs and their issues."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from sandbox.azure_devops.plan import Result
from sandbox.azure_devops.records import Issue, Job, Step, now

# How steps and jobs ended, in the words of records.
RESULTS = {
    Result.SUCCEEDED: "succeeded",
    Result.SUCCEEDED_WITH_ISSUES: "succeededWithIssues",
    Result.SKIPPED: "skipped",
    Result.FAILED: "failed",
    Result.CANCELED: "canceled",
}


class JobWatch:
    """The part of `agent.Watch` that is the same for every job. Step 0 of the record is "Initialize job": the agent's come one later.

    `open_log` gives the number and the file of the next log; `changed` is told whenever a step of the record changed.
    """

    def __init__(self, job: Job, *, open_log: Callable[[], tuple[int, Path]], changed: Callable[[], None]) -> None:
        self._steps = job.steps
        self._open_log = open_log
        self._changed = changed
        self._file: Path | None = None
        self._canceled = asyncio.Event()

    @property
    def canceled(self) -> asyncio.Event:
        """Set to cancel the job."""
        return self._canceled

    def open(self, index: int, text: str) -> None:
        """Write the whole log of a step of our own."""
        step = self._steps[index]
        self._begin(step)
        stamp = now().strftime("%Y-%m-%dT%H:%M:%S.%f0Z")
        for line in (f"##[section]Starting: {step.title}", *text.splitlines(), f"##[section]Finishing: {step.title}"):
            self.write(f"{stamp} {line}")
        self.close()
        end_step(step, "succeeded")
        self._changed()

    def write(self, text: str) -> None:
        """One line of the log that is open."""
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(text + "\n")

    def close(self) -> None:
        """No step writes any more."""
        self._file = None

    def step_started(self, step: int) -> None:
        """See Watch."""
        self._begin(self._steps[step + 1])
        self._changed()

    def step_finished(self, step: int, result: Result) -> None:
        """See Watch."""
        self.close()
        end_step(self._steps[step + 1], RESULTS[result])
        self._changed()

    def line(self, step: int, text: str) -> None:
        """See Watch."""
        self.write(text)

    def issue(self, step: int, kind: Literal["error", "warning"], message: str) -> None:
        """See Watch."""
        self._steps[step + 1].issues.append(Issue(kind, message))

    def _begin(self, step: Step) -> None:
        step.state, step.started = "inProgress", now()
        step.log, self._file = self._open_log()


def end_step(step: Step, result: str) -> None:
    """A step that has not completed ends with this result."""
    if step.state == "completed":
        return
    if step.state == "inProgress":
        step.finished = now()
    step.state, step.result = "completed", result
