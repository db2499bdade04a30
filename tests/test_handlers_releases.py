"""Classic releases, followed like runs: cards, approvals, failures, retry, the sweep and the lists."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from bot.core.approvals import ApprovalState
from bot.core.errors import NotNow, Refused, Uncertain
from bot.core.events import ReleaseApprovalCompleted, ReleaseApprovalRequested, ReleaseMoved
from bot.core.references import ApprovalOf, Ref, StageAttempt, Thing, token
from bot.core.runs import Failure, Run, Stage, State
from bot.messages.kit import Message, Modal, Reply
from bot.ports import Operation
from bot.routing import Click, Request, Submission
from handlers.approvals import approve, approved, ask_to_approve, reassigned
from handlers.barriers import break_glass, confirm_glass
from handlers.models import runs, status
from handlers.runs import moved, retry_stage, sweep
from handlers.steering import cancel_run, rerun, rollback, started
from tests.artifacts import delivered, smoke
from tests.examples import (
    ADA,
    ADA_ADO,
    CHANNEL,
    CHURN,
    GRACE,
    GRACE_ADO,
    NOW,
    PENDING,
    PROD_STAGE,
    QA_STAGE,
    RADIA,
    RADIA_ADO,
    RELEASE,
    RELEASE_DONE,
    RELEASE_FAILED,
    RELEASE_PENDING,
    RELEASE_WAITING,
    RELEASING,
    SUCCEEDED,
    V3,
    WAITING,
    released,
)
from tests.fakes import World as Everything

REF = Ref(Thing.RELEASE, 12)
CARD = (CHANNEL, "release/12")
QUESTION = (CHANNEL, "release/12/approval/34")
FAILURE = (CHANNEL, f"release/12/failure/{QA_STAGE}/1")
FACTS = f"4~3~{'ab' * 8}~passed"
FORM = Submission("s1", GRACE.id, CHANNEL, "approve", {"reason": "Fits the plan"}, {"approval": str(ApprovalOf(REF, "34", FACTS))})
RETRY = Click("c2", ADA.id, CHANNEL, "retry_stage", str(StageAttempt(REF, QA_STAGE, 1)))
BROKEN = Failure(QA_STAGE, "Deploy", "Smoke test", "QA: 3 of 5 predictions differ.", ("3 of 5",))


@pytest.fixture
def world(world: Everything) -> Everything:
    """Release 12 of run 480, which Ada asked for, waits for Prod; QA's tasks carry its smoke test."""
    world.team = RELEASING
    world.pipelines.runs[480] = replace(SUCCEEDED, committer=None)
    world.pipelines.releases[12] = RELEASE_WAITING
    world.pipelines.release_waiting[12] = (RELEASE_PENDING,)
    world.pipelines.artifacts[480, "delivery"] = delivered()
    world.pipelines.attachments[12, QA_STAGE] = {"qa.json": smoke("qa")}
    world.models.known["diabetes"] = (V3,)
    world.store.operations["op-480"] = Operation("op-480", "retrain", ADA.id, "diabetes", "done", {}, NOW)
    return world


def asking(command: str, *words: str, person: str = GRACE.id) -> Request:
    return Request("r1", person, CHANNEL, command, words)


def said(reply: Reply) -> str:
    assert isinstance(reply, Message)
    return reply.text


def shown(world: Everything, where: tuple[str, str]) -> str:
    message = world.board.shown[where]
    return f"{message.text} {message.blocks}"


# Cards


async def test_a_release_has_a_card_that_says_which_run_it_deploys(world: Everything) -> None:
    await moved(world.bot, ReleaseMoved(12))

    text = world.board.shown[CARD].text
    assert text.startswith("🚦 diabetes: release Release-12 waits for approval: Prod - Deploy on AKS, asked for by")
    assert "<https://dev.azure.com/contoso/ml-delivery/_build/results?buildId=480|run 20261123.1>" in shown(world, CARD)
    assert f"<@{ADA.id}>" in shown(world, CARD), "she asked for the run, in Slack"
    assert world.store.cards == {REF: False}


async def test_a_release_and_a_run_of_the_same_number_are_two_things(world: Everything) -> None:
    world.pipelines.runs[12] = replace(WAITING, id=12)
    world.pipelines.waiting[12] = (replace(PENDING, run_id=12),)

    await moved(world.bot, ReleaseMoved(12))

    assert (CHANNEL, "run/12") not in world.board.shown
    assert QUESTION in world.board.shown
    assert (CHANNEL, "run/12/approval/prod/1") not in world.board.shown


