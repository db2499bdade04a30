"""The app's own page, as one person sees it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from bot.core.approvals import Denied
from bot.core.deciding import Case, Lock
from bot.core.models import ModelVersion
from bot.core.people import Account
from bot.core.runs import Run
from bot.core.waiting import Waiting, Yours
from bot.messages.home import Overview, Served, closed_page, home_page
from bot.messages.limits import problems
from tests.examples import ACCOUNTS, CHURN, DIABETES, GRACE, NOW, RADIA, SUCCEEDED, V3, V4, WAITING
from tests.golden import matches
from tests.outside import hostile, unescaped
from tests.test_messages_approvals import OPEN, questions, versions
from tests.test_messages_runs import runs, times

FULL = Overview(
    now=NOW + timedelta(hours=5),
    days=7,
    prefix="mlops",
    waiting=Waiting((Yours(OPEN),), others=2),
    runs=(WAITING, replace(SUCCEEDED, id=479, created=NOW - timedelta(hours=3))),
    models=(Served(DIABETES, (V4, V3), {"qa": "4"}, ("prod",)), Served(CHURN, None, {}, ("prod",))),
    locks=(Lock("prod", RADIA.id, "the <fair>", NOW),),
    account=ACCOUNTS[GRACE.id],
)


def test_the_page_says_what_waits_what_one_asked_for_and_how_everything_stands() -> None:
    assert matches("home", home_page(FULL))


def test_a_quiet_page_says_that_there_is_nothing() -> None:
    quiet = replace(FULL, waiting=Waiting(others=1), runs=(), models=(Served(CHURN, ()),), locks=(), account=None)

    assert matches("home-quiet", home_page(quiet))


def test_what_cannot_be_read_is_said_where_it_would_stand() -> None:
    page = str(home_page(replace(FULL, waiting=None, runs=None, service=True)).blocks)

    assert page.count("Azure DevOps does not answer.") == 2
    assert "under this app's identity" in page


def test_many_runs_are_cut_and_counted() -> None:
    assert "The newest 5 of 9 in the last 7 days." in str(home_page(replace(FULL, runs=(WAITING,) * 9)).blocks)


def test_a_guest_sees_why_there_is_nothing() -> None:
    assert matches("home-closed", closed_page(Denied("Guests of the workspace may not do this.")))


@given(
    questions,
    st.lists(runs, max_size=6),
    st.lists(versions, max_size=3),
    times.map(lambda at: Lock("prod", "<!channel>", "&", at)),
    hostile,
)
def test_whatever_the_outside_says_slack_takes_it_and_nothing_in_it_works(
    question: Case, own: list[Run], registered: list[ModelVersion], lock: Lock, word: str
) -> None:
    page = home_page(
        Overview(
            now=NOW,
            days=7,
            prefix="mlops",
            waiting=Waiting((Yours(question, word),) * 10, 1, 1),
            runs=tuple(own),
            models=(Served(DIABETES, tuple(registered), {word: word}, (word,)),) * 20,
            locks=(replace(lock, reason=word, environment=word, owner=word),) * 20,
            account=Account("", "", word, word),
        )
    )

    for thing in (page, closed_page(Denied(word))):
        assert problems(thing) == ()
        assert unescaped(thing) == []
