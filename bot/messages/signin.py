"""Signing in, as people read it in Slack."""

from __future__ import annotations

from bot.core.people import Account, Member, Person
from bot.messages.kit import Message, actions, code, context, escape, facts, link_buttons, section
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


def who_card(member: Member, account: Account | None, me: Person | None) -> Message:
    """Who somebody is, here, in Entra and in Azure DevOps."""
    if account is None or me is None:
        text = f"You are {escape(member.name)} in Slack, and not signed in to Azure DevOps."
        return fit(Message(text, blocks=[section(text)]))
    return fit(
        Message(
            f"You are {escape(member.name)} in Slack, {escape(account.username)} in Entra, {escape(me.name)} in Azure DevOps.",
            blocks=[
                facts(
                    ("Slack", escape(member.name)),
                    ("Entra", f"{escape(account.name)} {code(account.username)}"),
                    ("Azure DevOps", escape(me.name)),
                ),
                context("What you do here is on record in Azure DevOps under this name."),
            ],
        )
    )
