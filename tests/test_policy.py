"""Who may do what."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.approvals import Allowed, Approval, ApprovalState, Denied
from bot.core.people import Member
from bot.core.policy import already, awaited, belongs, in_channel, may, model_of
from bot.core.references import Thing
from bot.core.team import Environment, People, Right
from tests.examples import (
    ADA,
    ALAN,
    APPROVED,
    APPROVED_THERE,
    CHANNEL,
    CHURN,
    DIABETES,
    GONE,
    GRACE,
    GUEST,
    KEPT,
    PENDING,
    QUEUED,
    RELEASE,
    RELEASE_PENDING,
    RELEASE_WAITING,
    RELEASING,
    ROBOT,
    SUCCEEDED,
    TEAM,
    TRAINING,
    WAITING,
)


@pytest.mark.parametrize("member", [ADA, GRACE])
def test_members_of_the_listed_group_may_retrain_and_promote(member: Member) -> None:
    assert may(TEAM, Right.RETRAIN, member) == Allowed()
    assert may(TEAM, Right.PROMOTE, member) == Allowed()


def test_one_may_be_listed_by_user_id_or_by_e_mail_in_any_case() -> None:
    assert may(replace(TEAM, rights={Right.RETRAIN: People(frozenset({ALAN.id}))}), Right.RETRAIN, ALAN) == Allowed()
    listed = replace(TEAM, rights={Right.RETRAIN: People(frozenset({"Alan@Contoso.example"}))})
    assert may(listed, Right.RETRAIN, ALAN) == Allowed()
    assert may(listed, Right.RETRAIN, replace(ALAN, email=None)) != Allowed()


@pytest.mark.parametrize(
    ("member", "sentence"),
    [
        (ALAN, "You may not"),
        (GUEST, "Guests"),
        (GONE, "deactivated"),
        (ROBOT, "a person has to"),
    ],
)
def test_everybody_else_is_denied_with_a_reason(member: Member, sentence: str) -> None:
    for decision in (may(TEAM, right, member) for right in Right):
        assert isinstance(decision, Denied)
        assert sentence in decision.reason


@given(st.booleans(), st.booleans(), st.booleans(), st.frozensets(st.sampled_from(["S0MLTEAM", "S0RELEASE", "S0OTHER00"])))
def test_nobody_listed_means_nobody_allowed(guest: bool, bot: bool, deleted: bool, groups: frozenset[str]) -> None:
    member = Member("U0SOME001", "Some One", "one@contoso.example", guest, bot, deleted, groups)

    assert may(replace(TEAM, rights={Right.RETRAIN: People()}), Right.RETRAIN, member) != Allowed()


def test_a_decision_that_was_made_is_not_made_again() -> None:
    assert already(APPROVED_THERE) == "This was approved by Grace Hopper on 2026-11-23 at 09:40 UTC."
    assert already(replace(PENDING, state=ApprovalState.TIMED_OUT)) == "This approval is timed out: there is nothing left to decide."
    step = replace(APPROVED.steps[0], at=None)
    assert already(replace(APPROVED, steps=(step,))) == "This was approved by Callboard."


@pytest.mark.parametrize(
    "approval", [replace(PENDING, environment="qa", stage="qa"), replace(PENDING, environment="moon"), replace(PENDING, stage="qa")]
)
def test_only_environments_that_need_approval_are_decided_on_here(approval: Approval) -> None:
    assert belongs(TEAM, approval) is None


def test_an_approval_is_awaited_once_the_run_has_come_to_its_stage() -> None:
    assert awaited(TEAM, WAITING) == (TEAM.environments["prod"],)
    assert awaited(TEAM, SUCCEEDED) == (TEAM.environments["prod"],)
    assert awaited(TEAM, TRAINING) == ()
    assert awaited(TEAM, KEPT) == ()
    assert awaited(TEAM, replace(WAITING, stages=())) == ()
    assert awaited(replace(TEAM, environments={"qa": Environment("qa", "qa")}), WAITING) == ()


def test_a_model_answers_in_its_channel() -> None:
    assert in_channel(DIABETES, CHANNEL)
    assert not in_channel(CHURN, CHANNEL)


def test_a_run_is_about_a_model_of_its_own_pipeline() -> None:
    assert model_of(TEAM, QUEUED) == DIABETES
    assert model_of(TEAM, replace(QUEUED, parameters={}, pipeline_id=2)) == CHURN
    assert model_of(TEAM, replace(QUEUED, pipeline_id=99)) is None
    assert model_of(TEAM, replace(QUEUED, pipeline_id=99, parameters={})) is None


def test_a_model_may_have_people_of_its_own() -> None:
    own = replace(DIABETES, rights={Right.RETRAIN: People(frozenset({"ado:Doctors"}))})

    assert isinstance(may(TEAM, Right.RETRAIN, ADA, own), Denied)
    assert may(TEAM, Right.RETRAIN, replace(ALAN, ado_groups=frozenset({"Doctors"})), own) == Allowed()
    assert may(TEAM, Right.PROMOTE, ADA, own) == Allowed()


def test_a_release_is_about_the_model_whose_definition_it_is() -> None:
    assert model_of(RELEASING, RELEASE) == RELEASING.models["diabetes"]
    assert model_of(RELEASING, replace(RELEASE, parameters={"model": "churn"})) is None, "it deploys what a run of churn made"
    assert model_of(RELEASING, replace(RELEASE, parameters={"model": "old name"})) == RELEASING.models["diabetes"]
    assert model_of(RELEASING, replace(RELEASE, pipeline_id=1)) is None, "1 is the number of a pipeline"
    assert model_of(TEAM, RELEASE) is None
    assert model_of(RELEASING, replace(TRAINING, pipeline_id=3, parameters={})) is None, "3 is the number of a release definition"


def test_an_approval_of_a_release_belongs_to_the_environment_of_its_stage() -> None:
    assert belongs(RELEASING, RELEASE_PENDING) == RELEASING.environments["prod"]
    assert belongs(RELEASING, replace(RELEASE_PENDING, stage="QA - Deploy on ACI")) is None, "QA needs no approval here"
    assert belongs(TEAM, RELEASE_PENDING) is None
    assert belongs(RELEASING, replace(RELEASE_PENDING, thing=Thing.RUN)) is None


def test_a_release_awaits_the_approval_it_has_come_to() -> None:
    assert awaited(RELEASING, RELEASE) == ()
    assert awaited(RELEASING, RELEASE_WAITING) == (RELEASING.environments["prod"],)
    assert awaited(TEAM, RELEASE_WAITING) == ()
