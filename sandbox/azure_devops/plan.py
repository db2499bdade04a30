"""What a pipeline's YAML comes to once its templates are expanded: the agreement between the compiler, the orchestrator and the agent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase


class BadPipeline(Exception):
    """The YAML or its parameters are wrong; the message says where, as Azure DevOps would."""


class Result(StrEnum):
    """How a step, job or stage ended, in the words that conditions compare with (`dependencies.train.result`)."""

    SUCCEEDED = "Succeeded"
    SUCCEEDED_WITH_ISSUES = "SucceededWithIssues"
    SKIPPED = "Skipped"
    FAILED = "Failed"
    CANCELED = "Canceled"


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One step: `task` is "script", "checkout", "publish", ... or a task with its version ("PublishBuildArtifacts@1").

    `inputs`, `env` and `condition` may still hold `$(macros)` and runtime expressions.
    """

    task: str
    title: str
    name: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    condition: str = "succeeded()"
    continue_on_error: bool = False
    timeout_minutes: float = 0


@dataclass(frozen=True, slots=True)
class PlanJob:
    """One job; a deployment job names its environment. `variables` may hold runtime expressions `$[ ... ]`."""

    name: str
    title: str
    steps: tuple[PlanStep, ...]
    depends_on: tuple[str, ...] = ()
    condition: str = "succeeded()"
    environment: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    timeout_minutes: float = 60
    continue_on_error: bool = False


@dataclass(frozen=True, slots=True)
class PlanStage:
    """One stage, with the names of the stages it waits for."""

    name: str
    title: str
    jobs: tuple[PlanJob, ...]
    depends_on: tuple[str, ...] = ()
    condition: str = "succeeded()"
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled pipeline: `branches` are those whose pushes start it, `parameters` the values this plan was compiled with.

    `name` is the run-number format (`$(Date:yyyyMMdd).$(Rev:r)` unless the YAML has its own).
    """

    name: str
    stages: tuple[PlanStage, ...]
    parameters: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict)
    branches: tuple[str, ...] = ()
    branches_excluded: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    paths_excluded: tuple[str, ...] = ()

    def starts_on_push(self, ref: str, changed: Collection[str]) -> bool:
        """Whether a push to `ref` (refs/heads/main) that changed these files (relative to the root) starts a run.

        https://learn.microsoft.com/azure/devops/pipelines/repos/azure-repos-git#ci-triggers
        """
        branch = ref.removeprefix("refs/heads/")
        if not _any(self.branches, branch) or _any(self.branches_excluded, branch):
            return False
        return any(_wanted(path, self.paths, self.paths_excluded) for path in changed)


def _any(patterns: Collection[str], branch: str) -> bool:
    return any(fnmatchcase(branch, pattern.removeprefix("refs/heads/")) for pattern in patterns)


def _wanted(path: str, included: Collection[str], excluded: Collection[str]) -> bool:
    """The longest matching pattern wins, so an exclusion may hold an exception."""
    best = max((len(pattern) for pattern in included if _below(path, pattern)), default=0 if not included else -1)
    return best >= 0 and best >= max((len(pattern) for pattern in excluded if _below(path, pattern)), default=-1)


def _below(path: str, pattern: str) -> bool:
    pattern = pattern.strip("/")
    return pattern in {"", "*", path} or path.startswith(f"{pattern}/") or fnmatchcase(path, pattern)
