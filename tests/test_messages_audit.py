"""The audit trail as people read it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bot.core.approvals import Allowed, Denied
from bot.core.audit import About, Entry, Scope
from bot.core.people import Account
from bot.messages.audit import audit_list
from bot.messages.limits import problems
from tests.fakes import chained
from tests.golden import matches
from tests.outside import hostile, unescaped
from tests.test_audit import CHAIN

RUN = About(Scope.RUN, "480")


def test_the_newest_lines_say_who_did_what_and_who_was_refused() -> None:
    assert matches("audit", audit_list(RUN, CHAIN[::-1]))


def test_what_is_not_shown_is_in_the_csv() -> None:
    lines = chained([Entry("U0ADA0001", "retrain", "model/diabetes", Allowed())] * 21)[::-1]

    card = audit_list(About(Scope.CHANNEL, "C0MLDELIV"), lines)

    assert card.text.startswith("Audit trail of the models of <#C0MLDELIV>; the newest: ✅")
    assert "The newest 20 are shown; the CSV has the rest, too." in str(card.blocks)


def test_a_csv_that_was_given_is_said() -> None:
    assert "A CSV of 1,203 lines is in your direct messages" in str(audit_list(RUN, CHAIN, handed=1203).blocks)
    assert "A CSV of 1 line is" in str(audit_list(RUN, CHAIN[:1], handed=1).blocks)


def test_nothing_is_said_to_be_nothing() -> None:
    assert audit_list(About(Scope.PERSON, "U0ADA0001"), ()).text == "The audit trail has nothing about <@U0ADA0001>."


@given(st.sampled_from(Scope), hostile, st.integers(0, 22))
def test_whatever_the_outside_says_slack_takes_it_and_nothing_in_it_works(scope: Scope, text: str, many: int) -> None:
    entry = Entry(text, text, text, Denied(text), why=text, account=Account(text, text, text, text), model=text)

    card = audit_list(About(scope, text), chained([entry] * many))

    assert problems(card) == ()
    assert unescaped(card) == []
