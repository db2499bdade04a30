"""Stopping a run, running a failed stage again, rolling back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from bot.core.errors import Gone, SignInNeeded, Uncertain
from bot.core.references import token
from bot.core.runs import State
from bot.messages.kit import Message, Reply
from bot.routing import Click, Request, Usage
from handlers.steering import cancel_run, cancelled, rerun, rollback, started
from tests.artifacts import delivered
from tests.examples import ADA, ALAN, CHANNEL, ELSEWHERE, FAILED, GRACE, NOW, SUCCEEDED, TEAM, TRAINING, V3, V4
from tests.fakes import World


def asking(command: str, *words: str, person: str = ADA.id, channel: str = CHANNEL) -> Request:
    return Request("r1", person, channel, command, words)


def start(kind: str, person: str = ADA.id) -> Click:
    return Click("c1", person, CHANNEL, "steer_start", token(kind, "r1"))


def said(reply: Reply) -> str:
    assert isinstance(reply, Message)
    return reply.text


# Stop


async def test_a_run_is_stopped_once_it_has_been_confirmed(world: World) -> None:
    world.pipelines.runs[480] = TRAINING

    assert said(await cancel_run(world.bot, asking("cancel", "#480"))) == "Stop run 20261123.1? Nothing has been done yet."
    assert world.pipelines.runs == {480: TRAINING}
    assert said(await started(world.bot, start("cancel"))) == "Run 20261123.1 is being stopped."

    assert world.pipelines.runs == {480: replace(TRAINING, state=State.CANCELING)}
    assert [entry.action for entry in world.store.audit] == ["ask to cancel", "cancel", "cancel sent"]
    assert said(await started(world.bot, start("cancel"))) == "Run 20261123.1 is being stopped."
    assert world.pipelines.calls.count("cancel") == 1


async def test_what_has_ended_is_not_stopped(world: World) -> None:
    world.pipelines.runs[480] = SUCCEEDED

    assert "has ended already" in said(await cancel_run(world.bot, asking("cancel", "480")))


@pytest.mark.parametrize("command", [cancel_run, rerun])
async def test_a_run_is_named_by_its_number_in_its_channel(world: World, command: type) -> None:
    world.pipelines.runs[480] = TRAINING
    world.pipelines.runs[481] = replace(TRAINING, id=481, pipeline_id=99)

    for words in ((), ("prod",), ("480", "481"), ("9" * 40,)):
        with pytest.raises(Usage):
            await command(world.bot, asking("cancel", *words))
    with pytest.raises(Gone):
        await command(world.bot, asking("cancel", "7"))
    assert "no model of this team" in said(await command(world.bot, asking("cancel", "481")))
    assert "belongs to <#C0MLDELIV>" in said(await command(world.bot, asking("cancel", "480", channel=ELSEWHERE)))


async def test_who_may_not_is_refused_when_asking_and_when_pressing(world: World) -> None:
    world.pipelines.runs[480] = TRAINING

    assert "You may not start, retry or stop" in said(await cancel_run(world.bot, asking("cancel", "480", person=ALAN.id)))
    await cancel_run(world.bot, asking("cancel", "480"))
    assert "offered to somebody else" in said(await started(world.bot, start("cancel", ALAN.id)))
    world.team = replace(TEAM, rights={})
    assert "You may not" in said(await started(world.bot, start("cancel")))
    assert "cancel" not in world.pipelines.calls


async def test_an_offer_that_is_unknown_old_or_cancelled_does_nothing(world: World) -> None:
    world.pipelines.runs[480] = TRAINING
    assert "not known here" in said(await started(world.bot, replace(start("cancel"), value="x")))
    await cancel_run(world.bot, asking("cancel", "480"))
    world.now = NOW + timedelta(hours=2)
    assert "more than an hour old" in said(await started(world.bot, start("cancel")))
    world.now = NOW
    assert "Cancelled" in said(await cancelled(world.bot, replace(start("cancel"), action="steer_cancel")))
    world.pipelines.runs[480] = replace(TRAINING, pipeline_id=99)
    assert "no model of this team any more" in said(await started(world.bot, start("cancel")))
    assert "cancel" not in world.pipelines.calls


async def test_who_has_not_signed_in_stops_nothing(world: World) -> None:
    world.pipelines.runs[480] = TRAINING
    await cancel_run(world.bot, asking("cancel", "480"))
    world.identities.accounts.clear()

    with pytest.raises(SignInNeeded):
        await started(world.bot, start("cancel"))


async def test_a_lost_answer_is_looked_for(world: World) -> None:
    world.pipelines.runs[480] = TRAINING
    await cancel_run(world.bot, asking("cancel", "480"))
    world.pipelines.errors["cancel"] = [Uncertain("Azure DevOps' answer was lost.")]

    assert "Nothing shows that it was done" in said(await started(world.bot, start("cancel")))
    world.pipelines.after["cancel"] = [Uncertain("Azure DevOps' answer was lost.")]
    assert said(await started(world.bot, start("cancel"))) == "Run 20261123.1 is being stopped."


# Again


async def test_a_failed_stage_runs_again(world: World) -> None:
    world.pipelines.runs[480] = FAILED

    assert said(await rerun(world.bot, asking("rerun", "480"))) == "Run Train of run 20261123.1 again? Nothing has been done yet."
    assert said(await started(world.bot, start("rerun"))) == "The failed stage of run 20261123.1 runs again."

    assert world.pipelines.retries == [(480, "train")]


async def test_a_stage_that_runs_again_already_is_not_asked_twice(world: World) -> None:
    world.pipelines.runs[480] = FAILED
    await rerun(world.bot, asking("rerun", "480"))
    world.pipelines.after["retry"] = [Uncertain("Azure DevOps' answer was lost.")]

    assert "runs again" in said(await started(world.bot, start("rerun")))
    assert "runs again" in said(await started(world.bot, start("rerun")))
    assert world.pipelines.retries == [(480, "train")]


async def test_where_nothing_failed_nothing_runs_again(world: World) -> None:
    world.pipelines.runs[480] = SUCCEEDED

    assert "No stage of run 20261123.1 has failed" in said(await rerun(world.bot, asking("rerun", "480")))


# Back


@pytest.fixture
def deployed(world: World) -> World:
    """Run 470 deployed version 3, run 480 version 4, which Prod serves; run 475 deployed and handed nothing on."""
    world.pipelines.runs = {480: SUCCEEDED, 475: replace(SUCCEEDED, id=475), 470: replace(SUCCEEDED, id=470, number="20261101.1")}
    world.pipelines.artifacts = {(480, "delivery"): delivered(), (470, "delivery"): delivered("3")}
    world.models.known["diabetes"] = (replace(V4, champion=True), replace(V3, champion=False))
    return world


async def test_prod_goes_back_to_the_newest_run_that_deployed_something_else(deployed: World) -> None:
    reply = await rollback(deployed.bot, asking("rollback", "diabetes", person=GRACE.id))
    assert said(reply) == "Roll diabetes back to version 3? Nothing has been done yet."
    assert "version 4" in str(reply)

    reply = await started(deployed.bot, start("rollback", GRACE.id))

    assert "Its approval comes as a new message" in said(reply)
    assert deployed.pipelines.retries == [(470, "prod")]
    assert deployed.store.operations[token("rollback", "r1")].subject == "run/470"


async def test_a_run_to_go_back_to_may_be_named(deployed: World) -> None:
    reply = await rollback(deployed.bot, asking("rollback", "diabetes", "#470", person=GRACE.id))

    assert said(reply).startswith("Roll diabetes back to version 3?")
    reply = await rollback(deployed.bot, asking("rollback", "diabetes", "480", person=GRACE.id))
    assert "Run 480 has not deployed another version" in said(reply)


async def test_what_cannot_be_rolled_back_is_said(deployed: World) -> None:
    async def answer(*words: str, **where: str) -> str:
        return said(await rollback(deployed.bot, asking("rollback", *words, **{"person": GRACE.id, **where})))

    for words in ((), ("diabetes", "x"), ("diabetes", "1", "2")):
        with pytest.raises(Usage):
            await answer(*words)
    assert "There is no model `moon`" in await answer("moon")
    assert "belongs to <#C0MLDELIV>" in await answer("diabetes", channel=ELSEWHERE)
    assert "You may not roll back" in await answer("diabetes", person=ADA.id)
    del deployed.pipelines.runs[470]
    assert "No earlier run has deployed another version" in await answer("diabetes")
    deployed.team = replace(TEAM, environments={})
    assert "nothing to roll back" in await answer("diabetes")
