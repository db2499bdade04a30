"""Approvals: who waits, and decisions taken in Slack."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from bot.core.approvals import Allowed, Answer, ApprovalState, Denied
from bot.core.audit import Entry
from bot.core.errors import Gone, NotNow, Refused, SignInNeeded, Uncertain
from bot.core.events import ApprovalCompleted, ApprovalRequested
from bot.core.team import People
from bot.messages.kit import Message, Modal, Reply
from bot.ports import Operation
from bot.routing import Click, Request, Submission, Usage
from handlers.approvals import (
    approve,
    approved,
    ask_to_approve,
    ask_to_defer,
    ask_to_reassign,
    ask_to_reject,
    check,
    deferred,
    reassigned,
    rejected,
)
from handlers.runs import moved
from tests.artifacts import delivered, smoke
from tests.examples import (
    ACCOUNTS,
    ADA,
    ALAN,
    APPROVED_THERE,
    CHANNEL,
    ELSEWHERE,
    GRACE,
    GRACE_ADO,
    GUEST,
    KEPT,
    NOW,
    PENDING,
    RADIA,
    RADIA_ADO,
    REFUSED,
    SUCCEEDED,
    TEAM,
    V3,
    WAITING,
)
from tests.fakes import FakeStore
from tests.fakes import World as Everything

FACTS = f"4~3~{'ab' * 8}~passed"
CLICK = Click("c1", GRACE.id, CHANNEL, "approve", f"480/{PENDING.id}")
FORM = Submission("s1", GRACE.id, CHANNEL, "approve", {"reason": " Fits the plan "}, {"approval": f"run/480/{PENDING.id}/{FACTS}"})
LINK = "https://contoso.slack.com/archives/C0MLDELIV/p1795426200000002"
CARD = (CHANNEL, "run/480/approval/prod/1")


@pytest.fixture
def world(world: Everything) -> Everything:
    """Run 480, asked for by Ada, waits for Prod, and the channel shows it."""
    world.pipelines.runs[480] = replace(WAITING, committer=None)
    world.pipelines.waiting[480] = (PENDING,)
    world.pipelines.artifacts[480, "delivery"] = delivered()
    world.pipelines.artifacts[480, "qa"] = {"qa.json": smoke("qa")}
    world.models.known["diabetes"] = (V3,)
    world.store.operations["op-480"] = Operation("op-480", "retrain", ADA.id, "diabetes", "done", {}, NOW)
    return world


def asking(*words: str, channel: str = CHANNEL) -> Request:
    return Request("r1", GRACE.id, channel, "approve", words)


def said(reply: Reply) -> str:
    assert isinstance(reply, Message)
    return reply.text


# Listing


async def test_what_waits_is_listed_with_buttons_that_carry_its_facts(world: Everything) -> None:
    reply = await approve(world.bot, asking())

    assert said(reply) == "1 waiting for you: diabetes version 4 to Prod (run 480)."
    assert isinstance(reply, Message)
    assert f"run/480/{PENDING.id}/{FACTS}" in str(reply.blocks)


async def test_what_waits_for_others_is_only_counted(world: Everything) -> None:
    asked = await approve(world.bot, replace(asking(), person=ADA.id))
    not_listed = await approve(world.bot, replace(asking(), person=ALAN.id))

    assert said(asked) == said(not_listed) == "Nothing waits for you. 1 waits for others."


async def test_where_nothing_is_decided_the_list_has_no_buttons(world: Everything) -> None:
    there, here = await approve(world.bot, asking(channel=ELSEWHERE)), await approve(world.bot, asking(channel="C0CHURN00"))

    assert said(there) == said(here)
    assert isinstance(there, Message)
    assert isinstance(here, Message)
    assert "Decide in the model's channel" in str(there.blocks)
    assert not [block for block in there.blocks if block["type"] == "actions"]
    assert [block for block in here.blocks if block["type"] == "actions"]


@pytest.mark.parametrize("word", ["480", "#480"])
async def test_one_run_is_shown_with_its_facts_and_buttons(world: Everything, word: str) -> None:
    reply = await approve(world.bot, asking(word))

    assert said(reply).startswith("🚦 Approval needed: diabetes version 4 to Prod")
    assert isinstance(reply, Message)
    assert CLICK.value in str(reply.blocks)


async def test_a_run_that_does_not_wait_is_said_not_to(world: Everything) -> None:
    world.pipelines.waiting[480] = (APPROVED_THERE,)
    world.pipelines.runs[481] = replace(KEPT, id=481, pipeline_id=99)

    assert "does not wait" in said(await approve(world.bot, asking("480")))
    assert "no model of this team" in said(await approve(world.bot, asking("481")))
    assert "belongs to <#C0MLDELIV>" in said(await approve(world.bot, asking("480", channel=ELSEWHERE)))


@pytest.mark.parametrize("words", [("prod",), ("480", "481"), ("9" * 40,)])
async def test_other_words_are_not_understood(world: Everything, words: tuple[str, ...]) -> None:
    with pytest.raises(Usage, match="one run"):
        await approve(world.bot, asking(*words))


# Asking why


async def test_the_modals_repeat_the_facts_and_ask_why(world: Everything) -> None:
    yes = await ask_to_approve(world.bot, CLICK)
    no = await ask_to_reject(world.bot, replace(CLICK, action="reject"))

    assert isinstance(yes, Modal)
    assert isinstance(no, Modal)
    assert (yes.callback, no.callback) == ("approve", "reject")
    assert yes.state == FORM.state
    assert "diabetes version 4" in str(yes.blocks)
    assert world.pipelines.decisions == []
    assert [entry.action for entry in world.store.audit] == ["open approve", "open reject"]


@pytest.mark.parametrize(
    ("person", "sentence"),
    [(ALAN.id, "You may not decide on prod. Ask one of those who may. May: <!subteam^S0RELEASE>."), (ADA.id, "You asked for this run")],
)
async def test_who_may_not_decide_is_told_who_may(world: Everything, person: str, sentence: str) -> None:
    assert sentence in said(await ask_to_approve(world.bot, replace(CLICK, person=person)))
    assert world.board.shows == 0


async def test_an_old_button_is_answered_with_who_decided_and_its_card_is_healed(world: Everything) -> None:
    await moved(world.bot, ApprovalRequested(480, PENDING.id))
    world.pipelines.waiting[480] = (APPROVED_THERE,)

    reply = await ask_to_approve(world.bot, CLICK)

    assert said(reply) == "🔒 This was approved by Grace Hopper on 2026-11-23 at 09:40 UTC."
    assert "Approved by Grace Hopper" in world.board.shown[CARD].text


async def test_a_button_of_an_attempt_that_is_gone_says_so(world: Everything) -> None:
    with pytest.raises(Gone, match="no such approval any more"):
        await ask_to_approve(world.bot, replace(CLICK, value="480/other"))
    assert "none of ours" in said(await ask_to_approve(world.bot, replace(CLICK, value="x")))


async def test_an_environment_that_is_no_longer_listed_is_not_decided_on_here(world: Everything) -> None:
    world.team = replace(TEAM, environments={})

    with pytest.raises(Refused, match="callboard"):
        await ask_to_approve(world.bot, CLICK)


def test_a_reason_is_asked_for_at_once() -> None:
    assert check(TEAM, FORM) == {}
    assert "reason" in check(TEAM, replace(FORM, values={}))


# Deciding


async def test_an_approver_approves_and_it_is_on_record(world: Everything) -> None:
    await moved(world.bot, ApprovalRequested(480, PENDING.id))

    reply = await approved(world.bot, FORM)

    assert said(reply) == "Approved, and on record in Azure DevOps."
    assert world.pipelines.decisions == [
        (PENDING.id, Answer.APPROVE, f"Fits the plan\ndecided in Slack by Grace Hopper (U0GRACE01)\n{LINK}")
    ]
    judged, sent = world.store.audit
    assert judged == Entry(
        GRACE.id,
        "approve",
        f"run/480/approval/{PENDING.id}",
        Allowed(),
        why="Fits the plan",
        account=ACCOUNTS[GRACE.id],
        model="diabetes",
        before={"state": "pending", "attempt": "1"},
    )
    assert (sent.action, sent.after) == ("approve sent", {"state": "approved", "by": "Grace Hopper"})
    card = world.board.shown[CARD]
    assert card.text == "✅ Approved by <@U0GRACE01>: diabetes version 4 for Prod, run 20261123.1. Reason: “Fits the plan”"
    assert "Decided in Slack, recorded there as Grace Hopper" in str(card.blocks)
    assert not [block for block in card.blocks if block["type"] == "actions"]


async def test_a_rejection_is_on_record_with_its_reason(world: Everything) -> None:
    reply = await rejected(world.bot, replace(FORM, callback="reject", values={"reason": "Too close to the fair"}))

    assert said(reply) == "Rejected, and on record in Azure DevOps."
    assert world.pipelines.decisions[0][1] is Answer.REJECT
    assert "Rejected by <@U0GRACE01>" in world.board.shown[CARD].text


async def test_the_same_answer_twice_decides_once(world: Everything) -> None:
    await approved(world.bot, FORM)
    reply = await approved(world.bot, FORM)

    assert "This was approved by Grace Hopper on 2026-11-23 at 09:30 UTC." in said(reply)
    assert len(world.pipelines.decisions) == 1


async def test_a_second_answer_is_told_of_the_first(world: Everything) -> None:
    await approved(world.bot, FORM)
    reply = await rejected(world.bot, FORM)

    assert "This was approved by" in said(reply)
    assert len(world.pipelines.decisions) == 1
    assert isinstance(world.store.audit[-1].decision, Denied)


@pytest.mark.parametrize(("person", "sentence"), [(ADA.id, "You asked for this run"), (ALAN.id, "You may not")])
async def test_who_may_not_decide_cannot_by_sending_the_form_either(world: Everything, person: str, sentence: str) -> None:
    reply = await approved(world.bot, replace(FORM, person=person))

    assert sentence in said(reply)
    assert world.pipelines.decisions == []
    assert isinstance(world.store.audit[-1].decision, Denied)


async def test_who_asked_for_the_run_does_not_decide_on_it(world: Everything) -> None:
    world.store.operations["op-480"] = Operation("op-480", "retrain", GRACE.id, "diabetes", "done", {}, NOW)

    assert "You asked for this run" in said(await approved(world.bot, FORM))
    assert world.pipelines.decisions == []


async def test_a_run_that_has_ended_is_not_decided_on(world: Everything) -> None:
    world.pipelines.runs[480] = SUCCEEDED

    assert "has ended" in said(await approved(world.bot, FORM))


async def test_a_form_without_a_reason_or_approval_decides_nothing(world: Everything) -> None:
    assert "Say why" in said(await approved(world.bot, replace(FORM, values={})))
    assert "none of ours" in said(await approved(world.bot, replace(FORM, state={})))
    assert world.pipelines.decisions == []


async def test_a_lost_answer_is_looked_for(world: Everything) -> None:
    world.pipelines.after["decide"] = [Uncertain("Azure DevOps' answer was lost.")]

    assert said(await approved(world.bot, FORM)) == "Approved, and on record in Azure DevOps."
    assert len(world.pipelines.decisions) == 1


async def test_a_decision_without_a_trace_is_left_to_the_person_who_may_answer_again(world: Everything) -> None:
    world.pipelines.errors["decide"] = [Uncertain("Azure DevOps' answer was lost.")]

    assert "It still waits. Answer again" in said(await approved(world.bot, FORM))
    assert "Approved" in said(await approved(world.bot, FORM))
    assert len(world.pipelines.decisions) == 1


async def test_when_azure_devops_refuses_the_person_is_told_its_reason(world: Everything) -> None:
    world.pipelines.errors["decide"] = [Refused("You are not an approver.")]

    assert said(await approved(world.bot, FORM)) == "Azure DevOps did not take the answer: You are not an approver."


async def test_when_azure_devops_cannot_answer_it_is_tried_again(world: Everything) -> None:
    world.pipelines.errors["decide"] = [NotNow("Azure DevOps is busy.")]

    with pytest.raises(NotNow):
        await approved(world.bot, FORM)
    assert "Approved" in said(await approved(world.bot, FORM))


async def test_one_of_several_approvals_is_not_the_last_word(world: Everything) -> None:
    world.pipelines.answers_needed = 2

    assert "others have to approve, too" in said(await approved(world.bot, FORM))


async def test_what_somebody_decided_meanwhile_is_told(world: Everything) -> None:
    world.pipelines.errors["decide"] = [Uncertain("Azure DevOps' answer was lost.")]
    world.pipelines.meanwhile = REFUSED

    assert said(await approved(world.bot, FORM)) == "This was rejected by Grace Hopper on 2026-11-23 at 09:40 UTC."


# Elsewhere


async def test_a_decision_in_azure_devops_shows_in_slack(world: Everything) -> None:
    await moved(world.bot, ApprovalRequested(480, PENDING.id))
    world.pipelines.waiting[480] = (APPROVED_THERE,)

    await moved(world.bot, ApprovalCompleted(480, PENDING.id))

    assert "Approved by Grace Hopper: diabetes version 4 for Prod" in world.board.shown[CARD].text
    assert "Recorded in Azure DevOps as" not in str(world.board.shown[CARD].blocks)


async def test_an_approval_that_timed_out_shows_so(world: Everything) -> None:
    world.pipelines.waiting[480] = (replace(PENDING, state=ApprovalState.TIMED_OUT),)

    await moved(world.bot, ApprovalCompleted(480, PENDING.id))

    assert world.board.shown[CARD].text.startswith("⌛ Timed out")


async def test_an_answer_under_way_elsewhere_is_not_claimed_for_slack(world: Everything) -> None:
    detail = {"answer": "approved", "identity": GRACE_ADO.id or ""}
    mine = Operation("x", "decide", GRACE.id, f"run/480/approval/{PENDING.id}", "done", detail, NOW)
    world.store.operations = {"x": mine, "y": replace(mine, id="y", state="failed"), "z": replace(mine, id="z", detail={})}
    world.pipelines.waiting[480] = (APPROVED_THERE,)

    await moved(world.bot, ApprovalCompleted(480, PENDING.id))

    assert "Decided in Slack" not in str(world.board.shown[CARD].blocks)


# Under whose name


async def test_who_has_not_signed_in_is_asked_to_and_nothing_is_sent(world: Everything) -> None:
    del world.identities.accounts[GRACE.id]

    with pytest.raises(SignInNeeded):
        await ask_to_approve(world.bot, CLICK)
    with pytest.raises(SignInNeeded):
        await approved(world.bot, FORM)

    assert world.pipelines.decisions == []


@pytest.mark.parametrize(
    ("person", "sentence"), [(ADA.id, "You asked for this run"), (ALAN.id, "You may not"), (GUEST.id, "Guests of the workspace")]
)
async def test_who_could_not_decide_anyway_need_not_sign_in(world: Everything, person: str, sentence: str) -> None:
    world.identities.accounts.clear()

    assert sentence in said(await ask_to_approve(world.bot, replace(CLICK, person=person)))
    assert isinstance(world.store.audit[-1].decision, Denied)


async def test_who_may_be_counted_in_by_azure_devops_signs_in_first(world: Everything) -> None:
    prod = replace(TEAM.environments["prod"], approvers=People(frozenset({"ado:Release Managers"})))
    world.team = replace(TEAM, environments={"prod": prod})
    account = world.identities.accounts.pop(ALAN.id)

    with pytest.raises(SignInNeeded):
        await ask_to_approve(world.bot, replace(CLICK, person=ALAN.id))

    world.identities.accounts[ALAN.id] = account
    assert "You may not" in said(await ask_to_approve(world.bot, replace(CLICK, person=ALAN.id)))
    world.pipelines.ado_groups[account.oid] = frozenset({"Release Managers"})
    assert isinstance(await ask_to_approve(world.bot, replace(CLICK, person=ALAN.id)), Modal)


async def test_in_the_service_mode_the_bot_is_recorded_and_the_comment_names_the_person(world: Everything) -> None:
    world.team = replace(TEAM, service_identity=True)
    world.identities.service = True
    world.identities.accounts.clear()
    await moved(world.bot, ApprovalRequested(480, PENDING.id))
    assert "under this app's identity" in str(world.board.shown[CARD].blocks)

    assert said(await approved(world.bot, FORM)) == "Approved, and on record in Azure DevOps."

    assert "decided in Slack by Grace Hopper (U0GRACE01)" in world.pipelines.decisions[0][2]
    assert "✅ Approved by <@U0GRACE01>" in world.board.shown[CARD].text


# What was seen


async def test_what_changed_since_the_message_was_shown_is_said_in_the_modal(world: Everything) -> None:
    world.models.known["diabetes"] = (V3,)

    reply = await ask_to_approve(world.bot, replace(CLICK, value=f"run/480/{PENDING.id}/4~2~{'ab' * 8}~passed"))

    assert isinstance(reply, Modal)
    assert "what Prod serves was 2 and is 3 now" in str(reply.blocks)


async def test_what_changed_while_one_wrote_is_not_decided_on(world: Everything) -> None:
    world.pipelines.artifacts[480, "qa"] = {}

    reply = said(await rejected(world.bot, replace(FORM, callback="reject")))

    assert "QA's smoke test was passed and is nothing now. Look again." in reply
    assert world.pipelines.decisions == []


async def test_a_button_that_somebody_edited_or_took_elsewhere_changes_nothing(world: Everything) -> None:
    with pytest.raises(Refused, match="not decided on in this channel"):
        await ask_to_approve(world.bot, replace(CLICK, channel=ELSEWHERE))
    for channel in ("", "D0GRACE01", "C0CHURN00"):
        assert isinstance(await ask_to_approve(world.bot, replace(CLICK, channel=channel)), Modal), "from Home, or from a list elsewhere"
    world.board.shown.clear()
    assert "Approved" in said(await approved(world.bot, FORM)), "where there is no card there is no link to it"
    assert "slack.com" not in world.pipelines.decisions[0][2]


async def test_a_link_that_slack_does_not_give_is_not_a_condition(world: Everything) -> None:
    await moved(world.bot, ApprovalRequested(480, PENDING.id))
    world.chat.errors = [NotNow("Slack is away.")]

    assert "Approved" in said(await approved(world.bot, FORM))
    assert "slack.com" not in world.pipelines.decisions[0][2]


# Several people


async def test_where_our_policy_wants_two_the_first_yes_waits_for_the_second(world: Everything) -> None:
    prod = replace(TEAM.environments["prod"], minimum=2)
    world.team = replace(TEAM, environments={"prod": prod})
    await moved(world.bot, ApprovalRequested(480, PENDING.id))

    first = said(await approved(world.bot, FORM))
    assert first == "Noted: you agree. It goes to Azure DevOps once one more person has agreed, too."
    assert world.pipelines.decisions == []
    assert "1 of 2 have agreed: <@U0GRACE01>" in str(world.board.shown[CARD].blocks)
    assert "already" in said(await approved(world.bot, FORM)), "one person is one person"

    second = said(await approved(world.bot, replace(FORM, person=RADIA.id, id="s2")))
    assert second == "Approved, and on record in Azure DevOps."
    assert len(world.pipelines.decisions) == 1
    assert "agreed before: U0GRACE01: Fits the plan" in world.pipelines.decisions[0][2]
    assert next(entry.after for entry in world.store.audit if entry.after) == {"agreed": "1 of 2"}


async def test_of_two_who_agree_at_the_same_moment_one_sends_it(world: Everything) -> None:
    world.team = replace(TEAM, environments={"prod": replace(TEAM.environments["prod"], minimum=2)})
    about = f"run/480/approval/{PENDING.id}"
    hers = Operation("v", "vote", RADIA.id, about, "held", {"identity": RADIA_ADO.id or "", "reason": "me too"}, NOW)

    class Meanwhile(FakeStore):
        async def offer(self, operation: Operation) -> Operation:
            self.operations["v"] = hers
            return await super().offer(operation)

    world.store = Meanwhile()

    assert said(await approved(world.bot, FORM)) == "Approved, and on record in Azure DevOps."


async def test_more_than_one_other_is_said_so(world: Everything) -> None:
    world.team = replace(TEAM, environments={"prod": replace(TEAM.environments["prod"], minimum=3)})

    assert "2 more people have agreed" in said(await approved(world.bot, FORM))


# Later, and by somebody else

LATER = replace(FORM, callback="defer", values={"reason": "After the fair", "until": "4"})
OVER = replace(FORM, callback="reassign", values={"reason": "She knows the model", "to": RADIA.id})


async def test_a_yes_may_take_effect_later(world: Everything) -> None:
    form = await ask_to_defer(world.bot, replace(CLICK, action="defer"))
    assert isinstance(form, Modal)
    assert form.callback == "defer"
    await moved(world.bot, ApprovalRequested(480, PENDING.id))

    assert said(await deferred(world.bot, LATER)) == "Approved from 2026-11-23 13:30 UTC on, and on record in Azure DevOps."

    assert world.pipelines.waiting[480][0].steps[-1].until == NOW + timedelta(hours=4)
    assert world.board.shown[CARD].text.startswith("🕓 Deferred by")
    assert "from <!date" in str(world.board.shown[CARD].blocks)


async def test_a_decision_may_be_handed_over_to_who_could_decide(world: Everything) -> None:
    form = await ask_to_reassign(world.bot, replace(CLICK, action="reassign"))
    assert isinstance(form, Modal)
    assert form.callback == "reassign"

    assert said(await reassigned(world.bot, OVER)) == "Handed over to Radia Perlman, and on record in Azure DevOps."
    assert said(await reassigned(world.bot, OVER)) == "Handed over to Radia Perlman, and on record in Azure DevOps."

    assert [(to, comment.split("\n")[0]) for _, to, comment in world.pipelines.reassignments] == [(RADIA_ADO, "She knows the model")]


async def test_a_decision_is_not_handed_over_to_who_could_not_decide(world: Everything) -> None:
    to_ada = replace(OVER, values={"reason": "x", "to": ADA.id})

    assert "For them it reads: You asked for this run" in said(await reassigned(world.bot, to_ada))
    world.pipelines.known_people = ()
    assert "Azure DevOps knows nobody" in said(await reassigned(world.bot, OVER))
    world.chat.members[RADIA.id] = replace(RADIA, email=None)
    assert "Azure DevOps knows nobody" in said(await reassigned(world.bot, OVER))
    assert "You asked" in said(await reassigned(world.bot, replace(OVER, person=ADA.id)))
    assert world.pipelines.reassignments == []


def test_a_form_asks_for_what_is_missing_beside_its_field() -> None:
    assert check(TEAM, replace(LATER, values={"reason": "x", "until": "5"})) == {"until": "Choose from when on it may be deployed."}
    assert check(TEAM, replace(OVER, values={"reason": "x"})) == {"to": "Choose who decides instead of you."}
    assert check(TEAM, LATER) == check(TEAM, OVER) == {}


# What keeps a yes away


async def test_a_lock_keeps_a_yes_away_until_the_glass_is_broken(world: Everything) -> None:
    world.store.operations["l"] = Operation("l", "lock", RADIA.id, "prod", "held", {"reason": "the fair"}, NOW)
    world.store.operations["old"] = Operation("old", "lock", RADIA.id, "prod", "released", {"reason": "x"}, NOW)

    assert "prod is locked since 2026-11-23 09:30 UTC: the fair" in said(await ask_to_approve(world.bot, CLICK))
    assert isinstance(await ask_to_reject(world.bot, replace(CLICK, action="reject")), Modal)

    until = (NOW + timedelta(minutes=5)).isoformat()
    broken = Operation("g", "glass", RADIA.id, "run/480/prod", "open", {"reason": "Prod is down"}, NOW, f"{ALAN.id} {until}")
    world.store.operations |= {"a": replace(broken, id="a", state="asked", result=""), "g": broken}
    assert isinstance(await ask_to_approve(world.bot, CLICK), Modal)
    world.now = NOW + timedelta(minutes=5)
    assert "prod is locked" in said(await ask_to_approve(world.bot, CLICK))


async def test_where_nothing_was_registered_nobody_is_asked_to_approve(world: Everything) -> None:
    world.pipelines.artifacts[480, "delivery"] = {}

    await moved(world.bot, ApprovalRequested(480, PENDING.id))

    card = world.board.shown[CARD]
    assert "No registered model was handed on" in str(card.blocks)
    assert "'approve'" not in str(card.blocks)
    assert "'reject'" in str(card.blocks)
    assert "No registered model" in said(await ask_to_approve(world.bot, CLICK))
