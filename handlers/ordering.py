"""Offers a run and starts it once it has been confirmed. No feature: trainings and promotions call it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from bot.core.approvals import Decision, Denied
from bot.core.audit import Entry
from bot.core.errors import Uncertain
from bot.core.policy import may
from bot.core.references import token
from bot.core.runs import Order, Run
from bot.core.team import Model, Right
from bot.messages.kit import Message
from bot.messages.offers import started_note
from bot.messages.private import note, refusal
from bot.ports import Bot, Operation
from bot.routing import Click, Request
from handlers.once import once
from handlers.showing import refresh

# What was true when it was offered may not be so any more.
OFFER = timedelta(hours=1)

# Azure DevOps' clock is not ours.
SKEW = timedelta(minutes=10)

RIGHTS = {"retrain": Right.RETRAIN, "promote": Right.PROMOTE}


async def asks(bot: Bot, kind: str, request: Request) -> Message | None:
    """The refusal for a person who may not even ask for this; on record either way."""
    model = bot.team.models.get(request.words[0]) if request.words else None
    decision = may(bot.team, RIGHTS[kind], await bot.chat.member(request.person), model)
    name = model.name if model is not None else ""
    asked = {"words": " ".join(request.words)}
    await bot.store.record(Entry(request.person, f"ask to {kind}", f"model/{name}" if name else "", decision, model=name, after=asked))
    return refusal(decision, bot.team.may(RIGHTS[kind], model)) if isinstance(decision, Denied) else None


async def offer(bot: Bot, kind: str, id: str, *, person: str, model: Model, detail: Mapping[str, str]) -> Operation:
    """Remember what is offered; the same request makes the same offer."""
    made = Operation(token(kind, id), kind, person, model.name, "offered", {"model": model.name, **detail}, bot.now())
    return await bot.store.offer(made)


async def confirm(bot: Bot, click: Click, kind: str) -> Message:
    """Start was pressed: by the right person, in time, and for something we offered."""
    operation = await bot.store.operation(click.value)
    if operation is None or operation.kind != kind:
        return note("This offer is not known here. Give the command again.")
    if operation.person != click.person:
        return refusal(Denied("This was offered to somebody else. Give the command yourself."))
    if operation.state == "offered" and bot.now() - operation.created > OFFER:
        return note("This offer is more than an hour old. Give the command again.")
    return await start(bot, operation)


async def start(bot: Bot, operation: Operation) -> Message:
    """Start the run of an operation once, under the person's own name, and show it. Raises SignInNeeded."""
    model = bot.team.models.get(operation.subject)
    if model is None:
        return note(f"{operation.subject} is no model of this team any more.")
    member, right = await bot.chat.member(operation.person), RIGHTS[operation.kind]
    decision = may(bot.team, right, member, model)
    if isinstance(decision, Denied):
        await bot.store.record(_entry(operation, decision))
        return refusal(decision, bot.team.may(right, model))
    acting = await bot.identities.acting(operation.person)
    entry = replace(_entry(operation, decision), account=acting.account)
    await bot.store.record(entry)
    # Azure DevOps knows who queued a run; only where that is the bot the run has to say for whom.
    asked = "none" if acting.account is not None else f"{member.name} ({member.email or member.id})"
    order = Order(model.pipeline_id, model.branch, operation.id, {**operation.detail, "requestedBy": asked, "requestId": operation.id})

    async def find() -> Run | None:
        return await bot.pipelines.started(model.pipeline_id, operation.id, operation.created - SKEW)

    async def do() -> Run:
        return await acting.pipelines.start(order)

    try:
        outcome = await once(bot, operation, find=find, do=do)
    except Uncertain as error:
        return note(f"{error} No run carries this request so far. If none appears within a minute, press Start again: that looks first.")
    run = await refresh(bot, outcome.value.ref)
    if not outcome.again:
        await bot.store.record(replace(entry, action=f"{operation.kind} sent", after={"run": str(run.ref)}))
    return started_note(run, model, again=outcome.again)


async def cancel(bot: Bot, click: Click) -> Message:
    """Cancel was pressed: nothing is started for this offer any more."""
    if await bot.store.advance(click.value, of=("offered",), to="dropped"):
        return note("Cancelled: nothing was started.")
    return note("There is nothing to cancel: it was started or cancelled before.")


def _entry(operation: Operation, decision: Decision) -> Entry:
    return Entry(
        operation.person,
        operation.kind,
        f"model/{operation.subject}",
        decision,
        model=operation.subject,
        after={name: value for name, value in operation.detail.items() if name != "model"},
    )
