"""Looking: models and their versions, recent runs, how things stand. Nothing here changes anything."""

from __future__ import annotations

import logging

from bot.core.approvals import Approval
from bot.core.errors import OutsideError
from bot.core.policy import belongs, in_channel, model_of
from bot.core.runs import Run, settled
from bot.core.team import Model
from bot.messages.kit import Message, Reply
from bot.messages.lists import RUNS, Standing, models_list, runs_list, status_card, versions_list
from bot.messages.private import no_model_here, no_such_model, wrong_channel
from bot.ports import Bot
from bot.routing import Request, Router, Usage
from handlers.looking import DAYS, recent, versions_of, whole
from handlers.showing import read

log = logging.getLogger(__name__)
router = Router()


@router.command("models", "[model]")
async def models(bot: Bot, request: Request) -> Reply:
    """List the models, or the registered versions of one."""
    if not request.words:
        return models_list([Standing(model, await versions_of(bot, model)) for model in bot.team.models.values()])
    named = _named(bot, request)
    return named if isinstance(named, Message) else versions_list(named, await bot.models.versions(named.name))


@router.command("runs", "[model]")
async def runs(bot: Bot, request: Request) -> Reply:
    """List the runs and releases of the last days."""
    chosen = _chosen(bot, request)
    if isinstance(chosen, Message):
        return chosen
    found = [run for model in chosen for run in await recent(bot, model)]
    found.sort(key=lambda run: run.created, reverse=True)
    return runs_list([*await whole(bot, found[:RUNS]), *found[RUNS:]], DAYS)


@router.command("status", "[model]")
async def status(bot: Bot, request: Request) -> Reply:
    """Say what Prod serves, what runs and what waits."""
    chosen = _chosen(bot, request)
    if isinstance(chosen, Message):
        return chosen
    standings = []
    for model in chosen:
        versions = await versions_of(bot, model)
        try:
            active = [run for run in await recent(bot, model) if not settled(run)]
            found: tuple[Run, ...] | None = tuple(await whole(bot, active[:RUNS])) + tuple(active[RUNS:])
            waiting = await _waiting(bot, model)
        except OutsideError as error:
            log.warning("The runs of %s could not be read: %s", model.name, error)
            found, waiting = None, ()
        standings.append(Standing(model, versions, found, waiting))
    return status_card(standings)


def _chosen(bot: Bot, request: Request) -> tuple[Model, ...] | Message:
    """The model that was named, else those of the channel."""
    if request.words:
        named = _named(bot, request)
        return named if isinstance(named, Message) else (named,)
    here = tuple(model for model in bot.team.models.values() if in_channel(model, request.channel))
    return here or no_model_here(tuple(bot.team.models.values()))


def _named(bot: Bot, request: Request) -> Model | Message:
    if len(request.words) > 1:
        raise Usage("Name one model, or none.")
    model = bot.team.models.get(request.words[0])
    if model is None:
        return no_such_model(request.words[0], tuple(bot.team.models.values()))
    return model if in_channel(model, request.channel) else wrong_channel(model)


async def _waiting(bot: Bot, model: Model) -> tuple[Approval, ...]:
    pending = [approval for approval in await bot.pipelines.pending_approvals() if belongs(bot.team, approval) is not None]
    return tuple([approval for approval in pending if model_of(bot.team, await read(bot.pipelines, approval.ref)) == model])
