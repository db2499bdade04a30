"""What Slack accepts as blocks and views: surfaces, counts and lengths, told in Slack's own words with a JSON pointer.

Written from Slack's block reference (https://docs.slack.dev/reference/block-kit/blocks), and knows nothing of the bot's own limits:
the two are meant to disagree loudly where one of them is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

LONGEST_BLOCKS = 13_200  # characters of JSON, tables aside; observed: https://github.com/slackapi/bolt-js/issues/2509
LONGEST_TABLE = 10_000
LONGEST_DATA_TABLE = 20_000
LONGEST_MARKDOWN = 12_000


class Surface(StrEnum):
    """Where blocks are shown."""

    MESSAGE = "message"
    MODAL = "modal"
    HOME = "home"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing Slack refuses: the place as a JSON pointer, the words, and the method's error it leads to."""

    pointer: str
    message: str
    code: str = "invalid_blocks"

    def __str__(self) -> str:
        return f"{self.message} [json-pointer:{self.pointer}]"


def check_blocks(blocks: Any, surface: Surface = Surface.MESSAGE, pointer: str = "/blocks") -> list[Problem]:
    """Everything Slack would refuse about these blocks; empty where it accepts them."""
    it = _Check(surface)
    if not isinstance(blocks, list):
        it.refuse(pointer, "must be an array")
        return it.problems
    most = 50 if surface is Surface.MESSAGE else 100
    if len(blocks) > most:
        it.refuse(pointer, f"no more than {most} items allowed")
    for index, block in enumerate(blocks):
        it.block(block, f"{pointer}/{index}")
    it.whole(blocks, pointer)
    return it.problems


def check_view(view: Any) -> list[Problem]:
    """Everything Slack would refuse about this modal or App Home.

    https://docs.slack.dev/reference/views
    """
    it = _Check(Surface.MODAL)
    if not isinstance(view, dict):
        it.refuse("/view", "must be an object")
        return it.problems
    match view.get("type"):
        case "modal":
            it.text(view, "title", "/view", 24, kinds=("plain_text",), required=True)
            it.text(view, "submit", "/view", 24, kinds=("plain_text",))
            it.text(view, "close", "/view", 24, kinds=("plain_text",))
        case "home":
            it.surface = Surface.HOME
        case _:
            it.refuse("/view/type", "must be a valid enum value: modal, home")
    it.string(view, "private_metadata", "/view", 3000, least=0)
    it.string(view, "callback_id", "/view", 255, least=0)
    it.string(view, "external_id", "/view", 255, least=0)
    blocks = view.get("blocks")
    problems = it.problems + check_blocks(blocks, it.surface, "/view/blocks")
    if it.surface is Surface.MODAL and isinstance(blocks, list):
        asks = any(isinstance(block, dict) and block.get("type") == "input" for block in blocks)
        if asks and not view.get("submit"):
            problems.append(Problem("/view", "missing required field: submit (a modal with input blocks needs it)"))
    return problems


