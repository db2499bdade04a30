"""The edge to classic releases: the real SDK against the sandbox's releases, and what becomes of what the service may say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.devops.v7_1.release import models as sdk
from msrest import Deserializer

from bot import hooks
from bot.azure_devops import AzureDevOps, release_reading
from bot.azure_devops.reading import Site as Pages
from bot.core import events
from bot.core.approvals import Answer, ApprovalState
from bot.core.errors import Gone, Refused
from bot.core.people import Person
from bot.core.references import Ref, Thing
from bot.core.runs import Run, State, current
from handlers.runs import moved
from sandbox.azure_devops.plan import Result
from sandbox.names import ADA, ALAN, BOT, GRACE, KATHERINE, ORGANIZATION, PROJECT, PROJECT_ID, RELEASE_MANAGERS, Character
from sandbox.tokens import AZURE_DEVOPS
from tests.examples import RELEASING
from tests.fakes import World as Everything
from tests.test_azure_devops import edge_of, point_at
from tests.test_sandbox_releases import (
    KINDS,
    PROD,
    QA,
    QA_JOB,
    RESULT,
    Agent,
    Receiver,
    Site,
    approvers,
    receiver,
    root,
    running,
    subscribe,
)

__all__ = ["receiver", "root"]  # fixtures

pytestmark = pytest.mark.world

Json = dict[str, Any]
MANAGERS = Person(f"[{PROJECT}]\\Release Managers", None, RELEASE_MANAGERS.oid, group=True)
DEFINITION = 1


# --- against the sandbox --------------------------------------------------------------------------------------------


@pytest.fixture
async def site(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """The sandbox's releases, and this process pointed at them."""
    async with running(tmp_path / "world", root, Agent()) as there:
        point_at(there.world, monkeypatch)
        yield there
        assert there.world.proxy is not None
        assert there.world.proxy.refused == []


@pytest.fixture
async def azure(site: Site, tmp_path: Path) -> AsyncIterator[AzureDevOps]:
    """The edge as the bot, which has one release definition to look after."""
    await edge_of(tmp_path).close()  # the SDK remembers no routes of another server
    edge = AzureDevOps(ORGANIZATION, PROJECT, token=lambda: token(site, BOT), cache=tmp_path / "cache", releases=(DEFINITION,))
    yield edge
    await edge.close()


def token(site: Site, who: Character) -> str:
    return site.world.tokens.issue(who, AZURE_DEVOPS)


def acting(azure: AzureDevOps, site: Site, who: Character) -> AzureDevOps:
    """Somebody at work, with what they are asked to consent to when they sign in."""
    return azure.acting(lambda: site.world.tokens.issue(who, AZURE_DEVOPS, ("vso.build_execute", "vso.release_manage")))


def known(who: Character) -> Person:
    return Person(who.name, who.email, who.oid)


async def test_a_release_is_a_run_of_stages_that_knows_the_run_it_deploys(azure: AzureDevOps, site: Site) -> None:
    number = await site.released(ALAN)
    await site.waiting(number)

    run = await azure.release(number)

    build = await azure.run(run.source or 0)
    assert (run.thing, run.id, run.number, run.pipeline_id, run.pipeline) == (Thing.RELEASE, number, "Release-1", 1, "Deploy Webservice")
    assert (run.source_number, run.source_url) == (build.number, build.url)
    assert (run.branch, run.commit) == (build.branch, build.commit)
    assert run.url == f"https://dev.azure.com/contoso/ml-delivery/_releaseProgress?_a=release-pipeline-progress&releaseId={number}"
    assert (run.reason, run.requested_for) == ("continuousIntegration", known(ALAN))
    assert (run.state, run.finished) == (State.WAITING, None)
    assert [(stage.name, stage.title, stage.state, stage.attempt) for stage in run.stages] == [
        (QA, QA, State.SUCCEEDED, 1),
        (PROD, PROD, State.WAITING, 1),
    ]
    assert current(run) == run.stages[1]
    (job,) = run.stages[0].jobs
    assert (job.name, job.state) == (QA_JOB, State.SUCCEEDED)
    assert run.stages[0].finished is not None
    assert [one.id for one in await azure.recent_releases(DEFINITION, datetime.now(UTC) - timedelta(minutes=5))] == [number]
    assert await azure.recent_releases(DEFINITION, datetime.now(UTC) + timedelta(minutes=5)) == ()
    assert await azure.recent_releases(99, datetime.now(UTC) - timedelta(minutes=5)) == ()