async def test_a_release_of_a_definition_that_no_model_has_is_left_alone(world: Everything) -> None:
    world.pipelines.releases[12] = replace(RELEASE_WAITING, pipeline_id=99)

    await moved(world.bot, ReleaseMoved(12))

    assert world.board.shown == {}
    assert world.store.cards == {}


async def test_a_release_of_what_another_models_run_made_is_left_alone(world: Everything) -> None:
    world.pipelines.runs[480] = replace(SUCCEEDED, parameters={**SUCCEEDED.parameters, "model": "churn"})

    await moved(world.bot, ReleaseMoved(12))

    assert world.board.shown == {}
    with pytest.raises(Refused, match="not decided on in Slack"):
        await approved(world.bot, FORM)
    assert world.pipelines.decisions == []


async def test_a_release_whose_run_is_deleted_or_that_deploys_none_stands_for_itself(world: Everything) -> None:
    del world.pipelines.runs[480]
    await moved(world.bot, ReleaseMoved(12))
    assert "asked for by Ada Lovelace" in world.board.shown[CARD].text
    assert "No evaluation was handed on" in shown(world, QUESTION)

    world.pipelines.releases[12] = replace(RELEASE_WAITING, source=None, source_number="", source_url="")
    world.pipelines.release_waiting[12] = (replace(RELEASE_PENDING, id="35"),)
    await moved(world.bot, ReleaseMoved(12))
    assert "Deploys" not in shown(world, CARD)
    assert "No evaluation was handed on" in shown(world, (CHANNEL, "release/12/approval/35"))


async def test_who_made_a_release_by_hand_is_named_beside_who_asked_for_its_run(world: Everything) -> None:
    world.pipelines.releases[12] = replace(RELEASE_WAITING, reason="manual", requested_for=GRACE_ADO)

    await moved(world.bot, ReleaseMoved(12))

    assert "*Release made by*\\nGrace Hopper" in shown(world, CARD)
    assert "may not decide" not in shown(world, CARD)
    assert "asked for what this release deploys" in said(await approved(world.bot, FORM))


async def test_who_asked_for_the_run_of_a_release_made_by_hand_is_one_person_in_every_place(world: Everything) -> None:
    own_name = {**SUCCEEDED.parameters, "requestedBy": "none"}
    world.pipelines.runs[480] = replace(SUCCEEDED, parameters=own_name, requested_by=ADA_ADO, requested_for=ADA_ADO)
    world.pipelines.releases[12] = replace(RELEASE_WAITING, reason="manual", requested_by=GRACE_ADO, requested_for=GRACE_ADO)

    await moved(world.bot, ReleaseMoved(12))

    assert "asked for by Ada Lovelace" in world.board.shown[CARD].text
    assert f"*Asked for by*\\n<@{ADA.id}>" in shown(world, CARD)
    assert "*Release made by*\\nGrace Hopper" in shown(world, CARD)
    assert "asked for what this release deploys" in said(await approved(world.bot, FORM))
    assert "asked for what this release deploys" in said(await approved(world.bot, replace(FORM, person=ADA.id)))


async def test_what_each_stage_attached_is_shown_in_the_thread_once(world: Everything) -> None:
    world.pipelines.releases[12] = RELEASE_DONE
    world.pipelines.attachments[12, PROD_STAGE] = {"prod.json": smoke("prod")}

    await moved(world.bot, ReleaseMoved(12))
    await moved(world.bot, ReleaseMoved(12))

    for environment in ("qa", "prod"):
        assert world.board.under[CHANNEL, f"release/12/smoke/{environment}/1"] == "release/12"
    assert "Release Release-12 in Azure DevOps" in shown(world, (CHANNEL, "release/12/smoke/prod/1"))
    assert world.pipelines.calls.count(f"attached {PROD_STAGE}") == 1
    assert world.store.cards == {REF: True}


# Approvals


async def test_an_approval_of_a_release_shows_what_its_run_handed_on_and_what_qa_answered(world: Everything) -> None:
    await moved(world.bot, ReleaseApprovalRequested(12, "34"))

    text = shown(world, QUESTION)
    assert "🚦 Deploy diabetes version 4 to Prod?" in text
    assert "Verdict PASS" in text
    assert "*QA smoke test*\\n✅" in text
    assert "|run 20261123.1>" in text
    assert "Later…" not in text, "Azure DevOps cannot defer an approval of a release"
    assert "Hand over…" in text


async def test_without_a_stage_for_qa_no_smoke_test_was_handed_on(world: Everything) -> None:
    world.team = replace(RELEASING, environments={"prod": RELEASING.environments["prod"]})

    await moved(world.bot, ReleaseApprovalRequested(12, "34"))

    assert "none was handed on" in shown(world, QUESTION)