@dataclass
class _Check:
    """One walk over blocks, collecting what is wrong."""

    surface: Surface
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, pointer: str, message: str, code: str = "invalid_blocks") -> None:
        self.problems.append(Problem(pointer, message, code))

    # Parts

    def string(
        self, of: Mapping[str, Any], key: str, pointer: str, most: int | None = None, *, least: int = 1, required: bool = False
    ) -> None:
        """A string of `least` to `most` characters under the key."""
        if key not in of or of[key] is None:
            if required:
                self.refuse(pointer, f"missing required field: {key}")
            return
        value = of[key]
        if not isinstance(value, str):
            self.refuse(f"{pointer}/{key}", "must be a string")
        elif len(value) < least:
            self.refuse(f"{pointer}/{key}", f"must be more than {least - 1} characters")
        elif most is not None and len(value) > most:
            self.refuse(f"{pointer}/{key}", f"must be less than {most + 1} characters")

    def choice(self, of: Mapping[str, Any], key: str, pointer: str, values: Sequence[str], *, required: bool = False) -> None:
        """One of the values under the key."""
        if key not in of:
            if required:
                self.refuse(pointer, f"missing required field: {key}")
        elif of[key] not in values:
            self.refuse(f"{pointer}/{key}", f"must be a valid enum value: {', '.join(values)}")

    def text_object(self, value: Any, pointer: str, most: int = 3000, kinds: Sequence[str] = ("plain_text", "mrkdwn")) -> None:
        """A text object.

        https://docs.slack.dev/reference/block-kit/composition-objects/text-object
        """
        if not isinstance(value, dict):
            self.refuse(pointer, "must be an object")
            return
        self.choice(value, "type", pointer, kinds, required=True)
        self.string(value, "text", pointer, most, required=True)
        self.only(value, pointer, "type", "text", "emoji", "verbatim")

    def text(
        self,
        of: Mapping[str, Any],
        key: str,
        pointer: str,
        most: int = 3000,
        *,
        kinds: Sequence[str] = ("plain_text", "mrkdwn"),
        required: bool = False,
    ) -> None:
        """A text object under the key."""
        if of.get(key) is not None:
            self.text_object(of[key], f"{pointer}/{key}", most, kinds)
        elif required:
            self.refuse(pointer, f"missing required field: {key}")

    def items(self, of: Mapping[str, Any], key: str, pointer: str, most: int, *, least: int = 1) -> list[tuple[Any, str]]:
        """The items of a list under the key, each with its pointer."""
        values = of.get(key)
        if values is None:
            self.refuse(pointer, f"missing required field: {key}")
            return []
        if not isinstance(values, list):
            self.refuse(f"{pointer}/{key}", "must be an array")
            return []
        if len(values) > most:
            self.refuse(f"{pointer}/{key}", f"no more than {most} items allowed")
        if len(values) < least:
            self.refuse(f"{pointer}/{key}", f"no less than {least} items allowed")
        return [(value, f"{pointer}/{key}/{index}") for index, value in enumerate(values)]

    def only(self, of: Mapping[str, Any], pointer: str, *allowed: str) -> None:
        """No other keys."""
        for key in of:
            if key not in allowed:
                self.refuse(pointer, f"invalid additional property: {key}")

    def link(self, of: Mapping[str, Any], key: str, pointer: str, *, required: bool = False) -> None:
        """An http(s) address of at most 3,000 characters under the key."""
        self.string(of, key, pointer, 3000, required=required)
        value = of.get(key)
        if isinstance(value, str) and value and not value.startswith(("http://", "https://", "mailto:", "slack://")):
            self.refuse(f"{pointer}/{key}", f"invalid url: {value[:80]}")

    def confirm(self, of: Mapping[str, Any], pointer: str) -> None:
        """A confirmation dialog, where there is one."""
        if "confirm" not in of:
            return
        dialog, place = of["confirm"], f"{pointer}/confirm"
        if not isinstance(dialog, dict):
            self.refuse(place, "must be an object")
            return
        self.text(dialog, "title", place, 100, kinds=("plain_text",), required=True)
        self.text(dialog, "text", place, 300, required=True)
        self.text(dialog, "confirm", place, 30, kinds=("plain_text",), required=True)
        self.text(dialog, "deny", place, 30, kinds=("plain_text",), required=True)
        self.choice(dialog, "style", place, ("primary", "danger"))

    def option(self, value: Any, pointer: str) -> None:
        """An option of a select, of radio buttons or of checkboxes."""
        if not isinstance(value, dict):
            self.refuse(pointer, "must be an object")
            return
        self.text(value, "text", pointer, 75, required=True)
        self.string(value, "value", pointer, 150, least=0, required=True)
        self.text(value, "description", pointer, 75)

    # Blocks

    def block(self, block: Any, pointer: str) -> None:
        """One block on its surface."""
        if not isinstance(block, dict):
            self.refuse(pointer, "must be an object")
            return
        kind = block.get("type")
        known = _BLOCKS.get(kind) if isinstance(kind, str) else None
        if known is None:
            self.refuse(f"{pointer}/type", f"unsupported type: {kind}")
            return
        surfaces, keys, look = known
        if self.surface not in surfaces:
            self.refuse(f"{pointer}/type", f"unsupported type: {kind} (not available in a {self.surface})")
            return
        self.string(block, "block_id", pointer, 255)
        self.only(block, pointer, "type", "block_id", *keys)
        look(self, block, pointer)

    def header(self, block: Mapping[str, Any], pointer: str) -> None:
        self.text(block, "text", pointer, 150, kinds=("plain_text",), required=True)

    def section(self, block: Mapping[str, Any], pointer: str) -> None:
        if "text" not in block and "fields" not in block:
            self.refuse(pointer, "missing required field: text or fields")
        self.text(block, "text", pointer, 3000)
        if "fields" in block:
            for value, place in self.items(block, "fields", pointer, 10):
                self.text_object(value, place, 2000)
        if "accessory" in block:
            self.element(block["accessory"], f"{pointer}/accessory", _ACCESSORIES)

    def divider(self, block: Mapping[str, Any], pointer: str) -> None:
        pass

    def context(self, block: Mapping[str, Any], pointer: str) -> None:
        for value, place in self.items(block, "elements", pointer, 10):
            if isinstance(value, dict) and value.get("type") == "image":
                self.picture(value, place)
            else:
                self.text_object(value, place)

    def actions(self, block: Mapping[str, Any], pointer: str) -> None:
        names: set[str] = set()
        for value, place in self.items(block, "elements", pointer, 25):
            self.element(value, place, _INTERACTIVE)
            name = value.get("action_id") if isinstance(value, dict) else None
            if isinstance(name, str):
                if name in names:
                    self.refuse(place, f"`action_id` {name} already exists in this block")
                names.add(name)

    def context_actions(self, block: Mapping[str, Any], pointer: str) -> None:
        for value, place in self.items(block, "elements", pointer, 5):
            self.element(value, place, ("feedback_buttons", "icon_button"))

    def input(self, block: Mapping[str, Any], pointer: str) -> None:
        self.text(block, "label", pointer, 2000, kinds=("plain_text",), required=True)
        self.text(block, "hint", pointer, 2000, kinds=("plain_text",))
        if "element" in block:
            self.element(block["element"], f"{pointer}/element", _INPUTS)
        else:
            self.refuse(pointer, "missing required field: element")

    def image(self, block: Mapping[str, Any], pointer: str) -> None:
        self.picture(block, pointer)
        self.text(block, "title", pointer, 2000, kinds=("plain_text",))

    def picture(self, of: Mapping[str, Any], pointer: str) -> None:
        """An image block or element: by address, or by a file that Slack holds."""
        self.string(of, "alt_text", pointer, 2000, required=True)
        if ("image_url" in of) == ("slack_file" in of):
            self.refuse(pointer, "exactly one of image_url and slack_file is required")
        self.link(of, "image_url", pointer)
        if "slack_file" in of and (not isinstance(of["slack_file"], dict) or not {"id", "url"} & set(of["slack_file"])):
            self.refuse(f"{pointer}/slack_file", "missing required field: id or url")

    def file(self, block: Mapping[str, Any], pointer: str) -> None:
        self.string(block, "external_id", pointer, required=True)

    def markdown(self, block: Mapping[str, Any], pointer: str) -> None:
        self.string(block, "text", pointer, LONGEST_MARKDOWN, required=True)

    def rich_text(self, block: Mapping[str, Any], pointer: str) -> None:
        for value, place in self.items(block, "elements", pointer, 1000, least=0):
            kind = value.get("type") if isinstance(value, dict) else None
            if kind == "rich_text_list":
                self.choice(value, "style", place, ("bullet", "ordered"), required=True)
                for entry, where in self.items(value, "elements", place, 1000, least=0):
                    self.rich_text_line(entry, where, ("rich_text_section",))
            else:
                self.rich_text_line(value, place, ("rich_text_section", "rich_text_preformatted", "rich_text_quote"))

    def rich_text_line(self, value: Any, pointer: str, kinds: Sequence[str]) -> None:
        """A line of rich text: its inline elements."""
        if not isinstance(value, dict) or value.get("type") not in kinds:
            self.refuse(f"{pointer}/type", f"must be a valid enum value: {', '.join(kinds)}")
            return
        for inline, place in self.items(value, "elements", pointer, 1000, least=0):
            if not isinstance(inline, dict) or inline.get("type") not in _INLINE:
                self.refuse(f"{place}/type", f"must be a valid enum value: {', '.join(_INLINE)}")
                continue
            for key in _INLINE[inline["type"]]:
                if key not in inline:
                    self.refuse(place, f"missing required field: {key}")
            if inline["type"] == "text":
                self.string(inline, "text", place)
            if inline["type"] == "link":
                self.link(inline, "url", place)

    def plan(self, block: Mapping[str, Any], pointer: str) -> None:
        self.string(block, "title", pointer, 256, required=True)
        names: set[Any] = set()
        for value, place in self.items(block, "tasks", pointer, 50, least=0):
            if not isinstance(value, dict) or value.get("type") != "task_card":
                self.refuse(f"{place}/type", "must be a valid enum value: task_card")
                continue
            self.only(value, place, "type", "block_id", *_TASK)
            self.task_card(value, place)
            name = value.get("task_id")
            if name in names:
                self.refuse(f"{place}/task_id", f"task_id must be unique within a plan: {name}")
            names.add(name)

    def task_card(self, block: Mapping[str, Any], pointer: str) -> None:
        self.string(block, "task_id", pointer, 255, required=True)
        self.string(block, "title", pointer, 256, required=True)
        self.choice(block, "status", pointer, ("pending", "in_progress", "complete", "error"))
        for key in ("details", "output"):
            if key in block:
                if isinstance(block[key], dict) and block[key].get("type") == "rich_text":
                    self.rich_text(block[key], f"{pointer}/{key}")
                else:
                    self.refuse(f"{pointer}/{key}", "must be a rich_text block")
        if "sources" in block:
            for value, place in self.items(block, "sources", pointer, 50, least=0):
                if not isinstance(value, dict) or value.get("type") != "url":
                    self.refuse(f"{place}/type", "must be a valid enum value: url")
                    continue
                self.link(value, "url", place, required=True)
                self.string(value, "text", place, required=True)

    def table(self, block: Mapping[str, Any], pointer: str) -> None:
        rows = self.rows(block, pointer, 100, 20, ("raw_text", "raw_number", "rich_text"))
        if _characters(rows) > LONGEST_TABLE:
            self.refuse(f"{pointer}/rows", f"the cells of a table may have {LONGEST_TABLE} characters in all", "invalid_attachments")
        if "column_settings" in block:
            for value, place in self.items(block, "column_settings", pointer, 20, least=0):
                if value is None:
                    continue
                if not isinstance(value, dict):
                    self.refuse(place, "must be an object")
                    continue
                self.choice(value, "align", place, ("left", "center", "right"))
                self.only(value, place, "align", "is_wrapped")

    def data_table(self, block: Mapping[str, Any], pointer: str) -> None:
        self.string(block, "caption", pointer, required=True)
        rows = self.rows(block, pointer, 201, 20, ("raw_text", "raw_number", "rich_text", "action_cell"))
        for column, cell in enumerate(rows[0] if rows else ()):
            if isinstance(cell, dict) and cell.get("type") == "rich_text":
                self.refuse(f"{pointer}/rows/0/{column}/type", "a header cell must not be rich_text")
        if _characters(rows) > LONGEST_DATA_TABLE:
            self.refuse(f"{pointer}/rows", f"the cells of a data_table may have {LONGEST_DATA_TABLE} characters in all")
        size = block.get("page_size", 5)
        if not isinstance(size, int) or not 1 <= size <= 100:
            self.refuse(f"{pointer}/page_size", "must be between 1 and 100")

    def rows(self, block: Mapping[str, Any], pointer: str, most: int, columns: int, kinds: Sequence[str]) -> list[list[Any]]:
        """The rows of a table, each a list of cells of these kinds."""
        good: list[list[Any]] = []
        for row, place in self.items(block, "rows", pointer, most):
            if not isinstance(row, list):
                self.refuse(place, "must be an array")
                continue
            good.append(row)
            if len(row) > columns:
                self.refuse(place, f"no more than {columns} items allowed")
            if not row:
                self.refuse(place, "no less than 1 items allowed")
            for index, cell in enumerate(row):
                self.cell(cell, f"{place}/{index}", kinds)
        if len({len(row) for row in good}) > 1:
            self.refuse(f"{pointer}/rows", "all rows must have the same number of cells")
        return good

    def cell(self, cell: Any, pointer: str, kinds: Sequence[str]) -> None:
        if not isinstance(cell, dict) or cell.get("type") not in kinds:
            self.refuse(f"{pointer}/type", f"must be a valid enum value: {', '.join(kinds)}")
            return
        match cell["type"]:
            case "raw_text":
                self.string(cell, "text", pointer, required=True)
            case "raw_number":
                if isinstance(cell.get("value"), bool) or not isinstance(cell.get("value"), int | float):
                    self.refuse(f"{pointer}/value", "must be a number")
                self.string(cell, "text", pointer, required=True)
            case "rich_text":
                self.rich_text(cell, pointer)
            case _:
                for value, place in self.items(cell, "elements", pointer, 3):
                    self.element(value, place, ("button",))

    def data_visualization(self, block: Mapping[str, Any], pointer: str) -> None:
        self.string(block, "title", pointer, 50, required=True)
        chart, place = block.get("chart"), f"{pointer}/chart"
        if not isinstance(chart, dict):
            self.refuse(pointer, "missing required field: chart")
            return
        self.choice(chart, "type", place, ("line", "bar", "area", "pie"), required=True)
        if chart.get("type") == "pie":
            for value, where in self.items(chart, "segments", place, 12):
                self.point(value, where)
            return
        axes = chart.get("axis_config")
        categories = axes.get("categories") if isinstance(axes, dict) else None
        if not isinstance(categories, list):
            self.refuse(place, "missing required field: axis_config.categories")
            categories = []
        for value, where in self.items(chart, "series", place, 12):
            if not isinstance(value, dict):
                self.refuse(where, "must be an object")
                continue
            self.string(value, "name", where, 20, required=True)
            points = self.items(value, "data", where, 20)
            for point, at in points:
                self.point(point, at)
            missing = [name for name in categories if name not in {p.get("label") for p, _ in points if isinstance(p, dict)}]
            if missing:
                self.refuse(f"{where}/data", f"missing a value for the category: {missing[0]}")

    def point(self, value: Any, pointer: str) -> None:
        if not isinstance(value, dict):
            self.refuse(pointer, "must be an object")
            return
        self.string(value, "label", pointer, 20, required=True)
        if isinstance(value.get("value"), bool) or not isinstance(value.get("value"), int | float):
            self.refuse(f"{pointer}/value", "must be a number")

    def alert(self, block: Mapping[str, Any], pointer: str) -> None:
        self.text(block, "text", pointer, 200, required=True)
        self.choice(block, "level", pointer, ("default", "info", "warning", "error", "success"))

    def card(self, block: Mapping[str, Any], pointer: str) -> None:
        self.text(block, "title", pointer, 150)
        self.text(block, "subtitle", pointer, 150)
        self.text(block, "body", pointer, 200)
        if not {"title", "body", "hero_image", "actions"} & set(block):
            self.refuse(pointer, "missing required field: title, body, hero_image or actions")
        if "actions" in block:
            for value, place in self.items(block, "actions", pointer, 3):
                self.element(value, place, ("button",))

    def carousel(self, block: Mapping[str, Any], pointer: str) -> None:
        for value, place in self.items(block, "elements", pointer, 10):
            if isinstance(value, dict) and value.get("type") == "card":
                self.block(value, place)
            else:
                self.refuse(f"{place}/type", "must be a valid enum value: card")

    def container(self, block: Mapping[str, Any], pointer: str) -> None:
        self.text(block, "title", pointer, 150)
        for value, place in self.items(block, "child_blocks", pointer, 10):
            if isinstance(value, dict) and value.get("type") in {"card", "carousel", "data_table", "container"}:
                self.refuse(f"{place}/type", f"unsupported type: {value['type']} (not available in a container)")
            else:
                self.block(value, place)

    # Elements

    def element(self, element: Any, pointer: str, kinds: Sequence[str]) -> None:
        """An interactive element, where only these kinds may stand."""
        kind = element.get("type") if isinstance(element, dict) else None
        if not isinstance(kind, str) or kind not in kinds:
            self.refuse(f"{pointer}/type", f"unsupported type: {kind}")
            return
        self.string(element, "action_id", pointer, 255)
        self.text(element, "placeholder", pointer, 150, kinds=("plain_text",))
        self.confirm(element, pointer)
        look = _ELEMENTS.get(kind)
        if look is not None:
            look(self, element, pointer)

    def button(self, element: Mapping[str, Any], pointer: str) -> None:
        self.text(element, "text", pointer, 75, kinds=("plain_text",), required=True)
        self.string(element, "value", pointer, 2000, least=0)
        self.link(element, "url", pointer)
        self.choice(element, "style", pointer, ("primary", "danger"))
        self.string(element, "accessibility_label", pointer, 75)
        self.only(element, pointer, "type", "action_id", "text", "value", "url", "style", "confirm", "accessibility_label")

    def overflow(self, element: Mapping[str, Any], pointer: str) -> None:
        for value, place in self.items(element, "options", pointer, 5):
            self.option(value, place)

    def boxes(self, element: Mapping[str, Any], pointer: str) -> None:
        for value, place in self.items(element, "options", pointer, 10):
            self.option(value, place)

    def typed(self, element: Mapping[str, Any], pointer: str) -> None:
        for key, low in (("min_length", 0), ("max_length", 1)):
            value = element.get(key)
            if value is not None and (not isinstance(value, int) or not low <= value <= 3000):
                self.refuse(f"{pointer}/{key}", f"must be between {low} and 3000")
        self.string(element, "initial_value", pointer, 3000, least=0)

    def number(self, element: Mapping[str, Any], pointer: str) -> None:
        if "is_decimal_allowed" not in element:
            self.refuse(pointer, "missing required field: is_decimal_allowed")

    def feedback(self, element: Mapping[str, Any], pointer: str) -> None:
        for key in ("positive_button", "negative_button"):
            if not isinstance(element.get(key), dict):
                self.refuse(pointer, f"missing required field: {key}")

    def icon(self, element: Mapping[str, Any], pointer: str) -> None:
        self.choice(element, "icon", pointer, ("trash",), required=True)
        self.text(element, "text", pointer, 75, kinds=("plain_text",), required=True)

    def select(self, element: Mapping[str, Any], pointer: str) -> None:
        if "option_groups" in element:
            for value, place in self.items(element, "option_groups", pointer, 100):
                if not isinstance(value, dict):
                    self.refuse(place, "must be an object")
                    continue
                self.text(value, "label", place, 75, kinds=("plain_text",), required=True)
                for option, where in self.items(value, "options", place, 100):
                    self.option(option, where)
            return
        options = self.items(element, "options", pointer, 100)
        for value, place in options:
            self.option(value, place)
        initial = element.get("initial_option")
        if initial is not None and not any(value == initial for value, _ in options):
            self.refuse(f"{pointer}/initial_option", "the initial option must be one of the options")

    # The whole

    def whole(self, blocks: Sequence[Any], pointer: str) -> None:
        """What holds for all blocks together."""
        names: set[str] = set()
        tables = charts = plans = markdown = size = 0
        for index, block in enumerate(_flat(blocks)):
            name = block.get("block_id")
            if isinstance(name, str):
                if name in names:
                    self.refuse(pointer, f"`block_id` {name} already exists, it must be unique")
                names.add(name)
            match block.get("type"):
                case "table" | "data_table":
                    tables += 1
                case "data_visualization":
                    charts += 1
                case "plan":
                    plans += 1
                case "markdown":
                    markdown += len(str(block.get("text", "")))
            if plans == 2 and block.get("type") == "plan":
                self.refuse(f"{pointer}/{index}", "only one plan is allowed in a message")
        size = sum(
            len(json.dumps(block, ensure_ascii=False, separators=(",", ":")))
            for block in blocks
            if not (isinstance(block, dict) and block.get("type") in {"table", "data_table"})
        )
        if self.surface is not Surface.MODAL and tables > 1:
            self.refuse(pointer, "only_one_table_allowed", "invalid_attachments")
        if charts > 2:
            self.refuse(pointer, "no more than 2 data_visualization blocks are allowed in a message")
        if markdown > LONGEST_MARKDOWN:
            self.refuse(pointer, f"markdown blocks may have {LONGEST_MARKDOWN} characters in all")
        if self.surface is Surface.MESSAGE and size > LONGEST_BLOCKS:
            self.refuse(pointer, f"the blocks have {size} characters", "msg_blocks_too_long")


