"""What the thread of an approval says while nobody decides."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from bot.core.deciding import Case
from bot.core.models import Delivery
from bot.core.people import Asker
from bot.core.team import People
from bot.core.waiting import Whom
from bot.messages.kit import Message
from bot.messages.limits import problems
from bot.messages.reminders import over_card, reminder_card
from tests.examples import APPROVED, PENDING, REFUSED
from tests.golden import matches
from tests.outside import hostile, unescaped
from tests.test_messages_approvals import OPEN, questions

PROD = replace(OPEN.environment, on_call="S0ONCALL")
WAITS = replace(OPEN, environment=PROD)


def mentions(card: Message) -> int:
    """How many mentions the card has, as text and as blocks."""
    return max(text.count("<@") + text.count("<!subteam") for text in (card.text, json.dumps(card.blocks)))


def test_who_may_decide_is_mentioned_with_the_facts_on_one_line() -> None:
    card = reminder_card(WAITS, Whom.APPROVERS, timedelta(hours=4, minutes=2))

    assert matches("reminder", card)
    assert mentions(card) == 1


def test_who_is_on_call_is_mentioned_and_nobody_else() -> None:
    card = reminder_card(WAITS, Whom.ON_CALL, timedelta(hours=8))

    assert matches("reminder-on-call", card)
    assert mentions(card) == 1


def test_who_cannot_be_mentioned_is_named_in_words() -> None:
    names = People(frozenset({"grace@contoso.example", "ado:Release Managers", "U0GRACE01"}))
    card = reminder_card(replace(WAITS, environment=replace(PROD, approvers=names)), Whom.APPROVERS, timedelta(days=3))

    assert card.text.startswith("⏰ <@U0GRACE01>, Release Managers (in Azure DevOps), grace@contoso.example: diabetes version 4 for Prod")
    assert "for 3 days" in card.text


def test_what_is_not_known_is_left_out() -> None:
    card = reminder_card(replace(WAITS, delivery=Delivery(), asker=None), Whom.APPROVERS, timedelta(hours=4))

    assert "asked for by somebody" in str(card.blocks)
    assert "Verdict" not in str(card.blocks)


def test_once_decided_nobody_is_mentioned() -> None:
    assert matches("reminder-approved", over_card("diabetes", "prod", APPROVED))
    assert over_card("diabetes", "prod", REFUSED).text == "⛔ Rejected: diabetes for Prod does not wait any more."
    for ended in (None, PENDING):
        assert over_card("diabetes", "prod", ended).text.startswith("⏹️ Ended before anybody decided")
    assert mentions(over_card("diabetes", "prod", APPROVED)) == 0


@given(questions, st.sampled_from(Whom), st.timedeltas(), hostile)
def test_whatever_the_outside_says_slack_takes_it_and_nothing_in_it_works(case: Case, whom: Whom, waited: timedelta, name: str) -> None:
    for card in (
        reminder_card(replace(case, asker=Asker(name)), whom, waited),
        over_card(name, name, case.approval),
    ):
        assert problems(card) == ()
        assert unescaped(card) == []
