"""The gate: who wins by how much, and that it stays closed in doubt."""

from __future__ import annotations

from deploy.ml import config, gate
from deploy.ml.gate import Contender

MODEL = config.parse(
    {
        "azure_ml": {"subscription": "s", "resource_group": "g", "workspace": "w", "location": "l", "registry": "r"},
        "models": {
            "m": {
                "compute": "c",
                "endpoint": "e",
                "kubernetes": "k",
                "seed": 1,
                "candidates": {"ridge": {"alpha": 1.0}},
                "parameters": {},
                "metrics": {"mae": {"label": "Error", "direction": "lower"}, "r2": {"label": "R²", "direction": "higher", "digits": 3}},
                "gate": {"decides": "mae", "improvement": 0.01, "limits": {"r2": 0.2}},
            }
        },
    }
).model("m")
CHAMPION = Contender("champion", "ridge", {"mae": 50.0, "r2": 0.5}, version="3")


def contender(name: str, mae: float, r2: float = 0.5, **more: str) -> Contender:
    return Contender(name, "ridge", {"mae": mae, "r2": r2}, **more)  # type: ignore[arg-type]  # all others are texts


def test_the_best_candidate_follows_a_champion_that_it_beats_by_enough() -> None:
    outcome = gate.decide(MODEL, CHAMPION, [contender("a", 49.0), contender("b", 45.0)])

    assert (outcome.verdict, outcome.winner) == ("pass", "b")
    assert outcome.rule == "Error of b is 45.00, 10.0 % better than the champion's 50.00; at least 1.0 % better is asked."


def test_a_little_better_is_not_enough() -> None:
    outcome = gate.decide(MODEL, CHAMPION, [contender("a", 49.9)])

    assert (outcome.verdict, outcome.winner) == ("kept", None)
    assert outcome.rule.startswith("Error of a is 49.90, 0.2 % better than the champion's 50.00;")


def test_a_candidate_beyond_a_limit_cannot_win() -> None:
    outcome = gate.decide(MODEL, CHAMPION, [contender("a", 10.0, r2=0.1), contender("b", 60.0)])

    assert outcome.verdict == "kept"
    assert outcome.rule.startswith("Error of b is 60.00, 20.0 % worse")


def test_no_candidate_within_the_limits_fails_even_without_a_champion() -> None:
    outcome = gate.decide(MODEL, None, [contender("a", 10.0, r2=0.1)])

    assert outcome == gate.Outcome("fail", "No candidate is within the limits: a's R² is 0.100, at least 0.2 is asked.")


def test_the_first_winner_needs_no_champion() -> None:
    outcome = gate.decide(MODEL, None, [contender("a", 60.0), contender("b", 55.0)])

    assert outcome == gate.Outcome("pass", "No champion yet: Error of b is 55.00, the best of the candidates.", "b")


def test_whoever_cannot_be_scored_closes_the_gate() -> None:
    broken = Contender("a", "ridge", problem="it cannot predict")

    assert gate.decide(MODEL, CHAMPION, [broken, contender("b", 1.0)]).verdict == "fail"
    outcome = gate.decide(MODEL, Contender("champion", "ridge", problem="it is gone", version="3"), [contender("b", 1.0)])
    assert outcome == gate.Outcome("fail", "The champion, version 3, could not be scored: it is gone.")
    assert gate.decide(MODEL, CHAMPION, []).verdict == "fail"


def test_a_promotion_passes_within_the_limits_and_says_what_it_costs() -> None:
    outcome = gate.decide_promotion(MODEL, CHAMPION, contender("version 2", 55.0, version="2"))

    assert outcome.verdict == "pass"
    assert outcome.rule == (
        "Error of version 2 is 55.00, 10.0 % worse than that of the champion (version 3, 50.00); asked for by name, and within the limits."
    )


def test_promoting_the_champion_changes_nothing_and_breaking_a_limit_is_refused() -> None:
    assert gate.decide_promotion(MODEL, CHAMPION, contender("version 3", 50.0, version="3")).verdict == "kept"
    assert gate.decide_promotion(MODEL, None, contender("version 1", 50.0, r2=0.0, version="1")).verdict == "fail"
    assert gate.decide_promotion(MODEL, None, contender("version 1", 50.0, version="1")).winner == "version 1"
