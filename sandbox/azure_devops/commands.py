"""Logging commands: what a step tells the agent through its output (`##vso[task.setvariable variable=x]v`), and the mask over secrets.

https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_COMMAND = re.compile(r"##vso\[(?P<area>\w+)\.(?P<action>\w+)(?:\s+(?P<properties>[^\]]*))?\](?P<value>.*)", re.DOTALL)
_ESCAPES = (("%3B", ";"), ("%0D", "\r"), ("%0A", "\n"), ("%5D", "]"), ("%AZP25", "%"))


@dataclass(frozen=True, slots=True)
class Command:
    """One command: `name` is "task.setvariable", in small letters as are the names of its properties."""

    name: str
    properties: Mapping[str, str]
    value: str


def parse(line: str) -> Command | None:
    """The command in a line of output, wherever it starts; None for an ordinary line."""
    if not (found := _COMMAND.search(line)):
        return None
    pairs = (pair.partition("=") for pair in (found["properties"] or "").split(";") if "=" in pair)
    return Command(
        name=f"{found['area']}.{found['action']}".lower(),
        properties={name.strip().lower(): _unescape(value.strip()) for name, _, value in pairs},
        value=_unescape(found["value"]),
    )


def mask(text: str, secrets: frozenset[str]) -> str:
    """The text with every secret, and every line of a secret of many lines, as `***`."""
    parts = {part.strip() for secret in secrets for part in (secret, *secret.splitlines())} - {""}
    for part in sorted(parts, key=len, reverse=True):
        text = text.replace(part, "***")
    return text


def _unescape(text: str) -> str:
    for escaped, character in _ESCAPES:
        text = text.replace(escaped, character)
    return text
