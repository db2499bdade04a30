"""The expression language of Azure Pipelines: `${{ }}` when compiling, conditions and `$[ ]` when running, and `$(macros)`.

https://learn.microsoft.com/azure/devops/pipelines/process/expressions
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sandbox.azure_devops.plan import BadPipeline, Result

# What an expression may come to: text, number, boolean, null, a mapping or a list of the same.
Value: TypeAlias = Any
Function: TypeAlias = Callable[..., Value]

GOOD = frozenset({Result.SUCCEEDED, Result.SUCCEEDED_WITH_ISSUES})
_HELP = "For more help, refer to https://go.microsoft.com/fwlink/?linkid=842996"


class BadExpression(BadPipeline):
    """The expression cannot be read, or asks for what is not there."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a stage or job that others depend on ended, with its output variables.

    A job's outputs are named `step.variable`, as `JobOutcome.outputs` has them; a stage's `job.step.variable`.
    """

    result: Result
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a condition or a `$[ ]` can see.

    `dependencies`: what the stage (or job) names in dependsOn, by name. `stage_dependencies`: by stage, then job; jobs see them.
    `before`: the results a bare `succeeded()` or `failed()` looks at; None means those of `dependencies`.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    dependencies: Mapping[str, Ran] = field(default_factory=dict)
    stage_dependencies: Mapping[str, Mapping[str, Ran]] = field(default_factory=dict)
    before: tuple[Result, ...] | None = None
    canceled: bool = False


def evaluate(text: str, scope: Scope) -> Value:
    """The value of a runtime expression, without its `$[ ]`."""
    names = {
        "variables": scope.variables,
        "dependencies": {name: _seen(ran) for name, ran in scope.dependencies.items()},
        "stageDependencies": {stage: {name: _seen(ran) for name, ran in jobs.items()} for stage, jobs in scope.stage_dependencies.items()},
    }
    return compute(text, names, {**FUNCTIONS, **_status_functions(scope)})


def resolve(text: str, scope: Scope) -> str:
    """A variable's value: `$[ ... ]` computed; anything else as it stands. A runtime expression is the whole value or none."""
    if text.startswith("$[") and text.endswith("]"):
        return as_text(evaluate(text[2:-1], scope))
    return text


def truth(value: Value) -> bool:
    """A value as a condition: empty text, zero, null and false are not; any other text is, "false" too."""
    return value not in ("", 0, None, False)


def as_text(value: Value) -> str:
    """A value as text: True and False with a capital, null as nothing."""
    match value:
        case None:
            return ""
        case bool() | str():
            return str(value)
        case int() | float():
            return f"{value:.15g}"
        case _:
            kind = "Array" if isinstance(value, Sequence) else "Object"
            raise BadExpression(f"Unable to convert from {kind} to String. Value: {kind}")


def expand_macros(text: str, variables: Mapping[str, str]) -> str:
    """Put variables in place of `$(name)`; what is not known stays as it is, since it may be the shell's."""
    return _MACRO.sub(lambda found: _get(variables, found[1].strip(), found[0]), text)


def compute(text: str, names: Mapping[str, Value], functions: Mapping[str, Function], *, strict: Collection[str] = ()) -> Value:
    """The value of an expression over these names and functions; a missing member is null, unless the name is `strict`."""
    return _Reader(text, names, functions, strict).read()


def check(text: str) -> None:
    """Refuse a condition that could not be evaluated at run time."""
    evaluate(text, Scope())