def _flat(blocks: Sequence[Any]) -> list[Mapping[str, Any]]:
    """The blocks with those inside containers."""
    flat: list[Mapping[str, Any]] = []
    for block in blocks:
        if isinstance(block, dict):
            flat.append(block)
            children = block.get("child_blocks")
            if isinstance(children, list):
                flat += _flat(children)
    return flat


def _characters(value: Any) -> int:
    """The characters of all texts inside."""
    match value:
        case list():
            return sum(_characters(item) for item in value)
        case {"text": str(text)}:
            return len(text)
        case dict():
            return sum(_characters(item) for key, item in value.items() if key in {"elements", "text"})
    return 0


_INLINE: Mapping[str, tuple[str, ...]] = {
    "text": ("text",),
    "link": ("url",),
    "emoji": ("name",),
    "user": ("user_id",),
    "usergroup": ("usergroup_id",),
    "channel": ("channel_id",),
    "broadcast": ("range",),
    "date": ("timestamp", "format"),
    "color": ("value",),
}
_SELECTS = (
    "static_select",
    "multi_static_select",
    "users_select",
    "multi_users_select",
    "conversations_select",
    "multi_conversations_select",
    "channels_select",
    "multi_channels_select",
)
_PICKERS = ("datepicker", "timepicker", "datetimepicker", "checkboxes", "radio_buttons")
_INTERACTIVE = ("button", "overflow", *_SELECTS, *_PICKERS)
_ACCESSORIES = ("image", *_INTERACTIVE)
_INPUTS = ("plain_text_input", "number_input", "email_text_input", "url_text_input", *_SELECTS, *_PICKERS)
_TASK = ("task_id", "title", "status", "details", "output", "sources")