async def test_a_list_of_releases_says_how_they_stand(azure: AzureDevOps, site: Site) -> None:
    site.agent.results[QA_JOB] = [Result.FAILED]
    failed = await site.released()
    await site.became(failed, "rejected", QA)
    waiting = await site.released()
    await site.waiting(waiting)

    newest, oldest = await azure.recent_releases(DEFINITION, datetime.now(UTC) - timedelta(minutes=5))

    assert (newest.id, newest.state, newest.stages[1].state) == (waiting, State.WAITING, State.WAITING)
    assert (oldest.id, oldest.state) == (failed, State.FAILED)
    assert newest.source_number
    assert (await azure.release(failed)).state is State.FAILED


async def test_a_group_is_asked_and_one_of_its_members_answers_under_their_own_name(azure: AzureDevOps, site: Site) -> None:
    number = await site.released()
    await site.waiting(number)
    run = await azure.release(number)

    (approval,) = await azure.approvals(run)

    assert await azure.pending_approvals() == (approval,)
    assert (approval.ref, approval.stage, approval.attempt, approval.post) == (run.ref, PROD, 1, False)
    assert (approval.state, approval.left, approval.mine) == (ApprovalState.PENDING, 1, None)
    assert [step.assigned for step in approval.steps] == [MANAGERS]

    with pytest.raises(Refused, match="Access denied"):
        await azure.decide(approval, Answer.APPROVE, "as the bot")
    with pytest.raises(Refused, match="Access denied"):
        await acting(azure, site, ALAN).decide(approval, Answer.APPROVE, "as nobody special")
    decided = await acting(azure, site, GRACE).decide(approval, Answer.APPROVE, "Good numbers.")

    assert decided.decided is not None
    assert (decided.decided.actual, decided.decided.comment) == (known(GRACE), "Good numbers.")
    assert (decided.state, decided.id) == (ApprovalState.APPROVED, approval.id)
    with pytest.raises(Refused, match="already approved"):
        await acting(azure, site, KATHERINE).decide(approval, Answer.REJECT, "too late")
    await site.became(number, "succeeded")
    done = await azure.release(number)
    assert (done.state, done.finished is not None) == (State.SUCCEEDED, True)
    assert await azure.approvals(done) == (decided,)
    assert await azure.pending_approvals() == ()
    assert await azure.failure(done) is None


async def test_who_asked_for_the_release_may_not_approve_it(azure: AzureDevOps, site: Site) -> None:
    number = await site.released(GRACE)
    await site.waiting(number)
    (approval,) = await azure.pending_approvals()

    with pytest.raises(Refused, match="may not approve"):
        await acting(azure, site, GRACE).decide(approval, Answer.APPROVE, "mine")


async def test_a_rejection_is_told_from_a_failure(azure: AzureDevOps, site: Site) -> None:
    number = await site.released()
    await site.waiting(number)
    (approval,) = await azure.pending_approvals()

    decided = await acting(azure, site, KATHERINE).decide(approval, Answer.REJECT, "Too close to the fair.")
    await site.became(number, "rejected")

    run = await azure.release(number)
    assert decided.state is ApprovalState.REJECTED
    assert (run.state, [stage.state for stage in run.stages]) == (State.REJECTED, [State.SUCCEEDED, State.REJECTED])
    assert await azure.failure(run) is None


async def test_an_approval_is_handed_over_and_stays_the_same(azure: AzureDevOps, site: Site) -> None:
    number = await site.released()
    await site.waiting(number)
    (approval,) = await azure.pending_approvals()
    grace = acting(azure, site, GRACE)

    after = await grace.reassign(approval, known(ALAN), "He knows the model.")

    assert (after.id, after.state, [step.assigned for step in after.steps]) == (approval.id, ApprovalState.PENDING, [known(ALAN)])
    assert await azure.pending_approvals() == (after,)
    with pytest.raises(Refused, match="nobody of this organization"):
        await acting(azure, site, ALAN).reassign(after, Person("Nobody", id="6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0affff"), "")
    with pytest.raises(Refused, match="for later"):
        await grace.defer(after, datetime.now(UTC), "")


async def test_what_is_asked_after_the_deployment_is_an_approval_too(azure: AzureDevOps, site: Site) -> None:
    await site.redefine(prod_before=approvers((1, GRACE.oid), (1, KATHERINE.oid), count=1), prod_after=approvers((1, GRACE.oid)))
    number = await site.released()
    await site.waiting(number)

    before = await azure.approvals(await azure.release(number))
    await acting(azure, site, GRACE).decide(before[0], Answer.APPROVE, "go")
    await site.azure.wait_for(lambda: any(one["approvalType"] == "postDeploy" for one in site.asked(number)), 8)

    assert [one.steps[0].assigned for one in before] == [known(GRACE), known(KATHERINE)]
    run = await azure.release(number)
    after = await azure.approvals(run)
    assert [(one.post, one.state) for one in after] == [
        (False, ApprovalState.APPROVED),
        (False, ApprovalState.SKIPPED),
        (True, ApprovalState.PENDING),
    ]
    assert run.stages[1].state is State.WAITING


