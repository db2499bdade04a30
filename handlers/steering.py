"""Steering a run that exists: stop it, run a failed stage again, bring Prod back to what it served before. Each is offered first."""

from __future__ import annotations

from dataclasses import replace

from bot.core import delivery
from bot.core.approvals import Allowed, Denied
from bot.core.audit import Entry
from bot.core.errors import Uncertain
from bot.core.models import champion_of
from bot.core.policy import in_channel, may, model_of
from bot.core.references import token
from bot.core.runs import Run, State, failed_stages
from bot.core.team import Environment, Model, Right
from bot.messages.kit import Message, Reply
from bot.messages.offers import Deed, steer_offer
from bot.messages.private import no_such_model, note, refusal, wrong_channel
from bot.ports import Acting, Bot, Operation
from bot.routing import Click, Request, Router, Usage
from handlers.once import once
from handlers.ordering import OFFER, cancel
from handlers.showing import refresh

router = Router()

RIGHTS = {"cancel": Right.RETRAIN, "rerun": Right.RETRAIN, "rollback": Right.ROLLBACK}


@router.command("cancel", "<run>")
async def cancel_run(bot: Bot, request: Request) -> Reply:
    """Stop a run that is under way."""
    run, model = await _named(bot, request)
    if isinstance(model, Message):
        return model
    if run.state.finished:
        return note(f"Run {run.number} has ended already.")
    return await _offer(bot, request, Deed("cancel", run, model))


@router.command("rerun", "<run>")
async def rerun(bot: Bot, request: Request) -> Reply:
    """Run the failed stage of a run again."""
    run, model = await _named(bot, request)
    if isinstance(model, Message):
        return model
    failed = failed_stages(run)
    if not failed:
        return note(f"No stage of run {run.number} has failed.")
    return await _offer(bot, request, Deed("rerun", run, model, failed[0].name))


@router.command("rollback", "<model> [run]")
async def rollback(bot: Bot, request: Request) -> Reply:
    """Bring Prod back to what an earlier run has deployed, after an approval."""
    match request.words:
        case (name,):
            wanted = None
        case (name, number) if _is_number(number):
            wanted = int(number.removeprefix("#"))
        case _:
            raise Usage("Say which model, and at most one run.")
    model = bot.team.models.get(name)
    if model is None:
        return no_such_model(name, tuple(bot.team.models.values()))
    if not in_channel(model, request.channel):
        return wrong_channel(model)
    environment = next((one for one in bot.team.environments.values() if one.needs_approval), None)
    if environment is None:
        return note("callboard.toml lists no environment that needs approval, so there is nothing to roll back.")
    target = await _target(bot, model, environment, wanted)
    if isinstance(target, Message):
        return target
    return await _offer(bot, request, target)


@router.click("steer_start")
async def started(bot: Bot, click: Click) -> Reply:
    """Do what was offered."""
    operation = await bot.store.operation(click.value)
    if operation is None or operation.kind not in RIGHTS:
        return note("This offer is not known here. Give the command again.")
    if operation.person != click.person:
        return refusal(Denied("This was offered to somebody else. Give the command yourself."))
    if operation.state == "offered" and bot.now() - operation.created > OFFER:
        return note("This offer is more than an hour old. Give the command again.")
    run = await bot.pipelines.run(int(operation.subject.partition("/")[2]))
    model = model_of(bot.team, run)
    if model is None:
        return note(f"Run {run.number} belongs to no model of this team any more.")
    denied = await _may(bot, operation.person, operation.kind, run, model)
    if denied is not None:
        return denied
    acting = await bot.identities.acting(operation.person)
    return await _do(bot, acting, operation, run, model)


@router.click("steer_cancel")
async def cancelled(bot: Bot, click: Click) -> Reply:
    """Do nothing."""
    return await cancel(bot, click)


async def _named(bot: Bot, request: Request) -> tuple[Run, Model | Message]:
    """The run that was named and its model, or why not. Raises Usage and Gone."""
    match request.words:
        case (word,) if _is_number(word):
            run = await bot.pipelines.run(int(word.removeprefix("#")))
        case _:
            raise Usage("Name one run by its number in Azure DevOps' address, such as 480.")
    model = model_of(bot.team, run)
    if model is None:
        return run, note(f"Run {run.id} belongs to no model of this team.")
    return run, model if in_channel(model, request.channel) else wrong_channel(model)


