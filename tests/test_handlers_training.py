"""`/retrain`: offered, confirmed, started once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from bot.core.approvals import Allowed, Denied
from bot.core.audit import Entry
from bot.core.errors import NotNow, OutsideError, Refused, SignInNeeded, Uncertain
from bot.core.references import token
from bot.core.runs import Order
from bot.messages.kit import Message, Modal, Reply
from bot.routing import Click, Request, Submission
from handlers import router
from handlers.training import cancelled, check, retrain, started, submitted
from tests.examples import ADA, ALAN, CHANNEL, ELSEWHERE, GRACE, TEAM
from tests.fakes import World

OPERATION = token("retrain", "r1")
START = Click("c1", ADA.id, CHANNEL, "retrain_start", OPERATION)
CANCEL = replace(START, action="retrain_cancel")
FORM = Submission("s1", ADA.id, CHANNEL, "retrain", {"model": "diabetes", "setting:alpha": " 0.5 ", "setting:trees": ""}, {})


def asking(*words: str, person: str = ADA.id, channel: str = CHANNEL) -> Request:
    return Request("r1", person, channel, "retrain", words)


def said(reply: Reply) -> str:
    assert isinstance(reply, Message)
    return reply.text


# Offering


async def test_a_training_is_offered_and_nothing_is_started(world: World) -> None:
    reply = await retrain(world.bot, asking("diabetes", "alpha=0.5"))

    assert said(reply).startswith("Train diabetes with alpha=0.5?")
    assert world.pipelines.orders == []
    assert world.store.operations[OPERATION].detail == {
        "model": "diabetes",
        "action": "train",
        "version": "latest",
        "settings": "alpha=0.5",
    }
    words = {"words": "diabetes alpha=0.5"}
    assert world.store.audit == [Entry(ADA.id, "ask to retrain", "model/diabetes", Allowed(), model="diabetes", after=words)]


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (asking("moon"), "There is no model `moon`. There is: `diabetes` in <#C0MLDELIV>"),
        (asking("diabetes", "alpha=x", "y"), "alpha must be a number from 0.0001 to 100000, not “x”."),
        (asking("diabetes", channel=ELSEWHERE), "`diabetes` belongs to <#C0MLDELIV>"),
        (
            asking("diabetes", person=ALAN.id),
            "You may not start, retry or stop trainings. Ask one of those who may. May: <!subteam^S0MLTEAM>.",
        ),
        (asking(channel=ELSEWHERE), "No model belongs to this channel"),
    ],
)
async def test_what_cannot_be_is_answered_with_what_is_possible(world: World, request_: Request, sentence: str) -> None:
    reply = await retrain(world.bot, request_)

    assert sentence in said(reply)
    assert world.store.operations == {}


async def test_without_words_a_form_opens_for_the_models_of_the_channel(world: World) -> None:
    reply = await retrain(world.bot, asking())

    assert isinstance(reply, Modal)
    assert [option["value"] for option in reply.blocks[0]["element"]["options"]] == ["diabetes"]
    assert router.commands["retrain"].opens(asking()) == "Train a model"
    assert router.commands["retrain"].opens(asking("diabetes")) is None


# Starting


async def test_start_starts_one_run_that_carries_who_asked_and_the_token(world: World) -> None:
    await retrain(world.bot, asking("diabetes", "alpha=0.5"))

    reply = await started(world.bot, START)

    assert "Started: <https://dev.azure.com/contoso/ml-delivery/_build/results?buildId=480|run 20261123.901>" in said(reply)
    assert world.pipelines.orders == [
        Order(
            1,
            "refs/heads/main",
            OPERATION,
            {
                "model": "diabetes",
                "action": "train",
                "version": "latest",
                "settings": "alpha=0.5",
                "requestedBy": "none",
                "requestId": OPERATION,
            },
        )
    ]
    assert (CHANNEL, "run/901") in world.board.shown
    assert f"<@{ADA.id}>" in str(world.board.shown[CHANNEL, "run/901"])
    assert world.store.operations[OPERATION].state == "done"


async def test_however_often_it_is_asked_and_pressed_one_run_is_started(world: World) -> None:
    replies = []
    for _ in range(2):
        await retrain(world.bot, asking("diabetes"))
        replies += [await started(world.bot, START), await started(world.bot, replace(START, id="c2"))]

    assert ["started already" in said(reply) for reply in replies] == [False, True, True, True]
    assert len(world.pipelines.orders) == 1


async def test_a_lost_answer_is_looked_for_by_the_token(world: World) -> None:
    world.pipelines.after["start"] = [Uncertain("Azure DevOps' answer was lost.")]
    await retrain(world.bot, asking("diabetes"))

    reply = await started(world.bot, START)

    assert "Started" in said(reply)
    assert len(world.pipelines.orders) == 1


async def test_a_start_without_a_trace_is_left_to_the_person_who_may_press_again(world: World) -> None:
    world.pipelines.errors["start"] = [Uncertain("Azure DevOps' answer was lost.")]
    await retrain(world.bot, asking("diabetes"))

    lost = await started(world.bot, START)
    again = await started(world.bot, START)

    assert "No run carries this request so far" in said(lost)
    assert "Started" in said(again)
    assert len(world.pipelines.orders) == 1


async def test_while_it_is_under_way_nobody_starts_it_again(world: World) -> None:
    await retrain(world.bot, asking("diabetes"))
    await world.store.advance(OPERATION, of=("offered",), to="doing", result=world.now.isoformat())

    with pytest.raises(NotNow, match="at the moment"):
        await started(world.bot, START)

    assert world.pipelines.orders == []


@pytest.mark.parametrize("since", ["2026-11-23T09:00:00+00:00", "long ago"])
async def test_what_a_crash_interrupted_is_done_once_its_trace_was_looked_for(world: World, since: str) -> None:
    await retrain(world.bot, asking("diabetes"))
    await world.store.advance(OPERATION, of=("offered",), to="doing", result=since)
    world.now += timedelta(minutes=5)

    reply = await started(world.bot, START)

    assert "Started" in said(reply)
    assert "started" in world.pipelines.calls
    assert len(world.pipelines.orders) == 1


async def test_a_run_that_was_started_and_is_gone_is_not_started_again(world: World) -> None:
    await retrain(world.bot, asking("diabetes"))
    await started(world.bot, START)
    world.pipelines.runs.clear()

    with pytest.raises(Exception, match="what it made is gone"):
        await started(world.bot, START)

    assert len(world.pipelines.orders) == 1


@pytest.mark.parametrize("error", [NotNow("Azure DevOps is busy."), SignInNeeded("Azure DevOps does not accept your sign-in any more.")])
async def test_when_azure_devops_cannot_answer_it_is_as_if_never_tried(world: World, error: OutsideError) -> None:
    world.pipelines.errors["start"] = [error]
    await retrain(world.bot, asking("diabetes"))

    with pytest.raises(type(error)):
        await started(world.bot, START)

    assert world.store.operations[OPERATION].state == "offered"
    assert "Started" in said(await started(world.bot, START))


async def test_when_azure_devops_refuses_the_reason_is_kept(world: World) -> None:
    world.pipelines.errors["start"] = [Refused("The pipeline is disabled.")]
    await retrain(world.bot, asking("diabetes"))

    with pytest.raises(Refused, match="disabled"):
        await started(world.bot, START)

    assert world.store.operations[OPERATION].result == "The pipeline is disabled."


async def test_only_who_was_offered_it_may_start_it(world: World) -> None:
    await retrain(world.bot, asking("diabetes"))

    reply = await started(world.bot, replace(START, person=GRACE.id))

    assert "offered to somebody else" in said(reply)
    assert world.pipelines.orders == []


async def test_who_may_no_longer_is_refused_at_the_click_too(world: World) -> None:
    await retrain(world.bot, asking("diabetes"))
    world.chat.members[ADA.id] = replace(ADA, groups=frozenset())

    reply = await started(world.bot, START)

    assert "You may not" in said(reply)
    assert isinstance(world.store.audit[-1].decision, Denied)
    assert world.pipelines.orders == []


async def test_an_old_or_unknown_offer_is_not_started(world: World) -> None:
    await retrain(world.bot, asking("diabetes"))
    world.now += timedelta(hours=2)

    assert "more than an hour old" in said(await started(world.bot, START))
    assert "not known" in said(await started(world.bot, replace(START, value="other")))


async def test_a_model_that_was_taken_out_is_not_trained(world: World) -> None:
    await retrain(world.bot, asking("diabetes"))
    world.team = replace(TEAM, models={})

    assert "no model of this team" in said(await started(world.bot, START))


async def test_a_cancelled_offer_is_not_started(world: World) -> None:
    await retrain(world.bot, asking("diabetes"))

    assert "Cancelled" in said(await cancelled(world.bot, CANCEL))
    assert "nothing to cancel" in said(await cancelled(world.bot, CANCEL))
    with pytest.raises(Refused, match="cancelled"):
        await started(world.bot, START)


# The form


async def test_the_form_starts_the_training_once(world: World) -> None:
    first = await submitted(world.bot, FORM)
    again = await submitted(world.bot, FORM)

    assert "Started" in said(first)
    assert "started already" in said(again)
    assert [order.parameters["settings"] for order in world.pipelines.orders] == ["alpha=0.5"]


def test_every_mistake_in_the_form_is_shown_beside_its_input() -> None:
    wrong = replace(FORM, values={"model": "diabetes", "setting:alpha": "x", "setting:trees": "0"})

    assert check(TEAM, FORM) == {}
    assert check(TEAM, wrong) == {
        "setting:alpha": "alpha must be a number from 0.0001 to 100000, not “x”.",
        "setting:trees": "trees must be a whole number from 1 to 500, not “0”.",
    }
    assert check(TEAM, replace(FORM, values={})) == {"model": "Choose one of the models."}


async def test_a_form_that_was_wrong_after_all_starts_nothing(world: World) -> None:
    assert "alpha must be" in said(await submitted(world.bot, replace(FORM, values={"model": "diabetes", "setting:alpha": "x"})))
    assert "no model `moon`" in said(await submitted(world.bot, replace(FORM, values={"model": "moon"})))
    assert world.pipelines.orders == []


# Under whose name


async def test_who_has_not_signed_in_starts_nothing(world: World) -> None:
    await retrain(world.bot, asking("diabetes"))
    world.identities.accounts.clear()

    with pytest.raises(SignInNeeded):
        await started(world.bot, START)

    assert world.pipelines.orders == []


async def test_a_run_says_for_whom_the_bot_queued_it_where_that_is_the_arrangement(world: World) -> None:
    world.identities.service = True
    await retrain(world.bot, asking("diabetes"))

    await started(world.bot, START)

    assert world.pipelines.orders[0].parameters["requestedBy"] == "Ada Lovelace (ada@contoso.example)"


async def test_who_may_no_longer_train_cannot_press_start_either(world: World) -> None:
    await retrain(world.bot, asking("diabetes"))
    world.team = replace(TEAM, rights={})

    assert "You may not" in said(await started(world.bot, START))
    assert world.pipelines.orders == []
