"""The page's "merge a change": new settings of a model's candidates, written into callboard.toml, all else as it is. Pure."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from typing import Any

FILE = "callboard.toml"

Settings = dict[str, dict[str, float | int]]


class BadSettings(Exception):
    """The settings cannot be written; the message says which and why."""


def candidates(text: str) -> dict[str, Settings]:
    """The candidates' settings of every model: model, algorithm, name."""
    models: Mapping[str, Any] = _parsed(text).get("models", {})
    return {
        model: {
            algorithm: {name: value for name, value in settings.items() if isinstance(value, int | float)}
            for algorithm, settings in table.get("candidates", {}).items()
        }
        for model, table in models.items()
    }


def change(text: str, model: str, wanted: Mapping[tuple[str, str], str]) -> str:
    """The file's text with these settings, by (algorithm, name). Raises BadSettings."""
    present = candidates(text).get(model)
    if present is None:
        raise BadSettings(f"{FILE} has no model {model}.")
    for (algorithm, name), value in wanted.items():
        if name not in present.get(algorithm, {}):
            raise BadSettings(f"{model} has no setting {name} of {algorithm}.")
        present[algorithm][name] = _number(name, value, present[algorithm][name])
    before, header, body = text.partition(f"[models.{model}.candidates]")
    section, after = _split_section(body)
    for algorithm, settings in present.items():
        table = "{ " + ", ".join(f"{name} = {value}" for name, value in settings.items()) + " }"
        section = re.sub(rf"(?m)^({re.escape(algorithm)}\s*=\s*)\{{[^}}\n]*\}}", rf"\g<1>{table}", section)
    changed = before + header + section + after
    if candidates(changed).get(model) != present:
        raise BadSettings(f"The candidates of {model} are not written as one line each in {FILE}: change the file itself.")
    return changed


def _split_section(body: str) -> tuple[str, str]:
    """The rest of a table, and what follows it."""
    found = re.search(r"(?m)^\[", body)
    end = found.start() if found else len(body)
    return body[:end], body[end:]


def _number(name: str, text: str, like: float) -> float | int:
    wrong = BadSettings(f"{name} must be {'a whole number' if isinstance(like, int) else 'a number'}, not {text!r}.")
    try:
        value = int(text) if isinstance(like, int) else float(text)
    except ValueError:
        raise wrong from None
    if not math.isfinite(value):
        raise wrong
    return value


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        raise BadSettings(f"{FILE} on main is not valid TOML: {wrong}") from None
