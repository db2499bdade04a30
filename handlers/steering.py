"""Steering a run that exists: stop it, run a failed stage again, bring Prod back to what it served before. Each is offered first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from bot.core import delivery
from bot.core.approvals import Allowed, Denied
from bot.core.audit import Entry
from bot.core.errors import Uncertain
from bot.core.models import ModelVersion, champion_of
from bot.core.policy import in_channel, may, model_of
from bot.core.references import Ref, Thing, token
from bot.core.runs import Run, State, called, failed_stages
from bot.core.team import Environment, Model, Right
from bot.messages.kit import Message, Reply
from bot.messages.offers import Deed, steer_offer
from bot.messages.private import no_such_model, note, refusal, wrong_channel
from bot.ports import Acting, Bot, Operation
from bot.routing import Click, Request, Router, Usage
from handlers.once import once
from handlers.ordering import OFFER, cancel
from handlers.showing import handed_on, read, refresh

router = Router()

RIGHTS = {"cancel": Right.RETRAIN, "rerun": Right.RETRAIN, "rollback": Right.ROLLBACK}


@router.command("cancel", "<run>")
async def cancel_run(bot: Bot, request: Request) -> Reply:
    """Stop a run that is under way."""
    run, model = await _named(bot, request)
    if isinstance(model, Message):
        return model
    if run.state.finished:
        return note(f"{called(run, first=True)} has ended already.")
    if run.thing is Thing.RELEASE:
        return note(f"{called(run, first=True)} is not stopped here: cancel its deployment in Azure DevOps.")
    return await _offer(bot, request, Deed("cancel", run, model))


@router.command("rerun", "<run>")
async def rerun(bot: Bot, request: Request) -> Reply:
    """Run the failed stage of a run or a release again."""
    run, model = await _named(bot, request)
    if isinstance(model, Message):
        return model
    failed = failed_stages(run)
    if not failed:
        return note(f"No stage of {called(run)} has failed.")
    return await _offer(bot, request, Deed("rerun", run, model, failed[0].name))


@router.command("rollback", "<model> [run]")
async def rollback(bot: Bot, request: Request) -> Reply:
    """Bring Prod back to what an earlier run or release has deployed, after an approval."""
    match request.words:
        case (name,):
            wanted = None
        case (name, word) if (wanted := Ref.named(word)) is not None:
            pass
        case _:
            raise Usage("Say which model, and at most one run or release.")
    model = bot.team.models.get(name)
    if model is None:
        return no_such_model(name, tuple(bot.team.models.values()))
    if not in_channel(model, request.channel):
        return wrong_channel(model)
    decision = may(bot.team, Right.ROLLBACK, await bot.chat.member(request.person), model)
    if isinstance(decision, Denied):
        await bot.store.record(Entry(request.person, "ask to rollback", f"model/{name}", decision, model=name))
        return refusal(decision, bot.team.may(Right.ROLLBACK, model))
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
    thing, _, number = operation.subject.partition("/")
    run = await read(bot.pipelines, Ref(Thing(thing), int(number)))
    model = model_of(bot.team, run)
    if model is None:
        return note(f"{called(run, first=True)} belongs to no model of this team any more.")
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
        case (word,) if (ref := Ref.named(word)) is not None:
            run = await read(bot.pipelines, ref)
        case _:
            raise Usage("Name one run by its number in Azure DevOps' address, such as 480, or a release such as release/12.")
    model = model_of(bot.team, run)
    if model is None:
        return run, note(f"{called(run, first=True)} belongs to no model of this team.")
    return run, model if in_channel(model, request.channel) else wrong_channel(model)


async def _target(bot: Bot, model: Model, environment: Environment, wanted: Ref | None) -> Deed | Message:
    """What has last deployed something else than is served now, a run or a release, or the one that was named."""
    serving = champion_of(await bot.models.versions(model.name))
    found = [await _last(bot, model, environment, refs, serving) for refs in await _deployed(bot, model, environment, wanted)]
    targets = [deed for deed in found if deed is not None]
    if targets:
        return max(targets, key=_deployed_at)
    if wanted is not None:
        return note(
            f"{wanted.thing.value.capitalize()} {wanted.id} has not deployed another version of {model.name} to {environment.name}, "
            "so it cannot be rolled back to."
        )
    return note(f"No earlier run has deployed another version of {model.name} to {environment.name}.")


async def _last(bot: Bot, model: Model, environment: Environment, refs: Iterable[Ref], serving: ModelVersion | None) -> Deed | None:
    """The first of these that has deployed another version than is served now."""
    for ref in refs:
        run = await read(bot.pipelines, ref)
        content = delivery.pick(await handed_on(bot, run), "model.json")
        if content is None:
            continue
        version = delivery.version(content)
        if version.name == model.name and (serving is None or version.version != serving.version):
            return Deed("rollback", run, model, environment.stage_of(run.thing), version, serving)
    return None


async def _deployed(bot: Bot, model: Model, environment: Environment, wanted: Ref | None) -> tuple[list[Ref], list[Ref]]:
    """The runs and the releases that have been deployed there, each newest first; of them only the one that is wanted, if one is."""
    runs = await bot.pipelines.deployed(model.pipeline_id, environment.stage, 2**31 - 1)
    releases: tuple[int, ...] = ()
    if model.release_id is not None and environment.release_stage:
        releases = await bot.pipelines.redeployable(model.release_id, environment.release_stage, 2**31 - 1)
    return _those(Thing.RUN, runs, wanted), _those(Thing.RELEASE, releases, wanted)


def _those(thing: Thing, numbers: Iterable[int], wanted: Ref | None) -> list[Ref]:
    refs = [Ref(thing, number) for number in numbers]
    return [ref for ref in refs if wanted in {None, ref}]


def _deployed_at(deed: Deed) -> datetime:
    """When it was deployed last."""
    stage = deed.run.stage(deed.stage)
    return stage.finished if stage is not None and stage.finished is not None else deed.run.created


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
        now = await read(bot.pipelines, run.ref)
        return now if _shows(now, operation.kind, stage, attempt) else None

    async def do() -> Run:
        if operation.kind == "cancel":
            await acting.pipelines.cancel(run.id)
        elif run.thing is Thing.RELEASE:
            await acting.pipelines.redeploy(run.id, stage, f"{operation.kind} in Slack by {operation.person}")
        else:
            await acting.pipelines.retry(run.id, stage, everything=operation.kind == "rollback")
        return await read(bot.pipelines, run.ref)

    try:
        outcome = await once(bot, operation, find=find, do=do)
    except Uncertain as error:
        return note(f"{error} Nothing shows that it was done. Press Start again: that looks first.")
    if not outcome.again:
        await bot.store.record(replace(entry, action=f"{operation.kind} sent", after={"state": outcome.value.state.value}))
    await refresh(bot, run.ref)
    return note(_SAID[operation.kind].format(it=called(run, first=operation.kind != "rerun")))


def _shows(now: Run, kind: str, stage: str, attempt: int) -> bool:
    """Whether the run shows that it was done: it ends, or the stage is at a later attempt."""
    if kind == "cancel":
        return now.state.finished or now.state is State.CANCELING
    again = now.stage(stage)
    return again is not None and again.attempt > attempt


_SAID = {
    "cancel": "{it} is being stopped.",
    "rerun": "The failed stage of {it} runs again.",
    "rollback": "{it} is asked to deploy again. Its approval comes as a new message.",
}
