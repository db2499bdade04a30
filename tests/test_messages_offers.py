"""Offers, the training form, and what is said once a run has been started."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bot.core.models import ModelVersion
from bot.core.runs import Run
from bot.core.team import Kind, Model, Parameter
from bot.messages.limits import problems
from bot.messages.offers import promote_offer, retrain_form, retrain_offer, started_note
from tests.examples import CHURN, DIABETES, QUEUED, V3, V4
from tests.golden import matches
from tests.outside import hostile, unescaped
from tests.test_messages_approvals import versions
from tests.test_messages_runs import runs

models = st.builds(
    Model,
    name=hostile,
    pipeline_id=st.just(1),
    channel=hostile,
    metrics=st.just(DIABETES.metrics),
    branch=hostile,
    parameters=st.lists(
        st.builds(Parameter, hostile, st.sampled_from(Kind), hostile, choices=st.lists(hostile, max_size=3).map(tuple)), max_size=5
    ).map(tuple),
)


def test_a_training_is_offered_with_its_facts() -> None:
    assert matches("retrain-offer", retrain_offer("op-1", DIABETES, {"alpha": "0.5"}))
    assert "the defaults" in retrain_offer("op-1", DIABETES, {}).text


def test_a_promotion_is_offered_with_the_change_against_the_champion() -> None:
    assert matches("promote-offer", promote_offer("op-1", DIABETES, V4, V3))


def test_a_first_promotion_has_nothing_to_compare_with() -> None:
    offer = promote_offer("op-1", replace(DIABETES, metrics=()), replace(V4, commit=None, algorithm=""), None)

    assert "Prod serves nothing yet" in offer.text


def test_the_form_has_an_input_for_each_parameter() -> None:
    assert matches("retrain-form", retrain_form([DIABETES, CHURN]))


def test_what_was_started_is_told_with_a_link() -> None:
    assert matches("started", started_note(QUEUED, DIABETES))
    assert "was started already" in started_note(QUEUED, DIABETES, again=True).text


def test_a_parameter_without_help_says_its_limits() -> None:
    form = retrain_form([replace(DIABETES, parameters=(Parameter("alpha", Kind.NUMBER, minimum=1),))])

    assert form.blocks[1]["hint"]["text"] == "A number from 1."


@given(models, versions, st.none() | versions, st.dictionaries(hostile, hostile, max_size=3), runs)
def test_whatever_the_outside_says_slack_takes_it_and_nothing_in_it_works(
    model: Model, version: ModelVersion, champion: ModelVersion | None, settings: dict[str, str], run: Run
) -> None:
    offers = (retrain_offer("op-1", model, settings), promote_offer("op-1", model, version, champion), started_note(run, model))
    for thing in offers:
        assert problems(thing) == ()
        assert unescaped(thing) == []
