"""`/mlops help`: made from the router itself, so it cannot fall behind."""

from __future__ import annotations

from bot.messages.kit import Reply
from bot.messages.lists import help_card
from bot.ports import Bot
from bot.routing import Request, Router

# Slack's own slash commands (deploy/bot/manifest.json); all others go by the prefix, because their names are too common to take.
SHORT = frozenset({"retrain", "promote", "approve"})


def about(router: Router) -> Router:
    """A router with the command that tells what `router` answers to, itself included once it has been taken in."""
    own = Router()

    @own.command("help")
    async def show_help(bot: Bot, _: Request) -> Reply:
        """Say what you can say."""
        commands = sorted(router.commands.values(), key=lambda command: command.name)
        return help_card([(command.name, command.usage, command.help) for command in commands], bot.team.prefix, SHORT)

    return own
