"""Short private answers."""

from __future__ import annotations

from hypothesis import given

from bot.core.approvals import Denied
from bot.core.team import People
from bot.messages.kit import Message, asked, asked_plainly, channel_link, link, mention, short, web
from bot.messages.limits import problems
from bot.messages.private import mistakes, no_model_here, no_such_model, no_such_version, note, refusal, wrong_channel
from tests.examples import CHURN, DIABETES
from tests.outside import hostile, unescaped

LISTED = People(frozenset({"S0RELEASE", "U0ADA0001", "grace@contoso.example"}))


def test_a_refusal_names_who_may() -> None:
    assert refusal(Denied("Not you & yours.")).text == "🔒 Not you &amp; yours."
    assert refusal(Denied("No."), LISTED).text == "🔒 No. May: <!subteam^S0RELEASE>, <@U0ADA0001>, grace@contoso.example."
    assert refusal(Denied("No."), People()).text == "🔒 No. May: nobody (see `callboard.toml`)."


def test_a_mistake_is_answered_with_what_is_possible() -> None:
    assert (
        no_such_model("x", [DIABETES, CHURN]).text
        == "There is no model `x`. There is: `diabetes` in <#C0MLDELIV>, `churn` in <#C0CHURN00>."
    )
    assert no_such_model("x", []).text.endswith("none at all.")
    assert wrong_channel(CHURN).text.startswith("`churn` belongs to <#C0CHURN00>")
    assert "<#C0CHURN00> (`churn`)" in no_model_here([CHURN]).text
    assert no_model_here([]).text.endswith("none at all.")
    assert no_such_version(DIABETES, "9", ["4", "3"]).text == "`diabetes` has no version `9`. Registered: `4`, `3`."
    assert "nothing has been registered" in no_such_version(DIABETES, "9", []).text
    assert mistakes(["a < b", "c"]).text == "Nothing was started:\n• a &lt; b\n• c"


def test_only_ids_of_slack_become_mentions_and_only_addresses_become_links() -> None:
    assert mention("<!channel>") == "&lt;!channel&gt;"
    assert channel_link("general>") == "general&gt;"
    assert link("javascript:x", "a|b") == "a|b"
    assert link("https://a.example/?x=1&y=2", "a|b") == "<https://a.example/?x=1&amp;y=2|a¦b>"
    assert web("https://a.example/x>y") is None
    assert asked(None) == "nobody we know"
    assert asked_plainly(None) == "somebody"
    assert short("two   words\nlong", 8) == "two wor…"


@given(hostile, hostile)
def test_whatever_people_type_nothing_in_it_works(one: str, other: str) -> None:
    answers: list[Message] = [
        note(one),
        refusal(Denied(one), People(frozenset({other}))),
        no_such_model(one, [DIABETES]),
        no_such_version(DIABETES, one, [other]),
        mistakes([one, other]),
    ]
    for answer in answers:
        assert problems(answer) == ()
        assert unescaped(answer) == []
