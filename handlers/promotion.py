"""`/promote`: a registered version is offered with its facts, and brought on its way to Prod once somebody confirms it."""

from __future__ import annotations

from bot.core.models import ModelVersion, champion_of
from bot.core.policy import in_channel
from bot.messages.kit import Reply
from bot.messages.offers import promote_offer
from bot.messages.private import no_such_model, no_such_version, note, wrong_channel
from bot.ports import Bot
from bot.routing import Click, Request, Router, Usage
from handlers.ordering import asks, cancel, confirm, offer

router = Router()


@router.command("promote", "<model> [version]")
async def promote(bot: Bot, request: Request) -> Reply:
    """Bring a registered version (the newest, if none is named) through QA towards Prod."""
    if (refused := await asks(bot, "promote", request)) is not None:
        return refused
    match request.words:
        case (name,):
            wanted = "latest"
        case (name, wanted):
            pass
        case _:
            raise Usage("Say which model, and at most one version.")
    model = bot.team.models.get(name)
    if model is None:
        return no_such_model(name, tuple(bot.team.models.values()))
    if not in_channel(model, request.channel):
        return wrong_channel(model)
    versions = await bot.models.versions(name)
    version = _named(versions, wanted)
    if version is None:
        return no_such_version(model, wanted, [one.version for one in versions])
    if version.champion:
        return note(f"{name} version {version.version} is the champion already: it is what Prod serves.")
    detail = {"action": "promote", "version": version.version, "settings": "none"}
    operation = await offer(bot, "promote", request.id, person=request.person, model=model, detail=detail)
    return promote_offer(operation.id, model, version, champion_of(versions))


@router.click("promote_start")
async def started(bot: Bot, click: Click) -> Reply:
    """Start the promotion that was offered."""
    return await confirm(bot, click, "promote")


@router.click("promote_cancel")
async def cancelled(bot: Bot, click: Click) -> Reply:
    """Do not start it."""
    return await cancel(bot, click)


def _named(versions: tuple[ModelVersion, ...], wanted: str) -> ModelVersion | None:
    """The version by its number, also as `v4`; the newest for `latest`."""
    if wanted == "latest":
        return versions[0] if versions else None
    return next((version for version in versions if version.version in {wanted, wanted.removeprefix("v")}), None)
