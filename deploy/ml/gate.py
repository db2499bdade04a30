"""The gate: which contender wins, and the rule that decided, in words. Pure, and closed when in doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from deploy.ml.config import Gate, Metric, Model
from deploy.ml.score import gain

Verdict = Literal["pass", "kept", "fail"]


@dataclass(frozen=True, slots=True)
class Contender:
    """A champion or candidate, scored on the hold-out rows, or with the `problem` that kept it from being scored."""

    name: str
    algorithm: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""
    version: str | None = None
    run_id: str | None = None
    job: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict; `winner` is the name of a candidate where it is `pass`."""

    verdict: Verdict
    rule: str
    winner: str | None = None


def decide(model: Model, champion: Contender | None, candidates: Sequence[Contender]) -> Outcome:
    """Whether one of the freshly trained candidates is to follow the champion."""
    if unscored := _unscored(champion, candidates):
        return unscored
    metric = _deciding(model)
    able = [candidate for candidate in candidates if not broken_limits(model, candidate)]
    if not able:
        return Outcome("fail", "No candidate is within the limits: " + "; ".join(broken_limits(model, one)[0] for one in candidates) + ".")
    best = min(able, key=lambda one: one.metrics[metric.name] * (1 if metric.direction == "lower" else -1))
    value = _value(metric, best)
    if champion is None:
        return Outcome("pass", f"No champion yet: {metric.label} of {best.name} is {value}, the best of the candidates.", best.name)
    share = gain(metric.direction, champion.metrics[metric.name], best.metrics[metric.name])
    told = f"{metric.label} of {best.name} is {value}, {_compared(share)} the champion's {_value(metric, champion)}"
    asked = f"at least {_percent(model.gate.improvement)} better is asked."
    if share >= model.gate.improvement:
        return Outcome("pass", f"{told}; {asked}", best.name)
    return Outcome("kept", f"{told}; {asked}")


def decide_promotion(model: Model, champion: Contender | None, candidate: Contender) -> Outcome:
    """Whether a registered version that a person asked for may be deployed: the limits hold, the comparison only informs."""
    if unscored := _unscored(champion, [candidate]):
        return unscored
    metric = _deciding(model)
    if champion is not None and champion.version == candidate.version:
        return Outcome("kept", f"Version {candidate.version} is the champion already.")
    if broken := broken_limits(model, candidate):
        return Outcome("fail", f"Version {candidate.version} is not within the limits: {'; '.join(broken)}.")
    told = f"{metric.label} of version {candidate.version} is {_value(metric, candidate)}"
    if champion is None:
        return Outcome("pass", f"No champion yet: {told}, within the limits.", candidate.name)
    share = gain(metric.direction, champion.metrics[metric.name], candidate.metrics[metric.name])
    return Outcome(
        "pass",
        f"{told}, {_compared(share)} that of the champion (version {champion.version}, {_value(metric, champion)}); asked for by name, "
        "and within the limits.",
        candidate.name,
    )


def broken_limits(model: Model, contender: Contender) -> list[str]:
    """The limits that a contender breaks, one phrase each."""
    return [phrase for metric in model.metrics if (phrase := _broken(model.gate, metric, contender))]


def _broken(gate: Gate, metric: Metric, contender: Contender) -> str:
    limit = gate.limits.get(metric.name)
    if limit is None:
        return ""
    value = contender.metrics[metric.name]
    if metric.direction == "lower":
        return f"{contender.name}'s {metric.label} is {value:.{metric.digits}f}, at most {limit:g} is allowed" if not value <= limit else ""
    return f"{contender.name}'s {metric.label} is {value:.{metric.digits}f}, at least {limit:g} is asked" if not value >= limit else ""


def _unscored(champion: Contender | None, candidates: Sequence[Contender]) -> Outcome | None:
    if not candidates:
        return Outcome("fail", "There is no candidate.")
    problems = [f"Candidate {one.name} could not be scored: {one.problem}" for one in candidates if one.problem]
    if champion is not None and champion.problem:
        problems.insert(0, f"The champion, version {champion.version}, could not be scored: {champion.problem}")
    return Outcome("fail", "; ".join(problems) + ".") if problems else None


def _deciding(model: Model) -> Metric:
    return next(metric for metric in model.metrics if metric.name == model.gate.decides)


def _value(metric: Metric, contender: Contender) -> str:
    return f"{contender.metrics[metric.name]:.{metric.digits}f}"


def _compared(share: float) -> str:
    return f"{_percent(abs(share))} {'better' if share >= 0 else 'worse'} than"


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"