async def test_a_failed_deployment_says_why_and_is_tried_again(azure: AzureDevOps, site: Site) -> None:
    site.agent.results[QA_JOB] = [Result.FAILED]
    number = await site.released()
    await site.became(number, "rejected", QA)
    run = await azure.release(number)

    failure = await azure.failure(run)

    assert failure is not None
    assert (failure.stage, failure.job) == (QA, QA_JOB)
    assert failure.step
    assert failure.error == "QA: 3 of 5 predictions differ."
    assert failure.tail == (f"working on {QA_JOB}",)
    assert failure.log_url.startswith("https://dev.azure.com/contoso/ml-delivery/_releaseProgress?_a=release-environment-logs&releaseId=")

    await acting(azure, site, ADA).redeploy(number, QA, "again")
    await site.waiting(number)
    again = await azure.release(number)
    assert [(stage.state, stage.attempt) for stage in again.stages] == [(State.SUCCEEDED, 2), (State.WAITING, 1)]
    with pytest.raises(Gone, match="has no stage Moon"):
        await azure.redeploy(number, "Moon", "")


async def test_an_older_release_is_deployed_again_and_asks_again(azure: AzureDevOps, site: Site) -> None:
    first = await site.released()
    await site.waiting(first)
    (approval,) = await azure.pending_approvals()
    await acting(azure, site, GRACE).decide(approval, Answer.APPROVE, "go")
    await site.became(first, "succeeded")
    second = await site.released()
    await site.waiting(second)

    assert await azure.redeployable(DEFINITION, PROD, 2**31 - 1) == (first,)
    assert await azure.redeployable(DEFINITION, QA, 2**31 - 1) == (second, first)
    assert await azure.redeployable(DEFINITION, QA, second) == (first,)
    await acting(azure, site, GRACE).redeploy(first, PROD, "back")
    await site.waiting(first)

    again = await azure.approvals(await azure.release(first))
    assert [(one.attempt, one.state) for one in again] == [(1, ApprovalState.APPROVED), (2, ApprovalState.PENDING)]
    assert (await azure.release(first)).stages[1].attempt == 2
    with pytest.raises(Refused, match="already under way"):
        await acting(azure, site, GRACE).redeploy(first, PROD, "back")


async def test_what_a_deployment_attached_is_read_of_its_last_attempt(azure: AzureDevOps, site: Site) -> None:
    number = await site.released()
    await site.waiting(number)
    run = await azure.release(number)

    assert await azure.attached(run, QA) == {"qa.json": RESULT.encode()}
    assert await azure.attached(run, PROD) == {}
    assert await azure.attached(run, "Moon") == {}


async def test_an_abandoned_release_is_canceled_and_an_unknown_one_is_gone(azure: AzureDevOps, site: Site) -> None:
    number = await site.released()
    await site.waiting(number)
    await site.ask("PATCH", f"releases/{number}", ADA, body={"status": "abandoned"})
    await site.became(number, "canceled")

    assert (await azure.release(number)).state is State.CANCELED
    with pytest.raises(Gone, match="Release 99 does not exist"):
        await azure.release(99)
    with pytest.raises(Gone):
        await azure.artifact(99, "delivery")


async def test_releases_are_not_asked_for_where_the_team_has_none(site: Site, azure: AzureDevOps, tmp_path: Path) -> None:
    number = await site.released()
    await site.waiting(number)
    without = AzureDevOps(ORGANIZATION, PROJECT, token=lambda: token(site, BOT), cache=tmp_path / "cache")
    others = AzureDevOps(ORGANIZATION, PROJECT, token=lambda: token(site, BOT), cache=tmp_path / "cache", releases=(7,))

    assert await without.pending_approvals() == ()
    assert await others.pending_approvals() == ()
    assert len(await azure.pending_approvals()) == 1
    await without.close()
    await others.close()


