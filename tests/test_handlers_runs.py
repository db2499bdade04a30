"""Runs as they move: what the channel shows, and trying again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from bot.core.approvals import Allowed
from bot.core.audit import Entry
from bot.core.errors import Gone, NotNow, Refused, Uncertain
from bot.core.events import ApprovalRequested, RunMoved, StageMoved
from bot.core.references import Ref, Thing, token
from bot.core.runs import Run, State
from bot.messages.kit import Message
from bot.ports import Operation
from bot.routing import Click
from handlers.runs import moved, open_log, open_run, retry_stage, sweep
from tests.artifacts import delivered, evaluation, smoke
from tests.examples import (
    ACCOUNTS,
    ADA,
    ALAN,
    APPROVED_THERE,
    CANCELED,
    CHANNEL,
    DEPLOYING,
    EVALUATED,
    FAILED,
    FAILURE,
    KEPT,
    NOW,
    PENDING,
    QUEUED,
    SUCCEEDED,
    TRAINING,
    UNFIT,
    V3,
    WAITING,
    stages,
)
from tests.fakes import FakePipelines, World

RETRY = Click("c1", ADA.id, CHANNEL, "retry_stage", "480/train/1")


def run(id: int) -> Ref:
    return Ref(Thing.RUN, id)


def shown(world: World) -> set[str]:
    return {subject for _, subject in world.board.shown}


async def text(world: World, run: Run, subject: str) -> str:
    """Look at a run as it is now; what the subject's message then says."""
    world.pipelines.runs[run.id] = run
    await moved(world.bot, RunMoved(run.id))
    return str(world.board.shown[CHANNEL, subject])


def waiting(world: World) -> None:
    world.pipelines.runs[480] = WAITING
    world.pipelines.waiting[480] = (PENDING,)
    world.pipelines.artifacts[480, "delivery"] = delivered()
    world.pipelines.artifacts[480, "qa"] = {"qa.json": smoke("qa")}
    world.models.known["diabetes"] = (V3,)


# The living card


async def test_a_run_that_moves_is_shown_in_its_models_channel(world: World) -> None:
    world.pipelines.runs[480] = TRAINING

    await moved(world.bot, RunMoved(480))

    assert world.board.shown[CHANNEL, "run/480"].text.startswith("⏳ diabetes: run 20261123.1 is running: Train")
    assert world.board.under[CHANNEL, "run/480"] is None
    assert world.store.cards == {run(480): False}
    assert world.pipelines.calls == ["run"]


async def test_the_same_event_twice_shows_the_same(world: World) -> None:
    world.pipelines.runs[480] = TRAINING

    await moved(world.bot, StageMoved(480, "train"))
    before = dict(world.board.shown)
    await moved(world.bot, StageMoved(480, "train"))

    assert world.board.shown == before


async def test_who_asked_in_slack_is_named(world: World) -> None:
    world.store.operations["op-480"] = Operation("op-480", "retrain", ADA.id, "diabetes", "done", {}, NOW)

    assert f"<@{ADA.id}>" in await text(world, TRAINING, "run/480")


async def test_a_pipeline_that_no_model_has_is_not_shown(world: World) -> None:
    world.pipelines.runs[480] = replace(TRAINING, pipeline_id=99)

    await moved(world.bot, RunMoved(480))

    assert not world.board.shown
    assert not world.store.cards


async def test_a_run_that_has_ended_needs_no_more_looking_after(world: World) -> None:
    world.pipelines.runs[480] = SUCCEEDED

    await moved(world.bot, RunMoved(480))

    assert world.store.cards == {run(480): True}


# The comparison


async def test_the_comparison_and_its_chart_appear_in_the_thread_once_the_evaluation_is_over(world: World) -> None:
    world.pipelines.runs[480] = EVALUATED
    world.pipelines.artifacts[480, "evaluation"] = {"evaluation.json": evaluation(), "candidates.png": b"PNG"}

    await moved(world.bot, RunMoved(480))
    await moved(world.bot, RunMoved(480))

    assert world.board.shown[CHANNEL, "run/480/comparison"].text.startswith("✅ PASS: diabetes.")
    assert world.board.under[CHANNEL, "run/480/comparison"] == "run/480"
    assert world.board.files[CHANNEL, "run/480/chart"].content == b"PNG"
    assert world.pipelines.calls.count("artifact evaluation") == 1


