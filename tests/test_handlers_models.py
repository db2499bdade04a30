"""Looking: models, runs, how things stand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bot.core.errors import NotNow
from bot.messages.kit import Message, Reply
from bot.routing import Request, Usage
from handlers.models import models, runs, status
from tests.examples import ADA, CHANNEL, ELSEWHERE, KEPT, PENDING, SUCCEEDED, V3, V4, WAITING
from tests.fakes import World


def asking(*words: str, channel: str = CHANNEL) -> Request:
    return Request("r1", ADA.id, channel, "models", words)


def said(reply: Reply) -> str:
    assert isinstance(reply, Message)
    return reply.text


async def test_the_models_are_listed_even_where_one_cannot_be_read(world: World) -> None:
    world.models.errors = [NotNow("Azure ML does not answer.")]

    reply = await models(world.bot, asking())

    assert said(reply) == ("Models: *diabetes* in <#C0MLDELIV>: Azure ML does not answer; *churn* in <#C0CHURN00>: no champion yet")


async def test_the_versions_of_a_model_are_listed(world: World) -> None:
    world.models.known["diabetes"] = (V4, V3)

    assert said(await models(world.bot, asking("diabetes"))) == "diabetes: 2 versions, version 3 is the champion, newest is 4."


@pytest.mark.parametrize("command", [models, runs, status])
async def test_a_model_is_spoken_of_in_its_channel(world: World, command: object) -> None:
    assert callable(command)
    assert "belongs to <#C0CHURN00>" in said(await command(world.bot, asking("churn")))
    assert "no model `moon`" in said(await command(world.bot, asking("moon")))
    with pytest.raises(Usage, match="one model"):
        await command(world.bot, asking("diabetes", "churn"))


@pytest.mark.parametrize("command", [runs, status])
async def test_a_channel_without_models_is_told_where_they_are(world: World, command: object) -> None:
    assert callable(command)
    assert "No model belongs to this channel" in said(await command(world.bot, asking(channel=ELSEWHERE)))


async def test_recent_runs_are_listed(world: World) -> None:
    world.pipelines.runs = {480: SUCCEEDED, 481: replace(WAITING, id=481, pipeline_id=2, parameters={})}

    assert said(await runs(world.bot, asking())) == "1 run in the last 7 days; the newest, run 20261123.1 succeeded."


async def test_the_list_of_runs_tells_what_waits_and_what_kept_the_champion(world: World) -> None:
    world.pipelines.runs = {480: WAITING, 479: replace(KEPT, id=479)}

    shown = str(await runs(world.bot, asking("diabetes")))

    assert "waits for approval" in shown
    assert "kept the champion" in shown


async def test_how_things_stand(world: World) -> None:
    world.pipelines.runs = {480: WAITING}
    world.pipelines.waiting = {480: (PENDING, replace(PENDING, environment="qa"))}
    world.models.known["diabetes"] = (V4, V3)

    assert said(await status(world.bot, asking("diabetes"))) == "How things stand: diabetes: serves version 3; 1 waiting for approval."


async def test_how_things_stand_while_azure_devops_is_away(world: World) -> None:
    world.pipelines.errors["recent"] = [NotNow("Azure DevOps does not answer.")]

    assert "Azure DevOps does not answer" in said(await status(world.bot, asking()))
