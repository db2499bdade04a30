"""How good a model is: its metrics on rows it has not seen, and whether one value is better than another."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Mapping
from typing import Any, Literal

from deploy.ml.data import Rows


def get_ready() -> None:
    """Import what reads MLflow's safe model format, before anything large is imported.

    skops looks for the homes of some hundred functions in every module there is: after the Azure SDK and MLflow, that takes seconds.
    """
    with contextlib.suppress(ImportError):  # MLflow says itself what it lacks
        importlib.import_module("skops.io")


class Unscorable(Exception):
    """A model gave no usable predictions; the message says why."""


def metrics(model: Any, rows: Rows) -> dict[str, float]:
    """Mean absolute error, root mean squared error and R² of anything with `predict`. Raises Unscorable."""
    import numpy as np  # noqa: PLC0415

    try:
        predicted = np.asarray(model.predict(rows.features), dtype=float).reshape(-1)
    except Exception as problem:
        raise Unscorable(f"it cannot predict ({type(problem).__name__}: {problem})") from problem
    actual = np.asarray(rows.target, dtype=float)
    if predicted.shape != actual.shape:
        raise Unscorable(f"it gave {predicted.size} predictions for {actual.size} rows")
    error = predicted - actual
    spread = float(np.sum((actual - actual.mean()) ** 2))
    values = {
        "mae": float(np.mean(np.abs(error))),
        "rmse": math.sqrt(float(np.mean(error**2))),
        "r2": 1 - float(np.sum(error**2)) / spread,
    }
    return finite(values)


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """The values, all of which are numbers. Raises Unscorable."""
    if bad := [name for name, value in values.items() if not math.isfinite(value)]:
        raise Unscorable(f"its {', '.join(bad)} is not a number")
    return dict(values)


def gain(direction: Literal["lower", "higher"], champion: float, candidate: float) -> float:
    """By which share of the champion's value the candidate is better; negative where it is worse."""
    difference = champion - candidate if direction == "lower" else candidate - champion
    return difference / abs(champion) if champion else math.copysign(math.inf, difference) if difference else 0.0
