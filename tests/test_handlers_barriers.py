"""Locks, and breaking the glass by two people."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from bot.core.approvals import Denied
from bot.core.references import token
from bot.messages.kit import Message, Reply
from bot.routing import Click, Request, Usage
from handlers.barriers import break_glass, confirm_glass, lock, unlock
from handlers.guarding import glass_of, lock_of
from tests.examples import ADA, CHANNEL, ELSEWHERE, GRACE, NOW, PENDING, RADIA, TEAM, WAITING
from tests.fakes import World

PROD = TEAM.environments["prod"]
CARD = (CHANNEL, f"run/480/prod/glass/{token('glass', 'r1')}")


def asking(command: str, *words: str, person: str = GRACE.id, channel: str = CHANNEL, id: str = "r1") -> Request:
    return Request(id, person, channel, command, words)


def confirm(person: str = RADIA.id, value: str = token("glass", "r1")) -> Click:
    return Click("c1", person, CHANNEL, "glass_confirm", value)


def said(reply: Reply) -> str:
    assert isinstance(reply, Message)
    return reply.text


@pytest.fixture
def waiting(world: World) -> World:
    """Run 480 waits for Prod."""
    world.pipelines.runs[480] = WAITING
    world.pipelines.waiting[480] = (PENDING,)
    return world


# Locks


async def test_an_environment_is_locked_with_a_reason_until_somebody_unlocks_it(world: World) -> None:
    assert "prod is locked." in said(await lock(world.bot, asking("lock", "prod", "the", "fair")))
    held = await lock_of(world.bot, PROD)
    assert held is not None
    assert (held.owner, held.reason, held.since) == (GRACE.id, "the fair", NOW)
    again = await lock(world.bot, asking("lock", "prod", "me", "too", person=RADIA.id, id="r2"))
    assert "locked already, since 2026-11-23 09:30 UTC: the fair" in said(again)

    assert said(await unlock(world.bot, asking("unlock", "prod", person=RADIA.id))) == "prod is unlocked."
    assert await lock_of(world.bot, PROD) is None
    assert said(await unlock(world.bot, asking("unlock", "prod"))) == "prod is not locked."


@pytest.mark.parametrize("words", [(), ("qa", "why"), ("moon", "why"), ("prod",), ("prod", "x" * 301)])
async def test_a_lock_needs_an_environment_and_a_reason(world: World, words: tuple[str, ...]) -> None:
    with pytest.raises(Usage):
        await lock(world.bot, asking("lock", *words))


async def test_where_no_environment_needs_approval_there_is_none_to_lock(world: World) -> None:
    world.team = replace(TEAM, environments={})

    with pytest.raises(Usage, match="none"):
        await unlock(world.bot, asking("unlock", "prod"))


async def test_who_may_not_lock_is_refused_on_record(world: World) -> None:
    assert "You may not lock or unlock" in said(await lock(world.bot, asking("lock", "prod", "x", person=ADA.id)))
    assert "You may not lock or unlock" in said(await unlock(world.bot, asking("unlock", "prod", person=ADA.id)))
    assert [(entry.action, isinstance(entry.decision, Denied)) for entry in world.store.audit] == [("lock", True), ("unlock", True)]


# Glass


async def test_two_people_break_the_glass_and_everybody_sees_it(waiting: World) -> None:
    assert "a second person has to confirm" in said(await break_glass(waiting.bot, asking("breakglass", "480", "Prod", "is", "down")))
    assert "asks to break the glass of Prod" in waiting.board.shown[CARD].text
    assert await glass_of(waiting.bot, WAITING.ref, PROD) is None

    assert "The glass is broken for run 20261123.1, until 10:30 UTC" in said(await confirm_glass(waiting.bot, confirm()))

    glass = await glass_of(waiting.bot, WAITING.ref, PROD)
    assert glass is not None
    assert (glass.first, glass.second, glass.reason, glass.until) == (GRACE.id, RADIA.id, "Prod is down", NOW + timedelta(hours=1))
    assert waiting.board.shown[CARD].text == "🚨 <@U0GRACE01> and <@U0RADIA01> broke the glass of Prod for run 20261123.1: Prod is down"
    assert "confirmed this already" in said(await confirm_glass(waiting.bot, confirm()))
    waiting.now = NOW + timedelta(hours=1)
    assert await glass_of(waiting.bot, WAITING.ref, PROD) is None


async def test_one_person_alone_does_not_break_it_nor_who_may_not_nor_too_late(waiting: World) -> None:
    await break_glass(waiting.bot, asking("breakglass", "480", "down"))

    assert "a second person has to confirm" in said(await confirm_glass(waiting.bot, confirm(GRACE.id)))
    assert "You may not break the glass" in said(await confirm_glass(waiting.bot, confirm(ADA.id)))
    waiting.now = NOW + timedelta(hours=2)
    assert "more than an hour ago" in said(await confirm_glass(waiting.bot, confirm()))
    assert [entry.action for entry in waiting.store.audit] == ["ask to break the glass", *["break the glass"] * 3]


async def test_a_button_about_what_is_gone_says_so(waiting: World) -> None:
    await break_glass(waiting.bot, asking("breakglass", "480", "down"))

    assert "not known here" in said(await confirm_glass(waiting.bot, confirm(value="x")))
    waiting.team = replace(TEAM, environments={})
    assert "not in callboard.toml any more" in said(await confirm_glass(waiting.bot, confirm()))


async def test_breaking_the_glass_needs_a_run_that_waits_and_a_reason(waiting: World) -> None:
    for words in ((), ("480",), ("x", "y"), ("9" * 40, "y")):
        with pytest.raises(Usage):
            await break_glass(waiting.bot, asking("breakglass", *words))
    assert "You may not break the glass" in said(await break_glass(waiting.bot, asking("breakglass", "480", "y", person=ADA.id)))
    assert "belongs to" in said(await break_glass(waiting.bot, asking("breakglass", "480", "y", channel=ELSEWHERE)))
    waiting.pipelines.runs[481] = replace(WAITING, id=481, pipeline_id=99)
    assert "no model of this team" in said(await break_glass(waiting.bot, asking("breakglass", "481", "y")))
    waiting.pipelines.waiting[480] = (replace(PENDING, environment="qa"),)
    assert "does not wait for approval" in said(await break_glass(waiting.bot, asking("breakglass", "480", "y")))
