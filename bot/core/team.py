"""What a team declares in `callboard.toml`: models, pipelines, environments, channels, people. Parsed in `bot.settings`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bot.core.models import Metric


class Kind(StrEnum):
    """The type of a training parameter."""

    NUMBER = "number"
    INTEGER = "integer"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A training parameter that `/retrain` accepts; limits are inclusive."""

    name: str
    kind: Kind
    help: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """A model the team trains, and the pipeline and channel that belong to it."""

    name: str
    pipeline_id: int
    channel: str
    metrics: tuple[Metric, ...]
    parameters: tuple[Parameter, ...] = ()
    branch: str = "refs/heads/main"


@dataclass(frozen=True, slots=True)
class People:
    """Who may: Slack user ids, user-group ids (`S...`) or e-mail addresses. Empty means nobody."""

    members: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Environment:
    """A place to deploy to; only one that `needs_approval` ever carries buttons."""

    name: str
    stage: str
    needs_approval: bool = False
    approvers: People = People()


@dataclass(frozen=True, slots=True)
class Team:
    """The whole of `callboard.toml`."""

    organization: str
    project: str
    models: Mapping[str, Model]
    environments: Mapping[str, Environment]
    retrain: People = People()
    promote: People = People()
    prefix: str = "mlops"

    def model_of(self, pipeline_id: int, named: str | None = None) -> Model | None:
        """The model a run is about: the one its parameters name, else the only one of its pipeline."""
        if named is not None and named in self.models:
            return self.models[named]
        return next((model for model in self.models.values() if model.pipeline_id == pipeline_id), None)
