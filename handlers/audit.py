"""The audit trail, read: the newest lines as an answer, all of them as a CSV that only the person gets."""

from __future__ import annotations

import re

from bot.core.approvals import Allowed
from bot.core.audit import About, Entry, Recorded, Scope, csv_lines
from bot.core.policy import full_member, in_channel
from bot.core.references import Unknown
from bot.messages.audit import LINES, audit_list
from bot.messages.kit import Message, Reply
from bot.messages.private import no_model_here, no_such_model, note, refusal
from bot.ports import Bot, File
from bot.routing import Click, Request, Router, Usage

router = Router()

MOST = 100_000  # lines of a CSV; `python -m bot audit export` has no limit


@router.command("audit", "[run|model|@person]")
async def audit(bot: Bot, request: Request) -> Reply:
    """Show who did what and who was refused, about a run, a model, a person, or this channel's models."""
    about = About.asked(request.words, request.channel)
    if about is None:
        raise Usage("Name a run by its number, release/12, environment/prod, a model, or a person by @name; or none of them.")
    denied = full_member(await bot.chat.member(request.person))
    if denied is not None:
        await bot.store.record(Entry(request.person, "read the audit trail", f"audit/{about}", denied))
        return refusal(denied)
    models = tuple(bot.team.models.values())
    if about.scope is Scope.CHANNEL and not _models(bot, about):
        return no_model_here(models)
    lines = await _lines(bot, about, LINES + 1)
    # One that the team had once is still in the trail.
    if not lines and about.scope is Scope.MODEL and about.name not in bot.team.models:
        return no_such_model(about.name, models)
    return audit_list(about, lines)


@router.click("audit_csv")
async def csv_wanted(bot: Bot, click: Click) -> Message:
    """CSV was pressed: give the person every line, and keep on record that they have them."""
    try:
        about = About.read(click.value)
    except Unknown as error:
        return note(str(error))
    denied = full_member(await bot.chat.member(click.person))
    account = await bot.identities.account(click.person)
    await bot.store.record(Entry(click.person, "export the audit trail", f"audit/{about}", denied or Allowed(), account=account))
    if denied is not None:
        return refusal(denied)
    lines = await _lines(bot, about, MOST)
    name = re.sub(r"[^\w.-]+", "-", f"audit-{about}.csv")
    # Excel takes a file for UTF-8 only with its mark.
    await bot.chat.hand(click.person, File(name, name, "".join(csv_lines(lines)).encode("utf-8-sig")))
    return audit_list(about, lines[: LINES + 1], handed=len(lines))


async def _lines(bot: Bot, about: About, most: int) -> tuple[Recorded, ...]:
    """The newest lines, newest first."""
    match about.scope:
        case Scope.RUN | Scope.RELEASE | Scope.ENVIRONMENT:
            return await bot.store.trail(subject=str(about), limit=most)
        case Scope.PERSON:
            return await bot.store.trail(person=about.name, limit=most)
        case _:
            found = {line.id: line for model in _models(bot, about) for line in await bot.store.trail(model=model, limit=most)}
            return tuple(sorted(found.values(), key=lambda line: line.id, reverse=True)[:most])


def _models(bot: Bot, about: About) -> tuple[str, ...]:
    """The models that are asked about, by name."""
    if about.scope is Scope.MODEL:
        return (about.name,)
    return tuple(model.name for model in bot.team.models.values() if in_channel(model, about.name))
