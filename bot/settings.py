"""The environment and `callboard.toml` -> frozen settings. Every mistake is listed at once, in words; secrets never print."""

from __future__ import annotations

import re
import tomllib
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from bot.core.models import Direction, Metric
from bot.core.team import Duty, Environment, Freeze, Kind, Model, Parameter, People, Right, Team
from bot.core.waiting import APART


class SettingsProblem(Exception):
    """The settings are wrong; `mistakes` says each of them in words."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__("\n".join(("Callboard cannot start with these settings:", *(f"  - {mistake}" for mistake in mistakes))))
        self.mistakes = mistakes


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Secret = Annotated[SecretStr, Field(min_length=8)]


def _starts_with(prefix: str) -> AfterValidator:
    def check(secret: SecretStr) -> SecretStr:
        if not secret.get_secret_value().startswith(prefix):
            raise ValueError(f"it should start with {prefix}")
        return secret

    return AfterValidator(check)


def _are_keys(keys: SecretStr) -> SecretStr:
    for key in keys.get_secret_value().split(","):
        try:
            right = len(urlsafe_b64decode(key.strip())) == 32
        except ValueError:
            right = False
        if not right:
            raise ValueError("each key is 32 random bytes in URL-safe base64; `python -m bot keys new` makes one")
    return keys


def _length(given: object) -> timedelta:
    found = re.fullmatch(r"([1-9][0-9]{0,3})([mhd])", given) if isinstance(given, str) else None
    if found is None:
        raise ValueError("a length of time is a whole number of minutes, hours or days, such as 30m, 4h or 2d")
    return int(found[1]) * _UNITS[found[2]]


_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def _is_one_tenant(tenant: str) -> str:
    """With these three names Entra would let anybody in from anywhere."""
    if tenant.lower() in {"common", "organizations", "consumers"}:
        raise ValueError("it names one organisation: its tenant id, or its domain")
    return tenant


SIGN_IN = ("ENTRA_TENANT", "ENTRA_CLIENT_ID", "ENTRA_CLIENT_SECRET", "CALLBOARD_KEYS")

ChannelId = Annotated[str, StringConstraints(pattern=r"^[CG][A-Z0-9]{6,}$")]
GroupId = Annotated[str, StringConstraints(pattern=r"^S[A-Z0-9]{2,20}$")]
Length = Annotated[timedelta, BeforeValidator(_length)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class EnvironmentVariables(_Frozen):
    """What differs between two installations of the same team: secrets, addresses, folders. `.env.example` explains each."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    SLACK_BOT_TOKEN: Annotated[SecretStr, _starts_with("xoxb-")]
    SLACK_SIGNING_SECRET: Secret
    SLACK_APP_TOKEN: Annotated[SecretStr, _starts_with("xapp-")] | None = None
    HOOKS_USERNAME: Text
    HOOKS_PASSWORD: Secret
    HOOKS_SECRET: Secret
    ENTRA_TENANT: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$"), AfterValidator(_is_one_tenant)] | None = None
    ENTRA_CLIENT_ID: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")] | None = None
    ENTRA_CLIENT_SECRET: Secret | None = None
    CALLBOARD_KEYS: Annotated[SecretStr, AfterValidator(_are_keys)] | None = None
    CALLBOARD_URL: Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+(/\S*)?$")]
    CALLBOARD_CONFIG: Path = Path("callboard.toml")
    CALLBOARD_DATA: Path = Path(".callboard")
    CALLBOARD_HOST: Text = "127.0.0.1"
    CALLBOARD_PORT: Annotated[int, Field(ge=0, le=65535)] = 8801
    DATABASE_URL: SecretStr | None = None
    LOG_LEVEL: Literal["debug", "info", "warning", "error"] = "info"
    LOG_FORMAT: Literal["console", "json"] = "console"


class _AzureDevOps(_Frozen):
    organization: Text
    project: Text
    act_as: Literal["person", "service"] = "person"


class _AzureMl(_Frozen):
    subscription: Text
    resource_group: Text
    workspace: Text
    location: Text = "westeurope"
    registry: str = ""
    cluster: str = ""
    pull_identity: str = ""


class _Slack(_Frozen):
    prefix: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,31}$")] = "mlops"


class _Permissions(_Frozen):
    retrain: frozenset[Text] | None = None
    promote: frozenset[Text] | None = None
    rollback: frozenset[Text] | None = None
    lock: frozenset[Text] | None = None
    break_glass: frozenset[Text] | None = None

    def rights(self) -> dict[Right, People]:
        """The rights that are given; what is not mentioned is not there."""
        given = {right: getattr(self, right.value) for right in Right}
        return {right: People(names) for right, names in given.items() if names is not None}


DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class _Freeze(_Frozen):
    """From `start` to `end`, or every week on `days` from `opens` until `closes`; all in the local time of `timezone`."""

    reason: Text
    timezone: Text
    start: datetime | None = None
    end: datetime | None = None
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = ()
    opens: time = time()
    closes: time = time()

    @model_validator(mode="after")
    def _is_one_of_the_two_kinds(self) -> _Freeze:
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"there is no time zone {self.timezone}; an example is Europe/Berlin") from None
        if (self.start is None) != (self.end is None) or (self.start is None) == (not self.days):
            raise ValueError("a freeze has either `start` and `end`, or `days`")
        if any(at is not None and at.tzinfo is not None for at in (self.start, self.end)):
            raise ValueError("`start` and `end` are local times: `timezone` says whose")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError("`start` is not before `end`")
        return self


class _Environment(_Frozen):
    stage: Text
    needs_approval: bool = False
    approvers: frozenset[Text] = frozenset()
    minimum: Annotated[int, Field(ge=1, le=20)] = 1
    apart: frozenset[Duty] = frozenset(Duty)
    freezes: tuple[_Freeze, ...] = ()
    release_stage: str = ""
    remind: tuple[Length, ...] = ()
    escalate: Length | None = None
    on_call: GroupId | None = None

    @model_validator(mode="after")
    def _people_are_told_in_measure(self) -> _Environment:
        if (self.remind or self.escalate is not None) and not self.needs_approval:
            raise ValueError("`remind` and `escalate` are for an environment that needs approval")
        if any(earlier >= later for earlier, later in pairwise(self.remind)):
            raise ValueError("`remind` is not in ascending order")
        if any(later - earlier < APART for earlier, later in pairwise(self.remind)):
            raise ValueError("two of `remind` are less than four hours apart")
        if self.escalate is not None and self.on_call is None:
            raise ValueError("`escalate` needs `on_call`, the Slack user group that is told then")
        return self


class _Parameter(_Frozen):
    kind: Kind
    help: str = ""
    minimum: Number | None = None
    maximum: Number | None = None
    choices: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _fits_its_kind(self) -> _Parameter:
        if self.kind is Kind.CHOICE and not self.choices:
            raise ValueError("a choice needs `choices`")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("`minimum` is greater than `maximum`")
        return self


class _Metric(_Frozen):
    label: str = ""
    direction: Direction
    digits: Annotated[int, Field(ge=0, le=8)] = 2
    unit: str = ""


class _Gate(_Frozen):
    """Read by the stage scripts; checked here so that a wrong gate is found before a run is spent on it."""

    decides: Text
    improvement: Annotated[float, Field(ge=0, lt=1)] = 0.0
    limits: dict[str, Number] = Field(default_factory=dict)


