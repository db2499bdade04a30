"""What people ask to see."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from bot.core.models import ModelVersion
from bot.core.runs import Run
from bot.messages.limits import problems
from bot.messages.lists import Standing, help_card, models_list, runs_list, status_card, versions_list
from tests.examples import CHURN, DIABETES, NOW, PENDING, QUEUED, SUCCEEDED, V3, V4, WAITING
from tests.golden import matches
from tests.outside import hostile, unescaped
from tests.test_messages_approvals import versions
from tests.test_messages_runs import runs


def test_models_are_listed_with_what_is_served() -> None:
    assert matches("models", models_list([Standing(DIABETES, (V4, V3)), Standing(CHURN, None)]))


def test_the_versions_of_a_model_are_a_table() -> None:
    assert matches("versions", versions_list(DIABETES, (V4, V3)))


def test_without_versions_the_first_step_is_named() -> None:
    assert "`/retrain churn` makes the first" in versions_list(CHURN, ()).text


def test_many_versions_are_cut_and_counted() -> None:
    card = versions_list(DIABETES, tuple(replace(V4, version=str(number)) for number in range(40, 0, -1)))

    assert "40 versions, no champion yet" in card.text
    assert len(card.blocks[1]["rows"]) == 16
    assert "The newest 15 are shown." in str(card.blocks[-1])


def test_recent_runs_are_listed_newest_first() -> None:
    assert matches("runs", runs_list([replace(WAITING, stages=()), replace(SUCCEEDED, id=479, created=NOW - timedelta(hours=3))], 7))
    assert runs_list([], 7).text == "Nothing has run in the last 7 days."
    assert "The newest 10 of 12" in str(runs_list([QUEUED] * 12, 7).blocks[-1])


def test_how_things_stand_is_told_for_each_model() -> None:
    assert matches("status", status_card([Standing(DIABETES, (V4, V3), (WAITING, SUCCEEDED), (PENDING,)), Standing(CHURN, None, None)]))


def test_help_tells_every_command() -> None:
    assert matches(
        "help", help_card([("retrain", "[model] [name=value ...]", "Train a model."), ("help", "", "Say it.")], "mlops", {"retrain"})
    )
    assert "/mlops retrain" in help_card([("retrain", "", "Train.")], "mlops").text


@given(st.lists(versions, max_size=20), st.lists(runs, max_size=12), hostile)
def test_whatever_the_outside_says_slack_takes_it_and_nothing_in_it_works(
    registered: list[ModelVersion], recent: list[Run], word: str
) -> None:
    standing = Standing(DIABETES, tuple(registered), tuple(recent), (PENDING,))
    for thing in (
        models_list([standing]),
        versions_list(DIABETES, registered),
        runs_list(recent, 7),
        status_card([standing]),
        help_card([(word, word, word)], word),
    ):
        assert problems(thing) == ()
        assert unescaped(thing) == []