def _is_number(word: str) -> bool:
    return word.removeprefix("#").isdecimal() and len(word) < 18


async def _target(bot: Bot, model: Model, environment: Environment, wanted: int | None) -> Deed | Message:
    """The newest run that has deployed something else than what is served now, or the one that was named."""
    serving = champion_of(await bot.models.versions(model.name))
    for run_id in await bot.pipelines.deployed(model.pipeline_id, environment.stage, 2**31 - 1):
        if wanted is not None and run_id != wanted:
            continue
        content = delivery.pick(await bot.pipelines.artifact(run_id, "delivery"), "model.json")
        if content is None:
            continue
        version = delivery.version(content)
        if version.name == model.name and (serving is None or version.version != serving.version):
            return Deed("rollback", await bot.pipelines.run(run_id), model, environment.stage, version, serving)
    if wanted is not None:
        return note(f"Run {wanted} has not deployed another version of {model.name} to {environment.name}, so it cannot be rolled back to.")
    return note(f"No earlier run has deployed another version of {model.name} to {environment.name}.")


async def _may(bot: Bot, person: str, kind: str, run: Run, model: Model) -> Message | None:
    """The refusal, on record."""
    decision = may(bot.team, RIGHTS[kind], await bot.chat.member(person), model)
    if not isinstance(decision, Denied):
        return None
    await bot.store.record(Entry(person, kind, str(run.ref), decision, model=model.name))
    return refusal(decision, bot.team.may(RIGHTS[kind], model))


async def _offer(bot: Bot, request: Request, deed: Deed) -> Message:
    """Remember what is offered, and ask; the same request makes the same offer."""
    run, kind = deed.run, deed.kind
    denied = await _may(bot, request.person, kind, run, deed.model)
    if denied is not None:
        return denied
    await bot.store.record(Entry(request.person, f"ask to {kind}", str(run.ref), Allowed(), model=deed.model.name))
    stage = run.stage(deed.stage)
    detail = {"stage": deed.stage, "attempt": str(stage.attempt if stage else 0)}
    made = Operation(token(kind, request.id), kind, request.person, str(run.ref), "offered", detail, bot.now())
    return steer_offer((await bot.store.offer(made)).id, replace(deed, stage=stage.title if stage else ""))


async def _do(bot: Bot, acting: Acting, operation: Operation, run: Run, model: Model) -> Message:
    """Do it once, under the person's own name, and show what came of it."""
    stage, attempt = operation.detail["stage"], int(operation.detail["attempt"])
    entry = Entry(operation.person, operation.kind, str(run.ref), Allowed(), model=model.name, account=acting.account)
    await bot.store.record(entry)

    async def find() -> Run | None:
        now = await bot.pipelines.run(run.id)
        return now if _shows(now, operation.kind, stage, attempt) else None

    async def do() -> Run:
        if operation.kind == "cancel":
            await acting.pipelines.cancel(run.id)
        else:
            await acting.pipelines.retry(run.id, stage, everything=operation.kind == "rollback")
        return await bot.pipelines.run(run.id)

    try:
        outcome = await once(bot, operation, find=find, do=do)
    except Uncertain as error:
        return note(f"{error} Nothing shows that it was done. Press Start again: that looks first.")
    if not outcome.again:
        await bot.store.record(replace(entry, action=f"{operation.kind} sent", after={"state": outcome.value.state.value}))
    await refresh(bot, run.ref)
    return note(_SAID[operation.kind].format(run=run.number))


def _shows(now: Run, kind: str, stage: str, attempt: int) -> bool:
    """Whether the run shows that it was done: it ends, or the stage is at a later attempt."""
    if kind == "cancel":
        return now.state.finished or now.state is State.CANCELING
    again = now.stage(stage)
    return again is not None and again.attempt > attempt


_SAID = {
    "cancel": "Run {run} is being stopped.",
    "rerun": "The failed stage of run {run} runs again.",
    "rollback": "Run {run} is asked to deploy again. Its approval comes as a new message.",
}
