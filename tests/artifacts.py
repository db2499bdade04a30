"""What the stages of the examples' runs hand on, as bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping

from bot.core.models import Comparison, Contender
from tests.examples import COMPARISON, IMAGE, SMOKE, V4


def evaluation(comparison: Comparison = COMPARISON) -> bytes:
    """evaluation.json."""
    return json.dumps(
        {
            "schema": 1,
            "model": comparison.model,
            "verdict": comparison.verdict.value,
            "winner": comparison.winner,
            "decides": comparison.decides,
            "rule": comparison.rule,
            "metrics": [
                {"name": metric.name, "label": metric.label, "direction": metric.direction.value, "digits": metric.digits, "limit": None}
                for metric in comparison.metrics
            ],
            "holdout": {"rows": comparison.rows, "fingerprint": comparison.fingerprint},
            "champion": _contender(comparison.champion) if comparison.champion else None,
            "candidates": [_contender(candidate) for candidate in comparison.candidates],
        }
    ).encode()


def smoke(environment: str, *, passed: bool = True) -> bytes:
    """qa.json or prod.json."""
    return json.dumps(
        {
            "schema": 1,
            "environment": environment,
            "target": SMOKE.target,
            "endpoint": SMOKE.endpoint,
            "digest": IMAGE.digest,
            "passed": passed,
            "checked": SMOKE.checked,
            "latency_ms": SMOKE.latency_ms,
            "detail": "",
        }
    ).encode()


def delivered(version: str = V4.version) -> Mapping[str, bytes]:
    """The artifact `delivery`."""
    model = {
        "schema": 1,
        "name": V4.name,
        "version": version,
        "algorithm": V4.algorithm,
        "commit": V4.commit,
        "metrics": dict(V4.metrics),
    }
    image = {"schema": 1, "name": IMAGE.name, "tag": IMAGE.tag, "digest": IMAGE.digest, "location": IMAGE.location}
    return {"evaluation.json": evaluation(), "model.json": json.dumps(model).encode(), "image.json": json.dumps(image).encode()}


def _contender(contender: Contender) -> Mapping[str, object]:
    return {
        "name": contender.name,
        "algorithm": contender.algorithm,
        "version": contender.version,
        "run_id": contender.run_id,
        "metrics": dict(contender.metrics),
        "parameters": dict(contender.parameters),
    }
