"""The comparison table and the smoke test."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.models import Comparison, Contender, Direction, Metric, SmokeTest, Verdict
from bot.core.runs import Run
from bot.messages.comparisons import changes, comparison_card, metric_lines, smoke_card, unreadable_card
from bot.messages.kit import Block, Message
from bot.messages.limits import problems
from tests.examples import CHAMPION, COMPARISON, KEPT, MAE, NO_BETTER, NOT_FIT, R2, RIDGE, SMOKE, SUCCEEDED, UNFIT
from tests.golden import matches
from tests.outside import hostile, hostile_url, unescaped
from tests.test_messages_runs import runs

values = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.floats(-1e12, 1e12))
contenders = st.builds(Contender, name=hostile, algorithm=hostile, metrics=values, version=st.none() | hostile)
metrics = st.builds(Metric, st.sampled_from(["a", "b", "c"]), hostile, st.sampled_from(Direction), st.integers(0, 12), hostile)
comparisons = st.builds(
    Comparison,
    model=hostile,
    verdict=st.sampled_from(Verdict),
    rule=hostile,
    metrics=st.lists(metrics, max_size=5).map(tuple),
    decides=st.sampled_from(["a", "b"]),
    champion=st.none() | contenders,
    candidates=st.lists(contenders, max_size=25).map(tuple),
    winner=st.none() | hostile,
    rows=st.integers(0, 10**9),
)


def table(card: Message) -> Block:
    return next(block for block in card.blocks if block["type"] == "table")


@pytest.mark.parametrize(
    ("name", "comparison", "run"), [("pass", COMPARISON, SUCCEEDED), ("kept", NO_BETTER, KEPT), ("fail", NOT_FIT, UNFIT)]
)
def test_a_comparison_says_its_verdict_and_rule_first(name: str, comparison: Comparison, run: Run) -> None:
    assert matches(f"comparison-{name}", comparison_card(comparison, run))


def test_the_fallback_text_stands_alone() -> None:
    assert comparison_card(COMPARISON, SUCCEEDED).text == (
        "✅ PASS: diabetes. Mean absolute error of ridge is 41.20, 6.4 % better than the champion's 44.00; at least 0.5 % is asked. "
        "Mean absolute error 44.00 → 41.20 (better); R² 0.412 → 0.455 (better)."
    )


def test_a_first_model_has_no_champion_beside_it() -> None:
    card = comparison_card(replace(COMPARISON, champion=None, rows=0), SUCCEEDED)

    assert [cell["text"] for cell in table(card)["rows"][0]] == ["Metric", "✅ ridge", "forest"]
    assert card.text.endswith("at least 0.5 % is asked.")


def test_a_champion_that_could_not_be_scored_is_a_dash() -> None:
    unscored = replace(COMPARISON, champion=replace(CHAMPION, metrics={}, version=None), winner=None, verdict=Verdict.FAIL)

    card = comparison_card(unscored, SUCCEEDED)

    assert [cell["text"] for cell in table(card)["rows"][0]] == ["Metric", "Champion", "ridge", "Change", "forest"]
    assert table(card)["rows"][1][1]["text"] == "–"
    assert table(card)["rows"][1][3]["text"] == "–"


def test_without_candidates_the_champion_stands_alone() -> None:
    card = comparison_card(replace(NOT_FIT, candidates=()), UNFIT)

    assert [cell["text"] for cell in table(card)["rows"][0]] == ["Metric", "Champion v3"]


def test_where_nothing_could_be_evaluated_only_the_reason_is_shown() -> None:
    card = comparison_card(replace(NOT_FIT, champion=None, candidates=(), rule="Nothing could be evaluated: no data."), UNFIT)

    assert "Nothing could be evaluated" in card.text
    assert not [block for block in card.blocks if block["type"] == "table"]


def test_the_best_candidates_are_shown_and_the_rest_counted() -> None:
    crowd = tuple(replace(RIDGE, name=f"m{number}", metrics={"mae": 50.0 + number}) for number in range(20))

    card = comparison_card(replace(COMPARISON, candidates=(*crowd, RIDGE)), SUCCEEDED)

    head = [cell["text"] for cell in table(card)["rows"][0]]
    assert len(head) == 19
    assert head[2:5] == ["✅ ridge", "Change", "m0"]
    assert "5 more candidates" in str(card.blocks[-1])


def test_a_change_is_told_in_a_line() -> None:
    assert changes(COMPARISON)[0] == "✅ Mean absolute error: 44.00 → 41.20 (−2.80, better)"
    assert changes(replace(COMPARISON, candidates=())) == []
    assert metric_lines((MAE, R2), RIDGE, None) == ["Mean absolute error: 41.20", "R²: 0.455"]


def test_an_endpoint_that_answers_is_told() -> None:
    assert matches("smoke-passed", smoke_card("diabetes", replace(SMOKE, digest="sha256:" + "ab" * 32), SUCCEEDED))


def test_an_endpoint_that_does_not_answer_is_told_with_its_detail() -> None:
    assert matches("smoke-failed", smoke_card("diabetes", replace(SMOKE, passed=False, detail="HTTP 503 <html>"), SUCCEEDED))


def test_an_evaluation_that_cannot_be_read_is_told() -> None:
    assert matches("comparison-unreadable", unreadable_card("evaluation.json has schema 2.", SUCCEEDED))


@given(comparisons, runs)
def test_whatever_the_outside_says_slack_takes_the_card_and_nothing_in_it_works(comparison: Comparison, run: Run) -> None:
    for card in (comparison_card(comparison, run), unreadable_card(comparison.rule, run)):
        assert problems(card) == ()
        assert unescaped(card) == []


@given(
    st.builds(SmokeTest, hostile, hostile, hostile_url, st.booleans(), st.integers(), st.floats(0, 1e9), hostile, hostile), hostile, runs
)
def test_whatever_an_endpoint_says_slack_takes_it(smoke: SmokeTest, model: str, run: Run) -> None:
    card = smoke_card(model, smoke, run)

    assert problems(card) == ()
    assert unescaped(card) == []