async def test_a_repeated_evaluation_replaces_the_comparison(world: World) -> None:
    again = replace(EVALUATED, stages=tuple(replace(stage, attempt=2) for stage in EVALUATED.stages))
    world.pipelines.artifacts[480, "evaluation"] = {"evaluation.json": evaluation()}
    await text(world, EVALUATED, "run/480/comparison")
    world.pipelines.artifacts[480, "evaluation"] = {"evaluation.json": evaluation().replace(b"6.4 %", b"7.7 %")}

    assert "7.7 %" in await text(world, again, "run/480/comparison")


@pytest.mark.parametrize("run", [TRAINING, FAILED, replace(TRAINING, stages=())])
async def test_without_an_evaluation_nothing_is_compared(world: World, run: Run) -> None:
    world.pipelines.runs[480] = run

    await moved(world.bot, RunMoved(480))

    assert "artifact evaluation" not in world.pipelines.calls


async def test_an_evaluation_that_handed_nothing_on_is_not_shown(world: World) -> None:
    world.pipelines.runs[480] = EVALUATED

    await moved(world.bot, RunMoved(480))

    assert shown(world) == {"run/480"}


async def test_an_evaluation_that_cannot_be_read_is_said_to_be_unreadable(world: World) -> None:
    world.pipelines.artifacts[480, "evaluation"] = {"evaluation.json": b'{"schema": 2}'}

    assert "schema 2" in await text(world, EVALUATED, "run/480/comparison")


async def test_nobody_is_asked_where_the_champion_is_kept(world: World) -> None:
    assert "the champion stays" in await text(world, KEPT, "run/480")
    assert "approvals" not in world.pipelines.calls


# Failures


async def test_a_failed_stage_says_why_in_the_thread(world: World) -> None:
    world.pipelines.failures[480] = FAILURE

    assert "alpha must not be negative" in await text(world, FAILED, "run/480/failure/train/1")
    assert world.board.under[CHANNEL, "run/480/failure/train/1"] == "run/480"

    await text(world, FAILED, "run/480")

    assert world.pipelines.calls.count("failure") == 1


async def test_of_two_failed_stages_each_tells_its_own(world: World) -> None:
    world.pipelines.failures[480] = FAILURE
    both = replace(FAILED, stages=stages(prepare=State.SUCCEEDED, train=State.FAILED, qa=State.FAILED))

    assert "gives no reason" in await text(world, both, "run/480/failure/qa/1")
    assert "alpha must not" in await text(world, both, "run/480/failure/train/1")


async def test_a_run_that_could_not_begin_says_why_once(world: World) -> None:
    world.pipelines.failures[480] = replace(FAILURE, stage="")
    refused = replace(FAILED, stages=())

    assert "could not begin" in await text(world, refused, "run/480/failure")

    await text(world, refused, "run/480")

    assert world.pipelines.calls.count("failure") == 1


async def test_a_run_that_could_not_begin_for_no_known_reason_is_shown_as_failed(world: World) -> None:
    assert "failed" in await text(world, replace(FAILED, stages=()), "run/480")
    assert shown(world) == {"run/480"}


async def test_an_evaluation_that_finds_nothing_fit_shows_both(world: World) -> None:
    world.pipelines.artifacts[480, "evaluation"] = {"evaluation.json": evaluation()}

    await text(world, UNFIT, "run/480")

    assert shown(world) == {"run/480", "run/480/comparison", "run/480/failure/evaluate/1"}


# Smoke tests


async def test_what_qa_answers_is_told_once(world: World) -> None:
    world.pipelines.artifacts[480, "qa"] = {"qa.json": smoke("qa")}

    assert "QA (diabetes) answers as the model does" in await text(world, WAITING, "run/480/smoke/qa/1")

    before = world.board.shows
    await text(world, WAITING, "run/480")

    assert world.board.shows == before + 1


async def test_a_smoke_test_that_cannot_be_read_is_left_out(world: World) -> None:
    world.pipelines.artifacts[480, "qa"] = {"qa.json": b"?"}

    await text(world, WAITING, "run/480")

    assert "run/480/smoke/qa/1" not in shown(world)


# Approvals


async def test_prod_is_asked_for_in_the_channel(world: World) -> None:
    waiting(world)

    await moved(world.bot, ApprovalRequested(480, PENDING.id))

    card = world.board.shown[CHANNEL, "run/480/approval/prod/1"]
    assert card.text.startswith("🚦 Approval needed: diabetes version 4 to Prod")
    assert world.board.under[CHANNEL, "run/480/approval/prod/1"] is None
    assert "Verdict PASS" in card.text


