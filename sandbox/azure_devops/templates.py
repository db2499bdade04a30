"""Templates: `${{ }}` expressions with `if`, `elseif`, `else`, `each` and `insert`, template files and their parameters.

Each node of a file is expanded exactly once, so that text which came in as a value is never read as an expression.
https://learn.microsoft.com/azure/devops/pipelines/process/template-expressions
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from sandbox.azure_devops.document import Node, Place, Rows, Table, Word, bad, read
from sandbox.azure_devops.expressions import FUNCTIONS, BadExpression, Value, as_text, compute, truth
from sandbox.azure_devops.plan import BadPipeline

_EXPRESSION = re.compile(r"\$\{\{((?:'(?:[^']|'')*'|(?!\}\})[^'])*)\}\}")
_DIRECTIVE = re.compile(r"\$\{\{\s*(if|elseif|else|each|insert)\b\s*(.*?)\s*\}\}", re.DOTALL)
_EACH = re.compile(r"(\w+)\s+in\s+(.+)", re.DOTALL)
_FILES = 100  # the service's limit for one pipeline, too


@dataclass(frozen=True, slots=True)
class Names:
    """What expressions of one file can see. `done`: the nodes were expanded already and are taken as they are."""

    file: str
    parameters: Mapping[str, Value] = field(default_factory=dict)
    variables: Mapping[str, Value] = field(default_factory=dict)
    items: Mapping[str, Value] = field(default_factory=dict)
    done: bool = False


# A node that is still to be expanded, with what its expressions see.
Pending: TypeAlias = tuple[Node, Names]
Members: TypeAlias = dict[Word, Pending]


def expand(node: Node, names: Names) -> Node:
    """The node with every expression in it computed."""
    if names.done:
        return node
    match node:
        case Word():
            return _expand_word(node, names)
        case Rows():
            rows = Rows(node.at)
            rows.extend(expand(*item) for item in items(node, names))
            return rows
        case Table():
            if len(only := list(_chosen(node, names, _Chain()))) == 1 and only[0][0] is None:
                value = _open(*only[0][1])
                if not isinstance(value[0], Table):
                    return expand(*value)
            table = Table(node.at)
            table.update({key: expand(*value) for key, value in members(node, names).items()})
            return table


def members(table: Table, names: Names) -> Members:
    """The members of a mapping once its directives are followed; their values are still to be expanded."""
    found: Members = {}
    for key, value in _chosen(table, names, _Chain()):
        more: Members
        if key is not None:
            more = {key: value}
        else:
            inner, its = _open(*value)
            if not isinstance(inner, Table):
                raise bad(inner, "Expected a mapping")
            more = members(inner, its)
        for name, each in more.items():
            if name in found:
                raise bad(name, f"'{name}' is already defined")
            found[name] = each
    return found


def items(rows: Rows, names: Names) -> list[Pending]:
    """The items of a sequence once its directives are followed; they are still to be expanded."""
    found: list[Pending] = []
    chain = _Chain()
    for row in rows:
        if names.done:
            found.append((row, names))
            continue
        match row:
            case Table() if row and all(_DIRECTIVE.fullmatch(key) for key in row):
                opened = [_open(*value) for _, value in _chosen(row, names, chain)]
                if any(not isinstance(inner, Rows) for inner, _ in opened):
                    found.append((row, names))
                else:
                    found.extend(item for inner, its in opened if isinstance(inner, Rows) for item in items(inner, its))
            case Word():
                inner, its = _open(row, names)
                found.extend(items(inner, its) if isinstance(inner, Rows) else [(inner, its)])
                chain = _Chain()
            case _:
                found.append((row, names))
                chain = _Chain()
    return found


def include(root: Path, template: Word, given: Mapping[str, Node], names: Names, *, depth: int) -> tuple[Table, Names]:
    """The template file that a file of these names asks for, and the names inside it."""
    if depth > _FILES:
        raise bad(template, f"The pipeline exceeded the maximum of {_FILES} templates.")
    path, _, repository = template.partition("@")
    if repository not in {"", "self"}:
        raise bad(template, f"The repository '{repository}' is not declared in the resources of the pipeline.")
    folder = "" if path.startswith("/") else posixpath.dirname(names.file)
    file = posixpath.normpath(posixpath.join(folder, path.lstrip("/")))
    document = read(root, file)
    values = bind(document, given, template.at)
    return document, Names(file, values, names.variables)


def bind(document: Table, given: Mapping[str, Node], at: Place) -> dict[str, Value]:
    """The values of a document's parameters: those given, else the defaults, each checked against its declaration."""
    declared = document.get(Word("parameters", at), Rows(document.at))
    known: dict[str, Value] = {}
    for each in _declarations(declared):
        name = each.name
        value = next((node for key, node in given.items() if key.casefold() == name.casefold()), each.default)
        if value is None:
            raise BadPipeline(f"{at}: A value for the '{name}' parameter must be provided.")
        known[name] = _typed(each, value)
    folded = {name.casefold() for name in known}
    for key, node in given.items():
        if key.casefold() not in folded:
            raise bad(key if isinstance(key, Word) else node, f"Unexpected parameter '{key}'")
    return known


@dataclass(frozen=True, slots=True)
class _Declaration:
    name: Word
    type: str
    default: Node | None
    values: tuple[str, ...]


