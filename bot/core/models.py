"""Registered models and the comparison of champion and candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Direction(StrEnum):
    """Which way a metric gets better."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that models are compared by; `digits` are decimals to show."""

    name: str
    label: str
    direction: Direction
    digits: int = 2
    unit: str = ""


class Verdict(StrEnum):
    """How an evaluation ended."""

    PASS = "pass"  # noqa: S105 a verdict, not a password
    KEPT = "kept"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Contender:
    """A model under comparison: the champion (with its registered version) or a candidate (with its job)."""

    name: str
    algorithm: str
    metrics: Mapping[str, float]
    version: str | None = None
    run_id: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the evaluate stage found out; `winner` names a candidate only where the verdict is PASS."""

    model: str
    verdict: Verdict
    rule: str
    metrics: tuple[Metric, ...]
    decides: str
    champion: Contender | None
    candidates: tuple[Contender, ...]
    winner: str | None
    rows: int = 0
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version in the model registry; `metrics` come from its tags, `champion` is the explicit tag."""

    name: str
    version: str
    created: datetime | None = None
    champion: bool = False
    algorithm: str = ""
    run_id: str | None = None
    commit: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Image:
    """The scoring image that CD deploys, addressed by its digest."""

    name: str
    tag: str
    digest: str
    location: str


@dataclass(frozen=True, slots=True)
class SmokeTest:
    """What the deployed endpoint answered."""

    environment: str
    target: str
    endpoint: str
    passed: bool
    checked: int
    latency_ms: float
    detail: str = ""
    digest: str = ""  # of the image that answered


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a run hands on: each part is there once its stage has published it."""

    comparison: Comparison | None = None
    version: ModelVersion | None = None
    image: Image | None = None
    smoke: Mapping[str, SmokeTest] = field(default_factory=dict)
    chart: bytes | None = None


class Turn(StrEnum):
    """Which way a metric went against the champion, in the sense its direction declares."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Change:
    """How a value stands against another: `by` has the metric's unit and the sign of the value's move, not of its merit."""

    by: float
    turn: Turn


def change(metric: Metric, value: float | None, against: float | None) -> Change | None:
    """The change from `against` to `value`; None where one of them was not measured. Moves too small to show are none."""
    if value is None or against is None:
        return None
    by = round(value - against, metric.digits)
    if by == 0:
        return Change(0.0, Turn.SAME)
    better = (by > 0) == (metric.direction is Direction.HIGHER)
    return Change(by, Turn.BETTER if better else Turn.WORSE)


def shown(metric: Metric, value: float | None) -> str:
    """A value with the metric's decimals and unit; a dash where it was not measured."""
    return "–" if value is None else f"{value:.{metric.digits}f}".replace("-", "−") + (metric.unit and f" {metric.unit}")


def signed(metric: Metric, change: Change) -> str:
    """A change with its sign and the metric's decimals."""
    return f"{change.by:+.{metric.digits}f}".replace("-", "−") if change.by else "±0"


def deciding(comparison: Comparison) -> Metric | None:
    """The metric that chooses."""
    return next((metric for metric in comparison.metrics if metric.name == comparison.decides), None)


def ranked(comparison: Comparison) -> tuple[Contender, ...]:
    """The candidates: the winner, then by the deciding metric, best first; those that were not scored last, in their order."""
    metric = deciding(comparison)
    sign = -1.0 if metric is not None and metric.direction is Direction.HIGHER else 1.0

    def place(candidate: Contender) -> tuple[bool, bool, float]:
        value = candidate.metrics.get(comparison.decides)
        return candidate.name != comparison.winner, value is None, sign * (value or 0.0)

    return tuple(sorted(comparison.candidates, key=place))


def best(comparison: Comparison) -> Contender | None:
    """The winner, or else the best of the candidates: whom the champion is compared with."""
    return next(iter(ranked(comparison)), None)


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of a comparison: the values in the order of the contenders, and how the best candidate stands against the champion."""

    metric: Metric
    champion: float | None
    candidates: tuple[float | None, ...]
    change: Change | None


def rows(comparison: Comparison, candidates: tuple[Contender, ...]) -> tuple[Row, ...]:
    """A row for each metric, for these candidates, whose first is compared with the champion."""
    made = []
    for metric in comparison.metrics:
        champion = comparison.champion.metrics.get(metric.name) if comparison.champion else None
        values = tuple(candidate.metrics.get(metric.name) for candidate in candidates)
        made.append(Row(metric, champion, values, change(metric, values[0] if values else None, champion)))
    return tuple(made)


def champion_of(versions: Sequence[ModelVersion]) -> ModelVersion | None:
    """The version with the champion tag: what Prod serves."""
    return next((version for version in versions if version.champion), None)
