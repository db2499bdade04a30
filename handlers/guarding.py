"""What keeps everything away from an environment, and what opens it all the same. No feature: features call it instead of each other."""

from __future__ import annotations

from datetime import datetime

from bot.core.deciding import Glass, Lock
from bot.core.references import Ref
from bot.core.team import Environment
from bot.ports import Bot


async def lock_of(bot: Bot, environment: Environment) -> Lock | None:
    """The lock that is on the environment."""
    for held in await bot.store.operations_of("lock", environment.name):
        if held.state == "held":
            return Lock(environment.name, held.person, held.detail.get("reason", ""), held.created)
    return None


async def glass_of(bot: Bot, ref: Ref, environment: Environment) -> Glass | None:
    """What two people have opened for the run or release, while it is open."""
    for broken in await bot.store.operations_of("glass", f"{ref}/{environment.name}"):
        if broken.state == "open":
            second, _, until = broken.result.partition(" ")
            glass = Glass(broken.person, second, broken.detail.get("reason", ""), datetime.fromisoformat(until))
            if bot.now() < glass.until:
                return glass
    return None
