"""Parsing service-hook deliveries: every shape that is known to have been sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.events import (
    ApprovalCompleted,
    ApprovalRequested,
    Event,
    Ignored,
    JobMoved,
    Kind,
    Malformed,
    ReleaseApprovalCompleted,
    ReleaseApprovalRequested,
    ReleaseMoved,
    RunMoved,
    StageMoved,
    key,
    lane,
    parse,
    rests,
)

PAYLOADS = Path(__file__).parent / "payloads"
APPROVAL = "a1b2c3d4-0000-4000-8000-000000000001"
SUBSCRIPTION = "8d6b0b4e-0f5e-4d6e-9c1f-000000000001"

EVENTS: dict[str, Event | Ignored] = {
    "run-state-changed": RunMoved(480),
    "run-state-changed-2019": RunMoved(480),
    "stage-state-changed": StageMoved(480, "train", 2),
    "stage-state-changed-2019": StageMoved(480, "train", None),
    "job-state-changed": JobMoved(480, "train", "train_job"),
    "build-complete-1.0": RunMoved(480),
    "build-complete-2.0": RunMoved(480),
    "approval-pending": ApprovalRequested(480, APPROVAL),
    "approval-pending-minimal": ApprovalRequested(480, APPROVAL),
    "approval-completed": ApprovalCompleted(480, APPROVAL),
    "git-push": Ignored("git.push"),
    "release-created": ReleaseMoved(12),
    "release-abandoned": ReleaseMoved(12),
    "deployment-started": ReleaseMoved(12),
    "deployment-completed": ReleaseMoved(12),
    "deployment-completed-minimal": ReleaseMoved(12),
    "release-approval-pending": ReleaseApprovalRequested(12, "34"),
    "release-approval-completed": ReleaseApprovalCompleted(12, "34"),
}
MALFORMED = {
    "run-state-changed-docs": "number of the run",
    "stage-state-changed-docs": "names no stage",
    "approval-pending-docs": "names no approval",
    "release-created-docs": "names no release",
    "deployment-started-docs": "number of the release",
    "release-approval-pending-docs": "number of the approval",
}

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def payload(name: str) -> object:
    read: object = json.loads((PAYLOADS / f"{name}.json").read_text())
    return read


def stage(resource: object) -> object:
    return {"eventType": Kind.STAGE.value, "resource": resource}


@pytest.mark.parametrize("name", EVENTS)
def test_a_known_shape_is_parsed(name: str) -> None:
    assert parse(payload(name)) == EVENTS[name]


@pytest.mark.parametrize("name", MALFORMED)
def test_a_sample_of_the_docs_names_nothing_and_is_malformed(name: str) -> None:
    with pytest.raises(Malformed, match=MALFORMED[name]):
        parse(payload(name))


def test_every_payload_is_looked_at() -> None:
    assert {path.stem for path in PAYLOADS.glob("*.json")} == {*EVENTS, *MALFORMED}


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (None, "no event type"),
        ([], "no event type"),
        ({"resource": {}}, "no event type"),
        ({"eventType": 7, "resource": {}}, "no event type"),
        ({"eventType": Kind.RUN.value}, "no resource"),
        ({"eventType": Kind.BUILD.value, "resource": {"id": 480}}, "no resource"),
        ({"eventType": Kind.RUN.value, "resource": None}, "names no run"),
        ({"eventType": Kind.RUN.value, "resource": {"run": {"id": None}}}, "number of the run"),
        ({"eventType": Kind.RUN.value, "resource": {"runId": True}}, "number of the run"),
        ({"eventType": Kind.RUN.value, "resource": {"runId": "-3"}}, "number of the run"),
        ({"eventType": Kind.RUN.value, "resource": {"runId": "٣"}}, "number of the run"),
        ({"eventType": Kind.RUN.value, "resource": {"runId": 2**64}}, "number of the run"),
        ({"eventType": Kind.JOB.value, "resource": {"runId": 480, "job": {"name": ""}}}, "names no job"),
        ({"eventType": Kind.RELEASE_APPROVAL_PENDING.value, "resource": {"release": {"id": 12}}}, "names no approval"),
        (stage({"runId": 480, "stage": {"name": "train", "attempt": 0}}), "number of the attempt"),
    ],
)
def test_a_shape_that_names_nothing_is_malformed(what: object, sentence: str) -> None:
    with pytest.raises(Malformed, match=sentence):
        parse(what)


@given(anything, st.sampled_from(Kind))
def test_whatever_comes_is_an_event_or_malformed(resource: object, kind: Kind) -> None:
    try:
        event = parse({"eventType": kind.value, "resource": resource})
    except Malformed:
        return
    assert not isinstance(event, Ignored)
    assert event.ref.id > 0


def test_everything_about_one_run_is_one_lane_and_so_is_everything_about_one_release() -> None:
    lanes = {lane(event) for event in EVENTS.values() if not isinstance(event, Ignored)}

    assert lanes == {"run:480", "release:12"}
    assert all(rests(lane) for lane in lanes)
    assert not rests("person:U0ADA0001")


def test_a_delivery_and_its_repetition_have_one_key() -> None:
    assert key(payload("run-state-changed"), {}) == f"{SUBSCRIPTION}:12"


def test_the_subscription_may_be_known_from_the_headers_alone() -> None:
    delivery = {"eventType": "build.complete", "notificationId": 3}

    assert key(delivery, {"X-VSS-SubscriptionId": SUBSCRIPTION}) == f"{SUBSCRIPTION}:3"


def test_without_a_subscription_the_events_own_id_is_the_key() -> None:
    assert key(payload("run-state-changed-2019"), {}) == "event:03c164c2-8912-4d5e-8009-3707d5f83734"
    assert key(payload("run-state-changed-docs"), {}) == "event:03c164c2-8912-4d5e-8009-3707d5f80001"


def test_without_any_id_the_meaning_is_the_key() -> None:
    delivery = {"eventType": Kind.STAGE.value, "createdDate": "2019-12-13T20:52:55Z", "resource": {"runId": 480, "stageName": "train"}}

    first = key(delivery, {})

    assert first is not None
    assert first == key(dict(delivery), {})
    assert first != key({**delivery, "createdDate": "2019-12-13T20:53:00Z"}, {})


def test_what_cannot_be_told_apart_has_no_key() -> None:
    assert key({"eventType": Kind.STAGE.value, "createdDate": "2019-12-13T20:52:55Z", "resource": None}, {}) is None
    assert key(payload("approval-pending-minimal"), {}) is None
    assert key("nonsense", {}) is None
