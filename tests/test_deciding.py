"""Who may answer an approval now, and whether an answer is the last one needed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.approvals import Allowed, Answer, Approval, ApprovalState, ApprovalStep, Denied
from bot.core.deciding import Case, Decider, Glass, Lock, Vote, changed, frozen, may_decide, still_needed, superseded, why_not_asked
from bot.core.models import Delivery
from bot.core.people import Account, Asker, Member, Person
from bot.core.references import Thing
from bot.core.runs import Run
from bot.core.team import Duty, Environment, Freeze, People
from tests.examples import (
    ACCOUNTS,
    ADA,
    ADA_ADO,
    ALAN,
    ALAN_ADO,
    APPROVED_THERE,
    BOT_ADO,
    COMPARISON,
    DELIVERY,
    DIABETES,
    GONE,
    GRACE,
    GRACE_ADO,
    GUEST,
    IMAGE,
    NOT_FIT,
    NOW,
    PENDING,
    RADIA,
    RADIA_ADO,
    REJECTED,
    ROBOT,
    TEAM,
    V3,
    V4,
    WAITING,
)

PROD = TEAM.environments["prod"]
CASE = Case(WAITING, DIABETES, PROD, PENDING, DELIVERY, Asker("Ada Lovelace", ADA.id), V3)
HER = Decider(GRACE, GRACE_ADO, ACCOUNTS[GRACE.id])
RADIO = Decider(RADIA, RADIA_ADO, ACCOUNTS[RADIA.id])
PUSHED = replace(WAITING, parameters={"model": "diabetes"}, requested_for=ADA_ADO)
BERLIN = ZoneInfo("Europe/Berlin")

HOLIDAYS = Freeze("", BERLIN, start=datetime(2026, 12, 18, 17, tzinfo=BERLIN), end=datetime(2027, 1, 4, 8, tzinfo=BERLIN))


def of(member: Member, me: Person) -> Decider:
    return Decider(member, me, ACCOUNTS.get(member.id))


def reason(who: Decider = HER, case: Case = CASE, answer: Answer = Answer.APPROVE, now: datetime = NOW) -> str:
    decision = may_decide(who, case, answer, now)
    assert isinstance(decision, Denied), decision
    return decision.reason


def by(person: Person, state: ApprovalState = ApprovalState.APPROVED) -> ApprovalStep:
    return ApprovalStep(person, state, person, at=NOW)


@pytest.mark.parametrize("answer", Answer)
def test_an_approver_who_did_not_ask_may_decide(answer: Answer) -> None:
    assert may_decide(HER, CASE, answer, NOW) == Allowed()
    assert may_decide(HER, replace(CASE, run=PUSHED, asker=Asker("Ada", None, "ada@contoso.example")), answer, NOW) == Allowed()


@pytest.mark.parametrize(
    ("member", "sentence"),
    [(ALAN, "You committed what this run builds"), (GUEST, "Guests"), (GONE, "deactivated"), (ROBOT, "a person has to")],
)
@pytest.mark.parametrize("answer", Answer)
def test_everybody_else_is_denied_with_a_reason(member: Member, sentence: str, answer: Answer) -> None:
    assert sentence in reason(of(member, ALAN_ADO), answer=answer)


def test_who_is_not_listed_may_not() -> None:
    nobody = Decider(replace(ADA, id="U0OTHER01", email="o@contoso.example"), Person("O", "o@contoso.example", "o"), None)

    assert reason(nobody) == "You may not decide on prod. Ask one of those who may."
    own = replace(DIABETES, approvers={"prod": People(frozenset({"ado:Doctors"}))})
    assert "You may not" in reason(HER, replace(CASE, model=own))
    doctor = replace(HER, member=replace(GRACE, ado_groups=frozenset({"Doctors"})))
    assert may_decide(doctor, replace(CASE, model=own), Answer.APPROVE, NOW) == Allowed()


# Separation of duties


@pytest.mark.parametrize(
    "case",
    [
        replace(CASE, asker=Asker("Grace Hopper", GRACE.id)),
        replace(CASE, asker=Asker("Grace Hopper (GRACE@contoso.example)")),
        replace(CASE, asker=Asker(f"Grace ({GRACE.id})")),
        replace(CASE, asker=None, run=replace(PUSHED, requested_for=replace(GRACE_ADO, email="Grace@Contoso.Example", id=None))),
        replace(CASE, asker=None, run=replace(PUSHED, requested_by=replace(GRACE_ADO, email=None))),
        replace(CASE, run=replace(PUSHED, parameters={"requestedBy": "Somebody Else"}, requested_for=GRACE_ADO)),
    ],
)
def test_who_asked_does_not_decide_however_they_are_named(case: Case) -> None:
    assert reason(HER, case) == "You asked for this run, so somebody else has to decide on it."
    assert "You asked" in reason(HER, case, Answer.REJECT)


def test_an_address_that_is_a_part_of_another_is_not_the_same() -> None:
    short = Decider(replace(GRACE, email="e@contoso.example"), Person("E", "e@contoso.example", "e"), None)

    assert may_decide(short, replace(CASE, asker=Asker("Grace (grace@contoso.example)")), Answer.APPROVE, NOW) == Allowed()


def test_the_words_say_what_one_did() -> None:
    promoted = replace(WAITING, parameters={"action": "promote"})
    released = replace(WAITING, thing=Thing.RELEASE, source=480)

    assert "You asked for this promotion" in reason(HER, replace(CASE, run=promoted, asker=Asker("Grace", GRACE.id)))
    assert "what this release deploys" in reason(HER, replace(CASE, run=released, asker=Asker("Grace", GRACE.id)))


def test_who_committed_the_head_does_not_decide() -> None:
    assert "You committed" in reason(HER, replace(CASE, run=replace(WAITING, committer=GRACE_ADO)))
    assert may_decide(HER, replace(CASE, run=replace(WAITING, committer=None)), Answer.APPROVE, NOW) == Allowed()


def test_a_team_may_keep_fewer_duties_apart() -> None:
    own = replace(CASE, asker=Asker("Grace", GRACE.id), run=replace(WAITING, committer=GRACE_ADO))
    promoted = replace(own, run=replace(own.run, parameters={"action": "promote"}))

    def apart(case: Case, *duties: Duty) -> Case:
        return replace(case, environment=replace(PROD, apart=frozenset(duties)))

    assert may_decide(HER, apart(own), Answer.APPROVE, NOW) == Allowed()
    assert may_decide(HER, apart(own, Duty.PROMOTED), Answer.APPROVE, NOW) == Allowed()
    assert "You asked for this promotion" in reason(HER, apart(promoted, Duty.PROMOTED))
    assert "You committed" in reason(HER, apart(own, Duty.COMMITTED))


def test_where_nobody_can_tell_who_asked_nobody_decides_here() -> None:
    unknown = replace(CASE, asker=None, run=replace(PUSHED, requested_for=None, requested_by=None))
    robot = replace(CASE, asker=Asker("Callboard"), run=replace(PUSHED, requested_for=replace(BOT_ADO, email="6c0f"), requested_by=BOT_ADO))

    assert "does not say which person" in reason(HER, unknown)
    assert "does not say which person" in reason(HER, robot)
    nameless = Decider(replace(GRACE, email=None), Person("Grace"), None)
    assert "no e-mail address" in reason(nameless, replace(CASE, run=PUSHED))
    assert may_decide(HER, replace(unknown, environment=replace(PROD, apart=frozenset())), Answer.APPROVE, NOW) == Allowed()


# Where the approval stands


def test_a_decision_that_was_made_is_not_made_again() -> None:
    assert reason(case=replace(CASE, approval=APPROVED_THERE)) == "This was approved by Grace Hopper on 2026-11-23 at 09:40 UTC."


def test_a_run_that_has_ended_waits_for_nobody() -> None:
    assert reason(case=replace(CASE, run=REJECTED)).startswith("Run 20261123.1 has ended")
    assert reason(case=replace(CASE, run=replace(REJECTED, source=7))).startswith("Release 20261123.1 has ended")


def test_an_approval_of_another_attempt_is_not_answered() -> None:
    assert "is at attempt 1 now, and this was for attempt 2" in reason(case=replace(CASE, approval=replace(PENDING, attempt=2)))
    elsewhere = replace(CASE, run=replace(WAITING, stages=()))
    assert may_decide(HER, elsewhere, Answer.APPROVE, NOW) == Allowed()


def test_azure_devops_has_the_last_word() -> None:
    no, waits = replace(PENDING, mine=False), ApprovalStep(GRACE_ADO, ApprovalState.PENDING, turn=False)

    assert "does not count Grace Hopper among those" in reason(case=replace(CASE, approval=no))
    assert "not your turn" in reason(case=replace(CASE, approval=replace(no, steps=(waits,))))
    assert "excluded" in reason(case=replace(CASE, approval=replace(PENDING, blocked=(GRACE_ADO,))))
    yes = replace(PENDING, mine=True, blocked=(RADIA_ADO,))
    assert may_decide(HER, replace(CASE, approval=yes), Answer.APPROVE, NOW) == Allowed()


def test_nobody_agrees_twice() -> None:
    assert "already" in reason(case=replace(CASE, approval=replace(PENDING, steps=(by(GRACE_ADO),))))
    assert "already" in reason(case=replace(CASE, votes=(Vote(GRACE.id, GRACE_ADO.id or ""),)))
    service = Decider(GRACE, BOT_ADO, None)
    assert "already" in reason(service, replace(CASE, votes=(Vote(GRACE.id, GRACE.id),)))


# What keeps a yes from being given


def test_nothing_is_asked_for_that_could_not_be_approved() -> None:
    assert why_not_asked(CASE) is None
    assert "No registered model" in (why_not_asked(replace(CASE, delivery=Delivery())) or "")
    assert "No evaluation" in (why_not_asked(replace(CASE, delivery=Delivery(version=V4))) or "")
    assert "did not pass" in (why_not_asked(replace(CASE, delivery=replace(DELIVERY, comparison=NOT_FIT))) or "")
    assert "No registered model" in reason(case=replace(CASE, delivery=Delivery()))
    assert may_decide(HER, replace(CASE, delivery=Delivery()), Answer.REJECT, NOW) == Allowed()


def test_a_comparison_with_another_champion_is_superseded() -> None:
    assert superseded(CASE) is None
    assert "compared with version 3, and Prod serves version 5 now" in reason(case=replace(CASE, serving=replace(V3, version="5")))
    assert "Prod serves nothing now" in reason(case=replace(CASE, serving=None))
    first = replace(DELIVERY, comparison=replace(COMPARISON, champion=None))
    assert "compared with nothing" in reason(case=replace(CASE, delivery=first))
    assert "Azure ML does not say" in reason(case=replace(CASE, serving=None, unknown=True))
    assert superseded(replace(CASE, serving=None, rollback=True)) is None
    assert superseded(replace(CASE, delivery=Delivery())) is None
    assert may_decide(HER, replace(CASE, serving=None), Answer.REJECT, NOW) == Allowed()


def test_a_lock_and_a_freeze_keep_a_yes_away_and_broken_glass_lets_it_through() -> None:
    locked = replace(CASE, lock=Lock("prod", RADIA.id, "the fair", NOW - timedelta(hours=2)))
    freeze = Freeze("Monday mornings", BERLIN, days=frozenset({0}), opens=time(8), closes=time(12))
    cold = replace(CASE, environment=replace(PROD, freezes=(freeze,)))
    glass = Glass(RADIA.id, ALAN.id, "Prod is down", NOW + timedelta(minutes=1))

    assert reason(case=locked) == "prod is locked since 2026-11-23 07:30 UTC: the fair"
    assert reason(case=cold) == "prod is frozen: Monday mornings. It is Monday 10:30 in Europe/Berlin."
    for case in (locked, cold):
        assert may_decide(HER, case, Answer.REJECT, NOW) == Allowed()
        assert may_decide(HER, replace(case, glass=glass), Answer.APPROVE, NOW) == Allowed()
        assert reason(case=replace(case, glass=replace(glass, until=NOW)))


@pytest.mark.parametrize(
    ("freeze", "moment", "holds"),
    [
        (
            HOLIDAYS,
            "2026-12-18T15:59",
            False,
        ),
        (
            HOLIDAYS,
            "2026-12-18T16:00",
            True,
        ),
        (
            HOLIDAYS,
            "2027-01-04T07:00",
            False,
        ),
        (Freeze("", BERLIN, days=frozenset({5, 6})), "2026-11-27T22:59", False),  # Friday 23:59 in Berlin
        (Freeze("", BERLIN, days=frozenset({5, 6})), "2026-11-27T23:00", True),
        (Freeze("", BERLIN, days=frozenset({5, 6})), "2026-11-29T22:59", True),
        (Freeze("", BERLIN, days=frozenset({5, 6})), "2026-11-29T23:00", False),
        (Freeze("", BERLIN, days=frozenset({4}), opens=time(16), closes=time(8)), "2026-11-27T14:59", False),
        (Freeze("", BERLIN, days=frozenset({4}), opens=time(16), closes=time(8)), "2026-11-28T06:59", True),
        (Freeze("", BERLIN, days=frozenset({4}), opens=time(16), closes=time(8)), "2026-11-28T07:00", False),
        (Freeze("", BERLIN, days=frozenset({4}), opens=time(9), closes=time(10)), "2026-07-03T07:30", True),  # summer time
        (Freeze("", BERLIN, days=frozenset({4}), opens=time(9), closes=time(10)), "2026-07-03T08:30", False),
        (Freeze("", ZoneInfo("America/New_York"), days=frozenset({6}), opens=time(20), closes=time(0)), "2026-11-30T03:00", True),
    ],
)
def test_freezes_go_by_the_clock_of_their_place(freeze: Freeze, moment: str, holds: bool) -> None:
    assert (frozen((freeze,), datetime.fromisoformat(moment).replace(tzinfo=UTC)) is freeze) is holds


# How many have to agree


def test_a_yes_goes_out_once_enough_people_have_agreed() -> None:
    two = replace(CASE, environment=replace(PROD, minimum=2))
    radia = Vote(RADIA.id, RADIA_ADO.id or "")

    assert still_needed(CASE, HER) == 0
    assert still_needed(two, HER) == 1
    assert still_needed(replace(two, votes=(radia,)), HER) == 0
    assert still_needed(replace(two, votes=(radia,)), RADIO) == 1, "the same person twice is one person"
    assert still_needed(replace(two, approval=replace(PENDING, minimum=2, steps=(by(RADIA_ADO),))), HER) == 0
    assert still_needed(replace(two, approval=replace(PENDING, minimum=2)), HER) == 0, "Azure DevOps waits for two by itself"
    assert still_needed(replace(two, glass=Glass("a", "b", "", NOW)), HER) == 0


@given(st.integers(1, 4), st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=8))
def test_so_many_different_people_agree_before_anything_goes_out(minimum: int, people: list[str]) -> None:
    case = replace(CASE, environment=replace(PROD, minimum=minimum))
    *before, last = [*people, "z"]
    case = replace(case, votes=tuple(Vote(person, person) for person in before))

    left = still_needed(case, Decider(GRACE, Person(last, None, last), Account("t", last, last, last)))

    assert (left == 0) == (len({*people, "z"}) >= minimum)


# What the approver was told


def test_facts_travel_as_a_mark_and_a_change_is_said_in_words() -> None:
    assert CASE.facts == f"4~3~{'ab' * 8}~passed"
    later = replace(CASE, serving=replace(V3, version="5"), delivery=replace(DELIVERY, smoke={}))

    assert changed(CASE.facts, CASE.facts) == ()
    assert changed(CASE.facts, later.facts) == (
        "what Prod serves was 3 and is 5 now",
        "QA's smoke test was passed and is nothing now",
    )
    assert changed("", CASE.facts) == changed(CASE.facts, "x") == ()
    assert replace(CASE, unknown=True).facts.split("~")[1] == "unknown"
    assert replace(CASE, serving=None, delivery=Delivery()).facts == "~~~"
    failed = {"qa": replace(DELIVERY.smoke["qa"], passed=False)}
    assert replace(CASE, delivery=replace(DELIVERY, smoke=failed)).facts.endswith("~failed")


@given(st.text(max_size=60))
def test_a_mark_never_breaks_a_button(text: str) -> None:
    mark = replace(CASE, delivery=replace(DELIVERY, version=replace(V4, version=text), image=replace(IMAGE, digest=text))).facts

    assert "/" not in mark
    assert mark.count("~") == 3
    assert len(mark) < 170


@given(
    st.sampled_from([ADA, GRACE, ALAN, RADIA, GUEST, GONE, ROBOT]),
    st.sampled_from(list(ApprovalState)),
    st.sampled_from(list(Answer)),
    st.sampled_from([WAITING, REJECTED]),
    st.sampled_from([None, ADA, GRACE, RADIA]),
)
def test_nobody_decides_on_what_they_asked_for_or_what_is_over(
    member: Member, state: ApprovalState, answer: Answer, run: Run, asked: Member | None
) -> None:
    approval: Approval = replace(PENDING, state=state)
    case = replace(CASE, run=run, approval=approval, asker=Asker("", asked.id) if asked else None)

    decision = may_decide(of(member, Person(member.name, member.email, member.id)), case, answer, NOW)

    if decision == Allowed():
        assert state is ApprovalState.PENDING
        assert run is WAITING
        assert asked is not None
        assert asked.id != member.id
        assert member in {GRACE, RADIA}


def test_the_approvers_are_the_models_own_where_it_has_some() -> None:
    assert CASE.approvers == PROD.approvers
    own = replace(DIABETES, approvers={"prod": People(frozenset({"U1"}))})
    assert replace(CASE, model=own).approvers == People(frozenset({"U1"}))
    assert replace(CASE, model=own, environment=Environment("qa", "qa")).approvers == People()
