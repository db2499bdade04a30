"""Edge: who people are in Entra, and their tokens for Azure DevOps."""

from __future__ import annotations

from bot.core.people import Account
from bot.ports import Acting, Hands


class ServiceIdentity:
    """`bot.ports.Identities` for teams that cannot let people sign in: everybody works under the bot's own identity.

    Azure DevOps then records the bot; the person stands in the comment and in the audit trail.
    """

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    async def acting(self, _: str) -> Acting:
        """Anybody at work, as the bot."""
        return Acting(self._hands, await self._hands.me())

    async def account(self, _: str) -> Account | None:
        """Nobody is signed in."""
        return None

    async def forget(self, _: str) -> bool:
        """Nobody can be signed out."""
        return False
