"""The algorithms: each one can be built, trained and asked, and gives the same model for the same seed."""

from __future__ import annotations

import pytest

from deploy.ml import candidates, config, data, score
from deploy.ml.config import Mistake

MODEL = config.load().model("diabetes")
PARTS = data.split(data.load(), MODEL.seed)


@pytest.mark.parametrize("algorithm", sorted(MODEL.candidates))
def test_a_candidate_learns_something_and_learns_it_again(algorithm: str) -> None:
    first, second = (candidates.build(algorithm, MODEL.candidates[algorithm], MODEL.seed) for _ in range(2))

    for model in (first, second):
        model.fit(PARTS.training.features, PARTS.training.target)

    assert score.metrics(first, PARTS.holdout) == score.metrics(second, PARTS.holdout)
    assert score.metrics(first, PARTS.holdout)["r2"] > 0.4


def test_a_heavy_penalty_makes_ridge_worse() -> None:
    light, heavy = (candidates.build("ridge", {"alpha": alpha}, MODEL.seed) for alpha in (1.0, 100000.0))

    for model in (light, heavy):
        model.fit(PARTS.training.features, PARTS.training.target)

    assert score.metrics(light, PARTS.holdout)["mae"] < score.metrics(heavy, PARTS.holdout)["mae"] * 0.7


def test_an_unknown_algorithm_is_a_mistake() -> None:
    with pytest.raises(Mistake, match="Algorithm 'oracle' is unknown; known: ridge, forest, boosting"):
        candidates.build("oracle", {}, 1)
