"""Signing in and out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bot.core.errors import Refused, SignInNeeded
from bot.messages.kit import Message, Reply
from bot.routing import Click, Request
from handlers.signin import opened, sign_in, sign_out, who_am_i
from tests.examples import CHANNEL, GRACE, TEAM
from tests.fakes import World

ASKED = Request("r1", GRACE.id, CHANNEL, "signin", ())


def said(reply: Reply) -> str:
    assert isinstance(reply, Message)
    return reply.text


async def test_who_is_signed_in_is_told_as_whom(world: World) -> None:
    for command in (sign_in, who_am_i):
        reply = said(await command(world.bot, ASKED))
        assert reply == "You are Grace Hopper in Slack, grace@contoso.example in Entra, Grace Hopper in Azure DevOps."


async def test_who_is_not_is_sent_to_sign_in(world: World) -> None:
    world.identities.accounts.clear()

    with pytest.raises(SignInNeeded, match="your account of the organisation"):
        await sign_in(world.bot, ASKED)
    with pytest.raises(SignInNeeded, match="You are Grace Hopper in Slack, and not signed in"):
        await who_am_i(world.bot, ASKED)
    assert said(await sign_out(world.bot, ASKED)) == "You are not signed in."


async def test_who_is_signed_in_with_an_account_that_azure_devops_does_not_know_is_told_which(world: World) -> None:
    world.identities.errors[GRACE.id] = [Refused("You are not a member of the Azure DevOps organisation.")]

    reply = said(await who_am_i(world.bot, ASKED))

    assert reply == "You are Grace Hopper in Slack, grace@contoso.example in Entra. You are not a member of the Azure DevOps organisation."


async def test_signing_out_is_on_record(world: World) -> None:
    assert "has forgotten your tokens" in said(await sign_out(world.bot, ASKED))

    assert [entry.action for entry in world.store.audit] == ["sign out"]
    assert world.store.audit[0].account is not None


async def test_in_the_service_mode_nobody_signs_in(world: World) -> None:
    world.team = replace(TEAM, service_identity=True)

    for command in (sign_in, who_am_i):
        assert "Nobody signs in here" in said(await command(world.bot, ASKED))


async def test_the_button_itself_needs_no_answer(world: World) -> None:
    assert await opened(world.bot, Click("c", GRACE.id, CHANNEL, "open_signin", "")) is None
