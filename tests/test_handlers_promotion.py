"""`/promote`: a registered version on its way to Prod."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bot.core.references import token
from bot.messages.kit import Message, Reply
from bot.routing import Click, Request, Usage
from handlers.promotion import cancelled, promote, started
from tests.examples import ADA, ALAN, CHANNEL, ELSEWHERE, V3, V4
from tests.fakes import World

START = Click("c1", ADA.id, CHANNEL, "promote_start", token("promote", "r1"))


def asking(*words: str, person: str = ADA.id, channel: str = CHANNEL) -> Request:
    return Request("r1", person, channel, "promote", words)


def said(reply: Reply) -> str:
    assert isinstance(reply, Message)
    return reply.text


@pytest.mark.parametrize("words", [("diabetes",), ("diabetes", "latest"), ("diabetes", "4"), ("diabetes", "v4")])
async def test_a_version_is_offered_and_nothing_is_started(world: World, words: tuple[str, ...]) -> None:
    world.models.known["diabetes"] = (V4, V3)

    reply = await promote(world.bot, asking(*words))

    assert said(reply).startswith("Promote diabetes version 4? Prod serves version 3.")
    assert world.pipelines.orders == []


async def test_start_starts_one_run_for_the_version(world: World) -> None:
    world.models.known["diabetes"] = (V4, V3)
    await promote(world.bot, asking("diabetes"))

    await started(world.bot, START)
    reply = await started(world.bot, START)

    assert "started already" in said(reply)
    assert [order.parameters for order in world.pipelines.orders] == [
        {
            "model": "diabetes",
            "action": "promote",
            "version": "4",
            "settings": "none",
            "requestedBy": "none",
            "requestId": START.value,
        }
    ]


async def test_a_training_is_not_started_by_a_promotions_button(world: World) -> None:
    world.models.known["diabetes"] = (V4, V3)
    await promote(world.bot, asking("diabetes"))
    world.store.operations[START.value] = replace(world.store.operations[START.value], kind="retrain")

    assert "not known" in said(await started(world.bot, START))


async def test_a_cancelled_offer_is_dropped(world: World) -> None:
    world.models.known["diabetes"] = (V4, V3)
    await promote(world.bot, asking("diabetes"))

    assert "Cancelled" in said(await cancelled(world.bot, START))
    assert world.store.operations[START.value].state == "dropped"


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (asking("diabetes", "3"), "diabetes version 3 is the champion already"),
        (asking("diabetes", "9"), "`diabetes` has no version `9`. Registered: `4`, `3`."),
        (asking("moon"), "There is no model `moon`"),
        (asking("diabetes", channel=ELSEWHERE), "belongs to <#C0MLDELIV>"),
        (asking("diabetes", person=ALAN.id), "You may not ask for a promotion"),
    ],
)
async def test_what_cannot_be_is_answered_with_what_is_possible(world: World, request_: Request, sentence: str) -> None:
    world.models.known["diabetes"] = (V4, V3)

    assert sentence in said(await promote(world.bot, request_))
    assert world.store.operations == {}


async def test_before_the_first_training_there_is_nothing_to_promote(world: World) -> None:
    assert "nothing has been registered" in said(await promote(world.bot, asking("diabetes")))


@pytest.mark.parametrize("words", [(), ("diabetes", "4", "now")])
async def test_other_words_are_not_understood(world: World, words: tuple[str, ...]) -> None:
    with pytest.raises(Usage, match="which model"):
        await promote(world.bot, asking(*words))
