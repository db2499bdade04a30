"""The audit trail's chain: every change is found and named; what is asked for; what a spreadsheet makes of it."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.approvals import Allowed, Denied
from bot.core.audit import GENESIS, About, Break, Entry, Recorded, Scope, Whole, Why, broken, canonical, check, csv_lines, digest, line
from bot.core.references import Unknown
from tests.examples import ACCOUNTS, ADA, ALAN, CHANNEL
from tests.fakes import chained

ENTRIES = (
    Entry(ADA.id, "ask to retrain", "model/diabetes", Allowed(), account=ACCOUNTS[ADA.id], model="diabetes"),
    Entry(ADA.id, "retrain", "model/diabetes", Allowed(), model="diabetes", before={"alpha": "0.1"}, after={"alpha": "0.5", "é": "😀"}),
    Entry(ALAN.id, "approved", "run/480/approval/a1", Denied("Ask the release managers."), why="It is late", model="diabetes"),
    Entry("", "sweep", "run/480", Allowed()),
    Entry(ADA.id, "approved", "run/480/approval/a1", Allowed(), why="Fits", account=ACCOUNTS[ADA.id], model="diabetes"),
)
CHAIN = chained(ENTRIES)
A_HASH = "ab" * 32


def found(rows: list[Recorded]) -> tuple[int, Why]:
    """Where the chain is broken, and why."""
    wrong = broken(rows)
    assert wrong is not None
    assert str(wrong) == wrong.said
    return wrong.line, wrong.why


def renumbered(rows: list[Recorded]) -> list[Recorded]:
    """The rows without a gap, as somebody would leave them who knows that gaps are looked for."""
    return [replace(row, id=number) for number, row in enumerate(rows, 1)]


def forged(previous: str, id: int, *, proper: bool) -> Recorded:
    """A line that nobody wrote, with a hash that is made up or, by somebody who knows how, properly made."""
    row = replace(CHAIN[0], id=id, action="break glass", hash=A_HASH)
    return replace(row, hash=digest(previous, row)) if proper else row


def test_a_chain_that_nobody_touched_holds() -> None:
    whole = check(CHAIN)

    assert broken(CHAIN) is None
    assert whole == Whole(5, CHAIN[0].at, CHAIN[-1].at, CHAIN[-1].hash, contains=True)
    assert str(whole) == f"5 lines, from 2026-11-23 to 2026-11-23. The chain holds. Last hash: {CHAIN[-1].hash}"
    assert str(check(CHAIN[:1])).startswith("1 line, ")
    assert str(check([])) == "The audit trail is empty."


def test_a_hash_is_the_same_on_every_machine() -> None:
    row = replace(CHAIN[1], at=datetime(2026, 11, 23, 9, 30, 2, 5, UTC))

    assert canonical(row) == (
        '{"action":"retrain","after":{"alpha":"0.5","\\u00e9":"\\ud83d\\ude00"},"allowed":true,"before":{"alpha":"0.1"},'
        '"correlation":"click:2","model":"diabetes","oid":"","person":"U0ADA0001","reason":"","subject":"model/diabetes","tenant":"",'
        '"username":"","why":"","workspace":"T0CONTOSO"}'
    )
    whole = {"previous": GENESIS, "line": json.loads(canonical(row)), "id": 2, "at": "2026-11-23T09:30:02.000005+00:00"}
    assert digest(GENESIS, row) == hashlib.sha256(json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert digest(GENESIS, row) == "0c79c531f2dedd0bc0e4ab46c3cd0a6828edea9562703f74656b45da91df6a39"
    assert digest(GENESIS, row) == digest(GENESIS, replace(row, at=row.at.astimezone(timezone(timedelta(hours=5, minutes=45)))))


def other(value: Any) -> st.SearchStrategy[Any]:
    """Anything else that the field may hold."""
    match value:
        case bool():
            return st.just(not value)
        case int():
            return st.integers(-9, 99).filter(lambda it: it != value)
        case datetime():
            return st.timedeltas().map(lambda it: shifted(value, it)).filter(lambda it: it != value)
        case str():
            return st.text(st.characters(codec="utf-8")).filter(lambda it: it != value)
        case _:
            return st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2).filter(lambda it: it != value)


def shifted(at: datetime, by: timedelta) -> datetime:
    """Another moment, where the calendar has one."""
    try:
        return at + by
    except OverflowError:
        return at + timedelta(microseconds=1)


@given(st.data(), st.integers(0, len(CHAIN) - 1), st.sampled_from([each.name for each in fields(Recorded)]))
def test_any_single_change_is_found_and_named(data: st.DataObject, place: int, field: str) -> None:
    changed = replace(CHAIN[place], **{field: data.draw(other(getattr(CHAIN[place], field)))})

    where, why = found([*CHAIN[:place], changed, *CHAIN[place + 1 :]])

    assert where == place + 1
    if field != "id":
        assert why is (Why.EDITED if place else Why.START)


@given(st.integers(0, len(CHAIN) - 2), st.integers(1, 3))
def test_lines_that_were_taken_out_are_named(place: int, many: int) -> None:
    rest = [*CHAIN[:place], *CHAIN[min(place + many, len(CHAIN) - 1) :]]

    assert found(rest) == (place + 1, Why.MISSING)
    where, why = found(renumbered(rest))
    assert (where, why) == (place + 1, Why.EDITED if place else Why.START)


@given(st.integers(0, len(CHAIN) - 1), st.booleans())
def test_a_line_that_was_put_in_is_named(place: int, proper: bool) -> None:
    mine = forged(CHAIN[place - 1].hash if place else GENESIS, place + 1, proper=proper)

    where, why = found(renumbered([*CHAIN[:place], mine, *CHAIN[place:]]))

    assert (where, why) == (place + 1, Why.INSERTED)


def test_a_line_put_behind_the_end_is_named_unless_it_was_made_properly() -> None:
    assert found([*CHAIN, forged(CHAIN[-1].hash, 6, proper=False)]) == (6, Why.EDITED)
    assert broken([*CHAIN, forged(CHAIN[-1].hash, 6, proper=True)]) is None


def test_two_lines_of_one_number_are_named() -> None:
    assert found([*CHAIN[:3], *CHAIN[2:]]) == (4, Why.INSERTED)


def test_a_line_rewritten_with_a_new_hash_breaks_the_next() -> None:
    rewritten = replace(CHAIN[2], allowed=True, reason="")
    rewritten = replace(rewritten, hash=digest(CHAIN[1].hash, rewritten))

    wrong = broken([*CHAIN[:2], rewritten, *CHAIN[3:]])

    assert wrong == Break(
        4,
        Why.EDITED,
        "Line 4 was changed: its hash is not what it and line 3 make, unless line 3 was changed and given a new hash.",
    )


def test_an_end_that_was_cut_off_is_seen_only_by_a_hash_that_was_kept_elsewhere() -> None:
    kept = CHAIN[-1].hash

    whole, cut = check(CHAIN, kept), check(CHAIN[:-1], kept)

    assert isinstance(whole, Whole)
    assert isinstance(cut, Whole)
    assert (whole.contains, cut.contains) == (True, False)


@pytest.mark.parametrize(("rows", "said"), [(CHAIN[1:], "Line 1 is missing."), (CHAIN[3:], "Lines 1 to 3 are missing.")])
def test_what_is_missing_is_said(rows: list[Recorded], said: str) -> None:
    assert str(broken(rows)) == said


# What is kept


def test_secrets_do_not_get_in() -> None:
    token = "xoxb-" + "1" * 20

    kept = line(
        Entry(
            ADA.id,
            "retrain",
            f"x {token}",
            Denied(f"No: {token}"),
            why=f"because {token}",
            before={"password": "hunter22"},
            after={token: token},
        ),
        workspace="",
        correlation="",
    )

    assert "hunter22" not in canonical(kept)
    assert token not in canonical(kept)
    assert (kept.before, kept.why) == ({"password": "***"}, "because ***")


def test_what_postgresql_cannot_keep_is_replaced() -> None:
    kept = line(Entry("U\x00", "a", "b", Allowed(), why="\ud800", after={"\x00": "\udfff"}), workspace="", correlation="")

    assert (kept.person, kept.why, kept.after) == ("U�", "�", {"�": "�"})


# What is asked for


@pytest.mark.parametrize(
    ("words", "about"),
    [
        ((), About(Scope.CHANNEL, CHANNEL)),
        (("480",), About(Scope.RUN, "480")),
        (("#480",), About(Scope.RUN, "480")),
        (("run/480",), About(Scope.RUN, "480")),
        (("run", "#480"), About(Scope.RUN, "480")),
        (("release/12",), About(Scope.RELEASE, "12")),
        (("release", "12"), About(Scope.RELEASE, "12")),
        (("environment/prod",), About(Scope.ENVIRONMENT, "prod")),
        (("environment", "prod"), About(Scope.ENVIRONMENT, "prod")),
        (("environment/",), None),
        (("diabetes",), About(Scope.MODEL, "diabetes")),
        (("<@U0ADA0001|ada>",), About(Scope.PERSON, "U0ADA0001")),
        (("<@U0ADA0001>",), About(Scope.PERSON, "U0ADA0001")),
        (("@ada",), None),
        (("#deliveries",), None),
        (("<!channel>",), None),
        (("run/x",), None),
        (("release", "x"), None),
        (("1" * 19,), About(Scope.MODEL, "1" * 19)),
        (("a", "b", "c"), None),
    ],
)
def test_words_say_what_to_show(words: tuple[str, ...], about: About | None) -> None:
    assert About.asked(words, CHANNEL) == about
    assert about is None or About.read(str(about)) == about


@pytest.mark.parametrize("value", ["", "run", "run/", "planet/9"])
def test_a_button_of_somebody_else_s_is_not_read(value: str) -> None:
    with pytest.raises(Unknown):
        About.read(value)


# CSV


def cells(rows: list[Recorded]) -> list[dict[str, str]]:
    """What a program reads out of the CSV."""
    return list(csv.DictReader("".join(csv_lines(rows)).splitlines(keepends=True)))


def test_the_csv_has_everything() -> None:
    second = cells(CHAIN)[1]

    assert (second["id"], second["at"], second["allowed"]) == ("2", "2026-11-23T09:30:02.000000+00:00", "yes")
    assert json.loads(second["after"]) == {"alpha": "0.5", "é": "😀"}
    assert [row["hash"] for row in cells(CHAIN)] == [row.hash for row in CHAIN]
    assert [row["allowed"] for row in cells(CHAIN)] == ["yes", "yes", "no", "yes", "yes"]
    assert (cells(CHAIN)[0]["before"], "".join(csv_lines([])).startswith("id,at,workspace,person")) == ("", True)


@pytest.mark.parametrize("evil", ["=1+1", "+1", "-1", "@SUM(A1)", " \t=1+1", "＝1", '=HYPERLINK("https://evil.example")'])
def test_no_cell_is_a_formula(evil: str) -> None:
    (row,) = cells(chained([Entry(evil, evil, evil, Denied(evil), why=evil, model=evil, before={evil: evil})]))

    assert {row[name] for name in ("person", "action", "subject", "model", "reason", "why")} == {f"'{evil}"}
    assert row["before"].startswith("{")


def test_cells_keep_commas_quotes_and_lines() -> None:
    (row,) = cells(chained([Entry(ADA.id, "a", "b", Allowed(), why='yes, "but"\nno')]))

    assert row["why"] == 'yes, "but"\nno'