async def test_what_the_question_is_about_is_read_once_for_each_of_its_states(world: World) -> None:
    waiting(world)

    for _ in range(3):
        await moved(world.bot, ApprovalRequested(480, PENDING.id))
    world.pipelines.runs[480] = DEPLOYING
    world.pipelines.waiting[480] = (APPROVED_THERE,)
    for _ in range(3):
        await moved(world.bot, ApprovalRequested(480, PENDING.id))

    assert world.pipelines.calls.count("artifact delivery") == 2
    assert "Approved by Grace Hopper" in world.board.shown[CHANNEL, "run/480/approval/prod/1"].text


async def test_a_question_that_the_run_did_not_wait_for_loses_its_buttons(world: World) -> None:
    waiting(world)
    await moved(world.bot, RunMoved(480))

    assert "Ended before anybody decided" in await text(world, CANCELED, "run/480/approval/prod/1")


async def test_where_azure_ml_is_silent_the_question_is_asked_and_completed_later(world: World) -> None:
    waiting(world)
    world.models.errors = [NotNow("Azure ML does not answer.")]

    await moved(world.bot, RunMoved(480))
    assert "Azure ML could not say" in str(world.board.shown[CHANNEL, "run/480/approval/prod/1"])
    await moved(world.bot, RunMoved(480))

    assert "`version 3`" in str(world.board.shown[CHANNEL, "run/480/approval/prod/1"])


async def test_only_environments_that_need_approval_are_asked_for(world: World) -> None:
    waiting(world)
    world.pipelines.waiting[480] = (replace(PENDING, environment="qa", stage="qa"),)

    await moved(world.bot, RunMoved(480))

    assert not [subject for subject in shown(world) if "approval" in subject]


async def test_a_hand_off_that_cannot_be_read_is_missing_in_the_question(world: World) -> None:
    waiting(world)
    world.pipelines.artifacts[480, "delivery"] = {**delivered(), "image.json": b"?"}

    await moved(world.bot, RunMoved(480))

    assert "No evaluation was handed on" in str(world.board.shown[CHANNEL, "run/480/approval/prod/1"])


async def test_without_a_hand_off_the_question_says_so(world: World) -> None:
    world.pipelines.waiting[480] = (PENDING,)

    assert "No evaluation was handed on" in await text(world, WAITING, "run/480/approval/prod/1")


# Retry


async def test_a_failed_stage_is_retried_and_its_button_goes(world: World) -> None:
    world.pipelines.runs[480] = FAILED
    world.pipelines.failures[480] = FAILURE
    await moved(world.bot, RunMoved(480))

    reply = await retry_stage(world.bot, RETRY)

    assert isinstance(reply, Message)
    assert reply.text == "Train of run 20261123.1 runs again."
    assert world.pipelines.retries == [(480, "train")]
    assert "had the failed jobs run again" in str(world.board.shown[CHANNEL, "run/480/failure/train/1"])
    judged, sent = world.store.audit
    about = Entry(ADA.id, "retry", "run/480/stage/train/1", Allowed(), "", ACCOUNTS[ADA.id], "diabetes", {"attempt": "1"})
    assert judged == about
    assert sent == replace(about, action="retry sent", after={"attempt": "2"})
    assert world.store.cards == {run(480): False}


async def test_a_retry_whose_answer_was_lost_is_found_and_not_sent_again(world: World) -> None:
    world.pipelines.runs[480] = FAILED
    operation = token("retry", "run/480/train/1")
    began = (NOW - timedelta(minutes=5)).isoformat()
    world.store.operations[operation] = Operation(operation, "retry", ADA.id, "run/480/train/1", "doing", {}, NOW, began)

    class Meanwhile(FakePipelines):
        async def run(self, run_id: int) -> Run:
            found = await super().run(run_id)
            await self.retry(run_id, "train") if not self.retries else None
            return found

    world.pipelines = Meanwhile(runs={480: FAILED})
    world.identities.pipelines = world.pipelines

    reply = await retry_stage(world.bot, RETRY)

    assert isinstance(reply, Message)
    assert "runs again" in reply.text
    assert len(world.pipelines.retries) == 1
    assert [entry.action for entry in world.store.audit] == ["retry"]