async def test_all_six_events_of_releases_are_subscribed_to_on_their_host(azure: AzureDevOps) -> None:
    receiver = hooks.Receiver("http://127.0.0.1:9", "azure-devops", "pass-word", "s3cret-header")
    team = replace(RELEASING, models={"diabetes": replace(RELEASING.models["diabetes"], release_id=DEFINITION)})

    created = await hooks.apply(azure.hooks, team, receiver)
    again = await hooks.apply(azure.hooks, team, receiver)

    assert len([line for line in created if line.startswith("created  ms.vss-release.")]) == 6
    assert "fine     12 subscriptions" in again
    of_releases = [one for one in await azure.hooks.list(releases=True) if one.publisher == "rm"]
    assert {one.inputs["releaseDefinitionId"] for one in of_releases} == {str(DEFINITION)}
    assert {one.inputs["projectId"] for one in of_releases} == {PROJECT_ID}


async def test_what_subscribers_are_told_is_understood_and_becomes_a_card(site: Site, azure: AzureDevOps, receiver: Receiver) -> None:
    for kind in KINDS:
        assert (await subscribe(site, receiver.url, kind))[0] == 200
    release = await site.released()
    approval = await site.waiting(release)
    await receiver.have(4)
    site.azure.approve_release_as(GRACE, approval["id"], "approved", "Better by 6 %.")
    await site.became(release, "succeeded")
    world = Everything(team=replace(RELEASING, models={"diabetes": replace(RELEASING.models["diabetes"], release_id=DEFINITION)}))
    bot = replace(world.bot, pipelines=azure)

    heard = [events.parse(one) for one in await receiver.have(7)]
    for event in heard:
        assert not isinstance(event, events.Ignored)
        await moved(bot, event)

    assert {type(event) for event in heard} == {
        events.ReleaseMoved,
        events.ReleaseApprovalRequested,
        events.ReleaseApprovalCompleted,
    }
    assert {event.ref for event in heard if not isinstance(event, events.Ignored)} == {Ref(Thing.RELEASE, release)}
    card = world.board.shown["C0MLDELIV", f"release/{release}"]
    assert card.text == "✅ diabetes: release Release-1 succeeded, asked for by Ada Lovelace (2 of 2 stages done)."
    decided = world.board.shown["C0MLDELIV", f"release/{release}/approval/{approval['id']}"]
    assert "Approved by Grace Hopper" in decided.text


# --- what the service may say ---------------------------------------------------------------------------------------

GRACE_REF = {"id": GRACE.oid, "displayName": GRACE.name, "uniqueName": GRACE.email}


def document(*stages: Json, **more: Any) -> Json:
    """A release of the REST API, cut to what matters."""
    return {
        "id": 12,
        "name": "Release-12",
        "status": "active",
        "createdOn": "2026-11-23T09:00:00Z",
        "createdBy": GRACE_REF,
        "releaseDefinition": {"id": 3, "name": "Deploy Webservice"},
        "environments": [{"id": place, "rank": place, "name": f"stage {place}"} | stage for place, stage in enumerate(stages, 1)],
    } | more


def asked(status: str, **more: Any) -> Json:
    """An approval of the REST API."""
    return {"id": 34, "status": status, "attempt": 1, "approvalType": "preDeploy", "approver": GRACE_REF, "isAutomated": False} | more


def read(said: Json) -> Any:
    """The SDK's model of a release."""
    classes = {name: value for name, value in vars(sdk).items() if isinstance(value, type)}
    return Deserializer(classes)("Release", said)


def made(*stages: Json, **more: Any) -> Run:
    return release_reading.release(read(document(*stages, **more)), Pages(ORGANIZATION, PROJECT))


FOLLOWS = {"status": "notStarted", "conditions": [{"name": "stage 1", "conditionType": "environmentState", "value": "4"}]}


@pytest.mark.parametrize(
    ("stages", "state"),
    [
        ([], State.PENDING),
        ([{"status": "notStarted"}, {"status": "notStarted"}], State.PENDING),
        ([{"status": "undefined"}, {"status": "scheduled"}], State.PENDING),
        ([{"status": "queued"}, {"status": "notStarted"}], State.RUNNING),
        ([{"status": "inProgress"}, {"status": "notStarted"}], State.RUNNING),
        ([{"status": "inProgress", "preDeployApprovals": [asked("pending")]}], State.WAITING),
        ([{"status": "inProgress"}, {"status": "inProgress", "preDeployApprovals": [asked("pending")]}], State.RUNNING),
        ([{"status": "succeeded"}, FOLLOWS], State.RUNNING),
        ([{"status": "succeeded"}, {"status": "notStarted"}], State.SUCCEEDED),
        ([{"status": "rejected"}, FOLLOWS], State.FAILED),
        ([{"status": "succeeded"}, {"status": "canceled"}], State.CANCELED),
        ([{"status": "partiallySucceeded"}, {"status": "succeeded"}], State.PARTIAL),
        ([{"status": "succeeded"}, {"status": "rejected", "preDeployApprovals": [asked("rejected")]}], State.REJECTED),
        ([{"status": "something new"}], State.PENDING),
    ],
)
def test_a_release_stands_as_its_stages_do(stages: list[Json], state: State) -> None:
    assert made(*stages).state is state


