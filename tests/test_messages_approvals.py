"""The Prod message, before and after the decision, and its modals."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.approvals import Approval, ApprovalState, ApprovalStep
from bot.core.deciding import Case, Decided, Vote
from bot.core.models import Delivery, Image, ModelVersion
from bot.core.people import Asker, Person
from bot.core.references import Thing
from bot.core.team import Duty, Environment, People
from bot.core.waiting import Waiting, Yours
from bot.messages.approvals import (
    REASON,
    approval_card,
    approve_form,
    defer_form,
    reason_errors,
    reassign_form,
    reject_form,
    waiting_list,
)
from bot.messages.limits import problems
from tests.examples import (
    APPROVED,
    APPROVED_THERE,
    CANCELED,
    COMPARISON,
    DELIVERY,
    DEPLOYING,
    DIABETES,
    NOW,
    PENDING,
    REFUSED,
    REJECTED,
    SMOKE,
    TEAM,
    V3,
    V4,
    WAITING,
)
from tests.golden import matches
from tests.outside import hostile, unescaped
from tests.test_messages_comparisons import comparisons
from tests.test_messages_runs import moments, people, runs, times

ADA = Asker("Ada Lovelace", "U0ADA0001")
OPEN = Case(WAITING, DIABETES, TEAM.environments["prod"], PENDING, DELIVERY, ADA, V3)
states = st.sampled_from(ApprovalState)
steps = st.builds(ApprovalStep, st.builds(Person, hostile), states, people, hostile, moments)
approvals = st.builds(
    Approval,
    id=hostile,
    run_id=st.integers(1, 2**62),
    stage=hostile,
    attempt=st.integers(1, 99),
    environment=hostile,
    state=states,
    created=times,
    steps=st.lists(steps, max_size=3).map(tuple),
    instructions=hostile,
)
versions = st.builds(ModelVersion, name=hostile, version=hostile, algorithm=hostile, commit=hostile)
questions = st.builds(
    Case,
    run=runs,
    model=st.just(DIABETES),
    environment=st.builds(Environment, hostile, hostile, st.just(value=True), st.builds(People, st.frozensets(hostile, max_size=4))),
    approval=approvals,
    delivery=st.builds(
        Delivery, st.none() | comparisons, st.none() | versions, st.none() | st.builds(Image, hostile, hostile, hostile, hostile)
    ),
    asker=st.none() | st.builds(Asker, hostile, st.none() | hostile),
    serving=st.none() | versions,
    unknown=st.booleans(),
    decided=st.none() | st.builds(Decided, hostile, hostile),
)


def test_prod_is_asked_for_with_everything_that_a_decision_needs() -> None:
    assert matches("approval-open", approval_card(OPEN))


def test_a_question_with_instructions_and_little_else() -> None:
    bare = replace(
        OPEN, approval=replace(PENDING, instructions="Not during the fair"), delivery=Delivery(), serving=None, unknown=True, asker=None
    )

    assert matches("approval-bare", approval_card(bare))


def test_a_decision_taken_in_slack_names_the_person_and_the_identity_on_record() -> None:
    decided = replace(OPEN, run=DEPLOYING, approval=APPROVED, decided=Decided("U0GRACE01", "Fits <the> plan"))

    assert matches("approval-approved", approval_card(decided))


def test_a_decision_taken_in_azure_devops_names_who_took_it() -> None:
    assert matches("approval-approved-there", approval_card(replace(OPEN, run=DEPLOYING, approval=APPROVED_THERE)))


def test_a_rejection_says_why() -> None:
    assert matches("approval-rejected", approval_card(replace(OPEN, run=REJECTED, approval=REFUSED)))


def test_a_run_that_ended_waits_for_nobody() -> None:
    assert matches("approval-ended", approval_card(replace(OPEN, run=CANCELED)))


@pytest.mark.parametrize("state", [state for state in ApprovalState if state is not ApprovalState.PENDING])
def test_nothing_can_be_pressed_once_it_is_decided(state: ApprovalState) -> None:
    card = approval_card(replace(OPEN, approval=replace(PENDING, state=state)))

    assert not [block for block in card.blocks if block["type"] == "actions"]


def test_a_decision_without_reason_or_time_is_told_all_the_same() -> None:
    silent = replace(APPROVED, steps=(replace(APPROVED.steps[0], comment=" ", at=None),))

    assert "by Callboard" in str(approval_card(replace(OPEN, approval=silent)).blocks)
    assert "by <@U0GRACE01>" in str(approval_card(replace(OPEN, approval=silent, decided=Decided("U0GRACE01", ""))).blocks)


def test_a_comparison_with_another_champion_is_marked() -> None:
    other = approval_card(replace(OPEN, serving=replace(V3, version="9")))
    first = approval_card(replace(OPEN, delivery=replace(DELIVERY, comparison=replace(COMPARISON, champion=None))))

    assert "it was compared with version 3, and Prod serves version 9 now" in str(other.blocks)
    assert "it was compared with nothing" in str(first.blocks)


def test_the_forms_say_what_changed_and_ask_what_they_need() -> None:
    assert matches("defer-form", defer_form(OPEN))
    assert matches("reassign-form", reassign_form(OPEN))
    assert "Changed since the message was shown" in str(approve_form(OPEN, f"4~2~{'ab' * 8}~passed").blocks)


def test_who_has_agreed_is_told_where_several_have_to() -> None:
    two = replace(OPEN, environment=replace(OPEN.environment, minimum=2))

    assert "0 of 2 have agreed." in str(approval_card(two).blocks)
    assert "1 of 2 have agreed: <@U0GRACE01>." in str(approval_card(replace(two, votes=(Vote("U0GRACE01", "x"),))).blocks)
    nobody = replace(OPEN.environment, apart=frozenset())
    assert "but nobody is excluded" in str(approval_card(replace(OPEN, environment=nobody)).blocks)
    assert "not whoever typed the promote" in str(
        approval_card(replace(OPEN, environment=replace(nobody, apart=frozenset({Duty.PROMOTED})))).blocks
    )


def test_of_a_release_nothing_is_deferred_and_the_bot_hands_nothing_over() -> None:
    release = str(approval_card(replace(OPEN, approval=replace(PENDING, thing=Thing.RELEASE))).blocks)
    service = str(approval_card(replace(OPEN, service=True)).blocks)

    assert "'defer'" not in release
    assert "'reassign'" in release
    assert "'defer'" not in service
    assert "'reassign'" not in service
    assert "under this app's identity" in service


def test_a_smoke_test_of_another_image_is_marked() -> None:
    other = replace(DELIVERY, smoke={"qa": replace(SMOKE, digest="sha256:" + "cd" * 32)})
    failed = replace(DELIVERY, smoke={"qa": replace(SMOKE, passed=False)})
    no_image = replace(DELIVERY, image=None, version=replace(V4, algorithm=""))

    assert "of another image" in str(approval_card(replace(OPEN, delivery=other)).blocks)
    assert "❌ Not passed" in str(approval_card(replace(OPEN, delivery=failed)).blocks)
    assert "not known" in str(approval_card(replace(OPEN, delivery=no_image)).blocks)


def test_the_modals_repeat_the_facts_and_ask_why() -> None:
    assert matches("approve-form", approve_form(OPEN))
    assert matches("reject-form", reject_form(OPEN))


def test_a_long_environment_does_not_break_the_title() -> None:
    assert approve_form(replace(OPEN, environment=replace(OPEN.environment, name="production-europe"))).title == "Approve"


@pytest.mark.parametrize(
    ("reason", "errors"),
    [
        ("Fits", {}),
        ("   ", {"reason": "Say why: it goes on record in Azure DevOps."}),
        ("x" * (REASON + 1), {"reason": "Use 1000 characters at most; these are 1001."}),
    ],
)
def test_a_reason_is_required_and_must_fit(reason: str, errors: dict[str, str]) -> None:
    assert reason_errors({"reason": reason}) == errors


def test_what_waits_for_somebody_is_listed_with_its_buttons_oldest_first() -> None:
    locked = replace(OPEN, approval=replace(PENDING, id="a2", created=NOW - timedelta(hours=5)), asker=None)
    waiting = Waiting((Yours(locked, "prod is locked since 2026-11-23 09:00 UTC: the <fair>"), Yours(OPEN)), more=1, others=2)

    assert matches("approve-list", waiting_list(waiting, NOW + timedelta(minutes=50)))
    assert matches("approve-list-elsewhere", waiting_list(waiting, NOW + timedelta(minutes=50), buttons=False))
    assert matches("approve-list-empty", waiting_list(Waiting(others=1), NOW))
    assert waiting_list(Waiting(), NOW).text == "Nothing waits for you."


@given(questions)
def test_whatever_the_outside_says_slack_takes_it_and_nothing_in_it_works(question: Case) -> None:
    for thing in (
        approval_card(question),
        approve_form(question),
        reject_form(question),
        waiting_list(Waiting((Yours(question, question.model.name),) * 10, 3, 3), NOW),
    ):
        assert problems(thing) == ()
        assert unescaped(thing) == []
