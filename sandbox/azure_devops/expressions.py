"""Runtime expressions of Azure Pipelines: conditions, `$[ ... ]` and the `$(macros)` in inputs.

https://learn.microsoft.com/azure/devops/pipelines/process/expressions
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sandbox.azure_devops.plan import Result


@dataclass(frozen=True, slots=True)
class Ran:
    """How a stage or job that others depend on ended, with its output variables.

    A job's outputs are named `step.variable`, as `JobOutcome.outputs` has them; a stage's `job.step.variable`.
    """

    result: Result
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scope:
    """What an expression can see.

    `dependencies`: what the stage (or job) names in dependsOn, by name. `stage_dependencies`: stage, then job; for jobs and their variables.
    `before`: results that a bare `succeeded()` or `failed()` looks at; None means those of `dependencies`.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    dependencies: Mapping[str, Ran] = field(default_factory=dict)
    stage_dependencies: Mapping[str, Mapping[str, Ran]] = field(default_factory=dict)
    before: tuple[Result, ...] | None = None
    canceled: bool = False
