"""What buttons carry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.references import ApprovalOf, Ref, StageAttempt, Thing, Unknown, token

RUN = Ref(Thing.RUN, 480)
RELEASE = Ref(Thing.RELEASE, 12)


def test_a_button_carries_what_it_was_about() -> None:
    assert StageAttempt.read(str(StageAttempt(RUN, "train", 2))) == StageAttempt(RUN, "train", 2)
    assert StageAttempt.read(str(StageAttempt(RELEASE, "Prod / AKS", 1))) == StageAttempt(RELEASE, "Prod / AKS", 1)
    assert StageAttempt.read("480/train/2") == StageAttempt(RUN, "train", 2), "as buttons were before there were releases"
    assert ApprovalOf.read(str(ApprovalOf(RUN, "a1"))) == ApprovalOf(RUN, "a1")
    assert ApprovalOf.read(str(ApprovalOf(RELEASE, "34", "f00d"))) == ApprovalOf(RELEASE, "34", "f00d")
    assert ApprovalOf.read("480/a1") == ApprovalOf(RUN, "a1"), "as buttons were before there were releases"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "480",
        "480//1",
        "x/train/1",
        "480/train/one",
        "480/train/1/2",
        "release/12//1",
        "release/12/1",
        "٣/train/1",
        f"{'9' * 30}/train/1",
    ],
)
def test_a_stage_that_no_button_of_ours_names_is_unknown(value: str) -> None:
    with pytest.raises(Unknown, match="none of ours"):
        StageAttempt.read(value)


@pytest.mark.parametrize("value", ["", "480", "480/", "x/a1", "480/a/1", "stage/480/a", "run/480/a/f/g"])
def test_an_approval_that_no_button_of_ours_names_is_unknown(value: str) -> None:
    with pytest.raises(Unknown, match="none of ours"):
        ApprovalOf.read(value)


@given(st.text(), st.text())
def test_a_token_is_the_same_for_the_same_parts_and_fit_for_a_parameter(one: str, other: str) -> None:
    assert token(one, other) == token(one, other)
    assert len(token(one, other)) == 36
    assert token("retry", one) != token("decide", one)
