"""Reads what several features show of models and runs. No feature: features call it instead of each other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import timedelta

from bot.core.errors import OutsideError
from bot.core.models import ModelVersion
from bot.core.policy import model_of
from bot.core.runs import Run
from bot.core.team import Model
from bot.ports import Bot
from handlers.showing import read

log = logging.getLogger(__name__)

DAYS = 7


async def versions_of(bot: Bot, model: Model) -> tuple[ModelVersion, ...] | None:
    """The model's versions; None where Azure ML does not answer."""
    try:
        return await bot.models.versions(model.name)
    except OutsideError as error:
        log.warning("The versions of %s could not be read: %s", model.name, error)
        return None


async def recent(bot: Bot, model: Model) -> tuple[Run, ...]:
    """The model's runs and releases of the last days, newest first; others may share its pipeline."""
    since = bot.now() - timedelta(days=DAYS)
    runs = [run for run in await bot.pipelines.recent(model.pipeline_id, since) if model_of(bot.team, run) == model]
    releases = await bot.pipelines.recent_releases(model.release_id, since) if model.release_id is not None else ()
    return tuple(sorted((*runs, *releases), key=lambda one: one.created, reverse=True))


async def whole(bot: Bot, found: Iterable[Run]) -> list[Run]:
    """The runs with their stages, which alone tell what waits for approval and what kept the champion, and the releases with their runs."""
    return await asyncio.gather(*(read(bot.pipelines, run.ref) for run in found))
