"""Reads what the stages of a run hand on (deploy/README.md). A reader refuses a schema it does not know."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import isfinite

from bot.core.models import Comparison, Contender, Direction, Image, Metric, ModelVersion, SmokeTest, Verdict

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Unreadable(Exception):
    """A hand-off in a schema or shape we do not know; the message is a sentence fit for a person."""


def pick(files: Mapping[str, bytes], name: str) -> bytes | None:
    """The file of that name in an artifact, wherever it lies in it."""
    return next((content for path, content in files.items() if path.rpartition("/")[2] == name), None)


def comparison(content: bytes) -> Comparison:
    """The comparison in evaluation.json. Raises Unreadable."""
    match _json(content, "evaluation.json"):
        case {
            "model": str(model),
            "verdict": "pass" | "kept" | "fail" as verdict,
            "rule": str(rule),
            "decides": str(decides),
            "metrics": [_, *_] as metrics,
            "champion": dict() | None as champion,
            "candidates": list(candidates),
            "winner": str() | None as winner,
            **rest,
        }:
            rows, fingerprint = _holdout(rest.get("holdout"))
            read = Comparison(
                model=model,
                verdict=Verdict(verdict),
                rule=rule,
                metrics=tuple(_metric(metric) for metric in metrics),
                decides=decides,
                champion=None if champion is None else _contender(champion),
                candidates=tuple(_contender(candidate) for candidate in candidates),
                winner=winner if verdict == "pass" else None,
                rows=rows,
                fingerprint=fingerprint,
            )
        case _:
            raise _unknown("evaluation.json")
    if read.decides not in {metric.name for metric in read.metrics}:
        raise Unreadable("evaluation.json decides by a metric that it does not list.")
    if read.verdict is Verdict.PASS and read.winner not in {candidate.name for candidate in read.candidates}:
        raise Unreadable("evaluation.json says pass and names no winner among its candidates.")
    return read


def version(content: bytes) -> ModelVersion:
    """The registered version in model.json. Raises Unreadable."""
    match _json(content, "model.json"):
        case {"name": str(name), "version": str() | int() as number, **rest}:
            return ModelVersion(
                name=name,
                version=str(number),
                algorithm=_text(rest.get("algorithm")),
                run_id=_text(rest.get("run_id")) or None,
                commit=_text(rest.get("commit")) or None,
                metrics=_numbers(rest.get("metrics") or {}, "model.json"),
                tags={"data_fingerprint": _text(rest.get("data_fingerprint"))} if rest.get("data_fingerprint") else {},
            )
        case _:
            raise _unknown("model.json")


def image(content: bytes) -> Image:
    """The scoring image in image.json. Raises Unreadable, also where it is not addressed by its digest."""
    match _json(content, "image.json"):
        case {"name": str(name), "tag": str(tag), "digest": str(digest), "location": str(location)} if DIGEST.fullmatch(digest):
            return Image(name, tag, digest, location)
        case _:
            raise _unknown("image.json")


def smoke_test(content: bytes, name: str) -> SmokeTest:
    """What the deployed endpoint answered, from qa.json or prod.json. Raises Unreadable."""
    match _json(content, name):
        case {"environment": str(environment), "target": str(target), "endpoint": str(endpoint), "passed": bool(passed), **rest}:
            checked, latency = rest.get("checked"), rest.get("latency_ms")
            return SmokeTest(
                environment=environment,
                target=target,
                endpoint=endpoint,
                passed=passed,
                checked=checked if isinstance(checked, int) else 0,
                latency_ms=float(latency) if isinstance(latency, int | float) else 0.0,
                detail=_text(rest.get("detail")),
                digest=_text(rest.get("digest")),
            )
        case _:
            raise _unknown(name)


def _json(content: bytes, name: str) -> Mapping[str, object]:
    try:
        read: object = json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise Unreadable(f"{name} is not JSON.") from None
    match read:
        case {"schema": 1, **rest}:
            return {str(key): value for key, value in rest.items()}
        case {"schema": other}:
            raise Unreadable(f"{name} has schema {str(other)[:20]}, and this bot knows schema 1 only: deploy a newer bot.")
        case _:
            raise _unknown(name)


def _no_number(word: str) -> float:
    raise ValueError(word)


def _unknown(name: str) -> Unreadable:
    return Unreadable(f"{name} has a shape that this bot does not know.")


def _holdout(read: object) -> tuple[int, str]:
    match read:
        case {"rows": int(rows), "fingerprint": str(fingerprint)}:
            return rows, fingerprint
        case _:
            return 0, ""


def _metric(read: object) -> Metric:
    match read:
        case {"name": str(name), "label": str(label), "direction": "higher" | "lower" as direction, **rest}:
            digits = rest.get("digits")
            return Metric(name, label, Direction(direction), digits if isinstance(digits, int) and 0 <= digits <= 12 else 2)
        case _:
            raise _unknown("evaluation.json")


def _contender(read: object) -> Contender:
    match read:
        case {"name": str(name), "metrics": dict(metrics), **rest}:
            parameters, number = rest.get("parameters"), rest.get("version")
            return Contender(
                name=name,
                algorithm=_text(rest.get("algorithm")) or name,
                metrics=_numbers(metrics, "evaluation.json"),
                version=None if number is None else str(number),
                run_id=_text(rest.get("run_id")) or None,
                parameters={str(key): str(value) for key, value in parameters.items()} if isinstance(parameters, dict) else {},
            )
        case _:
            raise _unknown("evaluation.json")


def _numbers(read: object, name: str) -> Mapping[str, float]:
    """Metrics by name; one that could not be measured is null, and left out."""
    if not isinstance(read, dict):
        raise _unknown(name)
    found: dict[str, float] = {}
    for metric, value in read.items():
        match value:
            case None:
                continue
            case bool():
                raise _unknown(name)
            case int() | float() if isfinite(value):
                found[metric] = float(value)
            case _:
                raise _unknown(name)
    return found


def _text(read: object) -> str:
    return read if isinstance(read, str) else ""