class _Model(_Frozen):
    pipeline: Annotated[int, Field(gt=0)]
    channel: ChannelId
    branch: Annotated[str, StringConstraints(pattern=r"^refs/heads/\S+$")] = "refs/heads/main"
    metrics: Annotated[dict[str, _Metric], Field(min_length=1)]
    parameters: dict[str, _Parameter] = Field(default_factory=dict)
    gate: _Gate
    release: Annotated[int, Field(gt=0)] | None = None
    permissions: _Permissions = _Permissions()
    approvers: dict[str, frozenset[Text]] = Field(default_factory=dict)
    # What only the stage scripts read.
    compute: str = ""
    endpoint: str = ""
    kubernetes: str = ""
    seed: int = 0
    candidates: dict[str, dict[str, float | int | str | bool]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _the_gate_knows_its_metrics(self) -> _Model:
        unknown = sorted({self.gate.decides, *self.gate.limits} - set(self.metrics))
        if unknown:
            raise ValueError(f"the gate names {', '.join(unknown)}, which `metrics` does not have")
        return self


class _File(_Frozen):
    azure_devops: _AzureDevOps
    azure_ml: _AzureMl
    slack: _Slack = _Slack()
    permissions: _Permissions = _Permissions()
    environments: dict[str, _Environment] = Field(default_factory=dict)
    models: Annotated[dict[str, _Model], Field(min_length=1)]

    @model_validator(mode="after")
    def _models_know_their_environments(self) -> _File:
        unknown = sorted({name for model in self.models.values() for name in model.approvers} - set(self.environments))
        if unknown:
            raise ValueError(f"approvers are listed for {', '.join(unknown)}, which `environments` does not have")
        return self

    @model_validator(mode="after")
    def _a_release_is_about_one_thing(self) -> _File:
        releases = Counter(model.release for model in self.models.values() if model.release is not None)
        stages = Counter(known.release_stage for known in self.environments.values() if known.release_stage)
        if twice := sorted(str(name) for name, times in (releases | stages).items() if times > 1):
            raise ValueError(f"`release` or `release_stage` {', '.join(twice)} is there more than once; each belongs to one")
        return self


@dataclass(frozen=True, slots=True)
class Workspace:
    """Which Azure Machine Learning workspace the team's models are in."""

    subscription: str
    resource_group: str
    name: str
    location: str


@dataclass(frozen=True, slots=True)
class Entra:
    """The app registration that people sign in with, and the keys that their tokens are encrypted under."""

    tenant: str
    client: str
    secret: SecretStr
    keys: SecretStr


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the bot is told from outside; `entra` is there unless everything is done as the bot."""

    environment: EnvironmentVariables
    team: Team
    workspace: Workspace
    entra: Entra | None = None


def load(environ: Mapping[str, str]) -> Settings:
    """The settings of this environment. Raises SettingsProblem with every mistake of both sources."""
    mistakes: list[str] = []
    environment: EnvironmentVariables | None = None
    try:
        environment = EnvironmentVariables.model_validate({name: value for name, value in environ.items() if value})
    except ValidationError as error:
        mistakes += _in_words(error, "")
    path = environment.CALLBOARD_CONFIG if environment else Path(environ.get("CALLBOARD_CONFIG") or "callboard.toml")
    file: _File | None = None
    try:
        file = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        mistakes.append(f"{path} cannot be read ({error.strerror}). Set CALLBOARD_CONFIG to where the team's file is.")
    except tomllib.TOMLDecodeError as error:
        mistakes.append(f"{path} is not TOML: {error}")
    except ValidationError as error:
        mistakes += _in_words(error, f"{path}: ")
    if environment is not None and (file is None or file.azure_devops.act_as == "person"):
        missing = [name for name in SIGN_IN if getattr(environment, name) is None]
        mistakes += [f'{name} is missing: people sign in with it (unless [azure_devops] act_as = "service").' for name in missing]
    if environment is None or file is None or mistakes:
        raise SettingsProblem(tuple(mistakes))
    place = file.azure_ml
    workspace = Workspace(place.subscription, place.resource_group, place.workspace, place.location)
    return Settings(environment, _team(file), workspace, _entra(environment) if file.azure_devops.act_as == "person" else None)


def _entra(environment: EnvironmentVariables) -> Entra | None:
    match environment.ENTRA_TENANT, environment.ENTRA_CLIENT_ID, environment.ENTRA_CLIENT_SECRET, environment.CALLBOARD_KEYS:
        case str(tenant), str(client), SecretStr() as secret, SecretStr() as keys:
            return Entra(tenant, client, secret, keys)
        case _:
            return None


def dotenv(text: str) -> dict[str, str]:
    """`NAME=value` lines as Docker's --env-file takes them: no quotes, no expansion, `#` starts a comment line."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def _team(file: _File) -> Team:
    return Team(
        organization=file.azure_devops.organization,
        project=file.azure_devops.project,
        models={name: _model(name, model) for name, model in file.models.items()},
        environments={name: _environment(name, known) for name, known in file.environments.items()},
        rights=file.permissions.rights(),
        prefix=file.slack.prefix,
        service_identity=file.azure_devops.act_as == "service",
    )


def _environment(name: str, known: _Environment) -> Environment:
    return Environment(
        name,
        known.stage,
        known.needs_approval,
        People(known.approvers),
        release_stage=known.release_stage,
        minimum=known.minimum,
        apart=known.apart,
        freezes=tuple(_freeze(freeze) for freeze in known.freezes),
        remind=known.remind,
        escalate=known.escalate,
        on_call=known.on_call or "",
    )


def _freeze(known: _Freeze) -> Freeze:
    zone = ZoneInfo(known.timezone)
    return Freeze(
        known.reason,
        zone,
        known.start.replace(tzinfo=zone) if known.start else None,
        known.end.replace(tzinfo=zone) if known.end else None,
        frozenset(DAYS.index(day) for day in known.days),
        known.opens,
        known.closes,
    )


def _model(name: str, model: _Model) -> Model:
    return Model(
        name=name,
        pipeline_id=model.pipeline,
        channel=model.channel,
        metrics=tuple(
            Metric(metric, known.label or metric, known.direction, known.digits, known.unit) for metric, known in model.metrics.items()
        ),
        parameters=tuple(
            Parameter(parameter, known.kind, known.help, known.minimum, known.maximum, known.choices)
            for parameter, known in model.parameters.items()
        ),
        branch=model.branch,
        release_id=model.release,
        rights=model.permissions.rights(),
        approvers={environment: People(names) for environment, names in model.approvers.items()},
    )


def _in_words(error: ValidationError, where: str) -> list[str]:
    """One sentence per mistake. Pydantic's own text would repeat the value, which may be a secret."""
    return [where + _sentence(".".join(str(part) for part in mistake["loc"]), mistake) for mistake in error.errors(include_input=False)]


def _sentence(name: str, mistake: Any) -> str:
    context: Mapping[str, Any] = mistake.get("ctx", {})
    match mistake["type"]:
        case "missing":
            return f"{name} is missing."
        case "extra_forbidden":
            return f"{name} is not known here. Is it misspelt?"
        case "string_too_short" | "too_short":
            return f"{name} is too short: at least {context.get('min_length')}."
        case "string_pattern_mismatch":
            return f"{name} does not look right: it should match {context.get('pattern')}."
        case "literal_error" | "enum":
            return f"{name} should be one of {context.get('expected')}."
        case "value_error":
            return f"{name}: {context.get('error')}."
        case _:
            return f"{name}: {mistake['msg'][:1].lower()}{mistake['msg'][1:]}."
