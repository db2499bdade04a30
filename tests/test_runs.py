"""Runs in words: durations, what happened, who asked, what may be retried."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from bot.core.approvals import Allowed, Denied
from bot.core.people import Asker, Person
from bot.core.runs import (
    LINE,
    TAIL,
    Run,
    State,
    asker,
    branch,
    called,
    current,
    duration,
    failed_stages,
    kept_champion,
    may_retry,
    reached,
    settled,
    tail,
    took,
    what_happened,
    with_source,
)
from tests.examples import (
    ADA_ADO,
    CANCELED,
    DEPLOYING,
    EVALUATED,
    FAILED,
    GRACE_ADO,
    KEPT,
    NOW,
    QUEUED,
    REJECTED,
    RELEASE,
    RELEASE_DONE,
    RELEASE_WAITING,
    RUNS,
    SUCCEEDED,
    TRAINING,
    WAITING,
    released,
    stages,
    until,
)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-3, "under 1 s"), (0.4, "under 1 s"), (59.4, "59 s"), (60, "1 min 00 s"), (245, "4 min 05 s"), (3720, "1 h 02 min")],
)
def test_a_length_of_time_is_said_as_people_say_it(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_what_has_not_finished_has_taken_no_time() -> None:
    assert took(TRAINING) is None
    assert took(SUCCEEDED) == "9 min 00 s"


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (QUEUED, "is queued"),
        (TRAINING, "is running: Train"),
        (replace(TRAINING, stages=()), "is running"),
        (WAITING, "waits for approval: Prod - Deploy on AKS"),
        (replace(WAITING, state=State.WAITING, stages=()), "waits"),
        (replace(TRAINING, state=State.CANCELING), "is being canceled"),
        (SUCCEEDED, "succeeded"),
        (replace(SUCCEEDED, state=State.PARTIAL), "succeeded in part"),
        (KEPT, "kept the champion"),
        (FAILED, "failed at Train"),
        (replace(FAILED, stages=()), "failed"),
        (REJECTED, "was rejected at Prod - Deploy on AKS"),
        (replace(REJECTED, state=State.REJECTED, stages=()), "was rejected"),
        (CANCELED, "was canceled"),
        (replace(CANCELED, state=State.SKIPPED), "was skipped"),
    ],
)
def test_what_happened_is_said_in_words(run: Run, words: str) -> None:
    assert what_happened(run) == words


def test_the_stage_that_waits_for_people_matters_most() -> None:
    run = replace(TRAINING, stages=stages(qa=State.RUNNING, prod=State.WAITING))

    stage = current(run)

    assert stage is not None
    assert stage.name == "prod"


def test_only_an_evaluation_that_succeeded_and_stopped_everything_kept_the_champion() -> None:
    kept = {name for name, run in RUNS.items() if kept_champion(run)}

    assert kept == {"kept"}
    assert not kept_champion(replace(KEPT, stages=()))
    assert not kept_champion(replace(KEPT, stages=KEPT.stages[:4]))


def test_a_run_has_reached_a_stage_that_moves_or_whose_turn_it_is() -> None:
    before = replace(TRAINING, stages=until("qa", State.SUCCEEDED))

    assert reached(WAITING, WAITING.stages[-1])
    assert reached(before, before.stages[-1])
    assert reached(DEPLOYING, DEPLOYING.stages[-1])
    assert not reached(TRAINING, TRAINING.stages[-1])
    assert not reached(QUEUED, QUEUED.stages[0])
    assert not reached(replace(before, state=State.CANCELED), before.stages[-1])


def test_the_branch_is_said_without_its_folder() -> None:
    assert branch(QUEUED) == "main"


def test_whoever_asked_in_slack_is_known_by_their_slack_id() -> None:
    assert asker(QUEUED, "U0ADA0001") == Asker("Ada Lovelace (ada@contoso.example)", "U0ADA0001")


def test_a_run_that_nobody_asked_for_in_slack_was_asked_for_by_whom_azure_devops_says() -> None:
    pushed = replace(QUEUED, parameters={}, requested_for=Person("Grace Hopper", "grace@contoso.example"))

    assert asker(pushed) == Asker("Grace Hopper", None, "grace@contoso.example")
    assert asker(replace(pushed, requested_for=None, requested_by=None)) is None


@pytest.mark.parametrize(
    ("run", "stage", "attempt", "reason"),
    [
        (FAILED, "nothing", 1, "no stage nothing in run"),
        (FAILED, "train", 2, "has been retried since: attempt 1 is failed"),
        (SUCCEEDED, "train", 1, "has not failed: it is succeeded"),
    ],
)
def test_only_the_last_attempt_that_failed_may_be_retried(run: Run, stage: str, attempt: int, reason: str) -> None:
    decision = may_retry(run, stage, attempt)

    assert isinstance(decision, Denied)
    assert reason in decision.reason


def test_a_failed_stage_may_be_retried() -> None:
    assert may_retry(FAILED, "train", 1) == Allowed()
    assert [stage.name for stage in failed_stages(FAILED)] == ["train"]
    assert failed_stages(EVALUATED) == ()


def test_the_tail_of_a_log_is_short_and_has_no_blank_end() -> None:
    lines = tuple(f"line {number}" for number in range(100))

    shown = tail((*lines, "no end " * 100, "", "  "))

    assert len(shown) == TAIL
    assert shown[-2] == "line 99"
    assert shown[-1] == ("no end " * 100)[: LINE - 1] + "…"


def test_the_tail_of_a_log_is_what_the_step_said() -> None:
    head = ("Generating script.", f"{'=' * 26} Starting Command Output {'=' * 27}", "[command]/usr/bin/bash x.sh")

    assert tail((*head, "ridge: Failed", "##[error]Training failed.", "##[section]Finishing: Train")) == (
        "ridge: Failed",
        "Training failed.",
    )
    assert tail(("##[section]Finishing: Train",)) == ("##[section]Finishing: Train",)


def test_a_secret_over_several_lines_is_hidden() -> None:
    key = ("-----BEGIN RSA PRIVATE KEY-----", "c2VjcmV0", "-----END RSA PRIVATE KEY-----", "done")

    assert tail(key) == ("***", "done")
    assert tail(()) == ()


def test_times_of_examples_do_not_run_backwards() -> None:
    for run in RUNS.values():
        for stage in run.stages:
            assert stage.finished is None or stage.started is None or stage.finished - stage.started == timedelta(seconds=40)
            assert stage.started is None or stage.started >= NOW


def test_a_release_that_nobody_has_deployed_rests() -> None:
    resting = released(State.PENDING, State.PENDING, State.PENDING)

    assert settled(resting)
    assert what_happened(resting) == "is not deployed yet"
    assert settled(RELEASE_DONE)
    assert not settled(RELEASE_WAITING)
    assert not settled(QUEUED)


def test_a_run_and_a_release_are_called_what_they_are() -> None:
    assert called(RELEASE) == "release Release-12"
    assert called(QUEUED) == "run 20261123.1"


def test_a_release_knows_from_its_run_what_it_builds_and_who_asked() -> None:
    made_by_build = with_source(RELEASE, replace(SUCCEEDED, requested_for=GRACE_ADO))
    made_by_hand = with_source(replace(RELEASE, reason="manual"), replace(SUCCEEDED, requested_for=None, requested_by=GRACE_ADO))

    assert made_by_build.parameters == SUCCEEDED.parameters
    assert (made_by_build.committer, made_by_build.commit_message) == (SUCCEEDED.committer, SUCCEEDED.commit_message)
    assert (made_by_build.requested_for, made_by_build.requested_by) == (GRACE_ADO, RELEASE.requested_by)
    assert (made_by_hand.requested_for, made_by_hand.requested_by) == (ADA_ADO, GRACE_ADO)
    assert (made_by_build.ref, made_by_build.number, made_by_build.stages) == (RELEASE.ref, "Release-12", RELEASE.stages)
    nobody = replace(SUCCEEDED, requested_for=None, requested_by=None)
    assert with_source(RELEASE, nobody).requested_for == RELEASE.requested_for
    assert with_source(replace(RELEASE, reason="manual"), nobody).requested_by == RELEASE.requested_by
