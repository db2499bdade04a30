"""Approvals: who waits for a decision, and decisions taken in Slack. Azure DevOps keeps the record, under the person's own name, and has
the last word.

Whoever clicks is judged at that moment: the approval is read again under their token, then our own rules come on top, then the answer goes
out once, and only what Azure DevOps then says is believed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from bot.core.approvals import Allowed, Answer, Approval, ApprovalState, Denied
from bot.core.audit import Entry
from bot.core.deciding import Case, Decider, changed, may_decide, still_needed
from bot.core.policy import already, belongs, decides_in, in_channel, model_of
from bot.core.references import ApprovalOf, Ref, Unknown, token
from bot.core.runs import called
from bot.core.team import Team
from bot.messages.approvals import LATER, approval_card, approve_form, defer_form, reason_errors, reassign_form, reject_form, waiting_list
from bot.messages.kit import Message, Modal, Reply
from bot.messages.private import note, wrong_channel
from bot.ports import Bot, Operation
from bot.routing import Click, Request, Router, Submission, Usage
from handlers.judging import Asks, approval_now, comment_of, deny, judged, operation_of, record, written
from handlers.showing import about, question, read, refresh, votes
from handlers.waiting import waiting_for

router = Router()

DONE = {Answer.APPROVE: "Approved", Answer.REJECT: "Rejected"}


@router.command("approve", "[run]")
async def approve(bot: Bot, request: Request) -> Reply:
    """List what waits for your approval, or show one run's or release's question."""
    match request.words:
        case ():
            return await _list(bot, request)
        case (word,) if (ref := Ref.named(word)) is not None:
            return await _one(bot, request.channel, ref)
        case _:
            raise Usage("Name one run by its number in Azure DevOps' address, such as 480, a release such as release/12, or none at all.")


@router.click("approve", opens="Approve")
async def ask_to_approve(bot: Bot, click: Click) -> Reply:
    """Approve was pressed: repeat the facts and ask why."""
    return await _form(bot, click, Answer.APPROVE, approve_form)


@router.click("reject", opens="Reject")
async def ask_to_reject(bot: Bot, click: Click) -> Reply:
    """Reject was pressed: repeat the facts and ask why."""
    return await _form(bot, click, Answer.REJECT, reject_form)


@router.click("defer", opens="Approve later")
async def ask_to_defer(bot: Bot, click: Click) -> Reply:
    """Later was pressed: repeat the facts, ask from when on, and why."""
    return await _form(bot, click, Answer.APPROVE, defer_form)


@router.click("reassign", opens="Hand over")
async def ask_to_reassign(bot: Bot, click: Click) -> Reply:
    """Hand over was pressed: repeat the facts, ask to whom, and why."""
    return await _form(bot, click, Answer.REJECT, reassign_form)


def check(_: Team, submission: Submission) -> Mapping[str, str]:
    """A reason is required, and must fit; so is a time, or a person."""
    wrong = reason_errors(submission.values)
    if submission.callback == "defer" and submission.values.get("until") not in LATER:
        wrong["until"] = "Choose from when on it may be deployed."
    if submission.callback == "reassign" and not submission.values.get("to"):
        wrong["to"] = "Choose who decides instead of you."
    return wrong


@router.submit("approve", check=check)
async def approved(bot: Bot, submission: Submission) -> Reply:
    """Approve for the reason given."""
    return await _decide(bot, submission, Answer.APPROVE)


@router.submit("reject", check=check)
async def rejected(bot: Bot, submission: Submission) -> Reply:
    """Reject for the reason given."""
    return await _decide(bot, submission, Answer.REJECT)


@router.submit("defer", check=check)
async def deferred(bot: Bot, submission: Submission) -> Reply:
    """Approve from a later time on, for the reason given."""
    return await _decide(bot, submission, Answer.APPROVE, later=True)


@router.submit("reassign", check=check)
async def reassigned(bot: Bot, submission: Submission) -> Reply:
    """Hand the decision over to somebody else, for the reason given."""
    asks = await _asks(bot, submission, Answer.REJECT, action="reassign")
    if isinstance(asks, Message):
        return asks
    to = await bot.chat.member(submission.values["to"])
    acting, case, before = asks.acting, asks.case, asks.case.approval
    known = await bot.pipelines.people(to.email) if to.email else ()
    if len(known) != 1:
        return await deny(bot, asks, Denied(f"Azure DevOps knows nobody by the e-mail address of {to.name}. Hand it over there instead."))
    decision = may_decide(Decider(to, known[0]), replace(case, approval=replace(before, mine=None)), Answer.REJECT, bot.now())
    if isinstance(decision, Denied):
        return await deny(bot, asks, Denied(f"{to.name} could not decide on this either. For them it reads: {decision.reason}"))
    operation = operation_of(asks, "reassign", {"to": known[0].id or known[0].name}, bot.now())

    async def find() -> Approval | None:
        now = await approval_now(bot, asks)
        return now if any(step.assigned.id == known[0].id for step in now.steps) else None

    async def do() -> Approval:
        return await acting.pipelines.reassign(before, known[0], await comment_of(bot, asks))

    return await written(bot, asks, operation, find=find, do=do, said=lambda _: f"Handed over to {to.name}, and on record in Azure DevOps.")


# Listing


async def _list(bot: Bot, request: Request) -> Message:
    waiting = await waiting_for(bot, request.person)
    return waiting_list(waiting, bot.now(), buttons=decides_in(bot.team, request.channel))


async def _one(bot: Bot, channel: str, ref: Ref) -> Message:
    run = await read(bot.pipelines, ref)
    model = model_of(bot.team, run)
    if model is None:
        return note(f"{called(run, first=True)} belongs to no model of this team.")
    if not in_channel(model, channel):
        return wrong_channel(model)
    for approval in await bot.pipelines.approvals(run):
        environment = belongs(bot.team, approval)
        if environment is not None and approval.state is ApprovalState.PENDING:
            return approval_card(await question(bot, run, model, approval, environment))
    return note(f"{called(run, first=True)} does not wait for approval.")


# Asking and answering


async def _form(bot: Bot, click: Click, answer: Answer, form: Callable[[Case, str], Modal]) -> Modal | Message:
    try:
        reference = ApprovalOf.read(click.value)
    except Unknown as error:
        await bot.store.record(Entry(click.person, f"open {click.action}", click.value[:100], Denied(str(error))))
        return note(str(error))
    asks = await judged(bot, click.person, click.channel, reference, answer, action=f"open {click.action}")
    return asks if isinstance(asks, Message) else form(asks.case, reference.facts)


async def _asks(bot: Bot, submission: Submission, answer: Answer, *, action: str) -> Asks | Message:
    """A form was sent off: by somebody who may, with a reason, and about what they saw in it."""
    wrong = check(bot.team, submission)
    if wrong:
        return note(next(iter(wrong.values())))
    try:
        reference = ApprovalOf.read(submission.state.get("approval", ""))
    except Unknown as error:
        await bot.store.record(Entry(submission.person, action, "", Denied(str(error))))
        return note(str(error))
    reason = submission.values["reason"].strip()
    asks = await judged(bot, submission.person, submission.channel, reference, answer, action=action, reason=reason)
    if isinstance(asks, Message):
        return asks
    new = changed(reference.facts, asks.case.facts)
    if new:
        return await deny(bot, asks, Denied(f"Nothing was sent, because something changed while you wrote: {'; '.join(new)}. Look again."))
    return asks


async def _decide(bot: Bot, submission: Submission, answer: Answer, *, later: bool = False) -> Message:
    """Judge again, wait for others where the policy wants more people, else answer once, and show what came of it."""
    action = "defer" if later else "approve" if answer is Answer.APPROVE else "reject"
    asks = await _asks(bot, submission, answer, action=action)
    if isinstance(asks, Message):
        return asks
    if answer is Answer.APPROVE and (left := await _agree(bot, asks)):
        await refresh(bot, asks.case.run.ref)
        others = "one more person has" if left == 1 else f"{left} more people have"
        return note(f"Noted: you agree. It goes to Azure DevOps once {others} agreed, too.")
    until = bot.now() + timedelta(hours=int(submission.values["until"])) if later else None
    approval, acting = asks.case.approval, asks.acting
    operation = operation_of(asks, "decide", {"answer": answer.value}, bot.now())

    async def find() -> Approval | None:
        now = await approval_now(bot, asks)
        mine = any(step.actual is not None and step.actual.id == asks.who.me.id for step in now.steps)
        return now if now.state is not ApprovalState.PENDING or (mine and not bot.team.service_identity) else None

    async def do() -> Approval:
        comment = await comment_of(bot, asks)
        if until is not None:
            return await acting.pipelines.defer(approval, until, comment)
        return await acting.pipelines.decide(approval, answer, comment)

    def said(now: Approval) -> str:
        if until is not None and now.state in {ApprovalState.PENDING, ApprovalState.DEFERRED}:
            return f"Approved from {until:%Y-%m-%d %H:%M} UTC on, and on record in Azure DevOps."
        if now.state is ApprovalState.PENDING:
            return f"{DONE[answer]}, and others have to approve, too: {now.environment} still waits."
        if now.state.value != answer.value:
            return already(now)
        return f"{DONE[answer]}, and on record in Azure DevOps."

    return await written(bot, asks, operation, find=find, do=do, said=said)


async def _agree(bot: Bot, asks: Asks) -> int:
    """Keep a yes that is not the last one needed; how many more have to agree, 0 where it may go out.

    Kept before it is counted: of two who agree at the same moment, at least one sees the other.
    """
    if not still_needed(asks.case, asks.who):
        return 0
    approval, member = asks.case.approval, asks.who.member
    identity = member.id if asks.who.account is None else asks.identity
    vote = Operation(
        token("vote", about(approval), member.id),
        "vote",
        member.id,
        about(approval),
        "held",
        {"identity": identity, "reason": asks.reason},
        bot.now(),
    )
    await bot.store.offer(vote)
    left = still_needed(replace(asks.case, votes=await votes(bot, approval)), asks.who)
    if left:
        await record(bot, asks, Allowed(), {"agreed": f"{asks.case.environment.minimum - left} of {asks.case.environment.minimum}"})
    return left
