"""The service-hook subscriptions: what should be there, what is there, and the way between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from bot import hooks
from bot.hooks import Plan, Receiver, Repair, Subscription, desired, difference, plan
from tests.examples import RELEASING, TEAM

PROJECT = "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a0001"
RECEIVER = Receiver("https://callboard.contoso.example/", "azure-devops", "pass-word", "s3cret-header")
URL = "https://callboard.contoso.example/hooks/azure-devops"
NAMES = {model.pipeline_id: f"pipeline-{model.pipeline_id}" for model in TEAM.models.values()}
WANTED = desired(TEAM, RECEIVER, PROJECT, NAMES)
ONE = WANTED[0]


def stored(one: Subscription, id: str = "s-1") -> Subscription:
    """The subscription as the service gives it back: with an id, more inputs and masked secrets."""
    return replace(
        one,
        id=id,
        inputs={**one.inputs, "tfsSubscriptionId": "x", "hostId": "y", "stageNameId": ""},
        consumer={**one.consumer, "basicAuthPassword": "********", "httpHeaders": "********", "acceptUntrustedCerts": "false"},
    )


@dataclass
class Azure:
    """An organisation's subscriptions, kept as the service keeps them."""

    kept: list[Subscription] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    asked_for_releases: bool = False

    async def project_id(self) -> str:
        return PROJECT

    async def pipeline_name(self, pipeline_id: int) -> str:
        return NAMES[pipeline_id]

    async def list(self, *, releases: bool) -> tuple[Subscription, ...]:
        self.asked_for_releases = releases
        return tuple(self.kept)

    async def create(self, subscription: Subscription) -> None:
        self.changes.append(f"create {subscription.event}")
        self.kept.append(stored(subscription, f"s-{len(self.kept)}"))

    async def replace(self, id: str, subscription: Subscription) -> None:
        self.changes.append(f"replace {id}")
        self.kept = [stored(subscription, id) if one.id == id else one for one in self.kept]

    async def remove(self, subscription: Subscription) -> None:
        self.changes.append(f"remove {subscription.id}")
        self.kept.remove(subscription)


def test_every_pipeline_of_the_team_reports_its_runs_stages_jobs_approvals_and_end() -> None:
    pipelines = {model.pipeline_id for model in TEAM.models.values()}

    assert len(WANTED) == len(pipelines) * len(hooks.PIPELINE_EVENTS)
    assert {(one.publisher, one.version) for one in WANTED} == {("pipelines", "5.1-preview.1"), ("tfs", "2.0")}
    for one in WANTED:
        assert one.inputs["projectId"] == PROJECT
        assert one.consumer["url"] == URL
        assert one.consumer["resourceDetailsToSend"] == "all"
        assert one.consumer["httpHeaders"] == "X-Callboard-Secret:s3cret-header"
        if one.event == "build.complete":
            assert one.inputs["definitionName"] in NAMES.values()
        else:
            assert int(one.inputs["pipelineId"]) in pipelines


def test_classic_releases_are_asked_for_only_where_a_team_has_some() -> None:
    releases = [one for one in desired(RELEASING, RECEIVER, PROJECT, NAMES) if one.publisher == "rm"]

    assert not any(one.publisher == "rm" for one in WANTED)
    assert {one.event for one in releases} == {event for event, _, _ in hooks.RELEASE_EVENTS}
    assert len(releases) == 6
    assert all(one.inputs == {"projectId": PROJECT, "releaseDefinitionId": "3"} for one in releases)


def test_secrets_are_not_printed() -> None:
    assert "pass-word" not in repr(RECEIVER) + repr(ONE)
    assert "s3cret" not in repr(RECEIVER) + repr(ONE)


