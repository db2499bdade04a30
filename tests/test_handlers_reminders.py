"""Reminders of what waits: at the right time, in the right thread, once."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta

import pytest

from bot.core.approvals import Approval
from bot.core.errors import NotNow
from bot.core.events import ApprovalCompleted, ApprovalRequested, ReleaseApprovalRequested
from bot.core.references import Ref
from bot.core.runs import State
from bot.core.team import People
from bot.ports import Operation
from handlers.reminders import remind
from handlers.runs import moved
from tests.artifacts import delivered, smoke
from tests.examples import (
    ADA,
    APPROVED_THERE,
    CHANNEL,
    DIABETES,
    NOW,
    PENDING,
    QA_STAGE,
    REJECTED,
    RELEASE_PENDING,
    RELEASE_WAITING,
    RELEASING,
    SUCCEEDED,
    TEAM,
    V3,
    WAITING,
)
from tests.fakes import World as Everything

H = timedelta(hours=1)
PROD = replace(TEAM.environments["prod"], remind=(4 * H, 24 * H), escalate=8 * H, on_call="S0ONCALL")
ABOUT = f"run/480/approval/{PENDING.id}"
FIRST, SECOND = ((CHANNEL, f"{ABOUT}/reminder/{number}") for number in range(2))


@pytest.fixture
async def world(world: Everything) -> Everything:
    """Run 480, asked for by Ada, waits for Prod since half past nine, and the channel shows it."""
    world.team = replace(TEAM, environments={**TEAM.environments, "prod": PROD})
    world.pipelines.runs[480] = replace(WAITING, committer=None)
    world.pipelines.waiting[480] = (PENDING,)
    world.pipelines.artifacts[480, "delivery"] = delivered()
    world.pipelines.artifacts[480, "qa"] = {"qa.json": smoke("qa")}
    world.models.known["diabetes"] = (V3,)
    world.store.operations["op-480"] = Operation("op-480", "retrain", ADA.id, "diabetes", "done", {}, NOW)
    await moved(world.bot, ApprovalRequested(480, PENDING.id))
    return world


async def turn(world: Everything, hours: float) -> None:
    """The timer's turn, so many hours after the approval was asked for."""
    world.now = NOW + hours * H
    await remind(world.bot)


def reminders(world: Everything) -> dict[str, str]:
    """What the reminders in the channel say, by their number."""
    return {subject.rpartition("/")[2]: shown.text for (_, subject), shown in world.board.shown.items() if "/reminder/" in subject}


async def test_who_may_decide_is_reminded_in_the_thread_of_the_message(world: Everything) -> None:
    await turn(world, 3.9)
    before = reminders(world)
    await turn(world, 4)

    assert before == {}
    assert reminders(world) == {
        "0": "⏰ <!subteam^S0RELEASE>: diabetes version 4 for Prod has waited for 4 hours. Please decide in the message above."
    }
    assert world.board.under[FIRST] == "run/480/approval/prod/1"


async def test_a_day_of_waiting_is_two_reminders_and_one_call(world: Everything) -> None:
    for minute in range(0, 30 * 60, 10):
        await turn(world, minute / 60)

    assert [text.partition(" ")[0] for text in reminders(world).values()] == ["⏰", "📣", "⏰"]
    assert "<!subteam^S0ONCALL>: nobody has decided on diabetes version 4 for Prod for 8 hours" in reminders(world)["1"]
    assert "has waited for 24 hours" in reminders(world)["2"]


async def test_after_an_outage_there_is_one_message_and_not_three(world: Everything) -> None:
    for hours in (30, 30.02, 33, 35, 60):
        await turn(world, hours)

    assert list(reminders(world)) == ["0"]
    assert reminders(world)["0"].startswith("📣")


async def test_a_model_s_own_approvers_are_the_ones_to_remind(world: Everything) -> None:
    own = replace(DIABETES, approvers={"prod": People(frozenset({"U0GRACE01"}))})
    world.team = replace(world.team, models={**TEAM.models, "diabetes": own})

    await turn(world, 4)

    assert reminders(world)["0"].startswith("⏰ <@U0GRACE01>: ")


