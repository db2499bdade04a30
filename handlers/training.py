"""`/retrain`: a training is offered with its facts, and started once somebody confirms it."""

from __future__ import annotations

from collections.abc import Mapping

from bot.core import parameters
from bot.core.parameters import Mistakes, written
from bot.core.policy import in_channel
from bot.core.team import Model, Team
from bot.messages.kit import Reply
from bot.messages.offers import SETTING, retrain_form, retrain_offer
from bot.messages.private import mistakes, no_model_here, no_such_model, wrong_channel
from bot.ports import Bot
from bot.routing import Click, Request, Router, Submission
from handlers.ordering import asks, cancel, confirm, offer, start

router = Router()


def _form_title(request: Request) -> str | None:
    return None if request.words else "Train a model"


@router.command("retrain", "[model] [name=value ...]", opens=_form_title)
async def retrain(bot: Bot, request: Request) -> Reply:
    """Train a model and compare it with the champion; without words, a form asks for the settings."""
    if (refused := await asks(bot, "retrain", request)) is not None:
        return refused
    models = tuple(bot.team.models.values())
    if not request.words:
        here = [model for model in models if in_channel(model, request.channel)]
        return retrain_form(here) if here else no_model_here(models)
    name, *words = request.words
    model = bot.team.models.get(name)
    if model is None:
        return no_such_model(name, models)
    if not in_channel(model, request.channel):
        return wrong_channel(model)
    settings = parameters.read(model, words)
    if isinstance(settings, Mistakes):
        return mistakes(settings.sentences)
    operation = await offer(bot, "retrain", request.id, person=request.person, model=model, detail=_order(settings))
    return retrain_offer(operation.id, model, settings)


def check(team: Team, submission: Submission) -> Mapping[str, str]:
    """What is wrong in the form, all of it, each beside its input."""
    model = team.models.get(submission.values.get("model", ""))
    if model is None:
        return {"model": "Choose one of the models."}
    settings = _settings(model, submission)
    return {f"{SETTING}{name}": sentence for name, sentence in settings.found} if isinstance(settings, Mistakes) else {}


@router.submit("retrain", check=check)
async def submitted(bot: Bot, submission: Submission) -> Reply:
    """The form was sent off: that is the confirmation."""
    model = bot.team.models.get(submission.values.get("model", ""))
    if model is None:
        return no_such_model(submission.values.get("model", ""), tuple(bot.team.models.values()))
    settings = _settings(model, submission)
    if isinstance(settings, Mistakes):
        return mistakes(settings.sentences)
    operation = await offer(bot, "retrain", submission.id, person=submission.person, model=model, detail=_order(settings))
    return await start(bot, operation)


@router.click("retrain_start")
async def started(bot: Bot, click: Click) -> Reply:
    """Start the training that was offered."""
    return await confirm(bot, click, "retrain")


@router.click("retrain_cancel")
async def cancelled(bot: Bot, click: Click) -> Reply:
    """Do not start it."""
    return await cancel(bot, click)


def _settings(model: Model, submission: Submission) -> Mapping[str, str] | Mistakes:
    """What was filled in; an empty input keeps the default."""
    given = [(name.removeprefix(SETTING), value.strip()) for name, value in submission.values.items() if name.startswith(SETTING)]
    return parameters.check(model, [(name, value) for name, value in given if value])


def _order(settings: Mapping[str, str]) -> Mapping[str, str]:
    """The parameters of the run, by deploy/README.md."""
    return {"action": "train", "version": "latest", "settings": written(settings)}