def _declarations(declared: Node) -> Iterator[_Declaration]:
    match declared:
        case Table():  # the older form: name: default
            for key, default in declared.items():
                yield _Declaration(key, "string" if isinstance(default, Word) else "object", default, ())
        case Rows():
            for row in declared:
                if not isinstance(row, Table):
                    raise bad(row, "Expected a mapping")
                for key in row:
                    if key not in {"name", "displayName", "type", "default", "values"}:
                        raise bad(key, f"Unexpected value '{key}'")
                fields = {str(key): value for key, value in row.items()}
                name, kind, values = fields.get("name"), fields.get("type"), fields.get("values")
                if not isinstance(name, Word):
                    raise bad(row, "Required property is missing: name")
                allowed = tuple(str(value) for value in values if isinstance(value, Word)) if isinstance(values, Rows) else ()
                yield _Declaration(name, str(kind) if isinstance(kind, Word) else "string", fields.get("default"), allowed)
        case _:
            raise bad(declared, "Expected a sequence or a mapping")


def _typed(declaration: _Declaration, node: Node) -> Value:
    """The value as its declared type has it."""
    name, wrong = declaration.name, f"The '{declaration.name}' parameter"
    value: Value
    match declaration.type, node:
        case "string", Word():
            value = str(node)
        case "boolean", Word() if node.lower() in {"true", "false"}:
            value = node.lower() == "true"
        case "number", Word() if re.fullmatch(r"-?\d+(\.\d+)?", node):
            value = float(node)
        case "object", _:
            value = node
        case (("stepList" | "jobList" | "stageList"), Rows()):
            value = node
        case (("step" | "job" | "stage"), Table()):
            value = node
        case (("string" | "boolean" | "number" | "step" | "job" | "stage" | "stepList" | "jobList" | "stageList"), _):
            raise bad(node, f"{wrong} is not a valid {declaration.type.capitalize()}.")
        case other, _:
            raise bad(name, f"Unexpected value '{other}'")
    if declaration.values and as_text(value) not in declaration.values:
        raise bad(node, f"{wrong} value '{as_text(value)}' is not a valid value.")
    return value


@dataclass
class _Chain:
    """Whether a branch of the if-elseif-else being read was taken; None outside of one."""

    taken: bool | None = None


def _chosen(table: Table, names: Names, chain: _Chain) -> Iterator[tuple[Word | None, Pending]]:
    """Ordinary members with their key; what directives let through without."""
    for key, value in table.items():
        found = None if names.done else _DIRECTIVE.fullmatch(key)
        if found is None:
            chain.taken = None
            yield (key if names.done else _expand_key(key, names)), (value, names)
        elif found[1] == "each":
            chain.taken = None
            for its in _each(key, found[2], names):
                yield None, (value, its)
        elif found[1] == "insert" or _branch(key, found[1], found[2], names, chain):
            yield None, (value, names)


def _branch(key: Word, kind: str, condition: str, names: Names, chain: _Chain) -> bool:
    """Whether this branch of an if-elseif-else is the one."""
    if kind != "if" and chain.taken is None:
        raise bad(key, f"'{kind}' follows no 'if'")
    if kind == "else":
        here, chain.taken = not chain.taken, None
        return here
    before = kind == "elseif" and bool(chain.taken)
    here = not before and truth(_value(key, condition, names))
    chain.taken = before or here
    return here


def _each(key: Word, words: str, names: Names) -> Iterator[Names]:
    if not (found := _EACH.fullmatch(words)):
        raise bad(key, f"Unexpected value '{key}'")
    match _value(key, found[2], names):
        case dict() as pairs:
            values: list[Value] = [{"key": name, "value": value} for name, value in pairs.items()]
        case list() as values:
            pass
        case _:
            raise bad(key, "Expected a sequence or a mapping to go through")
    for value in values:
        yield replace(names, items={**names.items, found[1]: value})


def _open(node: Node, names: Names) -> Pending:
    """A node whose kind is known: where it is one expression, what that comes to."""
    if isinstance(node, Word) and not names.done:
        return _expand_word(node, names), replace(names, done=True)
    return node, names


def _expand_key(key: Word, names: Names) -> Word:
    word = _expand_word(key, names)
    if not isinstance(word, Word):
        raise bad(key, "Expected a scalar as the key of a mapping")
    return word


def _expand_word(word: Word, names: Names) -> Node:
    if whole := _EXPRESSION.fullmatch(word.strip()):
        return _as_node(_value(word, whole[1], names), word.at)
    return Word(_EXPRESSION.sub(lambda found: as_text(_value(word, found[1], names)), word), word.at)


def _value(word: Word, expression: str, names: Names) -> Value:
    seen = {**names.items, "parameters": names.parameters, "variables": names.variables}
    try:
        return compute(expression, seen, FUNCTIONS, strict=("parameters",))
    except BadExpression as wrong:
        raise bad(word, str(wrong)) from wrong


def _as_node(value: Value, at: Place) -> Node:
    match value:
        case Table() | Rows() | Word():
            return value
        case dict():
            table = Table(at)
            table.update({Word(str(key), at): _as_node(each, at) for key, each in value.items()})
            return table
        case list():
            rows = Rows(at)
            rows.extend(_as_node(each, at) for each in value)
            return rows
        case _:
            return Word(as_text(value), at)
