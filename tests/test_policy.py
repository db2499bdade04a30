"""Who may do what."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.approvals import Allowed, Approval, ApprovalState, Denied
from bot.core.people import Member, Person
from bot.core.policy import already, awaited, belongs, in_channel, may_decide, may_promote, may_retrain, model_of
from bot.core.runs import Run, State
from bot.core.team import Environment, People, Right
from tests.examples import (
    ADA,
    ADA_ADO,
    ALAN,
    APPROVED,
    APPROVED_THERE,
    BOT_ADO,
    CHANNEL,
    CHURN,
    DIABETES,
    GONE,
    GRACE,
    GRACE_ADO,
    GUEST,
    KEPT,
    PENDING,
    QUEUED,
    REJECTED,
    ROBOT,
    SUCCEEDED,
    TEAM,
    TRAINING,
    WAITING,
)

PUSHED = replace(WAITING, parameters={"model": "diabetes"}, requested_for=ADA_ADO)


def reason(member: Member, run: Run = WAITING, approval: Approval = PENDING, asked: str | None = ADA.id) -> str:
    decision = may_decide(TEAM, member, run, approval, asked)
    assert isinstance(decision, Denied)
    return decision.reason


@pytest.mark.parametrize("member", [ADA, GRACE])
def test_members_of_the_listed_group_may_retrain_and_promote(member: Member) -> None:
    assert may_retrain(TEAM, member) == Allowed()
    assert may_promote(TEAM, member) == Allowed()


def test_one_may_be_listed_by_user_id_or_by_e_mail_in_any_case() -> None:
    assert may_retrain(replace(TEAM, rights={Right.RETRAIN: People(frozenset({ALAN.id}))}), ALAN) == Allowed()
    listed = replace(TEAM, rights={Right.RETRAIN: People(frozenset({"Alan@Contoso.example"}))})
    assert may_retrain(listed, ALAN) == Allowed()
    assert may_retrain(listed, replace(ALAN, email=None)) != Allowed()


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
    for decision in (may_retrain(TEAM, member), may_promote(TEAM, member), may_decide(TEAM, member, WAITING, PENDING, ADA.id)):
        assert isinstance(decision, Denied)
        assert sentence in decision.reason


@given(st.booleans(), st.booleans(), st.booleans(), st.frozensets(st.sampled_from(["S0MLTEAM", "S0RELEASE", "S0OTHER00"])))
def test_nobody_listed_means_nobody_allowed(guest: bool, bot: bool, deleted: bool, groups: frozenset[str]) -> None:
    member = Member("U0SOME001", "Some One", "one@contoso.example", guest, bot, deleted, groups)

    assert may_retrain(replace(TEAM, rights={Right.RETRAIN: People()}), member) != Allowed()


def test_an_approver_who_did_not_ask_may_decide() -> None:
    assert may_decide(TEAM, GRACE, WAITING, PENDING, ADA.id) == Allowed()
    assert may_decide(TEAM, GRACE, PUSHED, PENDING, None) == Allowed()


def test_who_asked_does_not_decide() -> None:
    by_hand = replace(WAITING, parameters={"requestedBy": "Grace Hopper (GRACE@contoso.example)"})
    by_id = replace(WAITING, parameters={"requestedBy": f"Grace ({GRACE.id})"})
    by_push = replace(PUSHED, requested_for=replace(GRACE_ADO, email="Grace@Contoso.Example"))

    assert "somebody else" in reason(GRACE, asked=GRACE.id)
    assert "somebody else" in reason(GRACE, by_hand, asked=None)
    assert "somebody else" in reason(replace(GRACE, email=None), by_id, asked=None)
    assert "somebody else" in reason(GRACE, by_push, asked=None)


def test_who_asked_is_told_so_even_if_they_are_no_approver() -> None:
    assert "You asked for this run" in reason(ADA)


def test_a_forged_request_does_not_hide_who_queued_the_run() -> None:
    forged = replace(PUSHED, parameters={"requestedBy": "Somebody Else"}, requested_for=GRACE_ADO)

    assert "somebody else" in reason(GRACE, forged, asked=ADA.id)


def test_where_nobody_can_tell_who_asked_nobody_decides_here() -> None:
    unknown = replace(PUSHED, requested_for=None, requested_by=None)

    assert "does not say which person" in reason(GRACE, unknown, asked=None)
    assert "does not say which person" in reason(GRACE, replace(PUSHED, requested_for=BOT_ADO, requested_by=BOT_ADO), asked=None)
    assert "no e-mail address" in reason(replace(GRACE, email=None), PUSHED, asked=None)


def test_a_decision_that_was_made_is_not_made_again() -> None:
    assert reason(GRACE, approval=APPROVED_THERE) == "This was approved by Grace Hopper on 2026-11-23 at 09:40 UTC."
    assert already(replace(PENDING, state=ApprovalState.TIMED_OUT)) == "This approval is timed out: there is nothing left to decide."
    step = replace(APPROVED.steps[0], at=None)
    assert already(replace(APPROVED, steps=(step,))) == "This was approved by Callboard."


def test_a_run_that_has_ended_waits_for_nobody() -> None:
    assert "has ended" in reason(GRACE, REJECTED)


@pytest.mark.parametrize(
    "approval", [replace(PENDING, environment="qa", stage="qa"), replace(PENDING, environment="moon"), replace(PENDING, stage="qa")]
)
def test_only_environments_that_need_approval_are_decided_on_here(approval: Approval) -> None:
    assert "callboard.toml" in reason(GRACE, approval=approval)
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


def test_a_person_with_a_person_behind_them_is_enough() -> None:
    named = replace(PUSHED, requested_for=Person("Ada Lovelace", None), requested_by=ADA_ADO)

    assert may_decide(TEAM, GRACE, named, PENDING, None) == Allowed()
    assert named.state is State.RUNNING
