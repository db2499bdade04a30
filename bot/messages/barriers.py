"""Breaking the glass: the question to a second person, and the announcement."""

from __future__ import annotations

from datetime import datetime

from bot.core.runs import Run, called
from bot.core.team import Environment
from bot.messages.kit import Message, actions, button, context, escape, header, link, mention, place, section, when
from bot.messages.limits import fit


def glass_card(operation: str, run: Run, environment: Environment, person: str, reason: str) -> Message:
    """Somebody wants to get past locks, freezes and the number of approvers; a second person has to confirm."""
    where = place(environment.name)
    return fit(
        Message(
            f"🚨 {mention(person)} asks to break the glass of {escape(where)} for {escape(called(run))}: {escape(reason)}",
            blocks=[
                header(f"🚨 Break the glass of {where} for {called(run)}?"),
                section(f"{mention(person)} asks for it: “{escape(reason)}”"),
                actions(f"glass:{operation}", button("glass_confirm", "Confirm", operation, style="danger")),
                context(
                    link(run.url, f"{called(run, first=True)} in Azure DevOps"),
                    "A second person has to confirm. For an hour, locks, freezes and the number of approvers do not hold for it. "
                    "Approvers still have to approve.",
                ),
            ],
        )
    )


def broken_card(run: Run, environment: Environment, people: tuple[str, str], reason: str, until: datetime) -> Message:
    """Two people broke the glass: said to everybody."""
    where = place(environment.name)
    both = f"{mention(people[0])} and {mention(people[1])}"
    return fit(
        Message(
            f"🚨 {both} broke the glass of {escape(where)} for {escape(called(run))}: {escape(reason)}",
            blocks=[
                header(f"🚨 The glass of {where} is broken for {called(run)}"),
                section(f"By {both}, until {when(until)}: “{escape(reason)}”"),
                context(link(run.url, f"{called(run, first=True)} in Azure DevOps"), "It is in the audit trail."),
            ],
        )
    )
