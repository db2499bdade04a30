"""Registered models and the comparison of champion and candidates."""

from __future__ import annotations

from collections.abc import Mapping
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


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a run hands on: each part is there once its stage has published it."""

    comparison: Comparison | None = None
    version: ModelVersion | None = None
    image: Image | None = None
    smoke: Mapping[str, SmokeTest] = field(default_factory=dict)
    chart: bytes | None = None
