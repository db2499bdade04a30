"""What a pipeline's YAML comes to once its templates are expanded: the agreement between the compiler, the orchestrator and the agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class BadPipeline(Exception):
    """The YAML or its parameters are wrong; the message says where, as Azure DevOps would."""


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
    """A compiled pipeline: `branches` are those whose pushes start it, `parameters` the values this plan was compiled with."""

    name: str
    stages: tuple[PlanStage, ...]
    parameters: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict)
    branches: tuple[str, ...] = ()
