"""Signing in, as people read it in Slack."""

from __future__ import annotations

from bot.core.errors import Refused
from bot.core.people import Account, Member, Person
from bot.messages.kit import Message, actions, code, context, escape, facts, link_buttons, section, when
from bot.messages.limits import fit


def sign_in_card(why: str, address: str) -> Message:
    """Why somebody has to sign in, and the button that leads there. The address is theirs alone."""
    return fit(
        Message(
            f"🔑 {escape(why)} Press Sign in in this message.",
            blocks=[
                section(f"🔑 {escape(why)}"),
                actions("signin", *link_buttons(("open_signin", "Sign in", address))),
                context("The link is yours alone, works once, and for ten minutes. What you asked for goes on by itself."),
            ],
        )
    )


def who_card(member: Member, account: Account, me: Person | Refused) -> Message:
    """Who somebody is, here, in Entra and in Azure DevOps; or why Azure DevOps does not let them in."""
    known = f"You are {escape(member.name)} in Slack, {escape(account.username)} in Entra"
    if isinstance(me, Refused):
        text, there = f"{known}. {escape(str(me))}", f"⛔ {escape(str(me))}"
        record = "Is it another account that you wanted? Give `signout`, and sign in with that one."
    else:
        text, there = f"{known}, {escape(me.name)} in Azure DevOps.", escape(me.name)
        record = "What you do here is on record in Azure DevOps under this name."
    since = [("Signed in", when(account.since))] if account.since is not None else []
    return fit(
        Message(
            text,
            blocks=[
                facts(
                    ("Slack", escape(member.name)),
                    ("Entra", f"{escape(account.name)} {code(account.username)}"),
                    ("Azure DevOps", there),
                    *since,
                ),
                context(record),
            ],
        )
    )
