"""What a person has put into the inputs of blocks: read, checked and told as Slack's own client does it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Values = Mapping[str, Any]  # block_id -> what was typed or chosen: a text, or a list of texts
REQUIRED = "Please complete this required field."


def elements(blocks: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Every interactive element with its block, in reading order."""
    for block in blocks:
        match block.get("type"):
            case "actions" | "context_actions":
                yield from ((block, element) for element in block.get("elements", []))
            case "input":
                yield block, block["element"]
            case "section" if block.get("accessory", {}).get("type", "image") != "image":
                yield block, block["accessory"]
            case "card":
                yield from ((block, element) for element in block.get("actions", []))
            case "container" | "carousel" as kind:
                yield from elements(block.get("child_blocks" if kind == "container" else "elements", []))
            case "data_table":
                cells = (cell for row in block.get("rows", []) for cell in row if cell.get("type") == "action_cell")
                yield from ((block, element) for cell in cells for element in cell["elements"])


def state(blocks: Sequence[Mapping[str, Any]], values: Values) -> dict[str, dict[str, Any]]:
    """`state.values` of the blocks: what was given, else what the element began with.

    https://docs.slack.dev/reference/interaction-payloads/view-interactions-payload
    """
    told: dict[str, dict[str, Any]] = {}
    for block, element in elements(blocks):
        if element["type"] in {"button", "overflow", "icon_button", "feedback_buttons"}:
            continue
        name = block["block_id"]
        value = chosen(element, values[name]) if name in values else initial(element)
        told.setdefault(name, {})[element["action_id"]] = {"type": element["type"], **value}
    return told


def chosen(element: Mapping[str, Any], given: Any) -> dict[str, Any]:
    """The element's value for what a person typed or chose; options go by their value or by their text."""
    many = [str(item) for item in given] if isinstance(given, list) else [part for part in str(given).split(",") if part]
    match element["type"]:
        case "static_select" | "radio_buttons" | "overflow":
            return {"selected_option": next(iter(_pick(element, [str(given)])), None)}
        case "multi_static_select" | "checkboxes":
            return {"selected_options": _pick(element, many)}
        case "users_select":
            return {"selected_user": str(given) or None}
        case "channels_select":
            return {"selected_channel": str(given) or None}
        case "conversations_select":
            return {"selected_conversation": str(given) or None}
        case "multi_users_select":
            return {"selected_users": many}
        case "multi_channels_select":
            return {"selected_channels": many}
        case "multi_conversations_select":
            return {"selected_conversations": many}
        case "datepicker":
            return {"selected_date": str(given) or None}
        case "timepicker":
            return {"selected_time": str(given) or None}
        case "datetimepicker":
            return {"selected_date_time": int(given) if given else None}
    return {"value": str(given) or None}


def initial(element: Mapping[str, Any]) -> dict[str, Any]:
    """The value an element begins with."""
    match element["type"]:
        case "static_select" | "radio_buttons":
            return {"selected_option": element.get("initial_option")}
        case "multi_static_select" | "checkboxes":
            return {"selected_options": element.get("initial_options", [])}
        case "datepicker":
            return {"selected_date": element.get("initial_date")}
        case "timepicker":
            return {"selected_time": element.get("initial_time")}
        case "datetimepicker":
            return {"selected_date_time": element.get("initial_date_time")}
        case "users_select":
            return {"selected_user": element.get("initial_user")}
        case "channels_select":
            return {"selected_channel": element.get("initial_channel")}
        case "conversations_select":
            return {"selected_conversation": element.get("initial_conversation")}
        case "multi_users_select":
            return {"selected_users": element.get("initial_users", [])}
        case "multi_channels_select":
            return {"selected_channels": element.get("initial_channels", [])}
        case "multi_conversations_select":
            return {"selected_conversations": element.get("initial_conversations", [])}
    return {"value": element.get("initial_value")}


def mistakes(blocks: Sequence[Mapping[str, Any]], told: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What the client itself finds wrong before it asks the app, by block."""
    wrong: dict[str, str] = {}
    for block, element in elements(blocks):
        if block["type"] != "input":
            continue
        value = told[block["block_id"]][element["action_id"]]
        content = next((item for key, item in value.items() if key != "type"), None)
        if not content:
            if not block.get("optional"):
                wrong[block["block_id"]] = REQUIRED
        elif message := _mistake(element, str(content)):
            wrong[block["block_id"]] = message
    return wrong


def _mistake(element: Mapping[str, Any], text: str) -> str | None:
    match element["type"]:
        case "plain_text_input":
            if len(text) < element.get("min_length", 0):
                return f"Please use at least {element['min_length']} characters."
            if len(text) > element.get("max_length", 3000):
                return f"Please use at most {element.get('max_length', 3000)} characters."
        case "number_input":
            if not re.fullmatch(r"-?\d+(\.\d+)?" if element.get("is_decimal_allowed") else r"-?\d+", text):
                return "Please enter a number." if element.get("is_decimal_allowed") else "Please enter a whole number."
            if "min_value" in element and float(text) < float(element["min_value"]):
                return f"Please enter {element['min_value']} or more."
            if "max_value" in element and float(text) > float(element["max_value"]):
                return f"Please enter {element['max_value']} or less."
        case "email_text_input":
            if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", text):
                return "Please enter a valid email address."
        case "url_text_input":
            if not re.fullmatch(r"https?://\S+", text):
                return "Please enter a valid URL."
    return None


def _pick(element: Mapping[str, Any], wanted: Sequence[str]) -> list[Mapping[str, Any]]:
    options = [*element.get("options", []), *(option for group in element.get("option_groups", []) for option in group["options"])]
    return [option for option in options if option.get("value") in wanted or option["text"]["text"] in wanted]
