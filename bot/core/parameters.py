"""The settings of a training run, as people type them: `alpha=0.5 trees=200`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bot.core.team import Kind, Model, Parameter

NUMBER = re.compile(r"[+-]?(?:\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})(?:[eE][+-]?\d{1,2})?", re.ASCII)
INTEGER = re.compile(r"[+-]?\d{1,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Mistakes:
    """What is wrong with the settings: all of it at once, each a sentence that says what is possible, by parameter."""

    found: tuple[tuple[str, str], ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What to tell the person."""
        return tuple(sentence for _, sentence in self.found)


def read(model: Model, words: Iterable[str]) -> Mapping[str, str] | Mistakes:
    """The settings in the words of a command, each `name=value`."""
    given: list[tuple[str, str]] = []
    mistakes: list[tuple[str, str]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            mistakes.append((word, f"“{word}” is no setting. Write name=value, such as {_example(model)}."))
        elif name in {known for known, _ in given}:
            mistakes.append((name, f"{name} is given twice."))
        else:
            given.append((name, value))
    checked = check(model, given)
    if isinstance(checked, Mistakes) or mistakes:
        return Mistakes((*mistakes, *(checked.found if isinstance(checked, Mistakes) else ())))
    return checked


def check(model: Model, given: Iterable[tuple[str, str]]) -> Mapping[str, str] | Mistakes:
    """The settings, if the model accepts every one of them."""
    known = {parameter.name: parameter for parameter in model.parameters}
    settings: dict[str, str] = {}
    mistakes: list[tuple[str, str]] = []
    for name, value in given:
        if name not in known:
            possible = ", ".join(known) or "none at all"
            mistakes.append((name, f"{model.name} has no parameter “{name}”. It has: {possible}."))
        elif (mistake := _mistake(known[name], value)) is not None:
            mistakes.append((name, mistake))
        else:
            settings[name] = value
    return Mistakes(tuple(mistakes)) if mistakes else settings


def written(settings: Mapping[str, str]) -> str:
    """The settings as a parameter of the run (deploy/README.md)."""
    return " ".join(f"{name}={value}" for name, value in settings.items()) or "none"


def limits(parameter: Parameter) -> str:
    """What the parameter accepts, in words."""
    if parameter.kind is Kind.CHOICE:
        return "one of " + ", ".join(parameter.choices)
    noun = "a whole number" if parameter.kind is Kind.INTEGER else "a number"
    low = f" from {parameter.minimum:.15g}" if parameter.minimum is not None else ""
    high = f" {'to' if low else 'up to'} {parameter.maximum:.15g}" if parameter.maximum is not None else ""
    return f"{noun}{low}{high}"


def _mistake(parameter: Parameter, value: str) -> str | None:
    wanted = f"{parameter.name} must be {limits(parameter)}, not “{value}”."
    if parameter.kind is Kind.CHOICE:
        return None if value in parameter.choices else wanted
    pattern = INTEGER if parameter.kind is Kind.INTEGER else NUMBER
    if not pattern.fullmatch(value):
        return wanted
    number = float(value)
    low = parameter.minimum is not None and number < parameter.minimum
    high = parameter.maximum is not None and number > parameter.maximum
    return wanted if low or high else None


def _example(model: Model) -> str:
    return f"{model.parameters[0].name}=…" if model.parameters else "none: this model has no parameters"
