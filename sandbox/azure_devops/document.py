"""YAML as Azure Pipelines reads it: every scalar is text, keys are unique, there are no anchors, and everything knows where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import yaml

from sandbox.azure_devops.plan import BadPipeline


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands; `file` is relative to the repository's root, lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"/{self.file} (Line: {self.line}, Col: {self.column})"


class Word(str):
    """A scalar."""

    __slots__ = ("at",)
    at: Place

    def __new__(cls, text: str, at: Place) -> Word:
        """The text with its place."""
        word = super().__new__(cls, text)
        word.at = at
        return word

    def __getnewargs__(self) -> tuple[str, Place]:  # type: ignore[override]  # str takes one, we take two
        """What a copy is made of: a stage that runs again keeps its earlier attempt."""
        return str(self), self.at


class Table(dict["Word", "Node"]):
    """A mapping."""

    def __init__(self, at: Place) -> None:
        super().__init__()
        self.at = at


class Rows(list["Node"]):
    """A sequence."""

    def __init__(self, at: Place) -> None:
        super().__init__()
        self.at = at


Node: TypeAlias = Word | Table | Rows


def bad(node: Node, message: str) -> BadPipeline:
    """The error about this node, in the service's form."""
    return BadPipeline(f"{node.at}: {message}")


def read(root: Path, file: str) -> Table:
    """The document in a file of the repository; BadPipeline if it is not there, not below the root, or not such YAML."""
    path = (root / file).resolve()
    if not path.is_relative_to(root.resolve()) or not path.is_file():
        raise BadPipeline(f"File /{file} not found in repository.")
    return _parse(path.read_text(encoding="utf-8"), file)


@lru_cache(maxsize=64)  # every stage names the same few templates, every run the same files; nobody changes a document
def _parse(text: str, file: str) -> Table:
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if (anchor := getattr(event, "anchor", None)) and event.start_mark:
                where = Place(file, event.start_mark.line + 1, event.start_mark.column + 1)
                raise BadPipeline(f"{where}: Anchors are not currently supported. Remove the anchor '{anchor}'")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as wrong:
        at = Place(file, wrong.problem_mark.line + 1, wrong.problem_mark.column + 1) if wrong.problem_mark else Place(file, 1, 1)
        raise BadPipeline(f"{at}: {wrong.problem}") from wrong
    document = _node(node, file) if node is not None else None
    if not isinstance(document, Table):
        raise BadPipeline(f"{Place(file, 1, 1)}: Expected a mapping")
    return document


def _node(node: yaml.Node, file: str) -> Node:
    at = Place(file, node.start_mark.line + 1, node.start_mark.column + 1)
    match node:
        case yaml.ScalarNode():
            return Word(node.value, at)
        case yaml.SequenceNode():
            rows = Rows(at)
            rows.extend(_node(each, file) for each in node.value)
            return rows
        case yaml.MappingNode():
            table = Table(at)
            for key, value in node.value:
                word = _node(key, file)
                if not isinstance(word, Word):
                    raise bad(word, "Expected a scalar as the key of a mapping")
                if word in table:
                    raise bad(word, f"'{word}' is already defined")
                table[word] = _node(value, file)
            return table
        case _:
            raise BadPipeline(f"{at}: Expected a scalar, a sequence or a mapping")
