"""Reminders: what nobody decides on is mentioned again in the thread of its message, to those who can decide, later to who is on call.

What was sent is an operation: "offered" until the channel shows it, then "done", and "closed" once nothing waits any more. Each takes the
next number of its approval, so two replicas that think of two reminders at once send the same one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby

from bot.core.approvals import Approval, ApprovalState
from bot.core.deciding import Case
from bot.core.errors import Gone, OutsideError
from bot.core.policy import belongs, model_of
from bot.core.references import ApprovalOf, token
from bot.core.team import Environment, Model
from bot.core.waiting import Reminder, Sent, Whom, due
from bot.messages.reminders import over_card, reminder_card
from bot.ports import Bot, Operation
from bot.routing import Router
from handlers.showing import about, card_of, question, read, refresh

log = logging.getLogger(__name__)
router = Router()


@router.every("* * * * *")
async def remind(bot: Bot) -> None:
    """Remind people of what waits, and stop where nothing waits any more."""
    known = await bot.store.operations_of("reminder", states=("offered", "done"))
    told = {subject: tuple(those) for subject, those in groupby(sorted(known, key=_subject), key=_subject)}
    if not told and not any(one.remind or one.escalate for one in bot.team.environments.values()):
        return
    pending = {about(approval): approval for approval in await bot.pipelines.pending_approvals()}
    for subject in pending | told:
        try:
            if subject in pending:
                await _remind(bot, pending[subject])
            else:
                await _close(bot, told[subject])
        except OutsideError as error:
            log.warning("Reminding of %s waits for the next turn: %s", subject, error)


async def _remind(bot: Bot, approval: Approval) -> None:
    """Send what is due; nothing else before the channel shows what was sent last."""
    environment = belongs(bot.team, approval)
    if environment is None:
        return
    told = await bot.store.operations_of("reminder", about(approval))  # closed ones, too: it may only have been away
    standing = [one for one in told if one.state != "closed"]
    unseen = [one for one in standing if one.state == "offered"]
    reminder = due(environment, approval.created, map(_sent, told), bot.now())
    if reminder is None and not standing:
        return
    run = await read(bot.pipelines, approval.ref)
    model = model_of(bot.team, run)
    if model is None:
        return
    if run.state.finished:
        await _close(bot, standing)
        return
    if await bot.board.where(model.channel, card_of(approval)) is None:
        await refresh(bot, approval.ref)  # its events were lost; by the next turn there is a thread to write in
        return
    if reminder is not None and not unseen:
        made = _operation(approval, environment, reminder, model=model, number=len(told), now=bot.now())
        unseen = [kept for kept in [await bot.store.offer(made)] if kept.state == "offered"]
    for operation in unseen:
        await _show(bot, operation, await question(bot, run, model, approval, environment))


async def _show(bot: Bot, operation: Operation, case: Case) -> None:
    """Wish for the message, and note since when the channel shows it."""
    detail, waited = operation.detail, bot.now() - case.approval.created
    card = reminder_card(case, Whom(detail["whom"]), waited)
    await bot.board.show(detail["channel"], detail["message"], card, under=detail["under"])
    if await bot.board.where(detail["channel"], detail["message"]) is not None:
        await bot.store.advance(operation.id, of=("offered",), to="done", result=bot.now().isoformat())


async def _close(bot: Bot, told: Sequence[Operation]) -> None:
    """Let the reminders say that nothing waits any more, if that is so; an edit notifies nobody."""
    if not told:
        return
    reference = ApprovalOf.read(told[0].detail["approval"])
    try:
        run = await read(bot.pipelines, reference.ref)
        approval = next((one for one in await bot.pipelines.approvals(run) if one.id == reference.approval_id), None)
    except Gone:
        approval = None
    else:
        if approval is not None and approval.state is ApprovalState.PENDING and not run.state.finished:
            return
    for operation in told:
        detail = operation.detail
        message = over_card(detail["model"], detail["environment"], approval)
        await bot.board.show(detail["channel"], detail["message"], message, under=detail["under"])
        await bot.store.advance(operation.id, of=("offered", "done"), to="closed", result=operation.result)


def _operation(approval: Approval, environment: Environment, reminder: Reminder, *, model: Model, number: int, now: datetime) -> Operation:
    detail = {
        "approval": str(ApprovalOf(approval.ref, approval.id)),
        "after": str(reminder.after.total_seconds()),
        "whom": reminder.whom.value,
        "model": model.name,
        "environment": environment.name,
        "channel": model.channel,
        "message": f"{about(approval)}/reminder/{number}",
        "under": card_of(approval),
    }
    return Operation(token("reminder", about(approval), str(number)), "reminder", "", about(approval), "offered", detail, now)


def _sent(operation: Operation) -> Sent:
    """What was sent, and when: as long as the channel does not show it, it counts from when it was thought of."""
    reminder = Reminder(timedelta(seconds=float(operation.detail["after"])), Whom(operation.detail["whom"]))
    return Sent(reminder, datetime.fromisoformat(operation.result) if operation.result else operation.created)


def _subject(operation: Operation) -> str:
    return operation.subject
