"""What Slack accepts: `fit` makes a message, modal or page acceptable, `problems` says what is not.

Slack's own models do not check most of this. Surfaces, counts and lengths: https://docs.slack.dev/reference/block-kit/blocks
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from bot.messages.kit import Block, Home, Message, Modal, web

FALLBACK = 4000  # Slack cuts longer ones
MESSAGE_BLOCKS = 50
VIEW_BLOCKS = 100  # of a modal or a page
WHOLE = 12_500  # Slack has been seen to refuse from 13,200 on: https://github.com/slackapi/bolt-js/issues/2509
HEADER = 150
TEXT = 3000
FIELDS = 10
FIELD = 2000
ELEMENTS = 10
BUTTONS = 25
BUTTON = 75
VALUE = 2000
ID = 255
TASKS = 50
TITLE = 256
ROWS = 100
COLUMNS = 20
CELLS = 10_000
ALERT = 200
MODAL_TITLE = 24
STATE = 3000
LABEL = 2000
PLACEHOLDER = 150
OPTIONS = 100
OPTION = 75
OPTION_VALUE = 150
CONFIRM = {"title": 100, "text": 300, "confirm": 30, "deny": 30}
CAPS = (TEXT, 1500, 700, 300, 150, 75, 40)  # how short texts become, step by step, until the whole is short enough
# What no text needs: control characters (PostgreSQL refuses one of them), halves of characters (UTF-8 refuses them), and those that turn
# the direction of reading, so that a name could pass for another.
UNWANTED = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f\\ud800-\\udfff\\u202a-\\u202e\\u2066-\\u2069]")

T = TypeVar("T", Message, Modal, Home)


# Making it fit


def fit(thing: T) -> T:
    """The same message, modal or page, cut with … wherever Slack would refuse it. Never raises."""
    if isinstance(thing, Home):
        return replace(thing, blocks=_fit_blocks(thing.blocks, VIEW_BLOCKS, "home"))
    if isinstance(thing, Modal):
        return replace(
            thing,
            title=_cut(thing.title, MODAL_TITLE) or "–",
            submit=None if thing.submit is None else _cut(thing.submit, MODAL_TITLE) or "–",
            close=_cut(thing.close, MODAL_TITLE) or "–",
            callback=thing.callback[:ID],
            blocks=_fit_blocks(thing.blocks, VIEW_BLOCKS, "modal"),
        )
    return replace(
        thing,
        text=cut_mrkdwn(thing.text, FALLBACK) or "–",
        blocks=_fit_blocks(thing.blocks, MESSAGE_BLOCKS, "message"),
        plain=_fit_blocks(thing.plain, MESSAGE_BLOCKS, "message"),
    )


def cut_mrkdwn(text: str, most: int) -> str:
    """Text with markup, cut with … where it is too long: never inside an entity or a link."""
    text = UNWANTED.sub("", text)
    if len(text) <= most:
        return text
    kept = re.sub(r"&[a-z]{0,4}$", "", text[: most - 1])
    opened = kept.rfind("<")
    if opened > kept.rfind(">"):
        kept = kept[:opened]
    return f"{kept}…"


def _cut(text: str, most: int) -> str:
    text = UNWANTED.sub("", text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _fit_blocks(blocks: Sequence[Block], most: int, surface: str) -> tuple[Block, ...]:
    made: list[Block] = []
    for cap in CAPS:
        made = _distinct([fitted for block in blocks if (fitted := _fit_block(block, cap, surface)) is not None])[:most]
        if surface != "message" or _size(made) <= WHOLE:
            return tuple(made)
    while _size(made) > WHOLE:
        # Words go before buttons, and the end before the beginning.
        made.pop(max((place for place, block in enumerate(made) if block["type"] != "actions"), default=-1))
    return tuple(made)


def _size(blocks: Sequence[Block]) -> int:
    """The length of the whole; a table has a limit of its own."""
    return sum(len(json.dumps(block, ensure_ascii=False, separators=(",", ":"))) for block in blocks if block["type"] != "table")


def _distinct(blocks: list[Block]) -> list[Block]:
    """One plan, one table, and no block_id twice."""
    made: list[Block] = []
    seen: set[str] = set()
    for block in blocks:
        kind, name = block["type"], f"#{block.get('block_id')}"
        if kind in {"plan", "table"} and kind in seen:
            continue
        seen.add(kind)
        made.append({key: value for key, value in block.items() if key != "block_id"} if name in seen else block)
        seen.add(name)
    return made


def _fit_block(block: Block, cap: int, surface: str) -> Block | None:  # noqa: PLR0912 one case for each kind of block
    if "block_id" in block:
        block = {**block, "block_id": _cut(str(block["block_id"]), ID)}
    match block:
        case {"type": "header", "text": text}:
            return {**block, "text": _text(text, min(HEADER, cap))}
        case {"type": "section"}:
            parts: dict[str, Any] = dict(block)
            if "text" in block:
                parts["text"] = _text(block["text"], cap)
            if "fields" in block:
                parts["fields"] = [_text(field, min(FIELD, cap)) for field in block["fields"][:FIELDS]]
            return parts if parts.get("text") or parts.get("fields") else None
        case {"type": "context", "elements": [_, *_] as elements}:
            return {**block, "elements": [_text(element, min(FIELD, cap)) for element in elements[:ELEMENTS]]}
        case {"type": "actions", "elements": elements}:
            buttons = [fitted for element in elements if (fitted := _fit_button(element)) is not None][:BUTTONS]
            return {**block, "elements": buttons} if buttons else None
        case {"type": "rich_text"}:
            return _fit_rich(block, cap)
        case {"type": "divider"}:
            return block
        case {"type": "plan", "title": title, "tasks": tasks} if surface == "message":
            return {**block, "title": _cut(title, min(TITLE, cap)) or "–", "tasks": _fit_tasks(tasks, cap)}
        case {"type": "table", "rows": rows} if surface == "message":
            return _fit_table(block, rows)
        case {"type": "alert", "text": text} if surface == "modal":
            return {**block, "text": _text(text, ALERT)}
        case {"type": "input", "label": label, "element": element} if surface == "modal":
            hint = {"hint": _text(block["hint"], LABEL)} if "hint" in block else {}
            fitted = _fit_input(element)
            return {**block, "label": _text(label, LABEL), "element": fitted, **hint} if fitted.get("options", True) else None
        case _:
            return None


def _text(text: Mapping[str, Any], most: int) -> Block:
    cut = cut_mrkdwn if text["type"] == "mrkdwn" else _cut
    return {**text, "text": cut(text["text"], most) or "–"}


def _fit_button(button: Mapping[str, Any]) -> Block | None:
    """A button with its words cut; None where its value or address is beyond what Slack takes: cut, it would lie."""
    value = button.get("value", "")
    if len(value) > VALUE or UNWANTED.search(value) or ("url" in button and web(button["url"]) is None):
        return None
    made = {**button, "text": _text(button["text"], BUTTON)}
    if "confirm" in button:
        made["confirm"] = {**button["confirm"], **{key: _text(button["confirm"][key], most) for key, most in CONFIRM.items()}}
    return made


def _fit_input(element: Mapping[str, Any]) -> Block:
    made = dict(element)
    if "placeholder" in element:
        made["placeholder"] = _text(element["placeholder"], PLACEHOLDER)
    if "initial_value" in element:
        made["initial_value"] = element["initial_value"][:TEXT]
    if "options" in element:
        made["options"] = [_fit_option(option) for option in element["options"] if len(option["value"]) <= OPTION_VALUE][:OPTIONS]
    if "initial_option" in element:
        made["initial_option"] = _fit_option(element["initial_option"])
        if made["initial_option"] not in made["options"]:
            del made["initial_option"]
    return made


def _fit_option(option: Mapping[str, Any]) -> Block:
    return {**option, "text": _text(option["text"], OPTION)}


def _fit_tasks(tasks: Sequence[Mapping[str, Any]], cap: int) -> list[Block]:
    made: dict[str, Block] = {}
    for task in tasks[:TASKS]:
        parts = {**task, "task_id": _cut(task["task_id"], ID), "title": _cut(task["title"], min(TITLE, cap)) or "–"}
        for key in ("details", "output"):
            if key in parts:
                parts[key] = _fit_rich(parts[key], cap)
        if "sources" in parts:
            parts["sources"] = [source for source in parts["sources"] if web(source["url"]) is not None]
        made.setdefault(parts["task_id"], parts)
    return list(made.values())


def _fit_rich(rich: Mapping[str, Any], most: int) -> Block:
    """Rich text, at any depth, with each of its texts cut."""
    if rich["type"] == "text":
        return {**rich, "text": _cut(rich["text"], most) or "–"}
    if "elements" in rich:
        return {**rich, "elements": [_fit_rich(element, most) for element in rich["elements"]]}
    return rich


def _fit_table(block: Block, rows: Sequence[Sequence[Mapping[str, Any]]]) -> Block:
    """The table with as many rows as fit into its own limit of characters."""
    made: list[list[Block]] = []
    left = CELLS
    for row in rows[:ROWS]:
        cells = [_fit_cell(cell) for cell in row[:COLUMNS]]
        left -= sum(_characters(cell) for cell in cells)
        if left < 0:
            break
        made.append(cells)
    settings = {"column_settings": list(block["column_settings"])[:COLUMNS]} if "column_settings" in block else {}
    return {**block, "rows": made, **settings}


def _fit_cell(cell: Mapping[str, Any]) -> Block:
    if cell["type"] == "rich_text":
        return _fit_rich(cell, TITLE)
    return {**cell, "text": _cut(cell["text"], TITLE) or "–"}


def _characters(part: Any) -> int:
    match part:
        case {"text": str(text)}:
            return len(text)
        case {"elements": elements}:
            return sum(_characters(element) for element in elements)
        case _:
            return 0


# Saying what does not fit


def problems(thing: Message | Modal | Home) -> tuple[str, ...]:
    """Everything Slack would refuse, each with its place; empty for what `fit` returns."""
    found = _Findings()
    if isinstance(thing, Home):
        found.blocks(thing.blocks, VIEW_BLOCKS, "home", "blocks")
        return tuple(found.sentences)
    if isinstance(thing, Message):
        found.length(thing.text, FALLBACK, "text")
        found.blocks(thing.blocks, MESSAGE_BLOCKS, "message", "blocks")
        found.blocks(thing.plain, MESSAGE_BLOCKS, "message", "plain")
        for place, block in enumerate(thing.plain):
            found.unless(block.get("type") not in {"plan", "table"}, f"plain/{place}", "must be a block that every Slack shows")
        return tuple(found.sentences)
    for name, text in (("title", thing.title), ("submit", thing.submit or "-"), ("close", thing.close)):
        found.length(text, MODAL_TITLE, name)
    found.length(thing.callback, ID, "callback", least=0)
    found.length(json.dumps(dict(thing.state)), STATE, "state")
    found.blocks(thing.blocks, VIEW_BLOCKS, "modal", "blocks")
    asks = any(block.get("type") == "input" for block in thing.blocks)
    found.unless(thing.submit is not None or not asks, "submit", "is needed where something is asked")
    return tuple(found.sentences)


@dataclass
class _Findings:
    """One walk over a message, modal or page, collecting what is wrong."""

    sentences: list[str]

    def __init__(self) -> None:
        self.sentences = []

    def unless(self, fine: bool, place: str, sentence: str) -> None:
        if not fine:
            self.sentences.append(f"{place} {sentence}.")

    def length(self, text: object, most: int, place: str, *, least: int = 1) -> None:
        fine = isinstance(text, str) and least <= len(text) <= most
        self.unless(fine, place, f"must have {least} to {most} characters")
        self.unless(not UNWANTED.search(str(text)), place, "may not have control characters")

    def count(self, items: Sequence[object], most: int, place: str) -> None:
        self.unless(1 <= len(items) <= most, place, f"must have 1 to {most} items")

    def text(self, text: Any, most: int, place: str, *kinds: str) -> None:
        self.unless(text["type"] in (kinds or ("plain_text", "mrkdwn")), place, f"may not be {text['type']}")
        self.length(text["text"], most, place)

    def blocks(self, blocks: Sequence[Block], most: int, surface: str, place: str) -> None:
        self.unless(len(blocks) <= most, place, f"may have {most} blocks at most")
        for number, block in enumerate(blocks):
            self.block(block, surface, f"{place}/{number}")
        kinds = [block["type"] for block in blocks]
        self.unless(kinds.count("plan") <= 1, place, "may have one plan")
        self.unless(kinds.count("table") <= 1, place, "may have one table")
        ids = [block["block_id"] for block in blocks if "block_id" in block]
        self.unless(len(ids) == len(set(ids)), place, "may not use a block_id twice")
        self.unless(surface != "message" or _size(blocks) <= WHOLE, place, f"may have {WHOLE} characters in all")

    def block(self, block: Block, surface: str, place: str) -> None:  # noqa: PLR0912 one case for each kind of block
        self.length(block.get("block_id", "-"), ID, f"{place}/block_id")
        match block:
            case {"type": "header", "text": text}:
                self.text(text, HEADER, place, "plain_text")
            case {"type": "section", **rest} if rest.keys() & {"text", "fields"}:
                if "text" in rest:
                    self.text(rest["text"], TEXT, place)
                if "fields" in rest:
                    self.count(rest["fields"], FIELDS, place)
                    for field in rest["fields"]:
                        self.text(field, FIELD, place)
            case {"type": "context", "elements": elements}:
                self.count(elements, ELEMENTS, place)
                for element in elements:
                    self.text(element, TEXT, place)
            case {"type": "actions", "elements": elements}:
                self.count(elements, BUTTONS, place)
                names = [element["action_id"] for element in elements]
                self.unless(len(names) == len(set(names)), place, "may not use an action_id twice")
                for element in elements:
                    self.button(element, place)
            case {"type": "divider"}:
                pass
            case {"type": "rich_text"}:
                self.rich(block, place)
            case {"type": "plan", "title": title, "tasks": tasks} if surface == "message":
                self.length(title, TITLE, place)
                self.plan(tasks, place)
            case {"type": "table", "rows": rows} if surface == "message":
                self.table(block, rows, place)
            case {"type": "alert", "text": text} if surface == "modal":
                self.text(text, ALERT, place)
            case {"type": "input", "label": label, "element": element} if surface == "modal":
                self.text(label, LABEL, place, "plain_text")
                self.input(element, place)
                if "hint" in block:
                    self.text(block["hint"], LABEL, place, "plain_text")
            case _:
                self.unless(False, place, f"may not be {block.get('type')} in a {surface}")

    def button(self, button: Mapping[str, Any], place: str) -> None:
        self.length(button["action_id"], ID, f"{place}/action_id")
        self.text(button["text"], BUTTON, f"{place}/text", "plain_text")
        self.length(button.get("value", ""), VALUE, f"{place}/value", least=0)
        self.unless("url" not in button or web(button["url"]) is not None, f"{place}/url", "must be an address")
        for name, most in CONFIRM.items() if "confirm" in button else ():
            self.text(button["confirm"][name], most, f"{place}/confirm/{name}")

    def input(self, element: Mapping[str, Any], place: str) -> None:
        if "placeholder" in element:
            self.text(element["placeholder"], PLACEHOLDER, f"{place}/placeholder", "plain_text")
        self.length(element.get("initial_value", ""), TEXT, f"{place}/initial_value", least=0)
        if element["type"] == "static_select":
            self.count(element["options"], OPTIONS, f"{place}/options")
            for option in element["options"]:
                self.text(option["text"], OPTION, f"{place}/options")
                self.length(option["value"], OPTION_VALUE, f"{place}/options")
            first = element.get("initial_option")
            self.unless(first is None or first in element["options"], f"{place}/initial_option", "must be one of the options")

    def plan(self, tasks: Sequence[Mapping[str, Any]], place: str) -> None:
        self.unless(len(tasks) <= TASKS, place, f"may have {TASKS} tasks at most")
        self.unless(len({task["task_id"] for task in tasks}) == len(tasks), place, "may not use a task_id twice")
        for task in tasks:
            self.length(task["task_id"], ID, f"{place}/task_id")
            self.length(task["title"], TITLE, f"{place}/title")
            self.unless(task["status"] in {"pending", "in_progress", "complete", "error"}, f"{place}/status", "is unknown")
            for part in ("details", "output"):
                if part in task:
                    self.rich(task[part], f"{place}/{part}")
            for source in task.get("sources", ()):
                self.unless(web(source["url"]) is not None, f"{place}/sources", "must be addresses")

    def table(self, block: Block, rows: Sequence[Sequence[Mapping[str, Any]]], place: str) -> None:
        self.count(rows, ROWS, place)
        self.unless(len(block.get("column_settings", ())) <= COLUMNS, place, f"may have {COLUMNS} column_settings at most")
        self.unless(len({len(row) for row in rows}) <= 1, place, "must have as many cells in each row")
        for row in rows:
            self.count(row, COLUMNS, place)
            for cell in row:
                self.unless(cell["type"] in {"raw_text", "raw_number", "rich_text"}, place, f"may not have a cell of {cell['type']}")
                self.rich(cell, place)
        self.unless(sum(_characters(cell) for row in rows for cell in row) <= CELLS, place, f"may have {CELLS} characters in all")

    def rich(self, part: Mapping[str, Any], place: str) -> None:
        for text in _texts(part):
            self.length(text, TEXT, place)


def _texts(part: Mapping[str, Any]) -> Iterator[object]:
    if "text" in part:
        yield part["text"]
    for element in part.get("elements", ()):
        yield from _texts(element)
