"""The app's own page: read anew whenever somebody looks."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from bot.core.errors import NotNow
from bot.core.runs import State
from bot.messages.kit import Home
from bot.ports import Operation
from bot.routing import Visit
from handlers.home import home
from tests.artifacts import delivered, smoke
from tests.examples import (
    ADA,
    ADA_ADO,
    ALAN_ADO,
    GRACE,
    GUEST,
    KEPT,
    NOW,
    PENDING,
    QUEUED,
    RADIA,
    RELEASE_DONE,
    RELEASING,
    SUCCEEDED,
    TEAM,
    V3,
    V4,
    WAITING,
    until,
)
from tests.fakes import World as Everything


@pytest.fixture
def world(world: Everything) -> Everything:
    """Run 480, asked for by Ada, is in QA and waits for Prod, where version 3 is the champion."""
    world.now = NOW + timedelta(hours=5)
    world.pipelines.runs[480] = replace(WAITING, committer=None)
    world.pipelines.waiting[480] = (PENDING,)
    world.pipelines.artifacts[480, "delivery"] = delivered()
    world.pipelines.artifacts[480, "qa"] = {"qa.json": smoke("qa")}
    world.models.known["diabetes"] = (V4, V3)
    world.store.operations["op-480"] = Operation("op-480", "retrain", ADA.id, "diabetes", "done", {}, NOW)
    return world


async def page(world: Everything, person: str) -> list[str]:
    """Every text on somebody's page."""
    shown = await home(world.bot, Visit("v1", person))
    return [text for block in shown.blocks for text in texts(block)]


def texts(block: Mapping[str, object]) -> list[str]:
    """The texts of a block, buttons by their words."""
    parts = [block.get("text"), *(block["elements"] if isinstance(block.get("elements"), list) else [])]  # type: ignore[misc]
    words = [part["text"] if isinstance(part["text"], str) else part["text"]["text"] for part in parts if isinstance(part, dict)]
    return [str(word) for word in words]


async def test_who_may_decide_finds_what_waits_with_its_buttons(world: Everything) -> None:
    shown = await home(world.bot, Visit("v1", GRACE.id))

    assert isinstance(shown, Home)
    (actions,) = [block for block in shown.blocks if block["type"] == "actions"]
    assert [button["action_id"] for button in actions["elements"]] == ["approve", "reject"]
    told = "\n".join(await page(world, GRACE.id))
    assert "Waiting for 5 hours" in told
    assert "You have asked for nothing in the last 7 days." in told
    assert "Signed in as `grace@contoso.example`" in told


async def test_who_asked_finds_their_runs_and_that_others_decide(world: Everything) -> None:
    world.pipelines.runs[479] = replace(SUCCEEDED, id=479, requested_for=ALAN_ADO, parameters={}, created=NOW - timedelta(hours=1))
    world.pipelines.runs[478] = replace(KEPT, id=478, requested_for=ADA_ADO, parameters={}, created=NOW - timedelta(hours=2))

    told = await page(world, ADA.id)

    assert "Nothing waits for you." in told
    assert "1 waits for others." in told
    assert [one[0] for one in told if "Prod - Deploy on AKS" in one or "kept the champion" in one] == ["🚦", "🏆"]


async def test_what_is_served_where_is_told_for_each_model(world: Everything) -> None:
    told = "\n".join(await page(world, ADA.id))

    assert "*diabetes* in <#C0MLDELIV>: the champion is version 3, newest is version 4\nQA serves version 4 · Prod serves version 3" in told
    assert "*churn* in <#C0CHURN00>: no champion yet\nProd serves nothing yet" in told


async def test_what_a_release_has_deployed_is_served_there(world: Everything) -> None:
    world.team = RELEASING
    world.pipelines.runs[480] = replace(SUCCEEDED, stages=until("qa", State.SKIPPED, rest=State.SKIPPED))
    world.pipelines.releases[12] = RELEASE_DONE

    assert "QA serves version 4" in "\n".join(await page(world, ADA.id))


@pytest.mark.parametrize("content", [None, b"{}", json.dumps({"schema": 1, "name": "churn", "version": "9"}).encode()])
async def test_what_was_deployed_and_cannot_be_read_is_not_told(world: Everything, content: bytes | None) -> None:
    world.pipelines.artifacts[480, "delivery"] = {} if content is None else {"model.json": content}

    assert "QA serves" not in "\n".join(await page(world, ADA.id))


async def test_a_model_that_nothing_has_deployed_is_served_nowhere(world: Everything) -> None:
    world.pipelines.runs = {480: QUEUED, 481: replace(QUEUED, id=481, pipeline_id=2, parameters={"model": "diabetes"})}
    world.pipelines.releases[12] = replace(RELEASE_DONE, source=None)
    world.team = RELEASING

    assert "QA serves" not in "\n".join(await page(world, ADA.id))


async def test_a_lock_is_shown_with_who_keeps_it_and_why(world: Everything) -> None:
    world.store.operations["l"] = Operation("l", "lock", RADIA.id, "prod", "held", {"reason": "the fair"}, NOW)

    assert any("*Prod* is locked by <@U0RADIA01>" in one and one.endswith("the fair") for one in await page(world, ADA.id))


async def test_an_outage_leaves_the_rest_of_the_page(world: Everything, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    world.pipelines.errors["recent"] = [NotNow("Azure DevOps is away.")]
    world.pipelines.errors["pending_approvals"] = [NotNow("Azure DevOps is away.")]
    world.models.errors = [NotNow("Azure ML is away.")]

    told = await page(world, ADA.id)

    assert told.count("Azure DevOps does not answer.") == 2
    assert any("*diabetes* in <#C0MLDELIV>: Azure ML does not answer" in one for one in told)
    assert "Azure DevOps is away." in caplog.text


async def test_a_guest_sees_nothing_of_the_team(world: Everything) -> None:
    assert await page(world, GUEST.id) == ["🔒 Guests of the workspace may not do this. Ask a member of the team."]
    assert world.pipelines.calls == []


async def test_who_has_not_signed_in_is_told_how(world: Everything) -> None:
    world.identities.accounts.clear()
    asked_to = await page(world, GRACE.id)
    world.identities.service, world.team = True, replace(TEAM, service_identity=True)

    assert any("Not signed in to Azure DevOps: `/mlops signin`" in one for one in asked_to)
    assert any("under this app's identity" in one for one in await page(world, GRACE.id))