async def test_each_approver_of_a_release_has_a_message_and_so_has_the_time_after_the_deployment(world: Everything) -> None:
    world.pipelines.release_waiting[12] = (RELEASE_PENDING, replace(RELEASE_PENDING, id="35"), replace(RELEASE_PENDING, id="36", post=True))

    await moved(world.bot, ReleaseApprovalRequested(12, "35"))

    assert "Deploy diabetes version 4 to Prod?" in shown(world, (CHANNEL, "release/12/approval/35"))
    assert "Is diabetes version 4 fit to stay in Prod?" in shown(world, (CHANNEL, "release/12/approval/36"))


async def test_an_approver_approves_a_release_under_their_own_name(world: Everything) -> None:
    await moved(world.bot, ReleaseApprovalRequested(12, "34"))

    form = await ask_to_approve(world.bot, Click("c1", GRACE.id, CHANNEL, "approve", str(ApprovalOf(REF, "34", FACTS))))
    reply = await approved(world.bot, FORM)

    assert isinstance(form, Modal)
    assert said(reply) == "Approved, and on record in Azure DevOps."
    (decision,) = world.pipelines.decisions
    assert decision[0] == "34"
    assert "https://contoso.slack.com/archives/" in decision[2], "the comment says where"
    assert "Approved" in shown(world, QUESTION)
    assert f"<@{GRACE.id}>" in shown(world, QUESTION)
    assert {entry.subject for entry in world.store.audit} == {"release/12/approval/34"}


async def test_an_approval_of_a_release_is_handed_over(world: Everything) -> None:
    form = replace(FORM, callback="reassign", values={"reason": "She knows it.", "to": RADIA.id})

    assert "Handed over to Radia" in said(await reassigned(world.bot, form))

    assert world.pipelines.reassignments[0][:2] == ("34", RADIA_ADO)


async def test_who_asked_for_the_run_does_not_decide_on_its_release(world: Everything) -> None:
    form = replace(FORM, person=ADA.id)

    assert "asked for what this release deploys" in said(await approved(world.bot, form))

    assert world.pipelines.decisions == []


async def test_an_answer_given_in_azure_devops_is_shown(world: Everything) -> None:
    await moved(world.bot, ReleaseApprovalRequested(12, "34"))
    step = replace(RELEASE_PENDING.steps[0], state=ApprovalState.REJECTED, actual=GRACE_ADO, comment="Not today", at=NOW)
    world.pipelines.release_waiting[12] = (replace(RELEASE_PENDING, state=ApprovalState.REJECTED, steps=(step,)),)
    world.pipelines.releases[12] = released(State.SUCCEEDED, State.REJECTED, State.REJECTED)

    await moved(world.bot, ReleaseApprovalCompleted(12, "34"))

    assert "⛔ Rejected: diabetes version 4 for Prod" in shown(world, QUESTION)
    assert "Not today" in shown(world, QUESTION)
    assert world.board.shown[CARD].text.startswith("⛔ diabetes: release Release-12 was rejected at Prod - Deploy on AKS")


async def test_releases_that_wait_are_listed_and_shown_by_their_number(world: Everything) -> None:
    listed = await approve(world.bot, asking("approve"))
    one = await approve(world.bot, asking("approve", "release/12"))
    world.pipelines.release_waiting[12] = ()

    assert "diabetes version 4 to Prod (release/12)" in said(listed)
    assert "🚦 Approval needed: diabetes version 4 to Prod, release Release-12" in said(one)
    assert said(await approve(world.bot, asking("approve", "release/12"))) == "Release Release-12 does not wait for approval."


async def test_what_others_wait_for_does_not_keep_a_release_from_the_list(world: Everything) -> None:
    for number in range(500, 520):
        world.pipelines.waiting[number] = (replace(PENDING, id=f"a{number}", run_id=number, environment="theirs"),)

    assert "diabetes version 4 to Prod (release/12)" in said(await approve(world.bot, asking("approve")))


async def test_the_glass_is_broken_for_a_release(world: Everything) -> None:
    await break_glass(world.bot, asking("breakglass", "release/12", "Prod is down"))
    operation = token("glass", "r1")

    reply = await confirm_glass(world.bot, Click("c3", RADIA.id, CHANNEL, "glass_confirm", operation))

    assert "The glass is broken for release Release-12" in said(reply)
    assert "The glass of Prod is broken for release Release-12" in shown(world, (CHANNEL, f"release/12/prod/glass/{operation}"))