def test_an_abandoned_release_is_over_whatever_its_stages_say() -> None:
    assert made({"status": "notStarted"}, status="abandoned").state is State.CANCELED


def test_a_release_of_something_else_than_a_build_deploys_no_run_of_ours() -> None:
    image = {"type": "DockerHub", "alias": "image", "isPrimary": True, "definitionReference": {"version": {"id": "7", "name": "7"}}}
    odd = {"type": "Build", "alias": "odd", "definitionReference": {"version": {"id": "latest", "name": "latest"}}}
    build = {"type": "Build", "alias": "b", "definitionReference": {"version": {"id": "480", "name": "20261123.1"}}}

    without = made({"status": "notStarted"}, artifacts=[image, odd, {"type": "Build", "alias": "none"}])
    beside = made({"status": "notStarted"}, artifacts=[image, build])

    assert (without.source, without.source_number, without.source_url, without.branch) == (None, "", "", "")
    assert (beside.source, beside.source_number) == (480, "20261123.1")


def test_an_approval_of_an_earlier_attempt_says_nothing_about_the_last_one() -> None:
    (stage,) = made(
        {
            "status": "rejected",
            "preDeployApprovals": [asked("rejected"), asked("approved", attempt=2)],
            "deploySteps": [{"id": 1, "attempt": 1, "lastModifiedOn": "2026-11-23T09:10:00Z"}, {"id": 2, "attempt": 2}],
        }
    ).stages

    assert (stage.attempt, stage.state, stage.finished) == (2, State.FAILED, None)


def test_approvals_that_give_themselves_are_nobodys() -> None:
    said = read(document({"status": "succeeded", "preDeployApprovals": [asked("approved", isAutomated=True, approver=None)]}))

    assert release_reading.approvals(said) == ()


@pytest.mark.parametrize(
    ("status", "state"), [("reassigned", ApprovalState.SKIPPED), ("canceled", ApprovalState.CANCELED), ("odd", ApprovalState.CANCELED)]
)
def test_an_approval_that_nobody_can_answer_any_more_has_ended(status: str, state: ApprovalState) -> None:
    (approval,) = release_reading.approvals(read(document({"status": "inProgress", "preDeployApprovals": [asked(status)]})))

    assert (approval.id, approval.state, approval.decided) == ("34", state, None)
    assert approval.created == datetime.fromtimestamp(0, UTC)


def test_a_deployment_may_fail_without_any_task_that_did() -> None:
    attempt = {"id": 1, "attempt": 1, "issues": [{"issueType": "Error", "message": "No agent could be found."}]}
    phase = {"id": 5, "errorLog": "The phase ended early.", "deploymentJobs": [{"job": {"name": "Deploy", "status": "failed"}}]}

    bare = release_reading.culprit(read(document({"status": "succeeded"}, {"status": "rejected", "deploySteps": [attempt]})))
    job = release_reading.culprit(read(document({"status": "rejected", "deploySteps": [attempt | {"releaseDeployPhases": [phase]}]})))
    unknown = release_reading.culprit(read(document({"status": "rejected"})))

    assert bare is not None
    assert (bare.environment.name, bare.job, bare.errors) == ("stage 2", None, ("No agent could be found.",))
    assert job is not None
    assert (job.task, job.errors) == (None, ("No agent could be found.", "The phase ended early."))
    assert unknown is None


@pytest.mark.parametrize(
    ("after", "sentence"),
    [
        (asked("pending"), "did not accept"),
        (asked("rejected", approvedBy=GRACE_REF), "did not accept"),
        (asked("approved"), "did not record this as your answer"),
        (asked("approved", approvedBy={"id": BOT.oid, "displayName": BOT.name}), "did not record this as your answer"),
    ],
)
def test_an_answer_that_is_not_on_record_as_ours_is_refused(after: Json, sentence: str) -> None:
    (approval,) = release_reading.approvals(read(document({"status": "inProgress", "preDeployApprovals": [after]})))

    with pytest.raises(Refused, match=sentence):
        release_reading.proved(approval, Answer.APPROVE, known(GRACE))
    with pytest.raises(Refused, match="did not hand it over"):
        release_reading.handed_over(approval, known(ALAN))
    assert release_reading.handed_over(approval, known(GRACE)) == approval
