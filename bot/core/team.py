"""What a team declares in `callboard.toml`: models, pipelines, environments, channels, people. Parsed in `bot.settings`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from bot.core.models import Metric
from bot.core.references import Thing


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


ADO = "ado:"  # before the name of an Azure DevOps group


@dataclass(frozen=True, slots=True)
class People:
    """Who may: Slack user ids, user groups (`S...`), e-mail addresses, Azure DevOps groups (`ado:Release Managers`). Empty: nobody."""

    members: frozenset[str] = frozenset()


class Right(StrEnum):
    """What people may be allowed to do."""

    RETRAIN = "retrain"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    LOCK = "lock"
    BREAK_GLASS = "break_glass"


class Duty(StrEnum):
    """What a person has done for a run that keeps them from deciding on it."""

    ASKED = "requester"  # asked for the run
    COMMITTED = "committer"  # committed its head
    PROMOTED = "promoter"  # typed the promote


@dataclass(frozen=True, slots=True)
class Freeze:
    """When nothing goes to an environment: from `start` to `end`, or every week on `days` (Monday is 0) from `opens` until `closes`.

    A weekly one whose `closes` is not after `opens` lasts into the next day. All in the local time of `zone`.
    """

    reason: str
    zone: ZoneInfo
    start: datetime | None = None
    end: datetime | None = None
    days: frozenset[int] = frozenset()
    opens: time = time()
    closes: time = time()


@dataclass(frozen=True, slots=True)
class Model:
    """A model the team trains, and the pipeline and channel that belong to it.

    `release_id` is the classic release definition that deploys it, if one does. `rights` replace the team's; `approvers` replace those of
    an environment.
    """

    name: str
    pipeline_id: int
    channel: str
    metrics: tuple[Metric, ...]
    parameters: tuple[Parameter, ...] = ()
    branch: str = "refs/heads/main"
    release_id: int | None = None
    rights: Mapping[Right, People] = field(default_factory=dict)
    approvers: Mapping[str, People] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Environment:
    """A place to deploy to; only one that `needs_approval` ever carries buttons.

    `stage` is the stage's name in the YAML, `release_stage` in the classic release. `minimum` different people have to approve, none of
    whom has done any of `apart`. Who may decide is reminded after each of `remind`; `on_call`, a user group, once after `escalate`.
    """

    name: str
    stage: str
    needs_approval: bool = False
    approvers: People = People()
    release_stage: str = ""
    minimum: int = 1
    apart: frozenset[Duty] = frozenset(Duty)
    freezes: tuple[Freeze, ...] = ()
    remind: tuple[timedelta, ...] = ()
    escalate: timedelta | None = None
    on_call: str = ""

    def stage_of(self, thing: Thing) -> str:
        """The name of the stage that deploys to it, in a run or in a release; empty where none does."""
        return self.release_stage if thing is Thing.RELEASE else self.stage


@dataclass(frozen=True, slots=True)
class Team:
    """The whole of `callboard.toml`. With `service_identity` writes go out under the bot's own identity, which has to be switched on."""

    organization: str
    project: str
    models: Mapping[str, Model]
    environments: Mapping[str, Environment]
    rights: Mapping[Right, People] = field(default_factory=dict)
    prefix: str = "mlops"
    service_identity: bool = False

    def may(self, right: Right, model: Model | None = None) -> People:
        """Who has the right, for the model where it has its own list."""
        own = model.rights.get(right) if model is not None else None
        return own if own is not None else self.rights.get(right, People())

    def named(self) -> frozenset[str]:
        """Everybody and every group that the file names."""
        models, environments = self.models.values(), self.environments.values()
        people = (
            *self.rights.values(),
            *(environment.approvers for environment in environments),
            *(each for model in models for each in (*model.rights.values(), *model.approvers.values())),
        )
        on_call = {environment.on_call for environment in environments if environment.on_call}
        return frozenset(name for each in people for name in each.members) | on_call

    def model_of(self, pipeline_id: int, named: str | None = None) -> Model | None:
        """The model a run is about: the one its parameters name, else the only one of its pipeline."""
        if named is not None and named in self.models:
            return self.models[named]
        return next((model for model in self.models.values() if model.pipeline_id == pipeline_id), None)

    @property
    def releases(self) -> tuple[int, ...]:
        """The classic release definitions of all models."""
        return tuple(sorted({model.release_id for model in self.models.values() if model.release_id is not None}))

    def released_by(self, definition_id: int) -> Model | None:
        """The model that a classic release definition deploys."""
        return next((model for model in self.models.values() if model.release_id == definition_id), None)
