"""The app as Slack knows it: its commands, scopes and events, read from its manifest as an installation would.

https://docs.slack.dev/reference/app-manifest
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "deploy" / "bot" / "manifest.json"


@dataclass(frozen=True, slots=True)
class Command:
    """A slash command as Slack offers it while one types."""

    name: str
    description: str
    usage: str
    escapes: bool


@dataclass(frozen=True, slots=True)
class Manifest:
    """What of the manifest decides how Slack treats the app."""

    commands: Mapping[str, Command]
    scopes: frozenset[str]
    events: frozenset[str]
    home: bool  # whether the app has a Home tab


def read(file: Path = FILE) -> Manifest:
    """The manifest in the file."""
    whole: dict[str, Any] = json.loads(file.read_text())
    commands = [
        Command(it["command"], it["description"], it.get("usage_hint", ""), bool(it.get("should_escape")))
        for it in whole["features"].get("slash_commands", [])
    ]
    return Manifest(
        {command.name: command for command in commands},
        frozenset(whole["oauth_config"]["scopes"]["bot"]),
        frozenset(whole["settings"].get("event_subscriptions", {}).get("bot_events", [])),
        bool(whole["features"].get("app_home", {}).get("home_tab_enabled")),
    )
