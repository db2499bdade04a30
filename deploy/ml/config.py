"""What `callboard.toml` says to the stage scripts: the workspace, the models, their metrics and gates. No Azure here."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

FILE = Path("callboard.toml")
METRICS = ("mae", "rmse", "r2")  # what deploy/ml/score.py measures


class Mistake(Exception):
    """`callboard.toml` or what was asked of a stage is wrong; the message says what, and where."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where everything lives in Azure; `registry` is the container registry's name.

    `cluster` is the AKS cluster that models' Kubernetes computes are attached to; where it is empty, they are attached by hand.
    `pull_identity` names the user-assigned identity that container instances pull images under.
    """

    subscription: str
    resource_group: str
    name: str
    location: str
    registry: str
    cluster: str = ""
    pull_identity: str = ""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A training parameter that may be set for a run; limits are inclusive."""

    name: str
    kind: Literal["number", "integer", "choice"]
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that contenders are compared by."""

    name: str
    label: str
    direction: Literal["lower", "higher"]
    digits: int = 2


@dataclass(frozen=True, slots=True)
class Gate:
    """`decides` is the metric that chooses; a challenger must be better by the share `improvement`; nobody may break a limit."""

    decides: str
    improvement: float
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Model:
    """A model the team trains: its candidates (algorithm -> settings), where it trains and where it serves."""

    name: str
    compute: str
    endpoint: str
    kubernetes: str
    seed: int
    candidates: Mapping[str, Mapping[str, float]]
    parameters: Mapping[str, Parameter]
    metrics: tuple[Metric, ...]
    gate: Gate


@dataclass(frozen=True, slots=True)
class Config:
    """The part of `callboard.toml` that the stage scripts read."""

    workspace: Workspace
    models: Mapping[str, Model]

    def model(self, name: str) -> Model:
        """The model of that name. Raises Mistake."""
        if name not in self.models:
            raise Mistake(f"Model {name!r} is not in callboard.toml; known: {', '.join(sorted(self.models))}.")
        return self.models[name]


def load(file: Path = FILE) -> Config:
    """Read the file. Raises Mistake."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as problem:
        raise Mistake(f"{file} cannot be read: {problem.strerror}.") from None
    except tomllib.TOMLDecodeError as problem:
        raise Mistake(f"{file} is not TOML: {problem}.") from None
    return parse(document)


def parse(document: Mapping[str, Any]) -> Config:
    """The configuration in a parsed file. Raises Mistake."""
    azure = _table(document, "azure_ml")
    workspace = Workspace(
        subscription=_text(azure, "subscription", "azure_ml"),
        resource_group=_text(azure, "resource_group", "azure_ml"),
        name=_text(azure, "workspace", "azure_ml"),
        location=_text(azure, "location", "azure_ml"),
        registry=_text(azure, "registry", "azure_ml"),
        cluster=str(azure.get("cluster", "")),
        pull_identity=str(azure.get("pull_identity", "")),
    )
    return Config(workspace, {name: _model(name, table) for name, table in _table(document, "models").items()})


def _model(name: str, table: Mapping[str, Any]) -> Model:
    where = f"models.{name}"
    metrics = tuple(_metric(key, value, f"{where}.metrics.{key}") for key, value in _table(table, "metrics", where).items())
    known = {metric.name for metric in metrics}
    gate = _table(table, "gate", where)
    limits = {key: _number(gate.get("limits", {}), key, f"{where}.gate.limits") for key in gate.get("limits", {})}
    decides = _text(gate, "decides", f"{where}.gate")
    for metric in (decides, *limits):
        if metric not in known:
            raise Mistake(f"callboard.toml: [{where}.gate] names the metric {metric!r}, which [{where}.metrics] does not declare.")
    candidates = _table(table, "candidates", where)
    if not candidates:
        raise Mistake(f"callboard.toml: [{where}.candidates] is empty.")
    return Model(
        name=name,
        compute=_text(table, "compute", where),
        endpoint=_text(table, "endpoint", where),
        kubernetes=_text(table, "kubernetes", where),
        seed=int(_number(table, "seed", where)),
        candidates={
            key: {setting: _number(value, setting, f"{where}.candidates.{key}") for setting in value} for key, value in candidates.items()
        },
        parameters={key: _parameter(key, value, f"{where}.parameters.{key}") for key, value in _table(table, "parameters", where).items()},
        metrics=metrics,
        gate=Gate(decides, _number(gate, "improvement", f"{where}.gate"), limits),
    )


def _metric(name: str, table: Mapping[str, Any], where: str) -> Metric:
    if name not in METRICS:
        raise Mistake(f"callboard.toml: [{where}] is no metric that deploy/ml/score.py measures; it measures {', '.join(METRICS)}.")
    direction = table.get("direction")
    if direction not in ("lower", "higher"):
        raise Mistake(f'callboard.toml: [{where}] needs direction = "lower" or "higher", not {direction!r}.')
    return Metric(name, _text(table, "label", where), direction, int(table.get("digits", 2)))


def _parameter(name: str, table: Mapping[str, Any], where: str) -> Parameter:
    kind = table.get("kind")
    if kind not in ("number", "integer", "choice"):
        raise Mistake(f'callboard.toml: [{where}] needs kind = "number", "integer" or "choice", not {kind!r}.')
    return Parameter(name, kind, table.get("minimum"), table.get("maximum"), tuple(table.get("choices", ())))


def _table(parent: Mapping[str, Any], key: str, where: str = "") -> Mapping[str, Any]:
    value = parent.get(key)
    if not isinstance(value, dict):
        raise Mistake(f"callboard.toml: the table [{where + '.' if where else ''}{key}] is missing.")
    return value


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise Mistake(f"callboard.toml: [{where}] needs {key}, a text; it has {value!r}.")
    return value


def _number(table: Mapping[str, Any], key: str, where: str) -> float:
    value = table.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Mistake(f"callboard.toml: [{where}] needs {key}, a number; it has {value!r}.")
    return value
