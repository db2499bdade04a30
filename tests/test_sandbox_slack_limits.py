"""What Slack refuses as blocks: each limit of its reference, one row of a table each."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.slack.limits import Surface, check_blocks, check_view

Block = dict[str, Any]
TEXT = {"type": "plain_text", "text": "x"}
MRKDWN = {"type": "mrkdwn", "text": "x"}
CELL = {"type": "raw_text", "text": "x"}
BUTTON = {"type": "button", "action_id": "go", "text": TEXT}
SOURCE = {"type": "url", "url": "https://a.example", "text": "Log"}
OPTION = {"text": TEXT, "value": "x"}


def plain(length: int) -> Block:
    return {"type": "plain_text", "text": "x" * length}


def section(**more: Any) -> Block:
    return {"type": "section", "text": MRKDWN, **more}


def table(rows: int, columns: int, text: str = "x") -> Block:
    return {"type": "table", "rows": [[{"type": "raw_text", "text": text}] * columns for _ in range(rows)]}


def task(name: str, **more: Any) -> Block:
    return {"type": "task_card", "task_id": name, "title": "Train", "status": "complete", **more}


def plan(*tasks: Block) -> Block:
    return {"type": "plan", "title": "Running", "tasks": list(tasks)}


def rich(*elements: Block) -> Block:
    return {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": list(elements)}]}


def actions(*elements: Block) -> Block:
    return {"type": "actions", "elements": list(elements)}


def chart(series: int = 1, points: int = 1, categories: int = 1) -> Block:
    data = [{"label": f"p{index}", "value": 1.5} for index in range(points)]
    return {
        "type": "data_visualization",
        "title": "Drift",
        "chart": {
            "type": "line",
            "series": [{"name": f"s{index}", "data": data} for index in range(series)],
            "axis_config": {"categories": [f"p{index}" for index in range(categories)]},
        },
    }


ACCEPTED: dict[str, list[Block]] = {
    "header of 150": [{"type": "header", "text": plain(150)}],
    "section of 3,000": [section(text={"type": "mrkdwn", "text": "x" * 3000})],
    "ten fields": [{"type": "section", "fields": [MRKDWN] * 10}],
    "fifty blocks": [{"type": "divider"}] * 50,
    "a table of 20 columns": [table(5, 20)],
    "a table of 100 rows": [table(100, 2)],
    "a table of 10,000 characters": [table(10, 10, "x" * 100)],
    "numbers and rich text in a table": [
        {
            "type": "table",
            "column_settings": [{"is_wrapped": True}, {"align": "right"}],
            "rows": [[CELL, CELL], [rich({"type": "text", "text": "AUC"}), {"type": "raw_number", "value": 0.9, "text": "0.9"}]],
        }
    ],
    "a data table": [{"type": "data_table", "caption": "Runs", "page_size": 10, "rows": [[CELL], [CELL]]}],
    "a chart": [chart()],
    "a plan": [plan(task("a", output=rich({"type": "text", "text": "412 passed"}), sources=[SOURCE]), task("b"))],
    "buttons": [actions(BUTTON, {**BUTTON, "action_id": "stop", "style": "danger"})],
    "a select": [section(accessory={"type": "static_select", "action_id": "s", "options": [OPTION], "initial_option": OPTION})],
    "a context": [{"type": "context", "elements": [MRKDWN, {"type": "image", "image_url": "https://a.example/a.png", "alt_text": "A"}]}],
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_slack_accepts(name: str) -> None:
    assert check_blocks(ACCEPTED[name]) == []


# What is refused -> the blocks, where, and Slack's words about it.
REFUSED: dict[str, tuple[list[Any], str, str]] = {
    "51 blocks": ([{"type": "divider"}] * 51, "/blocks", "no more than 50 items allowed"),
    "an unknown block": ([{"type": "banner"}], "/blocks/0/type", "unsupported type: banner"),
    "something that is no block": (["x"], "/blocks/0", "must be an object"),
    "a misspelt field": ([{"type": "divider", "txt": "x"}], "/blocks/0", "invalid additional property: txt"),
    "a header of 151": ([{"type": "header", "text": plain(151)}], "/blocks/0/text/text", "must be less than 151 characters"),
    "a header in mrkdwn": ([{"type": "header", "text": MRKDWN}], "/blocks/0/text/type", "must be a valid enum value"),
    "an empty header": ([{"type": "header", "text": plain(0)}], "/blocks/0/text/text", "must be more than 0 characters"),
    "a section without words": ([{"type": "section"}], "/blocks/0", "missing required field: text or fields"),
    "eleven fields": ([{"type": "section", "fields": [MRKDWN] * 11}], "/blocks/0/fields", "no more than 10 items allowed"),
    "a field of 2,001": (
        [{"type": "section", "fields": [plain(2001)]}], "/blocks/0/fields/0/text", "must be less than 2001 characters"
    ),
    "the same block_id twice": ([section(block_id="a"), section(block_id="a")], "/blocks", "`block_id` a already exists"),
    "26 buttons": (
        [actions(*[{**BUTTON, "action_id": f"a{index}"} for index in range(26)])], "/blocks/0/elements", "no more than 25 items allowed"
    ),
    "the same action_id twice": ([actions(BUTTON, BUTTON)], "/blocks/0/elements/1", "`action_id` go already exists"),
    "a button of 76": ([actions({**BUTTON, "text": plain(76)})], "/blocks/0/elements/0/text/text", "must be less than 76 characters"),
    "a button's value of 2,001": (
        [actions({**BUTTON, "value": "x" * 2001})], "/blocks/0/elements/0/value", "must be less than 2001 characters"
    ),
    "a button in a made-up style": ([actions({**BUTTON, "style": "big"})], "/blocks/0/elements/0/style", "must be a valid enum value"),
    "a script behind a button": ([actions({**BUTTON, "url": "javascript:1"})], "/blocks/0/elements/0/url", "invalid url"),
    "a confirm without words": (
        [actions({**BUTTON, "confirm": {"title": TEXT}})], "/blocks/0/elements/0/confirm", "missing required field: text"
    ),
    "an input field among buttons": (
        [actions({"type": "plain_text_input", "action_id": "x"})], "/blocks/0/elements/0/type", "unsupported type: plain_text_input"
    ),
    "a select without options": (
        [section(accessory={"type": "static_select", "action_id": "s", "options": []})],
        "/blocks/0/accessory/options", "no less than 1 items allowed",
    ),
    "a first choice that is none": (
        [section(accessory={"type": "static_select", "action_id": "s", "options": [OPTION], "initial_option": {**OPTION, "value": "y"}})],
        "/blocks/0/accessory/initial_option", "the initial option must be one of the options",
    ),
    "21 table columns": ([table(2, 21)], "/blocks/0/rows/0", "no more than 20 items allowed"),
    "101 table rows": ([table(101, 1)], "/blocks/0/rows", "no more than 100 items allowed"),
    "uneven rows": (
        [{"type": "table", "rows": [[CELL], [CELL, CELL]]}], "/blocks/0/rows", "all rows must have the same number of cells"
    ),
    "a table of 10,001 characters": ([table(1, 1, "x" * 10_001)], "/blocks/0/rows", "10000 characters in all"),
    "two tables": ([table(1, 1), table(1, 1)], "/blocks", "only_one_table_allowed"),
    "a table and one in a container": (
        [table(1, 1), {"type": "container", "title": TEXT, "child_blocks": [table(1, 1)]}], "/blocks", "only_one_table_allowed"
    ),
    "a number without a value": (
        [{"type": "table", "rows": [[{"type": "raw_number", "text": "1"}]]}], "/blocks/0/rows/0/0/value", "must be a number"
    ),
    "mrkdwn in a cell": ([{"type": "table", "rows": [[MRKDWN]]}], "/blocks/0/rows/0/0/type", "must be a valid enum value"),
    "a made-up alignment": (
        [{**table(1, 1), "column_settings": [{"align": "middle"}]}], "/blocks/0/column_settings/0/align", "must be a valid enum value"
    ),
    "a data table without a caption": ([{"type": "data_table", "rows": [[CELL]]}], "/blocks/0", "missing required field: caption"),
    "a rich header cell": (
        [{"type": "data_table", "caption": "x", "rows": [[rich({"type": "text", "text": "x"})]]}],
        "/blocks/0/rows/0/0/type", "a header cell must not be rich_text",
    ),
    "a page of 101": (
        [{"type": "data_table", "caption": "x", "page_size": 101, "rows": [[CELL]]}], "/blocks/0/page_size", "must be between 1 and 100"
    ),
    "an alert in a message": ([{"type": "alert", "text": MRKDWN}], "/blocks/0/type", "unsupported type: alert"),
    "two plans": ([plan(task("a")), plan(task("b"))], "/blocks/1", "only one plan is allowed"),
    "a task_id twice": ([plan(task("a"), task("a"))], "/blocks/0/tasks/1/task_id", "task_id must be unique"),
    "51 tasks": ([plan(*[task(str(index)) for index in range(51)])], "/blocks/0/tasks", "no more than 50 items allowed"),
    "something else in a plan": ([plan(section())], "/blocks/0/tasks/0/type", "must be a valid enum value: task_card"),
    "a made-up status": ([plan(task("a", status="done"))], "/blocks/0/tasks/0/status", "must be a valid enum value"),
    "a plain output": ([plan(task("a", output="ok"))], "/blocks/0/tasks/0/output", "must be a rich_text block"),
    "a task without a title": ([plan({"type": "task_card", "task_id": "a"})], "/blocks/0/tasks/0", "missing required field: title"),
    "three charts": ([chart(), chart(), chart()], "/blocks", "no more than 2 data_visualization"),
    "21 points": ([chart(points=21)], "/blocks/0/chart/series/0/data", "no more than 20 items allowed"),
    "a gap in a chart": ([chart(points=1, categories=2)], "/blocks/0/chart/series/0/data", "missing a value for the category: p1"),
    "an empty text run": ([rich({"type": "text", "text": ""})], "/blocks/0/elements/0/elements/0/text", "must be more than 0 characters"),
    "a link without an address": ([rich({"type": "link"})], "/blocks/0/elements/0/elements/0", "missing required field: url"),
    "a picture from nowhere": ([{"type": "image", "alt_text": "x"}], "/blocks/0", "exactly one of image_url and slack_file is required"),
    "more words than Slack takes": (
        [{"type": "section", "text": plain(2900)} for _ in range(5)], "/blocks", "characters"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_slack_refuses(name: str) -> None:
    blocks, pointer, words = REFUSED[name]

    problems = check_blocks(blocks)

    assert any(problem.pointer == pointer and words in problem.message for problem in problems), problems


def test_each_kind_of_excess_has_its_own_error() -> None:
    assert check_blocks([table(1, 1), table(1, 1)])[0].code == "invalid_attachments"
    assert check_blocks([section(text=plain(2900)) for _ in range(5)])[0].code == "msg_blocks_too_long"
    assert check_blocks([table(2, 21)])[0].code == "invalid_blocks"


def test_a_modal_may_alert_but_not_plan() -> None:
    assert check_blocks([{"type": "alert", "text": MRKDWN, "level": "warning"}], Surface.MODAL) == []
    assert check_blocks([plan(task("a"))], Surface.MODAL)
    assert check_blocks([table(1, 1)], Surface.MODAL)
    assert check_blocks([{"type": "divider"}] * 100, Surface.HOME) == []


def modal(**more: Any) -> Block:
    return {"type": "modal", "title": TEXT, "submit": TEXT, "blocks": [section()], **more}


INPUT = {"type": "input", "label": TEXT, "element": {"type": "plain_text_input", "action_id": "x"}}


@pytest.mark.parametrize(
    ("view", "pointer"),
    [
        (modal(title=plain(25)), "/view/title/text"),
        (modal(private_metadata="x" * 3001), "/view/private_metadata"),
        (modal(submit=None, blocks=[INPUT]), "/view"),
        (modal(type="window"), "/view/type"),
        (modal(blocks=[{"type": "plan", "title": "x", "tasks": []}]), "/view/blocks/0/type"),
        ({"type": "home", "blocks": [{"type": "alert", "text": TEXT}]}, "/view/blocks/0/type"),
        ("x", "/view"),
    ],
)
def test_slack_refuses_a_view(view: Any, pointer: str) -> None:
    assert pointer in {problem.pointer for problem in check_view(view)}


def test_slack_accepts_a_view() -> None:
    assert check_view(modal(blocks=[INPUT, {"type": "alert", "text": TEXT, "level": "error"}])) == []
    assert check_view({"type": "home", "blocks": [section()]}) == []