async def test_two_replicas_send_one(world: Everything) -> None:
    world.now = NOW + 4 * H

    await asyncio.gather(remind(world.bot), remind(world.bot))
    await remind(world.bot)

    assert list(reminders(world)) == ["0"]


async def test_a_replica_that_thinks_of_another_reminder_at_the_same_moment_sends_what_was_thought_of_first(world: Everything) -> None:
    class Behind:
        """A store whose replica does not see yet what the other has just kept."""

        async def operations_of(self, kind: str, subject: str | None = None, *, states: tuple[str, ...] = ()) -> tuple[Operation, ...]:
            return ()

        def __getattr__(self, name: str) -> object:
            return getattr(world.store, name)

    await turn(world, 7.99)
    world.now = NOW + 8 * H
    behind = replace(world.bot, store=Behind())  # type: ignore[arg-type]  # a store by what it hands on
    await remind(behind)

    assert list(reminders(world)) == ["0"]
    assert reminders(world)["0"].startswith("⏰")


async def test_until_slack_shows_one_reminder_there_is_no_other(world: Everything) -> None:
    await turn(world, 4)
    world.store.operations = {
        name: replace(one, state="offered", result="") if one.kind == "reminder" else one for name, one in world.store.operations.items()
    }

    await turn(world, 9)
    await turn(world, 9.02)
    late = reminders(world)
    await turn(world, 13)

    assert list(late) == ["0"]
    assert "has waited for 9 hours" in late["0"]
    assert reminders(world)["1"].startswith("📣")


async def test_a_reminder_that_slack_has_not_taken_yet_stays_wished_for(world: Everything) -> None:
    world.now = NOW + 4 * H
    card = world.board.shown[CHANNEL, "run/480/approval/prod/1"]
    await remind(world.bot)
    operation = next(one for one in world.store.operations.values() if one.kind == "reminder")
    world.store.operations[operation.id] = replace(operation, state="offered", result="")
    del world.board.shown[FIRST]

    class Slow:
        """A board that has not posted reminders yet."""

        async def where(self, channel: str, subject: str) -> str | None:
            return None if "/reminder/" in subject else await world.board.where(channel, subject)

        def __getattr__(self, name: str) -> object:
            return getattr(world.board, name)

    await remind(replace(world.bot, board=Slow()))  # type: ignore[arg-type]  # a board by what it hands on

    assert FIRST in world.board.shown
    assert world.store.operations[operation.id].state == "offered"
    assert world.board.shown[CHANNEL, "run/480/approval/prod/1"] == card


async def test_where_the_message_is_missing_it_is_shown_first(world: Everything) -> None:
    world.board.shown.clear()
    world.store.operations = {name: one for name, one in world.store.operations.items() if one.kind != "drawn"}

    await turn(world, 4)
    before = reminders(world)
    await turn(world, 4.02)

    assert before == {}
    assert list(reminders(world)) == ["0"]


async def test_once_decided_the_reminders_say_so_and_mention_nobody(world: Everything) -> None:
    for hours in (4, 8):
        await turn(world, hours)
    world.pipelines.waiting[480] = (APPROVED_THERE,)

    await turn(world, 8.1)
    shows = world.board.shows
    await turn(world, 30)

    assert reminders(world) == dict.fromkeys(("0", "1"), "✅ Approved: diabetes for Prod does not wait any more.")
    assert world.board.under[SECOND] == "run/480/approval/prod/1"
    assert world.board.shows == shows, "they are closed for good"


@pytest.mark.parametrize("gone", [True, False])
async def test_a_run_that_ends_ends_the_reminding(world: Everything, gone: bool) -> None:
    await turn(world, 4)
    if gone:
        del world.pipelines.runs[480]
    else:
        world.pipelines.runs[480] = replace(REJECTED, state=State.CANCELED)
    world.pipelines.waiting[480] = ()

    await turn(world, 8)

    assert reminders(world) == {"0": "⏹️ Ended before anybody decided: diabetes for Prod does not wait any more."}


