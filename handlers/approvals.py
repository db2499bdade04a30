"""Approvals: who waits for a decision, and decisions taken in Slack. Azure DevOps keeps the record and has the last word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bot.core.approvals import Answer, Approval, ApprovalState, Decision, Denied
from bot.core.audit import Entry
from bot.core.errors import Gone, NotNow, OutsideError, Refused, Uncertain
from bot.core.models import Delivery
from bot.core.people import Member
from bot.core.policy import already, belongs, in_channel, may_decide, model_of
from bot.core.references import ApprovalOf, Unknown
from bot.core.runs import Run, asker
from bot.core.team import Environment, Model, Team
from bot.messages.approvals import Question, approval_card, approve_form, pending_list, reason_errors, reject_form
from bot.messages.kit import Message, Modal, Reply, channel_link
from bot.messages.private import note, refusal, wrong_channel
from bot.ports import Bot, Operation
from bot.routing import Click, Request, Router, Submission, Usage
from handlers.once import once
from handlers.showing import asked_in_slack, decision_id, question, refresh

router = Router()

MOST = 15  # waiting approvals to look at

DONE = {Answer.APPROVE: "Approved", Answer.REJECT: "Rejected"}


@dataclass(frozen=True, slots=True)
class _Case:
    """An approval and what it is about, as they are now."""

    run: Run
    model: Model
    approval: Approval
    environment: Environment


@router.command("approve", "[run]")
async def approve(bot: Bot, request: Request) -> Reply:
    """List what waits for approval here, or show one run's question."""
    match request.words:
        case ():
            return await _list(bot, request.channel)
        case (word,) if word.removeprefix("#").isdecimal() and len(word) < 18:
            return await _one(bot, request.channel, int(word.removeprefix("#")))
        case _:
            raise Usage("Name one run by its number in Azure DevOps' address, such as 480, or none at all.")


@router.click("approve", opens="Approve")
async def ask_to_approve(bot: Bot, click: Click) -> Reply:
    """Approve was pressed: repeat the facts and ask why."""
    return await _form(bot, click, Answer.APPROVE)


@router.click("reject", opens="Reject")
async def ask_to_reject(bot: Bot, click: Click) -> Reply:
    """Reject was pressed: repeat the facts and ask why."""
    return await _form(bot, click, Answer.REJECT)


def check(_: Team, submission: Submission) -> Mapping[str, str]:
    """A reason is required, and must fit."""
    return reason_errors(dict(submission.values))


@router.submit("approve", check=check)
async def approved(bot: Bot, submission: Submission) -> Reply:
    """Approve for the reason given."""
    return await _decide(bot, submission, Answer.APPROVE)


@router.submit("reject", check=check)
async def rejected(bot: Bot, submission: Submission) -> Reply:
    """Reject for the reason given."""
    return await _decide(bot, submission, Answer.REJECT)


async def _list(bot: Bot, channel: str) -> Message:
    here: list[Question] = []
    elsewhere: dict[str, None] = {}
    for approval in (await bot.pipelines.pending_approvals())[:MOST]:
        environment = belongs(bot.team, approval)
        if environment is None:
            continue
        run = await bot.pipelines.run(approval.run_id)
        model = model_of(bot.team, run)
        if model is None:
            continue
        if in_channel(model, channel):
            asked = asker(run, await asked_in_slack(bot, run))
            here.append(Question(run, model, environment, approval, Delivery(), asked))
        else:
            elsewhere[channel_link(model.channel)] = None
    return pending_list(here, tuple(elsewhere))


async def _one(bot: Bot, channel: str, run_id: int) -> Message:
    run = await bot.pipelines.run(run_id)
    model = model_of(bot.team, run)
    if model is None:
        return note(f"Run {run_id} belongs to no model of this team.")
    if not in_channel(model, channel):
        return wrong_channel(model)
    for approval in await bot.pipelines.approvals(run):
        environment = belongs(bot.team, approval)
        if environment is not None and approval.state is ApprovalState.PENDING:
            return approval_card(await question(bot, run, model, approval, environment))
    return note(f"Run {run.number} does not wait for approval.")


