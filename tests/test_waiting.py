"""When people are told again of what waits, and how long it has waited."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.waiting import APART, Reminder, Sent, Whom, due, so_long
from tests.examples import NOW, TEAM

H = timedelta(hours=1)
PROD = replace(TEAM.environments["prod"], remind=(4 * H, 24 * H), escalate=8 * H, on_call="S0ONCALL")
FIRST, SECOND, CALL = Reminder(4 * H, Whom.APPROVERS), Reminder(24 * H, Whom.APPROVERS), Reminder(8 * H, Whom.ON_CALL)


def sent(*pairs: tuple[Reminder, float]) -> list[Sent]:
    """What was sent, so many hours after the approval was asked for."""
    return [Sent(reminder, NOW + hours * H) for reminder, hours in pairs]


@pytest.mark.parametrize(
    ("said", "hours", "expected"),
    [
        ([], 3.99, None),
        ([], 4, FIRST),
        ([(FIRST, 4)], 4.02, None),
        ([(FIRST, 4)], 8, CALL),
        ([(FIRST, 4.02)], 8, None),  # a minute late, so a minute later
        ([(FIRST, 4.02)], 8.02, CALL),
        ([(FIRST, 4), (CALL, 8)], 23.9, None),
        ([(FIRST, 4), (CALL, 8)], 24, SECOND),
        ([(FIRST, 4), (CALL, 8), (SECOND, 24)], 1000, None),
        # After an outage one message only.
        ([], 9, CALL),
        ([(CALL, 9)], 14, None),
        ([(CALL, 9)], 24, SECOND),
        ([], 30, CALL),
        ([(CALL, 30)], 100, None),
        ([(FIRST, 4), (CALL, 21)], 24, None),
        ([(FIRST, 4), (CALL, 21)], 25, SECOND),
        # The clock steps back.
        ([(FIRST, 4)], 3, None),
        ([(FIRST, 9)], 4, None),
        ([(FIRST, 4), (CALL, 8), (SECOND, 40)], 24, None),
        ([(FIRST, -9)], 4, None),  # it was asked for later than we thought
    ],
)
def test_the_right_reminder_is_due(said: list[tuple[Reminder, float]], hours: float, expected: Reminder | None) -> None:
    assert due(PROD, NOW, sent(*said), NOW + hours * H) == expected


def test_whoever_is_on_call_is_called_once_even_if_the_hour_was_changed() -> None:
    assert due(replace(PROD, escalate=10 * H), NOW, sent((CALL, 8)), NOW + 20 * H) is None


def test_without_settings_nobody_is_told() -> None:
    assert due(TEAM.environments["prod"], NOW, [], NOW + 1000 * H) is None


@given(st.lists(st.integers(-600, 3000), max_size=60))
def test_however_the_clock_runs_mentions_are_apart_and_none_comes_twice(minutes: list[int]) -> None:
    told: list[Sent] = []
    for minute in minutes:
        now = NOW + timedelta(minutes=minute)
        reminder = due(PROD, NOW, told, now)
        told += [Sent(reminder, now)] if reminder is not None else []

    times = sorted(one.at for one in told)
    assert all(later - earlier >= APART for earlier, later in pairwise(times))
    assert len({one.reminder for one in told}) == len(told)


@pytest.mark.parametrize(
    ("waited", "words"),
    [
        (timedelta(seconds=-5), "less than a minute"),
        (timedelta(seconds=59), "less than a minute"),
        (timedelta(minutes=1), "1 minute"),
        (timedelta(minutes=59, seconds=59), "59 minutes"),
        (H, "1 hour"),
        (4.5 * H, "4 hours"),
        (47.9 * H, "47 hours"),
        (48 * H, "2 days"),
        (timedelta(days=40), "40 days"),
    ],
)
def test_how_long_is_said_as_people_say_it(waited: timedelta, words: str) -> None:
    assert so_long(waited) == words
