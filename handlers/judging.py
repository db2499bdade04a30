"""Judges who wants to decide on an approval, as they are and as it stands at that moment, and writes their answer once. No feature.

The approval is read under the person's token, our own rules come on top, the answer goes out once, and only what Azure DevOps then says is
believed. Every judgement and every write is on record.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from bot.core.approvals import Allowed, Answer, Approval, ApprovalState, Decision, Denied
from bot.core.audit import Entry
from bot.core.deciding import Case, Decider, may_decide
from bot.core.errors import Gone, NotNow, OutsideError, Refused, SignInNeeded, Uncertain
from bot.core.people import Member, Person
from bot.core.policy import already, belongs, decides_in, full_member, model_of
from bot.core.references import ApprovalOf, token
from bot.core.runs import Run
from bot.core.team import ADO
from bot.messages.kit import Message
from bot.messages.private import note, refusal
from bot.ports import Acting, Bot, Operation, Pipelines
from handlers.guarding import glass_of, lock_of
from handlers.once import once
from handlers.showing import about, card_of, question, read, refresh


@dataclass(frozen=True, slots=True)
class Asks:
    """Somebody who wants to do something about an approval: who they are, what it is about as they see it, and why they want it."""

    acting: Acting
    who: Decider
    case: Case
    action: str
    reason: str = ""

    @property
    def identity(self) -> str:
        """Whom Azure DevOps will record."""
        return self.who.me.id or self.who.me.name


async def judged(
    bot: Bot, person: str, channel: str, reference: ApprovalOf, answer: Answer, *, action: str, reason: str = ""
) -> Asks | Message:
    """Read everything again, as the person, and ask the policy; on record either way. Raises SignInNeeded, Gone, Refused, NotNow."""
    member = await bot.chat.member(person)
    denied = full_member(member)
    if denied is None and not bot.team.service_identity and await bot.identities.account(person) is None:
        denied = await _hopeless(bot, member, reference, channel, answer)
    if denied is not None:
        await bot.store.record(Entry(person, action, f"{reference.ref}/approval/{reference.approval_id}", denied, why=reason))
        return refusal(denied)
    acting = await bot.identities.acting(person)
    if any(name.startswith(ADO) for name in bot.team.named()):
        member = replace(member, ado_groups=await bot.pipelines.groups_of(acting.me))
    case = await _case(bot, acting.pipelines, reference, channel)
    asks = Asks(acting, Decider(member, acting.me, acting.account), case, action, reason)
    decision = may_decide(asks.who, case, answer, bot.now())
    if isinstance(decision, Denied):
        return await deny(bot, asks, decision)
    await record(bot, asks, decision)
    return asks


async def _hopeless(bot: Bot, member: Member, reference: ApprovalOf, channel: str, answer: Answer) -> Denied | None:
    """Why somebody who has not signed in need not do so: they could not decide on this anyway."""
    case = await _case(bot, bot.pipelines, reference, channel)
    if any(name.startswith(ADO) for name in case.approvers.members):
        return None  # Azure DevOps may count them in
    unasked = replace(case, approval=replace(case.approval, mine=None))
    decision = may_decide(Decider(member, Person(member.name, member.email)), unasked, answer, bot.now())
    return decision if isinstance(decision, Denied) else None


async def _case(bot: Bot, pipelines: Pipelines, reference: ApprovalOf, channel: str) -> Case:
    """The approval as it is now, as this identity sees it, and what it is about. Raises Gone and Refused."""
    run, approval = await _found(bot, pipelines, reference)
    model, environment = model_of(bot.team, run), belongs(bot.team, approval)
    if model is None or environment is None:
        raise Refused("This is not decided on in Slack: callboard.toml does not list it as needing approval.")
    if not decides_in(bot.team, channel):
        raise Refused(f"{model.name} is not decided on in this channel.")
    case = await question(bot, run, model, approval, environment)
    return replace(case, lock=await lock_of(bot, environment), glass=await glass_of(bot, run.ref, environment))


async def deny(bot: Bot, asks: Asks, denied: Denied) -> Message:
    """Why not, and who may; where it is no longer open, the card that was clicked had missed that."""
    await record(bot, asks, denied)
    if asks.case.open:
        return refusal(denied, asks.case.approvers)
    await refresh(bot, asks.case.run.ref)
    return refusal(denied)


async def record(bot: Bot, asks: Asks, decision: Decision, after: Mapping[str, str] | None = None) -> None:
    """Write down who wanted what, what was decided about it, and what it changed."""
    approval = asks.case.approval
    agreed = ", ".join(person.name for person in approval.approved_by)
    before = {"state": approval.state.value, "attempt": str(approval.attempt), **({"approved by": agreed} if agreed else {})}
    await bot.store.record(
        Entry(
            asks.who.member.id,
            asks.action,
            about(approval),
            decision,
            why=asks.reason,
            account=asks.who.account,
            model=asks.case.model.name,
            before=before,
            after=after or {},
        )
    )


async def written(
    bot: Bot,
    asks: Asks,
    operation: Operation,
    *,
    find: Callable[[], Awaitable[Approval | None]],
    do: Callable[[], Awaitable[Approval]],
    said: Callable[[Approval], str],
) -> Message:
    """Write it to Azure DevOps once, believe only what that then says, record it and show it."""
    try:
        outcome = await once(bot, operation, find=find, do=do)
    except (NotNow, SignInNeeded):
        raise
    except Uncertain as error:
        await record(bot, replace(asks, action=f"{asks.action} sent"), Denied(str(error)))
        return note(f"{error} It still waits. Answer again: that looks first.")
    except OutsideError as error:
        now = await approval_now(bot, asks)
        await record(bot, replace(asks, action=f"{asks.action} sent"), Denied(str(error)), {"state": now.state.value})
        await refresh(bot, asks.case.run.ref)
        return note(already(now) if now.state is not ApprovalState.PENDING else f"Azure DevOps did not take the answer: {error}")
    now = outcome.value
    if not outcome.again:
        by = ", ".join(person.name for person in now.approved_by) or (now.decided.actual.name if now.decided and now.decided.actual else "")
        await record(bot, replace(asks, action=f"{asks.action} sent"), Allowed(), {"state": now.state.value, "by": by})
    await refresh(bot, asks.case.run.ref)
    return note(already(now) if outcome.again and now.state is not ApprovalState.PENDING else said(now))


def operation_of(asks: Asks, kind: str, detail: Mapping[str, str], now: datetime) -> Operation:
    """The same person's same answer to the same approval is one operation, however often it is sent."""
    approval, member = asks.case.approval, asks.who.member
    return Operation(
        token(kind, about(approval), member.id, *detail.values()),
        kind,
        member.id,
        about(approval),
        "offered",
        {**detail, "reason": asks.reason, "identity": asks.identity},
        now,
    )


