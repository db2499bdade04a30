"""Callboard, the bot: what it is. What it does lives in `handlers`."""