_MACRO = re.compile(r"\$\(([^()]+)\)")
_TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<mark>[()\[\],.])|(?P<word>[^\s()\[\],.']+(?:(?<=[0-9])\.[0-9]+)?))")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?\Z")


@dataclass
class _Reader:
    """Reads and computes one expression from left to right."""

    text: str
    names: Mapping[str, Value]
    functions: Mapping[str, Function]
    strict: Collection[str]
    at: int = 0

    def read(self) -> Value:
        value = self._value()
        if (token := self._peek()) is not None:
            raise self._error("Unexpected symbol", token)
        return value

    def _peek(self) -> str | None:
        if not self.text[self.at :].strip():
            return None
        if not (found := _TOKEN.match(self.text, self.at)):
            raise self._error("Unexpected symbol", self.text[self.at :].strip())
        return found[0].strip()

    def _next(self) -> str:
        if not (found := _TOKEN.match(self.text, self.at)):
            raise BadExpression(f"Unexpected end of expression: '{self.text.strip()}'. {_HELP}")
        self.at = found.end()
        return found[0].strip()

    def _value(self) -> Value:
        word = self._next()
        if word.startswith("'"):
            return word[1:-1].replace("''", "'")
        if _NUMBER.match(word):
            return float(word)
        if not _NAME.match(word):
            raise self._error("Unexpected symbol", word)
        if self._peek() == "(":
            return self._call(word)
        match word.lower():
            case "true":
                return True
            case "false":
                return False
            case "null":
                return None
            case _:
                pass
        missing = object()
        value = _get(self.names, word, missing)
        if value is missing:
            raise self._error("Unrecognized value", word)
        return self._members(value, strict=word in self.strict)

    def _call(self, name: str) -> Value:
        function = _get(self.functions, name, None)
        if function is None:
            raise self._error("Unrecognized value", name)
        self._next()
        arguments: list[Value] = []
        while self._peek() != ")":
            if arguments:
                self._expect(",")
            arguments.append(self._value())
        self._next()
        try:
            inspect.signature(function).bind(*arguments)
        except TypeError as wrong:
            raise BadExpression(f"Wrong number of arguments for '{name}' within expression: {self.text.strip()}. {_HELP}") from wrong
        return self._members(function(*arguments), strict=False)

    def _members(self, value: Value, *, strict: bool) -> Value:
        while (mark := self._peek()) in {".", "["}:
            self._next()
            key = self._next() if mark == "." else self._value()
            if mark == "[":
                self._expect("]")
            elif not _NAME.match(str(key)):
                raise self._error("Unexpected symbol", str(key))
            missing = object()
            found = _member(value, key, missing)
            if found is missing and strict:
                raise BadExpression(f"Key not found '{as_text(key)}'")
            value, strict = (None if found is missing else found), False
        return value

    def _expect(self, mark: str) -> None:
        if (token := self._next()) != mark:
            raise self._error("Unexpected symbol", token)

    def _error(self, what: str, token: str) -> BadExpression:
        position = self.text.find(token, max(0, self.at - len(token) - 1)) + 1
        return BadExpression(f"{what}: '{token}'. Located at position {position} within expression: {self.text.strip()}. {_HELP}")


def _get(mapping: Mapping[str, Any], name: str, default: Any) -> Any:
    """Names are the same in capitals and small letters."""
    if name in mapping:
        return mapping[name]
    return next((value for key, value in mapping.items() if key.casefold() == name.casefold()), default)


def _member(value: Value, key: Value, default: Any) -> Value:
    match value, key:
        case Mapping(), str():
            return _get(value, key, default)
        case ((list() | tuple()), float()) if key.is_integer() and 0 <= key < len(value):
            return value[int(key)]
        case _:
            return default


def _seen(ran: Ran) -> Value:
    return {"result": str(ran.result), "outputs": ran.outputs}


def _status_functions(scope: Scope) -> dict[str, Function]:
    """`succeeded()` and its kin. https://learn.microsoft.com/azure/devops/pipelines/process/expressions#job-status-check-functions"""
    before = scope.before if scope.before is not None else tuple(ran.result for ran in scope.dependencies.values())

    def results(names: Sequence[str]) -> list[Result]:
        return [ran.result for name in names if (ran := _get(scope.dependencies, name, None))]

    def succeeded(*names: str) -> bool:
        if names:
            return len(results(names)) == len(names) and all(result in GOOD for result in results(names))
        return not scope.canceled and all(result in GOOD for result in before)

    def failed(*names: str) -> bool:
        return not scope.canceled and any(result is Result.FAILED for result in (results(names) if names else before))

    def succeeded_or_failed(*names: str) -> bool:
        return not scope.canceled and (not names or any(result in GOOD or result is Result.FAILED for result in results(names)))

    return {
        "succeeded": succeeded,
        "failed": failed,
        "succeededOrFailed": succeeded_or_failed,
        "always": lambda: True,
        "canceled": lambda: scope.canceled,
    }


def equal(left: Value, right: Value) -> bool:
    """Equality after turning the right side into the left one's kind; text is compared without regard to case."""
    match left:
        case bool():
            return left is truth(right)
        case None:
            return right is None or right == ""
        case str():
            return not isinstance(right, Mapping | list | tuple) and left.casefold() == as_text(right).casefold()
        case int() | float():
            return left == _number(right)
        case _:
            return bool(left == right)


def _number(value: Value) -> float | None:
    match value:
        case None | "":
            return 0.0
        case bool() | int() | float():
            return float(value)
        case str() if _NUMBER.match(value.strip()):
            return float(value)
        case _:
            return None


def _compare(left: Value, right: Value) -> int:
    """Below, at or above zero as left is less than, equal to or greater than right."""
    if isinstance(left, str):
        a, b = left.casefold(), as_text(right).casefold()
        return (a > b) - (a < b)
    x, y = _number(left), _number(right)
    if x is None or y is None:
        raise BadExpression("Unable to compare: the values are neither numbers nor text.")
    return (x > y) - (x < y)


def _all(first: Value, second: Value, *more: Value) -> bool:
    return all(truth(value) for value in (first, second, *more))


def _some(first: Value, second: Value, *more: Value) -> bool:
    return any(truth(value) for value in (first, second, *more))


def _contains(whole: Value, part: Value) -> bool:
    return as_text(part).casefold() in as_text(whole).casefold()


def _contains_value(whole: Value, wanted: Value) -> bool:
    values = whole.values() if isinstance(whole, Mapping) else whole if isinstance(whole, list | tuple) else ()
    return any(not isinstance(value, Mapping | list | tuple) and equal(value, wanted) for value in values)


def _format(text: Value, *values: Value) -> str:
    def one(found: re.Match[str]) -> str:
        if found[0] in {"{{", "}}"}:
            return found[0][0]
        if int(found[1]) >= len(values):
            raise BadExpression(f"The following format string references more arguments than were supplied: {text}")
        return as_text(values[int(found[1])])

    return re.sub(r"\{\{|\}\}|\{(\d+)\}", one, as_text(text))


def _join(separator: Value, values: Value) -> str:
    return as_text(separator).join(map(as_text, values)) if isinstance(values, list | tuple) else as_text(values)


def _length(value: Value) -> int:
    return len(value) if isinstance(value, Mapping | list | tuple) else len(as_text(value))


def _coalesce(first: Value, second: Value, *more: Value) -> Value:
    return next((value for value in (first, second, *more) if value is not None and value != ""), None)


# The general functions: those that need no run.
FUNCTIONS: Mapping[str, Function] = {
    "eq": equal,
    "ne": lambda left, right: not equal(left, right),
    "gt": lambda left, right: _compare(left, right) > 0,
    "ge": lambda left, right: _compare(left, right) >= 0,
    "lt": lambda left, right: _compare(left, right) < 0,
    "le": lambda left, right: _compare(left, right) <= 0,
    "and": _all,
    "or": _some,
    "xor": lambda left, right: truth(left) is not truth(right),
    "not": lambda value: not truth(value),
    "in": lambda wanted, first, *more: any(equal(wanted, value) for value in (first, *more)),
    "notIn": lambda wanted, first, *more: not any(equal(wanted, value) for value in (first, *more)),
    "contains": _contains,
    "containsValue": _contains_value,
    "startsWith": lambda text, start: as_text(text).casefold().startswith(as_text(start).casefold()),
    "endsWith": lambda text, end: as_text(text).casefold().endswith(as_text(end).casefold()),
    "format": _format,
    "join": _join,
    "split": lambda text, separator: as_text(text).split(as_text(separator)),
    "lower": lambda text: as_text(text).lower(),
    "upper": lambda text: as_text(text).upper(),
    "trim": lambda text: as_text(text).strip(),
    "replace": lambda text, old, new: as_text(text).replace(as_text(old), as_text(new)),
    "coalesce": _coalesce,
    "iif": lambda condition, yes, no: yes if truth(condition) else no,
    "length": _length,
    "convertToJson": lambda value: json.dumps(value, indent=2),
}
