"""Locks and broken glass: who keeps everything away from an environment, and how two people get past it, seen by everybody."""

from __future__ import annotations

from dataclasses import replace

from bot.core.approvals import Allowed, ApprovalState, Decision, Denied
from bot.core.audit import Entry
from bot.core.deciding import GLASS_LASTS
from bot.core.policy import belongs, in_channel, may, model_of
from bot.core.references import Ref, Thing, token
from bot.core.runs import called
from bot.core.team import Environment, Model, Right
from bot.messages.barriers import broken_card, glass_card
from bot.messages.kit import Message, Reply
from bot.messages.private import note, refusal, wrong_channel
from bot.ports import Bot, Operation
from bot.routing import Click, Request, Router, Usage
from handlers.guarding import lock_of
from handlers.showing import read

router = Router()

REASON = 300  # characters


@router.command("lock", "<environment> <reason>")
async def lock(bot: Bot, request: Request) -> Reply:
    """Keep everything away from an environment until somebody unlocks it."""
    environment, reason = _environment(bot, request), " ".join(request.words[1:]).strip()
    if not reason or len(reason) > REASON:
        raise Usage(f"Say why, in {REASON} characters at most: it is what people are told.")
    denied = await _may(bot, request, Right.LOCK, _entry(request, "lock", environment, reason))
    if denied is not None:
        return denied
    held = await lock_of(bot, environment)
    if held is not None:
        return note(f"{environment.name} is locked already, since {held.since:%Y-%m-%d %H:%M} UTC: {held.reason}")
    made = Operation(token("lock", request.id), "lock", request.person, environment.name, "held", {"reason": reason}, bot.now())
    await bot.store.offer(made)
    return note(f"{environment.name} is locked. Nobody can approve anything for it until `/{bot.team.prefix} unlock {environment.name}`.")


@router.command("unlock", "<environment>")
async def unlock(bot: Bot, request: Request) -> Reply:
    """Let approvals for an environment through again."""
    environment = _environment(bot, request)
    denied = await _may(bot, request, Right.LOCK, _entry(request, "unlock", environment))
    if denied is not None:
        return denied
    held = [one for one in await bot.store.operations_of("lock", environment.name) if one.state == "held"]
    for one in held:
        await bot.store.advance(one.id, of=("held",), to="released", result=request.person)
    return note(f"{environment.name} is unlocked." if held else f"{environment.name} is not locked.")


@router.command("breakglass", "<run> <reason>")
async def break_glass(bot: Bot, request: Request) -> Reply:
    """Ask a second person to let one run past locks, freezes and the number of approvers, for an hour."""
    match request.words:
        case (word, *rest) if (ref := Ref.named(word)) is not None and rest:
            run, reason = await read(bot.pipelines, ref), " ".join(rest)[:REASON]
        case _:
            raise Usage("Name one run by its number, or a release such as release/12, and say why.")
    model = model_of(bot.team, run)
    if model is None:
        return note(f"{called(run, first=True)} belongs to no model of this team.")
    if not in_channel(model, request.channel):
        return wrong_channel(model)
    waiting = [one for one in await bot.pipelines.approvals(run) if one.state is ApprovalState.PENDING]
    environment = next((found for one in waiting if (found := belongs(bot.team, one)) is not None), None)
    if environment is None:
        return note(f"{called(run, first=True)} does not wait for approval.")
    subject, detail = f"{run.ref}/{environment.name}", {"reason": reason, "model": model.name}
    entry = Entry(request.person, "ask to break the glass", subject, Allowed(), why=reason, model=model.name)
    denied = await _may(bot, request, Right.BREAK_GLASS, entry, model)
    if denied is not None:
        return denied
    made = Operation(token("glass", request.id), "glass", request.person, subject, "asked", detail, bot.now())
    operation = await bot.store.offer(made)
    card = glass_card(operation.id, run, environment, request.person, reason)
    await bot.board.show(model.channel, f"{subject}/glass/{operation.id}", card)
    return note("Asked in the channel: a second person has to confirm.")


@router.click("glass_confirm")
async def confirm_glass(bot: Bot, click: Click) -> Reply:
    """A second person lets the run past."""
    operation = await bot.store.operation(click.value)
    if operation is None or operation.kind != "glass":
        return note("This is not known here.")
    thing, number, name = operation.subject.split("/")
    environment, model = bot.team.environments.get(name), bot.team.models.get(operation.detail["model"])
    if environment is None or model is None:
        return note(f"{name} or {operation.detail['model']} is not in callboard.toml any more.")
    reason = operation.detail["reason"]
    decision = _second(bot, operation, click.person)
    if not isinstance(decision, Denied):
        decision = may(bot.team, Right.BREAK_GLASS, await bot.chat.member(click.person), model)
    if isinstance(decision, Denied):
        await bot.store.record(Entry(click.person, "break the glass", operation.subject, decision, model=model.name, why=reason))
        return refusal(decision, bot.team.may(Right.BREAK_GLASS, model))
    until = bot.now() + GLASS_LASTS
    if not await bot.store.advance(operation.id, of=("asked",), to="open", result=f"{click.person} {until.isoformat()}"):
        return note("Somebody else has confirmed this already.")
    after = {"first": operation.person, "second": click.person, "until": until.isoformat()}
    await bot.store.record(Entry(click.person, "break the glass", operation.subject, decision, model=model.name, why=reason, after=after))
    run = await read(bot.pipelines, Ref(Thing(thing), int(number)))
    card = broken_card(run, environment, (operation.person, click.person), reason, until)
    await bot.board.show(model.channel, f"{operation.subject}/glass/{operation.id}", card)
    return note(f"The glass is broken for {called(run)}, until {until:%H:%M} UTC. Those who may approve still have to approve.")


def _second(bot: Bot, operation: Operation, person: str) -> Decision:
    """Somebody else, and in time."""
    if operation.person == person:
        return Denied("You asked for this yourself: a second person has to confirm.")
    if operation.state == "asked" and bot.now() - operation.created > GLASS_LASTS:
        return Denied("This was asked for more than an hour ago. Ask again.")
    return Allowed()


def _environment(bot: Bot, request: Request) -> Environment:
    name = request.words[0] if request.words else ""
    environment = bot.team.environments.get(name)
    if environment is None or not environment.needs_approval:
        known = ", ".join(one.name for one in bot.team.environments.values() if one.needs_approval) or "none"
        raise Usage(f"Name an environment that needs approval: {known}.")
    return environment


async def _may(bot: Bot, request: Request, right: Right, entry: Entry, model: Model | None = None) -> Message | None:
    """The refusal; on record either way."""
    decision = may(bot.team, right, await bot.chat.member(request.person), model)
    await bot.store.record(replace(entry, decision=decision))
    return refusal(decision, bot.team.may(right, model)) if isinstance(decision, Denied) else None


def _entry(request: Request, action: str, environment: Environment, reason: str = "") -> Entry:
    return Entry(request.person, action, f"environment/{environment.name}", Allowed(), why=reason)
