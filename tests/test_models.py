"""Comparing models: changes by direction, rows, ranking."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.models import (
    Change,
    Contender,
    Direction,
    Metric,
    Turn,
    best,
    champion_of,
    change,
    deciding,
    ranked,
    rows,
    shown,
    signed,
)
from tests.examples import CHAMPION, COMPARISON, FOREST, MAE, NO_BETTER, R2, RIDGE, V3, V4

number = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("metric", "value", "against", "expected"),
    [
        (MAE, 41.2, 44.0, Change(-2.8, Turn.BETTER)),
        (MAE, 45.5, 44.0, Change(1.5, Turn.WORSE)),
        (R2, 0.455, 0.412, Change(0.043, Turn.BETTER)),
        (R2, 0.4, 0.412, Change(-0.012, Turn.WORSE)),
        (R2, 0.41204, 0.412, Change(0.0, Turn.SAME)),
        (R2, None, 0.412, None),
        (R2, 0.412, None, None),
    ],
)
def test_a_change_is_good_or_bad_by_the_metrics_direction(
    metric: Metric, value: float | None, against: float | None, expected: Change | None
) -> None:
    assert change(metric, value, against) == expected


@given(number, number)
def test_what_is_better_one_way_is_worse_the_other(value: float, against: float) -> None:
    there, back = change(MAE, value, against), change(MAE, against, value)

    assert there is not None
    assert back is not None
    assert {there.turn, back.turn} in ({Turn.SAME}, {Turn.BETTER, Turn.WORSE})


@given(number, number)
def test_the_two_directions_disagree_on_every_change(value: float, against: float) -> None:
    lower, higher = change(MAE, value, against), change(replace(MAE, direction=Direction.HIGHER), value, against)

    assert lower is not None
    assert higher is not None
    assert lower.by == higher.by
    assert (lower.turn is Turn.SAME) == (higher.turn is Turn.SAME)
    assert lower.turn is Turn.SAME or lower.turn is not higher.turn


def test_values_are_shown_with_their_decimals_and_unit() -> None:
    assert shown(MAE, 41.204) == "41.20"
    assert shown(replace(MAE, unit="ms"), 41.2) == "41.20 ms"
    assert shown(MAE, None) == "–"
    assert signed(MAE, Change(-2.8, Turn.BETTER)) == "−2.80"
    assert signed(MAE, Change(2.8, Turn.WORSE)) == "+2.80"
    assert signed(MAE, Change(0.0, Turn.SAME)) == "±0"


def test_the_winner_comes_first_and_who_was_not_scored_last() -> None:
    unscored = Contender("boosting", "boosting", {})

    assert ranked(replace(COMPARISON, candidates=(unscored, FOREST, RIDGE))) == (RIDGE, FOREST, unscored)
    assert ranked(replace(COMPARISON, candidates=(RIDGE, FOREST), winner="forest")) == (FOREST, RIDGE)
    assert ranked(replace(COMPARISON, winner=None, decides="r2", candidates=(FOREST, RIDGE))) == (RIDGE, FOREST)


def test_without_a_winner_the_best_is_compared() -> None:
    assert best(NO_BETTER) == FOREST
    assert best(replace(NO_BETTER, candidates=())) is None
    assert deciding(COMPARISON) == MAE
    assert deciding(replace(COMPARISON, decides="auc")) is None


def test_a_row_compares_the_first_candidate_with_the_champion() -> None:
    mae, r2 = rows(COMPARISON, (RIDGE, FOREST))

    assert (mae.champion, mae.candidates, mae.change) == (44.0, (41.2, 45.5), Change(-2.8, Turn.BETTER))
    assert (r2.champion, r2.candidates) == (CHAMPION.metrics["r2"], (0.455, 0.412))


def test_without_a_champion_or_candidates_nothing_has_changed() -> None:
    assert [row.change for row in rows(replace(COMPARISON, champion=None), (RIDGE,))] == [None, None]
    assert [row.change for row in rows(COMPARISON, ())] == [None, None]


def test_the_champion_is_the_version_with_the_tag() -> None:
    assert champion_of([V4, V3]) == V3
    assert champion_of([V4]) is None
