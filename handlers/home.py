"""The app's own page: what waits for whoever looks at it, their runs, what is served where, and what is locked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Sequence
from typing import TypeVar

from bot.core import delivery
from bot.core.deciding import Decider, Lock, asked_by
from bot.core.errors import OutsideError
from bot.core.policy import full_member, model_of
from bot.core.references import Thing
from bot.core.runs import Run, State, asker
from bot.core.team import Environment, Model
from bot.messages.home import Overview, Served, closed_page, home_page
from bot.messages.kit import Home
from bot.ports import Bot
from bot.routing import Router, Visit
from handlers.guarding import lock_of
from handlers.looking import DAYS, recent, versions_of, whole
from handlers.showing import asked_in_slack
from handlers.waiting import decider, waiting_for

log = logging.getLogger(__name__)
router = Router()
T = TypeVar("T")

WHOLE = 5  # of a model's newest runs are read whole: only so they tell where they have been deployed, and for whom they run


@router.home
async def home(bot: Bot, visit: Visit) -> Home:
    """Everything a person wants to know when they come; nothing for those who are no full members. Raises Gone, NotNow."""
    member = await bot.chat.member(visit.person)
    denied = full_member(member)
    if denied is not None:
        return closed_page(denied)
    who, _ = await decider(bot, member)
    models = tuple(bot.team.models.values())
    waiting, lists = await asyncio.gather(
        _known("What waits", waiting_for(bot, visit.person)),
        asyncio.gather(*(_known(f"What {model.name} runs", _newest(bot, model)) for model in models)),
    )
    found = [run for runs in lists for run in runs or ()]
    return home_page(
        Overview(
            now=bot.now(),
            days=DAYS,
            prefix=bot.team.prefix,
            waiting=waiting,
            runs=await _own(bot, who, found) if None not in lists else None,
            models=tuple(await asyncio.gather(*(_served(bot, *one) for one in zip(models, lists, strict=True)))),
            locks=await _locks(bot),
            account=await bot.identities.account(visit.person),
            service=bot.team.service_identity,
        )
    )


async def _known(what: str, asked: Awaitable[T]) -> T | None:
    """The answer; None where the outside does not give it now: the rest of the page is shown all the same."""
    try:
        return await asked
    except OutsideError as error:
        log.warning("%s could not be read: %s", what, error)
        return None


async def _newest(bot: Bot, model: Model) -> tuple[Run, ...]:
    """The model's runs and releases of the last days, newest first."""
    found = await recent(bot, model)
    read = [run for run in await whole(bot, found[:WHOLE]) if model_of(bot.team, run) == model]
    return (*read, *found[WHOLE:])


async def _own(bot: Bot, who: Decider, found: Iterable[Run]) -> tuple[Run, ...]:
    """Those that the person has asked for, newest first."""
    own = [run for run in found if asked_by(who, run, asker(run, await asked_in_slack(bot, run)))]
    return tuple(sorted(own, key=lambda run: run.created, reverse=True))


async def _served(bot: Bot, model: Model, runs: Sequence[Run] | None) -> Served:
    """What each environment serves of the model: where people approve the champion, elsewhere what was deployed last."""
    environments = bot.team.environments.values()
    elsewhere = {}
    for environment in environments:
        if not environment.needs_approval and runs is not None:
            version = await _known(f"What {environment.name} serves", _deployed(bot, model, environment, runs))
            if version is not None:
                elsewhere[environment.name] = version
    guarded = tuple(one.name for one in environments if one.needs_approval)
    return Served(model, await versions_of(bot, model), elsewhere, guarded)


async def _deployed(bot: Bot, model: Model, environment: Environment, runs: Sequence[Run]) -> str | None:
    """The version that the newest of the runs has deployed there; None where none has, or its delivery cannot be read."""
    for run in runs:
        stage, source = run.stage(environment.stage_of(run.thing)), run.source if run.thing is Thing.RELEASE else run.id
        if stage is None or stage.state is not State.SUCCEEDED or source is None:
            continue
        content = delivery.pick(await bot.pipelines.artifact(source, "delivery"), "model.json")
        if content is None:
            return None
        try:
            version = delivery.version(content)
        except delivery.Unreadable as error:
            log.error("What %s serves: %s", environment.name, error)  # noqa: TRY400 the sentence says it all
            return None
        return version.version if version.name == model.name else None
    return None


async def _locks(bot: Bot) -> tuple[Lock, ...]:
    found = [await lock_of(bot, one) for one in bot.team.environments.values()]
    return tuple(lock for lock in found if lock is not None)
