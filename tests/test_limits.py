"""Slack's limits: what is refused, and that whatever is made to fit does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.messages.kit import (
    Block,
    Home,
    Message,
    Modal,
    actions,
    button,
    context,
    facts,
    header,
    inline,
    mrkdwn,
    plain_text,
    preformatted,
    rich,
    section,
)
from bot.messages.limits import UNWANTED, cut_mrkdwn, fit, problems
from sandbox.slack.limits import Surface, check_blocks, check_view
from tests.golden import FOLDER
from tests.outside import EVIL

LONG = "lorem ipsum " * 1000


def table(rows: int = 2, columns: int = 2, text: str = "x", **more: object) -> Block:
    return {"type": "table", "rows": [[{"type": "raw_text", "text": text}] * columns for _ in range(rows)], **more}


def plan(tasks: list[dict[str, Any]], title: str = "Plan") -> Block:
    return {"type": "plan", "title": title, "tasks": tasks}


def task(id: str = "1", title: str = "Task", **more: object) -> dict[str, Any]:
    return {"type": "task_card", "task_id": id, "title": title, "status": "pending", **more}


def select(options: int, value: str = "v", **more: object) -> Block:
    made = [{"text": plain_text(str(number)), "value": f"{value}{number}"} for number in range(options)]
    return {
        "type": "input",
        "label": plain_text("Label"),
        "element": {"type": "static_select", "options": made, "initial_option": {"text": plain_text("0"), "value": f"{value}0"}, **more},
    }


def asked(**element: object) -> Block:
    return {"type": "input", "label": plain_text("L"), "hint": plain_text(LONG), "element": {"type": "plain_text_input", **element}}


TOO_MUCH: dict[str, Block] = {
    "header": {"type": "header", "text": plain_text(LONG)},
    "header mrkdwn": {"type": "header", "text": mrkdwn("*x*")},
    "section": {"type": "section", "text": {"type": "mrkdwn", "text": LONG}},
    "section without anything": {"type": "section"},
    "fields": facts(*((str(number), LONG) for number in range(20))),
    "context": context(*([LONG] * 20)),
    "context without anything": {"type": "context", "elements": []},
    "actions without anything": actions("a"),
    "buttons": actions("a", *(button(str(number), LONG, "v") for number in range(40))),
    "button value": actions("a", button("b", "B", "v" * 3000)),
    "button with a control character": actions("a", button("b", "B", "v\x00")),
    "button url": actions("a", {"type": "button", "action_id": "b", "text": plain_text("B"), "url": "javascript:x"}),
    "same buttons": actions("a", button("b", "B", "1"), button("b", "B", "2")),
    "confirm": actions("a", button("b", "B", "1", confirm={key: plain_text(LONG) for key in ("title", "text", "confirm", "deny")})),
    "block_id": actions("a" * 300, button("b", "B", "1")),
    "rich text": preformatted([LONG]),
    "control character": section("a\x00b"),
    "half a character": section("a\ud800b"),
    "tasks": plan([task(str(number)) for number in range(60)]),
    "same tasks": plan([task("1"), task("1")]),
    "task": plan([task("1" * 300, LONG, output=rich(inline(LONG)), sources=[{"type": "url", "url": "x", "text": "x"}])], LONG),
    "rows": table(rows=120),
    "columns": table(columns=21, column_settings=[{"align": "right"}] * 21),
    "cells": table(rows=90, text="x" * 250),
    "empty cell": table(text=""),
    "long rich cell": {"type": "table", "rows": [[rich(inline(LONG))]]},
    "alert in a message": {"type": "alert", "text": plain_text("Careful")},
    "input in a message": asked(),
    "unknown": {"type": "hologram"},
}
TOO_MUCH_IN_A_MODAL: dict[str, Block] = {
    "alert": {"type": "alert", "text": plain_text(LONG)},
    "hint": asked(),
    "placeholder": asked(placeholder=plain_text(LONG)),
    "initial value": asked(initial_value=LONG),
    "options": select(120),
    "option value": select(3, value="v" * 200),
    "table in a modal": table(),
    "plan in a modal": plan([task()]),
}
FINE_AFTER_ALL = {"same buttons", "header mrkdwn"}  # fit does not invent another action_id or kind of text: no card does this


@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_slack_would_refuse_is_a_problem(name: str) -> None:
    assert problems(Message("Text", [TOO_MUCH[name]])) != ()


@pytest.mark.parametrize("name", [name for name in TOO_MUCH if name not in FINE_AFTER_ALL])
def test_what_is_made_to_fit_is_none_for_us_nor_for_the_local_slack(name: str) -> None:
    fitted = fit(Message("Text", [TOO_MUCH[name], section("More")]))

    assert problems(fitted) == ()
    assert [str(problem) for problem in check_blocks(list(fitted.blocks))] == []


@pytest.mark.parametrize("name", TOO_MUCH_IN_A_MODAL)
def test_a_modal_is_made_to_fit(name: str) -> None:
    modal = Modal("Title", [TOO_MUCH_IN_A_MODAL[name]], submit="Send")
    fitted = fit(modal)

    assert problems(modal) != ()
    assert problems(fitted) == ()
    assert [str(problem) for problem in check_blocks(list(fitted.blocks), Surface.MODAL)] == []


def test_the_words_of_a_modal_are_cut() -> None:
    fitted = fit(Modal(LONG, [asked()], callback="c" * 300, submit=LONG, close=LONG))

    assert (len(fitted.title), len(fitted.submit or ""), len(fitted.close), len(fitted.callback)) == (24, 24, 24, 255)
    assert problems(fitted) == ()


def test_a_modal_that_asks_needs_a_submit_button_and_a_short_state() -> None:
    assert problems(Modal("T", [asked(action_id="a")], state={"a": "x" * 3000})) == (
        "state must have 1 to 3000 characters.",
        "blocks/0 must have 1 to 2000 characters.",
        "submit is needed where something is asked.",
    )


def test_a_message_may_have_fifty_blocks_one_plan_one_table_and_no_block_id_twice() -> None:
    crowd = [plan([task()]), plan([task()]), table(), table(), *(context("x") for _ in range(60)), actions("a", button("b", "B", "1"))]
    twins = [actions("a", button("b", "B", "1"))] * 2

    assert len(problems(Message("Text", crowd))) == 3
    assert problems(Message("Text", twins)) == ("blocks may not use a block_id twice.",)
    assert problems(fit(Message("Text", crowd))) == ()
    assert problems(fit(Message("Text", twins))) == ()


def test_the_plain_variant_has_only_what_every_slack_shows() -> None:
    assert problems(Message("Text", (), [table()])) == ("plain/0 must be a block that every Slack shows.",)


def test_a_table_needs_as_many_cells_in_each_row() -> None:
    uneven = {"type": "table", "rows": [[{"type": "raw_text", "text": "x"}], [{"type": "raw_text", "text": "x"}] * 2]}
    odd = {"type": "table", "rows": [[{"type": "button", "text": "x"}]]}

    assert problems(Message("Text", [uneven])) == ("blocks/0 must have as many cells in each row.",)
    assert problems(Message("Text", [odd])) == ("blocks/0 may not have a cell of button.",)


def test_the_whole_is_cut_until_it_is_short_enough_and_buttons_go_last() -> None:
    long = [section(LONG) for _ in range(30)]
    many = [actions(f"a{number}", *(button(str(name), "B" * 70, "v" * 90) for name in range(6))) for number in range(20)]

    fitted = fit(Message("Text", [*long, actions("a", button("b", "B", "1"))]))
    buttons = fit(Message("Text", [header("Top"), *many, section("End")]))

    assert problems(fitted) == ()
    assert fitted.blocks[-1]["type"] == "actions"
    assert problems(buttons) == ()
    assert {block["type"] for block in buttons.blocks} == {"actions"}


def test_text_is_never_cut_inside_an_entity_or_a_link() -> None:
    assert cut_mrkdwn("a &amp; b", 7) == "a …"
    assert cut_mrkdwn("see <https://a.example|this>", 15) == "see …"
    assert cut_mrkdwn("<@U0ADA0001> said", 15) == "<@U0ADA0001> s…"


@given(st.lists(st.sampled_from([*EVIL, "&lt;", "<https://a.example|x>", "word "]), max_size=40), st.integers(2, 60))
def test_a_cut_text_is_short_and_whole(parts: list[str], most: int) -> None:
    cut = cut_mrkdwn("".join(parts), most)

    assert len(cut) <= most
    assert not UNWANTED.search(cut)
    assert cut.count("<") <= cut.count(">") + sum("<" in part for part in parts if part == "<")


blocks = st.one_of(
    st.sampled_from([*TOO_MUCH.values()]).filter(lambda block: block not in [TOO_MUCH[name] for name in FINE_AFTER_ALL]),
    st.builds(section, st.text(max_size=50)),
    st.builds(header, st.text(max_size=300)),
    st.just({"type": "divider"}),
)


@given(st.text(), st.lists(blocks, max_size=60))
def test_whatever_is_made_to_fit_does(text: str, parts: list[Block]) -> None:
    assert problems(fit(Message(text, parts))) == ()
    assert problems(fit(Modal(text, parts, submit="Send"))) == ()
    assert problems(fit(Home(parts * 2))) == ()


@given(st.lists(blocks, max_size=10))
def test_what_fits_is_left_as_it_is(parts: list[Block]) -> None:
    once = fit(Message("Text", parts))

    assert fit(once) == once


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_the_local_slack_takes_every_golden_message(path: Any) -> None:
    golden = json.loads(path.read_text(encoding="utf-8"))

    if "title" in golden:
        view = {"type": "modal", "blocks": golden["blocks"]}
        view |= {key: plain_text(golden[key]) for key in ("title", "submit", "close") if golden[key]}
        assert [str(problem) for problem in check_view(view)] == []
    elif golden.keys() == {"blocks"}:
        assert [str(problem) for problem in check_view({"type": "home"} | golden)] == []
    else:
        for name in ("blocks", "plain"):
            assert [str(problem) for problem in check_blocks(golden[name])] == []
