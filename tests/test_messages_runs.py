"""The living card of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.people import Asker, Person
from bot.core.references import Thing
from bot.core.runs import Job, Run, Stage, State, Step
from bot.messages.limits import problems
from bot.messages.runs import first_error, icon, run_card
from tests.examples import (
    BROKEN_STEP,
    DIABETES,
    FAILED,
    KEPT,
    NOW,
    QUEUED,
    REJECTED,
    RELEASE,
    RELEASE_DONE,
    RELEASE_FAILED,
    RELEASE_REJECTED,
    RELEASE_WAITING,
    RELEASING,
    RUNS,
    SUCCEEDED,
    TRAINING,
    WAITING,
    released,
)
from tests.golden import matches
from tests.outside import hostile, hostile_url, unescaped

ADA = Asker("Ada Lovelace", "U0ADA0001")
DETAILED = replace(
    FAILED,
    stages=tuple(
        replace(stage, jobs=(Job("j", State.FAILED, steps=(BROKEN_STEP,)),)) if stage.name == "train" else stage for stage in FAILED.stages
    ),
)

RELEASES = {
    "deploying": RELEASE,
    "waiting": replace(RELEASE_WAITING, reason="manual"),
    "succeeded": RELEASE_DONE,
    "failed": RELEASE_FAILED,
    "rejected": RELEASE_REJECTED,
    "resting": released(State.PENDING, State.PENDING, State.PENDING),
}

times = st.datetimes(min_value=NOW.replace(tzinfo=None, year=1990)).map(lambda at: at.replace(tzinfo=NOW.tzinfo))
moments = st.none() | times
people = st.none() | st.builds(Person, hostile, st.none() | hostile)
stages = st.builds(
    Stage,
    name=hostile,
    title=hostile,
    state=st.sampled_from(State),
    attempt=st.integers(1, 10**6),
    started=moments,
    finished=moments,
    jobs=st.lists(st.builds(Job, hostile, st.sampled_from(State), errors=st.lists(hostile, max_size=2).map(tuple)), max_size=2).map(tuple),
)
runs = st.builds(
    Run,
    id=st.integers(1, 2**62),
    number=hostile,
    pipeline_id=st.just(1),
    pipeline=hostile,
    state=st.sampled_from(State),
    branch=hostile,
    commit=hostile,
    url=hostile_url,
    created=times,
    started=moments,
    finished=moments,
    reason=hostile | st.just("manual"),
    requested_for=people,
    committer=people,
    commit_message=hostile,
    commit_url=hostile_url,
    parameters=st.dictionaries(st.sampled_from(["settings", "action", "version"]), hostile | st.just("promote")),
    stages=st.lists(stages, max_size=6).map(tuple),
    thing=st.sampled_from(Thing),
    source=st.none() | st.integers(1, 2**62),
    source_number=hostile,
    source_url=hostile_url,
)


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_is_shown_in_every_state(name: str) -> None:
    assert matches(f"release-{name}", run_card(RELEASES[name], RELEASING.models["diabetes"], ADA))


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_shown_in_every_state(name: str) -> None:
    assert matches(f"run-{name}", run_card(RUNS[name], DIABETES, ADA))


def test_a_run_that_somebody_started_by_merging() -> None:
    merged = replace(TRAINING, parameters={}, requested_for=Person("Grace Hopper", "grace@contoso.example"), commit_message="")

    assert matches("run-merged", run_card(merged, DIABETES, Asker("Grace Hopper")))


def test_a_promotion_says_which_version() -> None:
    promoted = replace(QUEUED, stages=(), parameters={"model": "diabetes", "action": "promote", "version": "4"}, commit="")

    card = run_card(promoted, DIABETES, None)

    assert "`diabetes` version `4`" in str(card.blocks)
    assert "asked for by somebody" in card.text


def test_the_fallback_text_stands_alone() -> None:
    assert run_card(WAITING, DIABETES, ADA).text == (
        "🚦 diabetes: run 20261123.1 waits for approval: Prod - Deploy on AKS, asked for by Ada Lovelace (8 of 9 stages done)."
    )


def test_there_is_a_task_for_each_stage_and_skipped_ones_have_no_tick() -> None:
    plan = next(block for block in run_card(KEPT, DIABETES, ADA).blocks if block["type"] == "plan")

    assert [task["status"] for task in plan["tasks"]] == ["complete"] * 4 + ["pending"] * 5


def test_a_failed_stage_says_its_first_error_and_attempt() -> None:
    again = replace(DETAILED, stages=tuple(replace(stage, attempt=2) for stage in DETAILED.stages))

    plan = next(block for block in run_card(again, DIABETES, ADA).blocks if block["type"] == "plan")

    task = plan["tasks"][2]
    assert task["title"] == "Train (attempt 2)"
    assert task["output"]["elements"][0]["elements"][0]["text"] == "Failed after 40 s: Script exited with code 1."
    assert task["sources"][0]["url"] == FAILED.url


def test_stages_that_say_no_times_are_shown_without() -> None:
    timeless = replace(
        SUCCEEDED,
        stages=(
            Stage("a", "A", State.RUNNING),
            Stage("b", "B", State.SUCCEEDED),
            Stage("c", "C", State.CANCELED),
        ),
        url="",
    )

    plan = next(block for block in run_card(timeless, DIABETES, ADA).blocks if block["type"] == "plan")

    assert ["output" in task for task in plan["tasks"]] == [False, False, True]


def test_a_secret_in_an_error_is_not_shown() -> None:
    leaking = Stage(
        "train", "Train", State.FAILED, jobs=(Job("j", State.FAILED, steps=(Step("s", State.FAILED, errors=("password=hunter22",)),)),)
    )

    assert first_error(leaking) == "password=***"


def test_the_icon_says_what_matters_most() -> None:
    assert [icon(run) for run in (QUEUED, TRAINING, WAITING, SUCCEEDED, FAILED, KEPT, REJECTED)] == [
        "🕓",
        "⏳",
        "🚦",
        "✅",
        "❌",
        "🏆",
        "⛔",
    ]


def test_a_run_of_more_stages_than_slack_shows_is_cut() -> None:
    crowd = tuple(replace(stage, name=f"s{number}", title="lorem ipsum " * 40) for number, stage in enumerate(SUCCEEDED.stages * 9))

    card = run_card(replace(SUCCEEDED, stages=crowd), DIABETES, ADA)

    assert problems(card) == ()
    assert "81 of 81 stages done" in card.text


@given(runs, st.none() | st.builds(Asker, hostile, st.none() | hostile))
def test_whatever_the_outside_says_slack_takes_the_card_and_nothing_in_it_works(run: Run, asker: Asker | None) -> None:
    card = run_card(run, DIABETES, asker)

    assert problems(card) == ()
    assert unescaped(card) == []
