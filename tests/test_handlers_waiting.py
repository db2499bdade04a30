"""What waits for one person's decision, judged by the rules of a click."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

import pytest

from bot.core.approvals import Approval, ApprovalStep
from bot.core.approvals import ApprovalState as State
from bot.core.errors import Gone, NotNow, OutsideError, Refused, SignInNeeded
from bot.core.runs import Run
from bot.core.team import People
from bot.core.waiting import Waiting
from bot.ports import Acting, Operation
from handlers.waiting import MOST, waiting_for
from tests.artifacts import delivered, smoke
from tests.examples import (
    ADA,
    ALAN,
    CHURN,
    GRACE,
    GRACE_ADO,
    GUEST,
    NOW,
    PENDING,
    RADIA,
    RADIA_ADO,
    REJECTED,
    TEAM,
    V3,
    WAITING,
)
from tests.fakes import FakeHands
from tests.fakes import World as Everything


def wait(world: Everything, run_id: int, hours: int = 0, run: Run = WAITING) -> None:
    """A run that waits for Prod since so many hours."""
    world.pipelines.runs[run_id] = replace(run, id=run_id, committer=None)
    world.pipelines.waiting[run_id] = (replace(PENDING, id=f"a-{run_id}", run_id=run_id, created=NOW - timedelta(hours=hours)),)
    world.pipelines.artifacts[run_id, "delivery"] = delivered()
    world.pipelines.artifacts[run_id, "qa"] = {"qa.json": smoke("qa")}


@pytest.fixture
def world(world: Everything) -> Everything:
    """Run 480, asked for by Ada, waits for Prod."""
    wait(world, 480)
    world.models.known["diabetes"] = world.models.known["churn"] = (V3,)
    return world


def ids(waiting: Waiting) -> list[int]:
    """The runs that wait for somebody."""
    return [one.case.run.id for one in waiting.yours]


async def test_what_one_may_decide_is_theirs_oldest_first_in_whatever_channel(world: Everything) -> None:
    wait(world, 481, hours=5)
    wait(world, 482, hours=2, run=replace(WAITING, pipeline_id=CHURN.pipeline_id, parameters={**WAITING.parameters, "model": "churn"}))

    waiting = await waiting_for(world.bot, GRACE.id)

    assert ids(waiting) == [481, 482, 480]
    assert [one.case.model.name for one in waiting.yours] == ["diabetes", "churn", "diabetes"]
    assert (waiting.more, waiting.others) == (0, 0)
    assert waiting.yours[0].case.facts.startswith("4~3~")


@pytest.mark.parametrize("person", [ADA.id, ALAN.id, GUEST.id])
async def test_what_one_may_not_decide_waits_for_others(world: Everything, person: str) -> None:
    world.store.operations["op-480"] = Operation("op-480", "retrain", ADA.id, "diabetes", "done", {}, NOW)

    assert await waiting_for(world.bot, person) == Waiting(others=1)


async def test_what_cannot_be_approved_at_present_is_theirs_with_the_reason(world: Everything) -> None:
    world.store.operations["l"] = Operation("l", "lock", RADIA.id, "prod", "held", {"reason": "the fair"}, NOW)

    (one,) = (await waiting_for(world.bot, GRACE.id)).yours

    assert one.obstacle == "prod is locked since 2026-11-23 09:30 UTC: the fair"


async def test_many_are_counted_and_the_oldest_shown(world: Everything) -> None:
    for number in range(MOST + 2):
        wait(world, 500 + number, hours=number + 1)

    waiting = await waiting_for(world.bot, GRACE.id)

    assert ids(waiting) == [500 + number for number in range(MOST + 1, 1, -1)]
    assert waiting.more == 3


async def test_who_has_agreed_waits_for_others(world: Everything) -> None:
    about = "run/480/approval/a-480"
    world.store.operations["v"] = Operation("v", "vote", GRACE.id, about, "held", {"identity": GRACE_ADO.id or ""}, NOW)

    assert ids(await waiting_for(world.bot, GRACE.id)) == []
    world.identities.accounts.clear()
    assert ids(await waiting_for(world.bot, GRACE.id)) == []
    assert ids(await waiting_for(world.bot, RADIA.id)) == [480]


async def test_azure_devops_says_whose_it_is_once_they_have_signed_in(world: Everything) -> None:
    radias = replace(PENDING, id="a-480", mine=False, steps=(ApprovalStep(RADIA_ADO, State.PENDING),))
    world.pipelines.waiting[480] = (radias,)

    signed_in = await waiting_for(world.bot, GRACE.id)
    world.identities.accounts.clear()
    unknown = await waiting_for(world.bot, GRACE.id)

    assert (ids(signed_in), signed_in.others) == ([], 1)
    assert ids(unknown) == [480]


async def test_groups_of_azure_devops_count_once_they_have_signed_in(world: Everything) -> None:
    prod = replace(TEAM.environments["prod"], approvers=People(frozenset({"ado:Release Managers"})))
    world.team = replace(TEAM, environments={"prod": prod})
    world.pipelines.ado_groups[GRACE_ADO.id or ""] = frozenset({"Release Managers"})

    signed_in = await waiting_for(world.bot, GRACE.id)
    world.identities.accounts.clear()
    unknown = await waiting_for(world.bot, GRACE.id)

    assert (ids(signed_in), ids(unknown)) == ([480], [])


async def test_nobody_signs_in_where_the_bot_acts_itself(world: Everything) -> None:
    world.identities.service, world.team = True, replace(TEAM, service_identity=True)

    assert ids(await waiting_for(world.bot, GRACE.id)) == [480]


async def test_a_sign_in_that_does_not_work_at_present_is_as_good_as_none(world: Everything, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world.identities.errors[GRACE.id] = [NotNow("Entra is away.")]

    assert ids(await waiting_for(world.bot, GRACE.id)) == [480]
    assert "Entra is away." in caplog.text


@pytest.mark.parametrize(
    ("error", "theirs"),
    [(SignInNeeded("Sign in again."), [480]), (Refused("You are no member of the project."), []), (Gone("There is no such project."), [])],
)
async def test_what_azure_devops_does_not_show_them_is_not_theirs(world: Everything, error: OutsideError, theirs: list[int]) -> None:
    class Hers(FakeHands):
        """An Azure DevOps that does not let her in."""

        async def approvals(self, run: Run) -> tuple[Approval, ...]:
            raise error

    class Identities:
        """Who is signed in, at work there."""

        async def acting(self, person: str) -> Acting:
            acting = await world.identities.acting(person)
            return replace(acting, pipelines=Hers(world.pipelines, acting.me))

        def __getattr__(self, name: str) -> object:
            return getattr(world.identities, name)

    bot = replace(world.bot, identities=Identities())  # type: ignore[arg-type]  # identities by what they hand on

    assert ids(await waiting_for(bot, GRACE.id)) == theirs


async def test_what_is_decided_meanwhile_is_nobodys(world: Everything) -> None:
    class Late:
        """A list of what waits that is a moment old."""

        async def pending_approvals(self) -> tuple[Approval, ...]:
            return (replace(PENDING, id="a-480"), replace(PENDING, id="gone", run_id=999), replace(PENDING, id="b", run_id=481))

        def __getattr__(self, name: str) -> object:
            return getattr(world.pipelines, name)

    world.pipelines.waiting[480] = ()
    world.pipelines.runs[481] = replace(REJECTED, id=481)

    bot = replace(world.bot, pipelines=Late())  # type: ignore[arg-type]  # pipelines by what they hand on

    assert await waiting_for(bot, GRACE.id) == Waiting(others=1)


async def test_what_is_not_decided_on_here_is_not_even_counted(world: Everything) -> None:
    world.pipelines.waiting[480] = (replace(PENDING, environment="qa", stage="qa"),)
    wait(world, 481, run=replace(WAITING, pipeline_id=99))

    assert await waiting_for(world.bot, GRACE.id) == Waiting()