async def approval_now(bot: Bot, asks: Asks) -> Approval:
    """The approval as it is now, as the person sees it. Raises Gone."""
    known = asks.case.approval
    return (await _found(bot, asks.acting.pipelines, ApprovalOf(known.ref, known.id)))[1]


async def _found(bot: Bot, pipelines: Pipelines, reference: ApprovalOf) -> tuple[Run, Approval]:
    run = await read(bot.pipelines, reference.ref)
    for approval in await pipelines.approvals(run):
        if approval.id == reference.approval_id:
            return run, approval
    raise Gone(f"{run.number} has no such approval any more. `/approve` shows what waits now.")


async def comment_of(bot: Bot, asks: Asks) -> str:
    """What Azure DevOps keeps with the answer: the reason, who agreed before, who it was in Slack, and where."""
    approval, member = asks.case.approval, asks.who.member
    agreed = [f"agreed before: {vote.by}: {vote.reason}" for vote in asks.case.votes if vote.by != member.id]
    ts = await bot.board.where(asks.case.model.channel, card_of(approval))
    try:
        where = [await bot.chat.permalink(asks.case.model.channel, ts)] if ts else []
    except OutsideError:
        where = []  # a comfort, not a condition
    return "\n".join((asks.reason, *agreed, f"decided in Slack by {member.name} ({member.id})", *where))
