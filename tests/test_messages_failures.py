"""The card that says why a run failed."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bot.core.runs import FailedTest, Failure, Run, Stage
from bot.messages.failures import failure_card, refused_card
from bot.messages.limits import problems
from tests.examples import DIABETES, FAILED, FAILURE, RELEASE, RELEASE_FAILED
from tests.golden import matches
from tests.outside import hostile, hostile_url, unescaped
from tests.test_messages_runs import DETAILED, runs, stages

TRAIN = FAILED.stages[2]
AGAIN = replace(TRAIN, attempt=2)
failures = st.builds(
    Failure,
    stage=hostile,
    job=hostile,
    step=hostile,
    error=hostile,
    tail=st.lists(hostile, max_size=60).map(tuple),
    tests=st.lists(st.builds(FailedTest, hostile, hostile), max_size=8).map(tuple),
    log_url=hostile_url,
)


def test_a_failure_says_why() -> None:
    assert matches("failure", failure_card(FAILED, DIABETES, TRAIN, FAILURE))


def test_a_failure_that_was_retried_has_no_retry_button() -> None:
    assert matches("failure-retried", failure_card(FAILED, DIABETES, AGAIN, FAILURE, retried_by="U0ADA0001"))


def test_a_failed_deployment_of_a_release_says_why() -> None:
    failure = Failure("QA - Deploy on ACI", "Deploy", "Smoke test", "QA: 3 of 5 predictions differ.", ("3 of 5",), log_url=RELEASE.url)
    stage = RELEASE_FAILED.stages[0]

    assert matches("failure-release", failure_card(RELEASE_FAILED, DIABETES, stage, failure))
    assert "had it deployed again" in str(failure_card(RELEASE_FAILED, DIABETES, stage, failure, retried_by="U0ADA0001").blocks)


def test_a_failure_that_was_retried_may_have_no_page_either() -> None:
    card = failure_card(replace(FAILED, url=""), DIABETES, TRAIN, replace(FAILURE, log_url=""), retried_by="U0ADA0001")

    assert not [block for block in card.blocks if block["type"] == "actions"]


def test_without_a_log_the_stages_own_error_is_the_reason() -> None:
    assert "Script exited with code 1." in failure_card(DETAILED, DIABETES, DETAILED.stages[2], None).text
    assert "gives no reason" in failure_card(replace(FAILED, committer=None), DIABETES, TRAIN, None).text


def test_a_stage_without_times_is_said_to_have_failed() -> None:
    card = failure_card(FAILED, DIABETES, replace(TRAIN, finished=None), FAILURE)

    assert card.blocks[0]["text"]["text"] == "❌ diabetes: Train failed"


def test_many_failing_tests_are_counted_and_few_are_named() -> None:
    many = replace(FAILURE, tests=tuple(FailedTest(f"test_{number}") for number in range(9)))

    text = str(failure_card(FAILED, DIABETES, TRAIN, many).blocks)

    assert "Failing tests: 9" in text
    assert "test_4" in text
    assert "test_5" not in text
    assert "and 4 more" in text


def test_secrets_are_not_shown() -> None:
    leaking = replace(FAILURE, error="password=hunter22", tail=("token: hunter22",), tests=(FailedTest("t", "secret=hunter22"),))

    card = failure_card(FAILED, DIABETES, TRAIN, leaking)

    assert "hunter22" not in str(card)


def test_a_run_whose_definition_was_refused_says_why() -> None:
    refused = Failure("", "", "", "azure-pipelines.yml (Line: 3): unexpected value 'stagez'", ("azure-pipelines.yml (Line: 3)",))

    assert matches("failure-refused", refused_card(replace(FAILED, stages=()), DIABETES, refused))
    assert len(refused_card(replace(FAILED, url=""), DIABETES, replace(refused, tail=(), error="")).blocks) == 2


@given(runs, failures)
def test_whatever_a_refusal_says_slack_takes_it_and_nothing_in_it_works(run: Run, failure: Failure) -> None:
    card = refused_card(run, DIABETES, failure)

    assert problems(card) == ()
    assert unescaped(card) == []


@given(runs, stages, st.none() | failures, st.none() | hostile)
def test_whatever_the_outside_says_slack_takes_the_card_and_nothing_in_it_works(
    run: Run, stage: Stage, failure: Failure | None, retried_by: str | None
) -> None:
    card = failure_card(run, DIABETES, stage, failure, retried_by)

    assert problems(card) == ()
    assert unescaped(card) == []