def test_what_the_service_hides_or_adds_is_no_difference() -> None:
    assert plan(WANTED, [stored(one, str(n)) for n, one in enumerate(WANTED)]).keep == tuple(
        stored(one, str(n)) for n, one in enumerate(WANTED)
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"status": "onProbation"}, "its status is onProbation"),
        ({"status": "disabledBySystem"}, "its status is disabledBySystem"),
        ({"version": "1.0"}, "its version is 1.0"),
        ({"inputs": {**ONE.inputs, "runStateId": "Completed"}}, "its filter runStateId differs"),
        ({"consumer": {**ONE.consumer, "resourceDetailsToSend": "minimal"}}, "its resourceDetailsToSend differs"),
        ({"consumer": {**ONE.consumer, "basicAuthUsername": "me"}}, "its basicAuthUsername differs"),
    ],
)
def test_a_subscription_that_differs_is_repaired(change: dict[str, str], why: str) -> None:
    broken = replace(stored(ONE), **change)  # type: ignore[arg-type]  # one field or another

    assert difference(ONE, broken) == why
    assert plan([ONE], [broken]) == Plan(repair=(Repair(broken, ONE, why),))


def test_of_several_that_do_the_same_the_working_one_stays() -> None:
    broken, good, extra = replace(stored(ONE, "a"), status="onProbation"), stored(ONE, "b"), stored(ONE, "c")

    made = plan([ONE], [broken, extra, good])

    assert made == Plan(remove=(extra, broken), keep=(good,))


def test_ours_for_a_pipeline_the_team_no_longer_has_are_removed() -> None:
    stale = stored(replace(ONE, inputs={"projectId": PROJECT, "pipelineId": "99"}))

    assert plan([ONE], [stale]) == Plan(create=(ONE,), remove=(stale,))


@pytest.mark.parametrize(
    "other",
    [
        replace(stored(ONE), consumer={**ONE.consumer, "url": "https://elsewhere.example/hooks/azure-devops"}),
        replace(stored(ONE), inputs={**ONE.inputs, "projectId": "another"}),
        replace(stored(ONE), consumer_id="slack", consumer={}),
    ],
)
def test_subscriptions_of_others_are_left_alone(other: Subscription) -> None:
    assert plan([ONE], [other]) == Plan(create=(ONE,), others=1)


async def test_applying_creates_repairs_and_removes_and_the_second_time_does_nothing() -> None:
    azure = Azure([replace(stored(WANTED[0], "p"), status="onProbation"), stored(WANTED[1], "x"), stored(WANTED[1], "y")])

    first = await hooks.apply(azure, TEAM, RECEIVER)
    changes = list(azure.changes)
    second = await hooks.apply(azure, TEAM, RECEIVER)

    assert changes == [*(f"create {one.event}" for one in WANTED[2:]), "replace p", "remove y"]
    assert sum(line.startswith("created") for line in first) == len(WANTED) - 2
    assert f"repaired {WANTED[0].subject}: its status is onProbation" in first
    assert f"removed  {WANTED[1].subject} (y)" in first
    assert azure.changes == changes
    assert second == (f"fine     {len(WANTED)} subscriptions",)


async def test_new_secrets_are_written_into_all_of_ours() -> None:
    azure = Azure([stored(one, str(n)) for n, one in enumerate(WANTED)])

    said = await hooks.apply(azure, TEAM, RECEIVER, renew=True)

    assert azure.changes == [f"replace {n}" for n in range(len(WANTED))]
    assert all(line.endswith("written anew") for line in said)


async def test_showing_changes_nothing_and_says_what_would_be_done() -> None:
    other = replace(stored(ONE, "o"), consumer={"url": "https://elsewhere.example"})
    surplus = stored(WANTED[1], "y")
    azure = Azure([replace(stored(ONE, "p"), status="disabledBySystem"), stored(WANTED[1], "x"), surplus, other])

    said = await hooks.show(azure, TEAM, RECEIVER)

    assert azure.changes == []
    assert said == (
        f"fine     {WANTED[1].subject}",
        *_missing(WANTED[2:]),
        f"broken   {ONE.subject}: its status is disabledBySystem",
        f"surplus  {WANTED[1].subject} (y)",
        "alone    1 of others",
    )


async def test_the_release_host_is_asked_only_where_there_are_releases() -> None:
    azure = Azure()

    await hooks.show(azure, TEAM, RECEIVER)
    assert not azure.asked_for_releases
    await hooks.show(azure, RELEASING, RECEIVER)
    assert azure.asked_for_releases


def _missing(wanted: Sequence[Subscription]) -> list[str]:
    return [f"missing  {one.subject}" for one in wanted]