# Failures


async def test_a_failed_deployment_has_a_card_and_is_tried_again_once(world: Everything) -> None:
    world.pipelines.releases[12] = RELEASE_FAILED
    world.pipelines.release_failures[12] = BROKEN
    world.pipelines.failures[12] = replace(BROKEN, error="of a run of the same number")

    await moved(world.bot, ReleaseMoved(12))
    assert world.board.shown[FAILURE].text == (
        "❌ diabetes: release Release-12 failed at QA - Deploy on ACI: QA: 3 of 5 predictions differ."
    )
    assert "Approvals for it are asked for again." in shown(world, FAILURE)
    reply = await retry_stage(world.bot, RETRY)
    again = await retry_stage(world.bot, RETRY)

    assert said(reply) == "QA - Deploy on ACI of release Release-12 runs again."
    assert "has been retried since" in said(again)
    assert world.pipelines.redeployments == [(12, QA_STAGE, f"retried in Slack by {ADA.id}")]
    assert world.pipelines.retries == []
    assert f"<@{ADA.id}> had it deployed again" in shown(world, FAILURE)


async def test_a_redeployment_whose_answer_was_lost_is_looked_for(world: Everything) -> None:
    world.pipelines.releases[12] = RELEASE_FAILED
    world.pipelines.after["redeploy"] = [Uncertain("The connection broke.")]

    reply = await retry_stage(world.bot, RETRY)

    assert "The connection broke." in said(reply) or "runs again" in said(reply)
    assert len(world.pipelines.redeployments) == 1


# The sweep


async def test_the_sweep_finds_releases_that_nobody_told_us_about_and_lets_settled_ones_rest(world: Everything) -> None:
    world.pipelines.releases[12] = RELEASE_WAITING
    world.pipelines.releases[13] = replace(released(State.PENDING, State.PENDING, State.PENDING), id=13)

    await sweep(world.bot)
    assert {CARD, (CHANNEL, "release/13")} <= world.board.shown.keys()
    world.pipelines.calls.clear()
    await sweep(world.bot)

    assert world.store.cards[Ref(Thing.RELEASE, 13)]
    assert world.pipelines.calls.count("release") == 1, "the one that moves"


async def test_the_sweep_sees_that_a_settled_release_was_deployed_again(world: Everything) -> None:
    world.pipelines.releases[12] = RELEASE_DONE
    await sweep(world.bot)
    world.pipelines.releases[12] = released(State.SUCCEEDED, State.WAITING, State.WAITING, prod_attempt=2)

    await sweep(world.bot)

    assert world.board.shown[CARD].text.startswith("🚦")


async def test_the_sweep_looks_after_runs_while_releases_cannot_be_listed(world: Everything) -> None:
    world.pipelines.errors["recent_releases"] = [NotNow("The release host is away.")]

    await sweep(world.bot)

    assert (CHANNEL, "run/480") in world.board.shown
    assert CARD not in world.board.shown


async def test_the_sweep_looks_after_releases_while_runs_cannot_be_listed(world: Everything) -> None:
    world.pipelines.errors["recent"] = [NotNow("Azure DevOps is away."), NotNow("Azure DevOps is away.")]

    await sweep(world.bot)

    assert CARD in world.board.shown
    assert (CHANNEL, "run/480") not in world.board.shown


async def test_a_release_that_was_deleted_is_looked_after_no_more(world: Everything) -> None:
    await world.store.watch(Ref(Thing.RELEASE, 99), final=False)

    await sweep(world.bot)

    assert world.store.cards[Ref(Thing.RELEASE, 99)]


# Lists


async def test_releases_are_listed_with_the_runs_and_marked(world: Everything) -> None:
    world.pipelines.releases[12] = replace(RELEASE_WAITING, created=NOW + timedelta(minutes=1))

    reply = await runs(world.bot, asking("runs"))

    assert isinstance(reply, Message)
    assert "1 run and 1 release in the last 7 days; the newest, release Release-12 waits for approval: Prod - Deploy on AKS." in reply.text
    assert "|release Release-12> waits for approval" in str(reply.blocks)
    assert "deploys run 20261123.1" in str(reply.blocks)


async def test_the_status_counts_releases_apart_from_runs_of_the_same_number(world: Everything) -> None:
    world.pipelines.runs[12] = replace(WAITING, id=12, state=State.RUNNING)
    world.pipelines.runs[481] = replace(WAITING, id=481, pipeline_id=CHURN.pipeline_id)
    world.pipelines.waiting[481] = (replace(PENDING, run_id=481),)
    world.pipelines.releases[13] = replace(RELEASE, id=13)
    world.pipelines.releases[14] = replace(RELEASE_DONE, id=14)

    reply = await status(world.bot, asking("status"))

    assert isinstance(reply, Message)
    assert "2 running, 1 waiting for approval" in reply.text


