"""Runs and releases as they move: their cards, why they failed, and trying again. A sweep heals what lost events would leave wrong."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

from bot.core.approvals import Allowed, Denied
from bot.core.audit import Entry
from bot.core.errors import Gone, OutsideError, Uncertain
from bot.core.events import (
    ApprovalCompleted,
    ApprovalRequested,
    Event,
    JobMoved,
    ReleaseApprovalCompleted,
    ReleaseApprovalRequested,
    ReleaseMoved,
    RunMoved,
    StageMoved,
)
from bot.core.policy import may, model_of
from bot.core.references import StageAttempt, Thing, Unknown, token
from bot.core.runs import Run, called, may_retry, settled
from bot.core.team import Right
from bot.messages.failures import failure_card
from bot.messages.kit import Message, Reply
from bot.messages.private import note, refusal
from bot.ports import Acting, Bot, Operation
from bot.routing import Click, Router
from handlers.once import once
from handlers.showing import read, refresh, subject

log = logging.getLogger(__name__)
router = Router()

LATELY = timedelta(hours=24)


@router.on(
    RunMoved,
    StageMoved,
    JobMoved,
    ApprovalRequested,
    ApprovalCompleted,
    ReleaseMoved,
    ReleaseApprovalRequested,
    ReleaseApprovalCompleted,
)
async def moved(bot: Bot, event: Event) -> None:
    """Something happened to a run or a release: look, and show what is."""
    await refresh(bot, event.ref)


@router.every("* * * * *")
async def sweep(bot: Bot) -> None:
    """Look after runs and releases whose cards are not final, and recent ones that have none: their events may have been lost."""
    recent = await _recent(bot)
    final = await bot.store.final(tuple(run.ref for run in recent))
    # What has a final card and works again was retried, and nobody told us.
    again = [run.ref for run in recent if run.ref not in final or not settled(run)]
    wanted = dict.fromkeys((*await bot.store.watched(), *again))
    for ref in wanted:
        try:
            await refresh(bot, ref)
        except Gone:
            log.warning("%s is gone; its card is left as it is.", ref)
            await bot.store.watch(ref, final=True)
        except OutsideError as error:
            log.warning("%s could not be looked after, the next sweep tries again: %s", ref, error)


@router.click("retry_stage")
async def retry_stage(bot: Bot, click: Click) -> Reply:
    """Run the failed jobs of a stage again, or deploy it again: once per attempt, and only while that attempt is the last."""
    try:
        reference = StageAttempt.read(click.value)
    except Unknown as error:
        return note(str(error))
    run = await read(bot.pipelines, reference.ref)
    model = model_of(bot.team, run)
    decision = may(bot.team, Right.RETRAIN, await bot.chat.member(click.person), model)
    about = subject(run, "stage", reference.stage, reference.attempt)
    entry = Entry(click.person, "retry", about, decision, model=model.name if model else "", before={"attempt": str(reference.attempt)})
    if isinstance(decision, Denied):
        await bot.store.record(entry)
        return refusal(decision, bot.team.may(Right.RETRAIN, model))
    possible = may_retry(run, reference.stage, reference.attempt)
    if isinstance(possible, Denied):
        await bot.store.record(replace(entry, decision=possible))
        return refusal(possible)
    acting = await bot.identities.acting(click.person)
    entry = replace(entry, account=acting.account)
    await bot.store.record(entry)
    return await _retry(bot, acting, run, reference, entry)


@router.click("open_log")
async def open_log(_: Bot, __: Click) -> Reply:
    """The browser has opened the log by itself."""
    return None


@router.click("open_run")
async def open_run(_: Bot, __: Click) -> Reply:
    """The browser has opened the run by itself."""
    return None


async def _recent(bot: Bot) -> list[Run]:
    """Runs and releases of the last day; a list that cannot be read keeps nobody from the others, which may come from another host."""
    since = bot.now() - LATELY
    lists = [
        *((bot.pipelines.recent, pipeline_id) for pipeline_id in sorted({model.pipeline_id for model in bot.team.models.values()})),
        *((bot.pipelines.recent_releases, definition_id) for definition_id in bot.team.releases),
    ]
    found: list[Run] = []
    for listed, number in lists:
        try:
            found += await listed(number, since)
        except OutsideError as error:
            log.warning("What definition %s has made lately could not be listed, the next sweep tries again: %s", number, error)
    return found


async def _retry(bot: Bot, acting: Acting, run: Run, reference: StageAttempt, entry: Entry) -> Message:
    operation = Operation(token("retry", str(reference)), "retry", entry.person, str(reference), "offered", {}, bot.now())
    card = await _retried_card(bot, run, reference, entry.person)

    async def find() -> Run | None:
        now = await read(bot.pipelines, run.ref)
        return now if may_retry(now, reference.stage, reference.attempt) != Allowed() else None

    async def do() -> Run:
        if run.thing is Thing.RELEASE:
            await acting.pipelines.redeploy(run.id, reference.stage, f"retried in Slack by {entry.person}")
        else:
            await acting.pipelines.retry(run.id, reference.stage)
        return await read(bot.pipelines, run.ref)

    try:
        outcome = await once(bot, operation, find=find, do=do)
    except Uncertain as error:
        return note(f"{error} The stage stands as it was. Press Retry again: that looks first.")
    if not outcome.again:
        await bot.store.record(replace(entry, action="retry sent", after={"attempt": str(reference.attempt + 1)}))
    await refresh(bot, run.ref)
    model = model_of(bot.team, run)
    if model is not None and card is not None and not outcome.again:
        await bot.board.show(model.channel, subject(run, "failure", reference.stage, reference.attempt), card, under=subject(run))
    title = next(stage.title for stage in run.stages if stage.name == reference.stage)
    return note(f"{title} of {called(run)} runs again.")


async def _retried_card(bot: Bot, run: Run, reference: StageAttempt, person: str) -> Message | None:
    """The failure card without its button, made while the failure can still be read; None where it cannot."""
    model, stage = model_of(bot.team, run), run.stage(reference.stage)
    if model is None or stage is None:
        return None
    try:
        failure = await bot.pipelines.failure(run)
    except OutsideError as error:
        log.warning("The failure of %s could not be read again: %s", called(run), error)
        return None
    return failure_card(run, model, stage, failure, retried_by=person)