async def test_the_same_click_twice_retries_once(world: World) -> None:
    world.pipelines.runs[480] = FAILED

    await retry_stage(world.bot, RETRY)
    reply = await retry_stage(world.bot, RETRY)

    assert isinstance(reply, Message)
    assert "has been retried since" in reply.text
    assert world.pipelines.retries == [(480, "train")]


@pytest.mark.parametrize(("person", "value", "sentence"), [(ALAN.id, "480/train/1", "You may not"), (ADA.id, "480", "none of ours")])
async def test_a_retry_that_may_not_be_is_refused(world: World, person: str, value: str, sentence: str) -> None:
    world.pipelines.runs[480] = FAILED

    reply = await retry_stage(world.bot, replace(RETRY, person=person, value=value))

    assert isinstance(reply, Message)
    assert sentence in reply.text
    assert world.pipelines.retries == []


async def test_a_lost_answer_is_looked_for(world: World) -> None:
    world.pipelines.runs[480] = FAILED
    world.pipelines.after["retry"] = [Uncertain("The answer was lost.")]

    reply = await retry_stage(world.bot, RETRY)

    assert isinstance(reply, Message)
    assert "runs again" in reply.text
    assert world.pipelines.retries == [(480, "train")]


async def test_a_retry_without_a_trace_is_left_to_the_person(world: World) -> None:
    world.pipelines.runs[480] = FAILED
    world.pipelines.errors["retry"] = [Uncertain("The answer was lost.")]

    reply = await retry_stage(world.bot, RETRY)
    assert isinstance(reply, Message)
    assert "Press Retry again" in reply.text
    await retry_stage(world.bot, RETRY)

    assert world.pipelines.retries == [(480, "train")]


async def test_a_failure_that_cannot_be_read_does_not_stop_a_retry(world: World) -> None:
    world.pipelines.runs[480] = FAILED
    world.pipelines.errors["failure"] = [NotNow("Logs are away.")]

    await retry_stage(world.bot, RETRY)

    assert world.pipelines.retries == [(480, "train")]


async def test_a_run_of_no_model_is_retried_and_not_shown(world: World) -> None:
    world.pipelines.runs[480] = replace(FAILED, pipeline_id=99)

    await retry_stage(world.bot, RETRY)

    assert world.pipelines.retries == [(480, "train")]
    assert not world.board.shown


async def test_a_retry_that_azure_devops_refuses_ends_there(world: World) -> None:
    world.pipelines.runs[480] = FAILED
    world.pipelines.errors["retry"] = [Refused("The run is too old.")]

    with pytest.raises(Refused, match="too old"):
        await retry_stage(world.bot, RETRY)


async def test_a_button_that_opens_a_page_needs_no_answer(world: World) -> None:
    assert await open_log(world.bot, RETRY) is None
    assert await open_run(world.bot, RETRY) is None


# The sweep


async def test_the_sweep_heals_what_lost_events_left(world: World) -> None:
    world.store.cards = {run(480): False}
    lost = replace(QUEUED, id=481)
    revived = replace(TRAINING, id=482)
    world.pipelines.runs = {480: SUCCEEDED, 481: lost, 482: revived}
    world.store.cards[run(482)] = True

    await sweep(world.bot)

    assert {"run/480", "run/481", "run/482"} <= shown(world)
    assert world.store.cards == {run(480): True, run(481): False, run(482): False}


async def test_the_sweep_leaves_alone_what_is_final_or_old(world: World) -> None:
    world.store.cards = {run(480): True}
    world.pipelines.runs = {480: SUCCEEDED, 481: replace(QUEUED, id=481, created=NOW - timedelta(days=2))}

    await sweep(world.bot)

    assert not world.board.shown


async def test_one_run_that_cannot_be_read_does_not_stop_the_sweep(world: World) -> None:
    world.store.cards = {run(470): False, run(480): False, run(481): False}
    world.pipelines.runs = {480: TRAINING, 481: replace(TRAINING, id=481)}
    world.pipelines.errors["run"] = [NotNow("Azure DevOps does not answer.")]

    await sweep(world.bot)
    await sweep(world.bot)

    assert {"run/480", "run/481"} <= shown(world)
    assert world.store.cards[run(470)] is True


async def test_a_run_that_does_not_exist_is_said_to_be_gone(world: World) -> None:
    with pytest.raises(Gone):
        await moved(world.bot, RunMoved(1))
