"""The scores: by hand on a few rows, and refused where there is nothing to trust."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest

from deploy.ml import score
from deploy.ml.data import Rows
from deploy.ml.score import Unscorable

ROWS = Rows(pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0]}), pd.Series([10.0, 20.0, 30.0, 40.0]))


@dataclass
class Says:
    """A model that says what it is told to."""

    answer: Callable[[Any], Sequence[float]]

    def predict(self, features: Any) -> Sequence[float]:
        return self.answer(features)


def test_metrics_are_those_of_the_textbook() -> None:
    found = score.metrics(Says(lambda _: [11.0, 19.0, 33.0, 37.0]), ROWS)

    assert found["mae"] == pytest.approx(2.0)
    assert found["rmse"] == pytest.approx(math.sqrt(5))
    assert found["r2"] == pytest.approx(1 - 20 / 500)


def test_predictions_that_are_no_numbers_are_not_scored() -> None:
    with pytest.raises(Unscorable, match="its mae, rmse, r2 is not a number"):
        score.metrics(Says(lambda _: [math.nan] * 4), ROWS)


def test_too_few_predictions_are_not_scored() -> None:
    with pytest.raises(Unscorable, match="3 predictions for 4 rows"):
        score.metrics(Says(lambda _: [1.0, 2.0, 3.0]), ROWS)


def test_a_model_that_breaks_is_not_scored() -> None:
    with pytest.raises(Unscorable, match="it cannot predict \\(KeyError: 'y'\\)"):
        score.metrics(Says(lambda features: list(features["y"])), ROWS)


def test_a_gain_counts_in_the_direction_that_is_better() -> None:
    assert score.gain("lower", 50.0, 45.0) == pytest.approx(0.1)
    assert score.gain("higher", 0.5, 0.45) == pytest.approx(-0.1)
    assert score.gain("lower", 0.0, 0.0) == 0.0
    assert score.gain("lower", 0.0, 1.0) == -math.inf