_CONTAINER = (
    "title",
    "rich_text_title",
    "subtitle",
    "child_blocks",
    "width",
    "icon",
    "is_collapsible",
    "default_collapsed",
    "has_header_divider",
)

_EVERYWHERE = frozenset(Surface)
_MESSAGE = frozenset({Surface.MESSAGE})
_MESSAGE_HOME = frozenset({Surface.MESSAGE, Surface.HOME})
_Look = Callable[[_Check, Mapping[str, Any], str], None]
_ELEMENTS: Mapping[str, _Look] = {
    "button": _Check.button,
    "checkboxes": _Check.boxes,
    "feedback_buttons": _Check.feedback,
    "icon_button": _Check.icon,
    "image": _Check.picture,
    "multi_static_select": _Check.select,
    "number_input": _Check.number,
    "overflow": _Check.overflow,
    "plain_text_input": _Check.typed,
    "radio_buttons": _Check.boxes,
    "static_select": _Check.select,
}
# Block type -> where it may stand, its keys, and what else is looked at.
_BLOCKS: Mapping[str, tuple[frozenset[Surface], tuple[str, ...], _Look]] = {
    "header": (_EVERYWHERE, ("text",), _Check.header),
    "section": (_EVERYWHERE, ("text", "fields", "accessory", "expand"), _Check.section),
    "divider": (_EVERYWHERE, (), _Check.divider),
    "context": (_EVERYWHERE, ("elements",), _Check.context),
    "actions": (_EVERYWHERE, ("elements",), _Check.actions),
    "context_actions": (_MESSAGE, ("elements",), _Check.context_actions),
    "input": (_EVERYWHERE, ("label", "hint", "element", "optional", "dispatch_action"), _Check.input),
    "image": (_EVERYWHERE, ("image_url", "slack_file", "alt_text", "title"), _Check.image),
    "file": (_MESSAGE, ("external_id", "source"), _Check.file),
    "markdown": (_MESSAGE, ("text",), _Check.markdown),
    "rich_text": (_EVERYWHERE, ("elements",), _Check.rich_text),
    "plan": (_MESSAGE, ("title", "tasks"), _Check.plan),
    "task_card": (_MESSAGE, _TASK, _Check.task_card),
    "table": (_MESSAGE_HOME, ("rows", "column_settings"), _Check.table),
    "data_table": (_MESSAGE_HOME, ("rows", "caption", "page_size", "row_header_column_index"), _Check.data_table),
    "data_visualization": (_MESSAGE_HOME, ("title", "chart"), _Check.data_visualization),
    "alert": (frozenset({Surface.MODAL}), ("text", "level"), _Check.alert),
    "card": (_MESSAGE_HOME, ("title", "subtitle", "body", "hero_image", "icon", "actions"), _Check.card),
    "carousel": (_MESSAGE_HOME, ("elements",), _Check.carousel),
    "container": (_MESSAGE_HOME, _CONTAINER, _Check.container),
}