async def _form(bot: Bot, click: Click, answer: Answer) -> Modal | Message:
    try:
        reference = ApprovalOf.read(click.value)
    except Unknown as error:
        return note(str(error))
    case = await _read(bot, reference)
    decision = await _may(bot, click.person, case, action=f"open {answer.value}")
    if isinstance(decision, Denied):
        return await _refused(bot, decision, case)
    asks = await question(bot, case.run, case.model, case.approval, case.environment)
    return approve_form(asks) if answer is Answer.APPROVE else reject_form(asks)


async def _decide(bot: Bot, submission: Submission, answer: Answer) -> Message:
    """Read it again, ask the policy, answer once, believe only what Azure DevOps then says, and show it."""
    reason = submission.values.get("reason", "").strip()
    wrong = reason_errors({"reason": reason})
    if wrong:
        return note(wrong["reason"])
    try:
        reference = ApprovalOf.read(submission.state.get("approval", ""))
    except Unknown as error:
        return note(str(error))
    case = await _read(bot, reference)
    decision = await _may(bot, submission.person, case, action=answer.value, reason=reason)
    if isinstance(decision, Denied):
        return await _refused(bot, decision, case)
    member = await bot.chat.member(submission.person)
    reply = await _answer(bot, member, case.approval, answer, reason)
    await refresh(bot, case.run.id)
    return reply


async def _answer(bot: Bot, member: Member, approval: Approval, answer: Answer, reason: str) -> Message:
    operation = Operation(
        decision_id(approval, answer), "decide", member.id, approval.id, "offered", {"answer": answer.value, "reason": reason}, bot.now()
    )

    acting = await bot.identities.acting(member.id)

    async def find() -> Approval | None:
        now = await _approval(bot, await bot.pipelines.run(approval.run_id), approval.id)
        return now if now.state is not ApprovalState.PENDING else None

    async def do() -> Approval:
        return await acting.pipelines.decide(approval, answer, f"{reason}\ndecided in Slack by {member.name} ({member.id})")

    try:
        outcome = await once(bot, operation, find=find, do=do)
    except NotNow:
        raise
    except Uncertain as error:
        return note(f"{error} It still waits. Answer again: that looks first.")
    except OutsideError as error:
        return note(f"Azure DevOps did not take the answer: {error}")
    return note(_said(outcome.value, answer, again=outcome.again))


def _said(approval: Approval, answer: Answer, *, again: bool) -> str:
    """What Azure DevOps made of the answer."""
    if again or approval.state.value not in {answer.value, ApprovalState.PENDING.value}:
        return already(approval)
    if approval.state is ApprovalState.PENDING:
        return f"{DONE[answer]}, and others have to approve, too: {approval.environment} still waits."
    return f"{DONE[answer]}, and on record in Azure DevOps."


async def _read(bot: Bot, reference: ApprovalOf) -> _Case:
    """The approval as it is now, and what it is about. Raises Gone and Refused."""
    run = await bot.pipelines.run(reference.ref.id)
    approval = await _approval(bot, run, reference.approval_id)
    model, environment = model_of(bot.team, run), belongs(bot.team, approval)
    if model is None or environment is None:
        raise Refused("This is not decided on in Slack: callboard.toml does not list it as needing approval.")
    return _Case(run, model, approval, environment)


async def _approval(bot: Bot, run: Run, approval_id: str) -> Approval:
    for approval in await bot.pipelines.approvals(run):
        if approval.id == approval_id:
            return approval
    raise Gone(f"Run {run.number} has no such approval any more. `/approve {run.id}` shows what it waits for now.")


async def _may(bot: Bot, person: str, case: _Case, *, action: str, reason: str = "") -> Decision:
    """The policy's decision about the person as they are now; on record either way."""
    member = await bot.chat.member(person)
    decision = may_decide(bot.team, member, case.run, case.approval, await asked_in_slack(bot, case.run))
    about = "/".join((str(case.run.ref), "approval", case.approval.id))
    await bot.store.record(Entry(person, action, about, decision, why=reason, model=case.model.name))
    return decision


async def _refused(bot: Bot, decision: Denied, case: _Case) -> Message:
    """Why not, and who may; where it is no longer open, the card that was clicked had missed that."""
    if case.approval.state is ApprovalState.PENDING and not case.run.state.finished:
        return refusal(decision, case.environment.approvers)
    await refresh(bot, case.run.id)
    return refusal(decision)