async def test_a_run_that_ends_while_its_approval_is_still_listed_ends_the_reminding(world: Everything) -> None:
    await turn(world, 4)
    world.pipelines.runs[480] = replace(REJECTED, state=State.CANCELED)

    await turn(world, 4.1)
    shows = world.board.shows
    await turn(world, 30)

    assert reminders(world) == {"0": "⏹️ Ended before anybody decided: diabetes for Prod does not wait any more."}
    assert world.board.shows == shows


async def test_an_approval_that_comes_back_is_reminded_of_again(world: Everything) -> None:
    await turn(world, 4)
    run = world.pipelines.runs.pop(480)
    world.pipelines.waiting[480] = ()
    await turn(world, 5)
    world.pipelines.runs[480], world.pipelines.waiting[480] = run, (PENDING,)

    for hours in (5.1, 24):
        await turn(world, hours)

    assert [text[:1] for text in reminders(world).values()] == ["⏹", "📣"]


async def test_an_approval_that_is_only_left_out_of_the_list_still_waits(world: Everything) -> None:
    await turn(world, 4)

    class Short:
        """An Azure DevOps that leaves something out of its list."""

        async def pending_approvals(self) -> tuple[Approval, ...]:
            return ()

        def __getattr__(self, name: str) -> object:
            return getattr(world.pipelines, name)

    await remind(replace(world.bot, pipelines=Short()))  # type: ignore[arg-type]  # pipelines by what they hand on

    assert reminders(world)["0"].startswith("⏰")


async def test_what_is_not_decided_on_here_is_not_reminded_of(world: Everything) -> None:
    world.pipelines.runs[481] = replace(WAITING, id=481, pipeline_id=99)
    world.pipelines.runs[482] = replace(REJECTED, id=482)
    world.pipelines.waiting = {
        480: (replace(PENDING, environment="qa", stage="qa"),),
        481: (replace(PENDING, id="of no model", run_id=481),),
        482: (replace(PENDING, id="of an ended run", run_id=482),),
    }

    await turn(world, 24)

    assert reminders(world) == {}


async def test_a_team_that_wants_no_reminders_costs_no_call(world: Everything) -> None:
    world.team, world.pipelines.calls = TEAM, []

    await turn(world, 24)

    assert world.pipelines.calls == []


async def test_one_that_cannot_be_read_does_not_hold_up_the_others(world: Everything, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    world.pipelines.runs[481] = replace(WAITING, id=481, parameters={"model": "diabetes"})
    world.pipelines.waiting[481] = (replace(PENDING, id="b", run_id=481),)
    await moved(world.bot, ApprovalRequested(481, "b"))
    world.pipelines.errors["run"] = [NotNow("Azure DevOps is busy.")]

    await turn(world, 4)

    assert [subject for _, subject in world.board.shown if "/reminder/" in subject] == ["run/481/approval/b/reminder/0"]
    assert "Azure DevOps is busy." in caplog.text


async def test_an_approval_of_a_release_is_reminded_of_in_its_own_thread(world: Everything) -> None:
    environments = {"qa": RELEASING.environments["qa"], "prod": replace(PROD, release_stage=RELEASING.environments["prod"].release_stage)}
    world.team = replace(RELEASING, environments=environments)
    world.pipelines.runs[480], world.pipelines.waiting[480] = SUCCEEDED, ()
    world.pipelines.releases[12], world.pipelines.release_waiting[12] = RELEASE_WAITING, (RELEASE_PENDING,)
    world.pipelines.attachments[12, QA_STAGE] = {"qa.json": smoke("qa")}
    await moved(world.bot, ReleaseApprovalRequested(12, "34"))

    await turn(world, 4)

    assert world.board.under[CHANNEL, "release/12/approval/34/reminder/0"] == "release/12/approval/34"
    assert world.store.cards[Ref(RELEASE_PENDING.thing, 12)] is False


async def test_a_decision_in_time_is_never_reminded_of(world: Everything) -> None:
    world.pipelines.waiting[480] = (APPROVED_THERE,)
    await moved(world.bot, ApprovalCompleted(480, PENDING.id))

    await turn(world, 24)

    assert reminders(world) == {}
