"""Help, and the table of contents it is made from."""

from __future__ import annotations

import json
from pathlib import Path

from bot.messages.kit import Message
from bot.routing import Request
from handlers import router
from handlers.help import SHORT
from tests.examples import ADA, CHANNEL, TEAM
from tests.fakes import World


async def test_help_tells_every_command_with_its_usage(world: World) -> None:
    reply = await router.commands["help"].run(world.bot, Request("r1", ADA.id, CHANNEL, "help", ()))

    assert isinstance(reply, Message)
    for command in router.commands.values():
        assert f"/{command.name}" in reply.text or f"/mlops {command.name}" in reply.text
        assert command.help
    assert "/retrain [model] [name=value ...]" in reply.text


def test_the_short_names_are_those_that_slack_is_told_of() -> None:
    manifest = json.loads((Path(__file__).parents[1] / "deploy/bot/manifest.json").read_text())
    told = {command["command"].removeprefix("/") for command in manifest["features"]["slash_commands"]}

    assert told == SHORT | {TEAM.prefix}


def test_every_command_button_and_form_of_the_product_is_there() -> None:
    assert set(router.commands) == {
        *("retrain", "promote", "approve", "cancel", "rerun", "rollback", "lock", "unlock", "breakglass"),
        *("models", "runs", "status", "audit", "signin", "whoami", "signout", "help"),
    }
    assert set(router.buttons) == {
        "approve",
        "reject",
        "defer",
        "reassign",
        "steer_start",
        "steer_cancel",
        "glass_confirm",
        "retry_stage",
        "retrain_start",
        "retrain_cancel",
        "promote_start",
        "promote_cancel",
        "audit_csv",
        "open_signin",
        "open_log",
        "open_run",
    }
    assert set(router.forms) == {"retrain", "approve", "reject", "defer", "reassign"}
    assert router.buttons["approve"].opens == "Approve"
    assert [timer.cron for timer in router.timers.values()] == ["* * * * *"] * 2
