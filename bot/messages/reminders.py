"""What the thread of an approval says while nobody decides, and what becomes of it afterwards."""

from __future__ import annotations

from datetime import timedelta

from bot.core.approvals import Approval, ApprovalState
from bot.core.deciding import Case
from bot.core.runs import called
from bot.core.team import People
from bot.core.waiting import Whom, so_long
from bot.messages.approvals import ENDED, OUTCOMES, what_of
from bot.messages.comparisons import VERDICTS
from bot.messages.kit import Message, asked_plainly, context, escape, link, place, section, short, these
from bot.messages.limits import fit


def reminder_card(case: Case, whom: Whom, waited: timedelta) -> Message:
    """Whom it mentions, what waits for how long, and the facts on one line. Nobody else is mentioned, not even who asked."""
    what, where, so_far = escape(what_of(case)), escape(place(case.environment.name)), so_long(waited)
    if whom is Whom.ON_CALL:
        on_call = these(People(frozenset({case.environment.on_call})))
        said = f"📣 {on_call}: nobody has decided on {what} for {where} for {so_far}. The message above says who may."
    else:
        said = f"⏰ {these(case.approvers)}: {what} for {where} has waited for {so_far}. Please decide in the message above."
    comparison = case.delivery.comparison
    verdict = f"{' '.join(VERDICTS[comparison.verdict])}: {escape(short(comparison.rule, 200))}" if comparison is not None else ""
    asked = f"asked for by {escape(asked_plainly(case.asker))}"
    return fit(Message(said, blocks=[section(said), context(link(case.run.url, called(case.run)), asked, verdict)]))


def over_card(model: str, environment: str, approval: Approval | None) -> Message:
    """That nothing waits any more, for nobody in particular; None stands for an approval that is there no longer."""
    mark, word = ENDED if approval is None or approval.state is ApprovalState.PENDING else OUTCOMES[approval.state]
    said = f"{mark} {word}: {escape(model)} for {escape(place(environment))} does not wait any more."
    return fit(Message(said, blocks=[section(said)]))
