"""The smoke test of a deployed model: it must answer with the registered model's own predictions."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import requests

from deploy.ml.stage import Failed

PATIENCE = 300.0  # seconds until a new address must answer
TOLERANCE = 1e-9  # relative: two machines may differ in a float's last digits
_TIMEOUT = 30.0
_STARTING = frozenset({404, 408, 424, 429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows of the hold-out set, and what the registered model itself says of them."""

    columns: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]
    predictions: tuple[float, ...]

    @property
    def document(self) -> dict[str, Any]:
        """As image.json carries them."""
        return {"columns": self.columns, "rows": self.rows, "predictions": self.predictions}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a smoke test went: rows that were answered rightly, the median latency of those in milliseconds, and a sentence for people."""

    passed: bool
    checked: int
    latency_ms: float | None
    detail: str


def examples(image: Mapping[str, Any]) -> Examples:
    """The examples in an image.json. Raises Failed."""
    match image.get("examples"):
        case {"columns": [*columns], "rows": [_, *_] as rows, "predictions": [_, *_] as predictions} if len(rows) == len(predictions):
            return Examples(tuple(columns), tuple(tuple(row) for row in rows), tuple(predictions))
        case _:
            raise Failed("image.json has no examples to test the deployment with.")


class _Hopeless(Exception):
    """Waiting any longer is of no use."""


def smoke(
    url: str,
    examples: Examples,
    headers: Mapping[str, str],
    *,
    patience: float = PATIENCE,
    hopeless: Callable[[], str | None] = lambda: None,
) -> Outcome:
    """Ask the address for every example, one row at a time.

    While it still starts, it is asked again, for `patience` seconds at most, or until `hopeless` gives a reason to wait no longer.
    """
    took: list[float] = []
    with requests.Session() as session:
        for row, expected in zip(examples.rows, examples.predictions, strict=True):
            body = {"dataframe_split": {"columns": examples.columns, "data": [row]}}
            try:
                ask = partial(session.post, url, json=body, headers=dict(headers), timeout=_TIMEOUT)
                answer = _answered(ask, patience if not took else 0, hopeless)
            except _Hopeless as problem:
                return Outcome(False, len(took), None, str(problem))
            except requests.RequestException as problem:
                return Outcome(False, len(took), None, f"No answer: {type(problem).__name__}.")
            if wrong := verdict(answer.status_code, answer.text, expected):
                return Outcome(False, len(took), None, wrong)
            took.append(answer.elapsed.total_seconds() * 1000)
    median = round(statistics.median(took), 1)
    return Outcome(True, len(took), median, f"{len(took)} predictions equal to the registered model's own, {median} ms each.")


def verdict(status: int, text: str, expected: float) -> str | None:
    """What is wrong with an answer, or None."""
    if status != requests.codes.ok:
        return f"The answer is HTTP {status}: {_short(text)}"
    try:
        predictions = _predictions(text)
    except (ValueError, KeyError, TypeError):
        return f"The answer is not a prediction: {_short(text)}"
    if len(predictions) != 1 or not math.isclose(predictions[0], expected, rel_tol=TOLERANCE):
        return f"The prediction is {', '.join(str(each) for each in predictions)}; the registered model says {expected}."
    return None


def _answered(ask: Callable[[], requests.Response], patience: float, hopeless: Callable[[], str | None]) -> requests.Response:
    """An answer; one that only says that nobody is ready yet is asked for again. Raises RequestException and _Hopeless."""
    until = time.monotonic() + patience
    pause = 0.2
    while True:
        late = time.monotonic() >= until
        try:
            answer = ask()
        except requests.ConnectionError:
            if late:
                raise
        else:
            if late or answer.status_code not in _STARTING:
                return answer
        if reason := hopeless():
            raise _Hopeless(reason)
        time.sleep(pause)
        pause = min(pause * 1.5, 3)


def _predictions(text: str) -> Sequence[float]:
    return [float(each[0] if isinstance(each, list) else each) for each in json.loads(text)["predictions"]]


def _short(text: str) -> str:
    return " ".join(text.split())[:200]
