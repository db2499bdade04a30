"""Settings as people type them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.parameters import Mistakes, check, limits, read, written
from bot.core.team import Kind, Parameter
from tests.examples import CHURN, DIABETES


def test_settings_are_read_and_written_as_the_pipeline_wants_them() -> None:
    settings = read(DIABETES, ["alpha=0.5", "trees=20", "compute=local"])

    assert settings == {"alpha": "0.5", "trees": "20", "compute": "local"}
    assert written(settings) == "alpha=0.5 trees=20 compute=local"
    assert written({}) == "none"


@pytest.mark.parametrize("value", ["1", "1.5", ".5", "5.", "1e3", "+2"])
def test_numbers_are_taken_as_people_write_them(value: str) -> None:
    assert read(DIABETES, [f"alpha={value}"]) == {"alpha": value}


@pytest.mark.parametrize("value", ["", "x", "nan", "inf", "0x10", "1_000", "٣", "0", "-1", "1e9", "1;rm", "1e999"])
def test_what_is_no_number_within_the_limits_is_refused(value: str) -> None:
    wrong = read(DIABETES, [f"alpha={value}"])

    assert isinstance(wrong, Mistakes)
    assert wrong.sentences == (f"alpha must be a number from 0.0001 to 100000, not “{value}”.",)


def test_every_mistake_is_said_at_once() -> None:
    wrong = read(DIABETES, ["fast", "alpha=1", "alpha=2", "trees=2.5", "compute=moon", "depth=3"])

    assert isinstance(wrong, Mistakes)
    assert wrong.sentences == (
        "“fast” is no setting. Write name=value, such as alpha=….",
        "alpha is given twice.",
        "trees must be a whole number from 1 to 500, not “2.5”.",
        "compute must be one of cpu-cluster, local, not “moon”.",
        "diabetes has no parameter “depth”. It has: alpha, trees, compute.",
    )


def test_a_model_without_parameters_takes_none() -> None:
    wrong = read(CHURN, ["alpha", "alpha=1"])

    assert isinstance(wrong, Mistakes)
    assert "this model has no parameters" in wrong.sentences[0]
    assert "none at all" in wrong.sentences[1]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(None, None, "a number"), (None, 2.5, "a number up to 2.5"), (1.0, None, "a number from 1"), (1.0, 2.0, "a number from 1 to 2")],
)
def test_the_limits_are_said_in_words(low: float | None, high: float | None, words: str) -> None:
    assert limits(Parameter("x", Kind.NUMBER, minimum=low, maximum=high)) == words


@given(st.text(max_size=30))
def test_what_is_accepted_goes_into_the_pipeline_as_one_word(value: str) -> None:
    model = replace(DIABETES, parameters=(Parameter("alpha", Kind.NUMBER), Parameter("trees", Kind.INTEGER)))
    for name in ("alpha", "trees"):
        settings = check(model, [(name, value)])
        assert isinstance(settings, Mistakes) or written(settings).split() == [f"{name}={value}"]
