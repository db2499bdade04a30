"""What the bot does, one module per feature: this is the table of contents."""

from __future__ import annotations

from bot.routing import Router

router = Router()