async def test_releases_that_cannot_be_read_are_said_to_be_so(world: Everything) -> None:
    world.pipelines.errors["recent_releases"] = [NotNow("The release host is away.")]

    assert "Azure DevOps does not answer" in said(await status(world.bot, asking("status")))


# Steering


def start(kind: str) -> Click:
    return Click("c4", GRACE.id, CHANNEL, "steer_start", token(kind, "r1"))


async def test_the_failed_stage_of_a_release_is_deployed_again(world: Everything) -> None:
    world.pipelines.releases[12] = RELEASE_FAILED

    offered = await rerun(world.bot, asking("rerun", "release/12"))
    done = await started(world.bot, start("rerun"))

    assert said(offered) == "Run QA - Deploy on ACI of release Release-12 again? Nothing has been done yet."
    assert isinstance(offered, Message)
    assert "approvals for it are asked for again" in str(offered.blocks)
    assert said(done) == "The failed stage of release Release-12 runs again."
    assert world.pipelines.redeployments == [(12, QA_STAGE, f"rerun in Slack by {GRACE.id}")]


async def test_a_release_is_stopped_in_azure_devops(world: Everything) -> None:
    assert "cancel its deployment in Azure DevOps" in said(await cancel_run(world.bot, asking("cancel", "release/12")))
    world.pipelines.releases[12] = RELEASE_DONE
    assert said(await cancel_run(world.bot, asking("cancel", "release/12"))) == "Release Release-12 has ended already."


async def test_prod_is_rolled_back_by_the_release_that_deployed_last(world: Everything) -> None:
    world.pipelines.releases = {
        11: replace(RELEASE_DONE, id=11, number="Release-11", source=470, stages=_later(RELEASE_DONE)),
        12: RELEASE_DONE,
        13: replace(RELEASE_DONE, id=13, source=None),
    }
    world.pipelines.runs[470] = replace(SUCCEEDED, id=470)
    world.pipelines.artifacts[470, "delivery"] = delivered("2")
    world.pipelines.artifacts[480, "delivery"] = delivered("3")

    offered = await rollback(world.bot, asking("rollback", "diabetes"))
    done = await started(world.bot, start("rollback"))

    assert "Roll diabetes back to version 2?" in said(offered)
    assert said(done) == "Release Release-11 is asked to deploy again. Its approval comes as a new message."
    assert world.pipelines.redeployments == [(11, PROD_STAGE, f"rollback in Slack by {GRACE.id}")]


async def test_a_release_that_is_named_is_rolled_back_to_or_it_is_said_why_not(world: Everything) -> None:
    world.pipelines.releases[12] = RELEASE_DONE

    assert "Roll diabetes back to version 4?" in said(await rollback(world.bot, asking("rollback", "diabetes", "release/12")))
    assert said(await rollback(world.bot, asking("rollback", "diabetes", "release/13"))) == (
        "Release 13 has not deployed another version of diabetes to prod, so it cannot be rolled back to."
    )
    world.team = replace(RELEASING, environments={"prod": replace(RELEASING.environments["prod"], release_stage="")})
    assert "Release 12 has not deployed" in said(await rollback(world.bot, asking("rollback", "diabetes", "release/12")))


async def test_a_release_whose_run_is_deleted_is_not_rolled_back_to(world: Everything) -> None:
    world.pipelines.releases = {11: replace(RELEASE_DONE, id=11), 12: replace(RELEASE_DONE, source=470)}

    offered = await rollback(world.bot, asking("rollback", "diabetes", "release/12"))

    assert "Release 12 has not deployed another version" in said(offered)
    assert "Roll diabetes back to version 4?" in said(await rollback(world.bot, asking("rollback", "diabetes", "release/11")))


async def test_what_was_deployed_at_no_known_time_counts_from_when_it_was_made(world: Everything) -> None:
    timeless = tuple(replace(stage, finished=None) for stage in SUCCEEDED.stages)
    world.pipelines.runs[480] = replace(SUCCEEDED, stages=timeless)

    assert "Roll diabetes back to version 4?" in said(await rollback(world.bot, asking("rollback", "diabetes")))


def _later(release: Run) -> tuple[Stage, ...]:
    return tuple(replace(stage, finished=NOW + timedelta(hours=1)) for stage in release.stages)
