"""Signing in to Entra, and out: whoever acts in Azure DevOps does so under their own name."""

from __future__ import annotations

from bot.core.approvals import Allowed
from bot.core.audit import Entry
from bot.core.errors import Refused, SignInNeeded
from bot.core.people import Person
from bot.messages.kit import Message, Reply
from bot.messages.private import note
from bot.messages.signin import who_card
from bot.ports import Bot
from bot.routing import Click, Request, Router

router = Router()

SERVICE = "Nobody signs in here: Callboard works in Azure DevOps under its own identity, and names you in the comment."


@router.command("signin")
async def sign_in(bot: Bot, request: Request) -> Reply:
    """Sign in, so that Azure DevOps records what you do under your own name."""
    return await _who(bot, request.person, "Sign in with your account of the organisation.")


@router.command("whoami")
async def who_am_i(bot: Bot, request: Request) -> Reply:
    """Say who you are here, in Entra and in Azure DevOps."""
    member = await bot.chat.member(request.person)
    return await _who(bot, request.person, f"You are {member.name} in Slack, and not signed in to Azure DevOps.")


@router.command("signout")
async def sign_out(bot: Bot, request: Request) -> Reply:
    """Forget your sign-in."""
    account = await bot.identities.account(request.person)
    if not await bot.identities.forget(request.person):
        return note("You are not signed in.")
    await bot.store.record(Entry(request.person, "sign out", "signin", Allowed(), account=account))
    return note("You are signed out: Callboard has forgotten your tokens.")


@router.click("open_signin")
async def opened(_: Bot, __: Click) -> Reply:
    """The browser has opened the page by itself."""
    return None


async def _who(bot: Bot, person: str, otherwise: str) -> Message:
    """Who the person is everywhere. Raises SignInNeeded with this reason where they are not signed in."""
    if bot.team.service_identity:
        return note(SERVICE)
    account = await bot.identities.account(person)
    if account is None:
        raise SignInNeeded(otherwise)
    me: Person | Refused
    try:
        me = (await bot.identities.acting(person)).me
    except Refused as error:
        me = error
    return who_card(await bot.chat.member(person), account, me)
