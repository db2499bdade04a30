"""What waits for one person's decision, in whatever channel. No feature: features call it instead of each other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace

from bot.core.approvals import Answer, Approval, Denied
from bot.core.deciding import Case, Decider, may_decide
from bot.core.errors import Gone, OutsideError, Refused, SignInNeeded
from bot.core.models import Delivery
from bot.core.people import Member, Person
from bot.core.policy import belongs, model_of
from bot.core.references import Ref
from bot.core.runs import Run, asker
from bot.core.team import ADO
from bot.core.waiting import Waiting, Yours
from bot.ports import Bot, Pipelines
from handlers.guarding import glass_of, lock_of
from handlers.showing import asked_in_slack, question, read, votes

log = logging.getLogger(__name__)

MOST = 10  # approvals that are shown with all their facts


async def waiting_for(bot: Bot, person: str) -> Waiting:
    """What the person may decide on, oldest first, and how many wait for others.

    They are judged as at a click, by the same rules: what they could only reject at present is theirs, too. Nobody is asked to sign in
    for it; without that only what Slack knows of them counts.
    """
    who, pipelines = await decider(bot, await bot.chat.member(person))
    cases = await _cases(bot, await bot.pipelines.pending_approvals())
    seen = await asyncio.gather(*(_seen_by(pipelines, case) for case in cases if _may(bot, who, case)))
    mine = sorted((case for case in seen if case is not None and _may(bot, who, case)), key=lambda case: case.approval.created)
    yours = await asyncio.gather(*(_yours(bot, who, case) for case in mine[:MOST]))
    return Waiting(tuple(yours), len(mine) - len(yours), len(cases) - len(mine))


async def decider(bot: Bot, member: Member) -> tuple[Decider, Pipelines | None]:
    """The person as they can be known without asking them anything, and Azure DevOps as they see it, where they have signed in."""
    stranger = Decider(member, Person(member.name, member.email))
    if not bot.team.service_identity and await bot.identities.account(member.id) is None:
        return stranger, None
    try:
        acting = await bot.identities.acting(member.id)
        if any(name.startswith(ADO) for name in bot.team.named()):
            member = replace(member, ado_groups=await bot.pipelines.groups_of(acting.me))
    except OutsideError as error:
        log.info("What waits is listed without what Azure DevOps knows of %s: %s", member.id, error)
        return stranger, None
    return Decider(member, acting.me, acting.account), acting.pipelines


async def _cases(bot: Bot, pending: Iterable[Approval]) -> list[Case]:
    """What is decided on in Slack, with just enough to tell whose it is."""
    ours = [(approval, environment) for approval in pending if (environment := belongs(bot.team, approval)) is not None]
    refs = list(dict.fromkeys(approval.ref for approval, _ in ours))
    runs = dict(zip(refs, await asyncio.gather(*(_run(bot, ref) for ref in refs)), strict=True))
    cases = []
    for approval, environment in ours:
        run = runs[approval.ref]
        model = model_of(bot.team, run) if run is not None else None
        if run is not None and model is not None and not run.state.finished:
            asked, agreed = asker(run, await asked_in_slack(bot, run)), await votes(bot, approval)
            # As the bot reads it, it says nothing about whether somebody else may answer.
            cases.append(Case(run, model, environment, replace(approval, mine=None), Delivery(), asked, votes=agreed))
    return cases


async def _run(bot: Bot, ref: Ref) -> Run | None:
    try:
        return await read(bot.pipelines, ref)
    except Gone:
        return None


async def _seen_by(pipelines: Pipelines | None, case: Case) -> Case | None:
    """The case with the approval as the person sees it; None where they see it no longer."""
    if pipelines is None:
        return case
    try:
        found = [one for one in await pipelines.approvals(case.run) if one.id == case.approval.id]
    except SignInNeeded:
        return case
    except (Gone, Refused):
        return None
    return replace(case, approval=found[0]) if found else None


def _may(bot: Bot, who: Decider, case: Case) -> bool:
    """Whether they may answer at all, and have not yet: a no needs less than a yes."""
    agreed = any(vote.by == who.member.id for vote in case.votes)
    return not agreed and not isinstance(may_decide(who, case, Answer.REJECT, bot.now()), Denied)


async def _yours(bot: Bot, who: Decider, case: Case) -> Yours:
    """All facts of it, and what keeps it from being approved."""
    whole = await question(bot, case.run, case.model, case.approval, case.environment)
    whole = replace(whole, lock=await lock_of(bot, case.environment), glass=await glass_of(bot, case.run.ref, case.environment))
    decision = may_decide(who, whole, Answer.APPROVE, bot.now())
    return Yours(whole, decision.reason if isinstance(decision, Denied) else "")
