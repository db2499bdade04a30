"""The local Azure DevOps' approvals of stages: who may answer, for whom, when, and what ends them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox.azure_devops import approvals, events
from sandbox.azure_devops.approvals import Answer, Denied
from sandbox.azure_devops.plan import PlanStage
from sandbox.azure_devops.records import Approval, Check
from sandbox.names import (
    ADA,
    ALAN,
    BOT,
    CONTRIBUTORS,
    GRACE,
    GUEST,
    KATHERINE,
    LINUS,
    RADIA,
    RELEASE_MANAGERS,
    Character,
    Group,
)
from tests.test_sandbox_azure_devops import NOON, PLAN, Json, Receiver, Site, job, receiver, root, running, site, subscription

__all__ = ["receiver", "root", "site"]  # fixtures

pytestmark = pytest.mark.world

APPROVALS = "pipelines/approvals"
LATER = NOON + timedelta(hours=1)


def asked(*approvers: Character | Group, blocked: tuple[Character | Group, ...] = (), **settings: Any) -> Approval:
    """What a check with these approvers asks for."""
    check = Check(
        id=1,
        environment=2,
        approvers=[who.oid for who in approvers],
        minimum=1,
        execution_order="anyOrder",
        instructions="",
        requester_excluded=False,
        timeout=60,
        created=NOON,
        created_by=GRACE.oid,
        modified=NOON,
        modified_by=GRACE.oid,
        blocked=[who.oid for who in blocked],
    )
    return approvals.ask(replace(check, **settings), 1, "prod", 1, NOON)


def say(approval: Approval, who: Character, status: str = "approved", *, at: datetime = NOON, **more: Any) -> None:
    """This person's answer to a run that Ada asked for."""
    approvals.decide(approval, who, Answer(approval.id, status, **more), ADA.oid, at)


def give(approval: Approval, who: Character, to: Character | Group, **more: Any) -> None:
    """This person hands their part over."""
    approvals.decide(approval, who, Answer(approval.id, to=to.oid, **more), ADA.oid, NOON)


def states(approval: Approval) -> list[str]:
    return [step.status for step in approval.steps]


async def patch(site: Site, who: Character, approval: str, **update: Any) -> tuple[int, Any]:
    """An answer over the API, with a token that may build and nothing more."""
    headers = {"Authorization": site.token(who, "vso.build_execute")}
    return await site.ask("PATCH", APPROVALS, body=[{"approvalId": approval, **update}], headers=headers)


def test_any_one_member_answers_for_a_group() -> None:
    approval = asked(RELEASE_MANAGERS)

    with pytest.raises(Denied, match="Alan Turing is not an approver"):
        say(approval, ALAN)
    say(approval, RADIA)

    (step,) = approval.steps
    assert (approval.status, step.approver, step.actual) == ("approved", RELEASE_MANAGERS.oid, RADIA.oid)


def test_who_has_a_part_of_their_own_answers_that_one_first_and_only_that_one() -> None:
    approval = asked(RELEASE_MANAGERS, GRACE, minimum=0)

    say(approval, GRACE)
    with pytest.raises(Denied, match="answered this approval already"):
        say(approval, GRACE)
    assert states(approval) == ["pending", "approved"]
    say(approval, KATHERINE)

    assert approval.status == "approved"


def test_who_has_two_parts_may_choose_that_of_the_group() -> None:
    approval = asked(RELEASE_MANAGERS, GRACE, minimum=0)

    with pytest.raises(Denied, match="no part in this approval under the identity"):
        say(approval, GRACE, part=CONTRIBUTORS.oid)
    say(approval, GRACE, part=RELEASE_MANAGERS.oid)

    assert states(approval) == ["approved", "pending"]


def test_nobody_answers_for_a_group_that_has_answered() -> None:
    approval = asked(RELEASE_MANAGERS, ALAN, minimum=0)
    say(approval, RADIA)

    with pytest.raises(Denied, match="Somebody else has answered for Grace Hopper already"):
        say(approval, GRACE)


def test_so_many_have_to_approve_and_the_others_are_spared() -> None:
    approval = asked(GRACE, KATHERINE, RADIA, minimum=2)

    say(approval, RADIA)
    assert approval.status == "pending"
    say(approval, GRACE)

    assert (approval.status, states(approval)) == ("approved", ["approved", "skipped", "approved"])
    with pytest.raises(Denied, match="already completed: it is approved"):
        say(approval, KATHERINE)


def test_one_no_is_enough() -> None:
    approval = asked(GRACE, KATHERINE, RADIA, minimum=0)
    say(approval, GRACE)

    say(approval, RADIA, "rejected", comment="Freeze.")

    assert (approval.status, states(approval)) == ("rejected", ["approved", "skipped", "rejected"])


def test_in_sequence_the_turn_comes_with_the_yes_before() -> None:
    approval = asked(KATHERINE, RELEASE_MANAGERS, minimum=0, execution_order="inSequence")

    assert states(approval) == ["pending", "uninitiated"]
    with pytest.raises(Denied, match="not yet the turn of Radia"):
        say(approval, RADIA)
    say(approval, KATHERINE)
    with pytest.raises(Denied, match="Katherine Johnson has answered"):
        say(approval, KATHERINE)
    say(approval, RADIA)

    assert approval.status == "approved"


@pytest.mark.parametrize("blocked", [GRACE, RELEASE_MANAGERS])
def test_who_is_blocked_may_not_answer_not_even_for_a_group(blocked: Character | Group) -> None:
    approval = asked(GRACE, CONTRIBUTORS, blocked=(blocked,))

    with pytest.raises(Denied, match="Grace Hopper is blocked from approving"):
        say(approval, GRACE)
    say(approval, ALAN)

    assert approval.status == "approved"


def test_who_asked_for_the_run_may_not_answer_for_a_group_either() -> None:
    approval = asked(CONTRIBUTORS, requester_excluded=True)

    with pytest.raises(Denied, match="its requester may not approve"):
        say(approval, ADA)
    say(approval, ALAN)

    assert approval.status == "approved"


def test_a_yes_for_later_counts_from_then_on() -> None:
    approval = asked(GRACE, KATHERINE)
    say(approval, GRACE, "deferred", until=LATER, comment="After the freeze.")

    assert (approval.status, states(approval), approvals.next_effect(approval)) == ("pending", ["deferred", "pending"], LATER)
    assert not approvals.take_effect(approval, LATER - timedelta(seconds=1))
    assert approvals.take_effect(approval, LATER)

    step = approval.steps[0]
    assert (approval.status, step.status, step.actual, step.comment) == ("approved", "approved", GRACE.oid, "After the freeze.")
    assert approvals.next_effect(approval) is None


def test_the_first_yes_for_later_that_is_enough_leaves_the_second_undone() -> None:
    approval = asked(GRACE, KATHERINE)
    say(approval, GRACE, "deferred", until=LATER)
    say(approval, KATHERINE, "deferred", until=LATER)

    approvals.take_effect(approval, LATER)

    assert (approval.status, states(approval)) == ("approved", ["approved", "skipped"])


def test_a_no_ends_what_was_deferred() -> None:
    approval = asked(GRACE, KATHERINE)
    say(approval, GRACE, "deferred", until=LATER)

    say(approval, KATHERINE, "rejected")

    assert (approval.status, approvals.take_effect(approval, LATER)) == ("rejected", False)


def test_in_sequence_a_yes_for_later_keeps_the_next_one_waiting() -> None:
    approval = asked(GRACE, KATHERINE, minimum=0, execution_order="inSequence")
    say(approval, GRACE, "deferred", until=LATER)

    with pytest.raises(Denied, match="not yet the turn of Katherine"):
        say(approval, KATHERINE)
    approvals.take_effect(approval, LATER)
    say(approval, KATHERINE, at=LATER)

    assert approval.status == "approved"


@pytest.mark.parametrize(
    ("status", "until", "says"),
    [
        ("deferred", NOON, "a time to come"),
        ("deferred", NOON - timedelta(days=1), "a time to come"),
        ("deferred", None, "has a time that it is deferred to"),
        ("approved", LATER, "has a time that it is deferred to"),
        ("skipped", None, "cannot be set to 'skipped'"),
    ],
)
def test_a_wrong_answer_changes_nothing(status: str, until: datetime | None, says: str) -> None:
    approval = asked(GRACE)

    with pytest.raises(Denied, match=says):
        say(approval, GRACE, status, until=until)

    assert (approval.status, states(approval)) == ("pending", ["pending"])


def test_a_part_is_handed_over_and_it_is_on_record() -> None:
    approval = asked(GRACE, KATHERINE, minimum=0)

    give(approval, GRACE, ALAN, comment="He knows the model.")
    with pytest.raises(Denied, match="not an approver"):
        say(approval, GRACE)
    say(approval, ALAN)

    step = approval.steps[0]
    assert (step.approver, step.actual, step.status) == (ALAN.oid, ALAN.oid, "approved")
    assert [(past.approver, past.by, past.comment) for past in step.history] == [(GRACE.oid, GRACE.oid, "He knows the model.")]


@pytest.mark.parametrize(
    ("to", "says"),
    [
        (KATHERINE, "an approver of this check already"),
        (ADA, "requester of the run may not approve"),
        (ALAN, "blocked from approving"),
        (LINUS, "identities are invalid"),
        (GUEST, "identities are invalid"),
    ],
)
def test_a_part_goes_to_nobody_who_could_not_answer(to: Character, says: str) -> None:
    approval = asked(GRACE, KATHERINE, blocked=(ALAN,), requester_excluded=True)

    with pytest.raises(Denied, match=says):
        give(approval, GRACE, to)
    with pytest.raises(Denied, match="either answered or handed over"):
        give(approval, GRACE, RADIA, status="approved")

    assert [step.approver for step in approval.steps] == [GRACE.oid, KATHERINE.oid]


def test_what_one_may_do_is_said_for_each_part() -> None:
    approval = asked(GRACE, RELEASE_MANAGERS, ALAN, minimum=0)

    def seen(who: Character) -> tuple[str, list[str]]:
        return (
            approvals.permissions(approval, who, ADA.oid),
            [approvals.step_permissions(approval, step, who, ADA.oid) for step in approval.steps],
        )

    everything = "view, update, reassign"
    assert seen(ADA) == ("view", ["view", "view", "view"])
    assert seen(GRACE) == (everything, [everything, everything, "view"])
    assert seen(RADIA) == (everything, ["view", everything, "view"])
    say(approval, GRACE)
    assert seen(GRACE) == ("view", ["view", "view", "view"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"approvers": []}, "identities are invalid"),
        ({"approvers": [{"id": LINUS.oid}]}, "identities are invalid"),
        ({"blockedApprovers": [{"id": "nobody"}]}, "identities are invalid"),
        ({"approvers": [{"id": GRACE.oid}, {"id": GRACE.oid}]}, "more than once"),
        ({"minRequiredApprovers": 2}, "between 0 (all of them) and 1"),
        ({"minRequiredApprovers": "two"}, "not valid for minRequiredApprovers"),
        ({"executionOrder": "alphabetical"}, "must be one of anyOrder, inSequence"),
        ({"approvers": GRACE.oid}, "approvers must be a list"),
        ({"approvers": [GRACE.oid]}, "must be an object"),
    ],
)
async def test_a_check_that_nobody_could_pass_is_refused(site: Site, settings: Json, says: str) -> None:
    (check,) = await site.value("pipelines/checks/configurations?resourceId=2&$expand=settings")
    wanted = check | {"settings": {"approvers": [{"id": GRACE.oid}], "minRequiredApprovers": 1} | settings}

    status, error = await site.ask("PATCH", f"pipelines/checks/configurations/{check['id']}", GRACE, body=wanted)

    assert status == 400
    assert says in error["message"]


async def test_a_group_in_an_approval_is_a_container_and_the_answer_is_a_persons(site: Site) -> None:
    site.azure.protect("prod", [RELEASE_MANAGERS], instructions="Look at QA.")
    approval = await site.waiting(await site.azure.queue(ADA))

    status, decided = await patch(site, RADIA, approval["id"], status="approved", comment="For all of us.")

    assigned = approval["steps"][0]["assignedApprover"]
    assert (assigned["isContainer"], assigned["displayName"]) == (True, r"[ml-delivery]\Release Managers")
    assert assigned["uniqueName"].startswith("vstfs:///Classification/TeamProject/")
    assert assigned["descriptor"].startswith("vssgp.")
    assert approval["instructions"] == "Look at QA."
    assert (status, decided["value"][0]["steps"][0]["actualApprover"]["displayName"]) == (200, "Radia Perlman")
    assert "isContainer" not in decided["value"][0]["steps"][0]["actualApprover"]


async def test_identities_tell_who_belongs_where(site: Site) -> None:
    url = "https://vssps.dev.azure.com/contoso/_apis/identities"

    (grace,) = await site.value(f"{url}?identityIds={GRACE.oid}&queryMembership=expanded")
    (group,) = await site.value(rf"{url}?searchFilter=General&filterValue=[ml-delivery]\Release Managers&queryMembership=direct")
    (plain,) = await site.value(f"{url}?identityIds={GRACE.oid}")
    named = await site.value(f"{url}?descriptors={','.join(grace['memberOf'])}")

    assert [one["providerDisplayName"] for one in named] == [r"[ml-delivery]\Release Managers", r"[ml-delivery]\Contributors"]
    assert (group["id"], group["isContainer"], len(group["members"])) == (RELEASE_MANAGERS.oid, True, 3)
    assert group["members"][0] == grace["descriptor"]
    assert "memberOf" not in plain


async def test_permissions_come_only_where_they_are_asked_for_and_are_the_callers(site: Site) -> None:
    approval = await site.waiting(await site.azure.queue(ADA))

    _, plain = await site.ask("GET", f"{APPROVALS}/{approval['id']}?$expand=steps", GRACE)
    _, full = await site.ask("GET", f"{APPROVALS}/{approval['id']}?$expand=steps,permissions", GRACE)

    assert "permissions" not in plain
    assert "permissions" not in plain["steps"][0]
    assert full["permissions"] == "view, update, reassign"
    assert [step["permissions"] for step in full["steps"]] == ["view, update, reassign", "view", "view"]


async def test_the_bot_is_in_no_approver_list(site: Site) -> None:
    approval = await site.waiting(await site.azure.queue(ADA))

    status, error = await site.ask("PATCH", APPROVALS, BOT, body=[{"approvalId": approval["id"], "status": "approved"}])

    assert [step["assignedApprover"]["displayName"] for step in approval["steps"]] == [GRACE.name, KATHERINE.name, RADIA.name]
    assert (status, error["message"]) == (403, "Callboard is not an approver of this check and may not answer it.")


async def test_a_yes_for_later_takes_effect_even_after_a_restart(tmp_path: Path, root: Path) -> None:
    async with running(tmp_path / "world", root) as site:
        run = await site.azure.queue(ADA)
        approval = await site.waiting(run)
        past, error = await patch(site, GRACE, approval["id"], status="deferred", deferredTo="2020-01-01T00:00:00Z")
        soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
        status, after = await patch(site, GRACE, approval["id"], status="deferred", deferredTo=soon, comment="At noon.")

    async with running(tmp_path / "world", root) as site:
        ended = await site.ended(run)

    assert (past, error["message"]) == (400, "An approval is deferred to a time to come.")
    step = after["value"][0]["steps"][0]
    assert (status, after["value"][0]["status"], step["status"], "deferredTo" in step) == (200, "pending", "deferred", True)
    assert (ended["result"], ended["approvals"][0]["steps"][0]["actualApprover"]["displayName"]) == ("succeeded", "Grace Hopper")


async def test_handing_over_is_for_the_person_whose_part_it_is(site: Site, receiver: Receiver) -> None:
    for kind in (events.PENDING, events.COMPLETED):
        site.azure.project.hooks.create("dev.azure.com", subscription(receiver.url, kind), BOT.oid)
    approval = await site.waiting(await site.azure.queue(ADA))
    to = {"id": ALAN.oid}

    refused, _ = await patch(site, ALAN, approval["id"], reassignTo=to)
    status, after = await patch(site, GRACE, approval["id"], reassignTo=to, assignedApprover={"id": GRACE.oid}, comment="You know it.")
    site.azure.approve_as(ALAN, approval["id"])
    told = await receiver.have(2)

    step = after["value"][0]["steps"][0]
    assert (refused, status, step["assignedApprover"]["displayName"], step["permissions"]) == (403, 200, "Alan Turing", "view")
    assert [(past["assignedTo"]["displayName"], past["comment"]) for past in step["history"]] == [("Grace Hopper", "You know it.")]
    assert after["value"][0]["lastModifiedOn"] >= approval["lastModifiedOn"]
    # The service documents no event for it: one that asks, one that tells the end.
    assert [one["eventType"] for one in told] == [events.PENDING, events.COMPLETED]


async def test_several_checks_and_several_environments_all_have_to_be_passed(tmp_path: Path, root: Path) -> None:
    both = PlanStage("prod", "Prod", (job("release", "prod"), job("canary", "canary")), ("qa",))
    async with running(tmp_path / "world", root, plan=replace(PLAN, stages=(*PLAN.stages[:2], both))) as site:
        first = await site.azure.queue(ADA)
        site.azure.approve_as(GRACE, (await site.waiting(first))["id"])
        await site.ended(first)
        canary = site.azure.project.environment("canary")
        for approver in (ALAN, KATHERINE):  # the first run made the environment
            settings = {"approvers": [{"id": approver.oid}], "minRequiredApprovers": 1}
            resource = {"type": "environment", "id": str(canary.id)}
            check = {"type": {"id": "8c6f20a7-a545-4486-9777-f762fafe0d4d"}, "resource": resource, "settings": settings}
            made, _ = await site.ask("POST", "pipelines/checks/configurations", GRACE, body=check)
            assert made == 200

        run = await site.azure.queue(ADA)
        await site.azure.wait_for(lambda: len(site.azure.run(run)["approvals"]) == 3, 8)
        asked_for = {one["steps"][0]["assignedApprover"]["displayName"]: one["id"] for one in site.azure.run(run)["approvals"]}
        site.azure.approve_as(GRACE, asked_for["Grace Hopper"])
        site.azure.approve_as(ALAN, asked_for["Alan Turing"])
        before = site.azure.run(run)["status"]
        site.azure.approve_as(KATHERINE, asked_for["Katherine Johnson"])
        ended = await site.ended(run)

    assert (before, ended["result"]) == ("inProgress", "succeeded")


async def test_one_rejected_check_cancels_the_others(site: Site) -> None:
    store = site.azure.project.store
    (check,) = store.checks
    site.azure.project.check(GRACE, replace(check, id=0, approvers=[ALAN.oid]))
    run = await site.azure.queue(ADA)
    await site.azure.wait_for(lambda: len(site.azure.run(run)["approvals"]) == 2, 8)

    site.azure.approve_as(ALAN, site.azure.run(run)["approvals"][1]["id"], "rejected")
    ended = await site.ended(run)

    assert [one["status"] for one in ended["approvals"]] == ["canceled", "rejected"]
    assert ended["result"] == "failed"


def _rejects(site: Site, run: int, approval: str) -> None:
    site.azure.approve_as(GRACE, approval, "rejected")


def _times_out(site: Site, run: int, approval: str) -> None:
    site.azure.time_out(approval)


def _cancels(site: Site, run: int, approval: str) -> None:
    site.azure.cancel_as(ADA, run)


def _removes(site: Site, run: int, approval: str) -> None:
    site.azure.remove_environment(GRACE, "prod")


def _defers(site: Site, run: int, approval: str) -> None:
    site.azure.defer_as(GRACE, approval, datetime.now(UTC) + timedelta(milliseconds=50))


@pytest.mark.parametrize(
    ("end", "status", "result"),
    [
        (_rejects, "rejected", "failed"),
        (_times_out, "timedOut", "succeeded"),
        (_cancels, "canceled", "canceled"),
        (_removes, "canceled", "failed"),
        (_defers, "approved", "succeeded"),
    ],
)
async def test_however_an_approval_ends_subscribers_hear_of_it(
    site: Site, receiver: Receiver, end: Callable[[Site, int, str], None], status: str, result: str
) -> None:
    site.azure.project.hooks.create("dev.azure.com", subscription(receiver.url, events.COMPLETED), BOT.oid)
    run = await site.azure.queue(ADA)
    approval = await site.waiting(run)

    end(site, run, approval["id"])
    (told,) = await receiver.have(1)
    ended = await site.ended(run)

    assert (told["resource"]["approvalId"], told["resource"]["approval"]["status"]) == (approval["id"], status)
    assert ended["result"] == result


@pytest.mark.parametrize("end", [_rejects, _cancels])
async def test_a_stage_that_runs_again_asks_afresh_and_what_was_asked_before_stays_closed(
    site: Site, end: Callable[[Site, int, str], None]
) -> None:
    run = await site.azure.queue(ADA)
    first = await site.waiting(run)
    end(site, run, first["id"])
    await site.ended(run)

    site.azure.retry(ADA, run, "prod")
    second = await site.waiting(run)
    late, error = await patch(site, GRACE, first["id"], status="approved")
    site.azure.approve_as(GRACE, second["id"])

    assert (late, error["typeKey"]) == (400, "ApprovalAlreadyCompletedException")
    assert second["id"] != first["id"]
    assert (await site.ended(run))["result"] == "succeeded"


async def test_what_waits_for_a_deleted_environment_fails_and_says_so(site: Site) -> None:
    site.azure.protect("qa", [GRACE])
    run = await site.azure.queue(ADA)
    approval = await site.waiting(run)

    with pytest.raises(Denied, match="needs Administer environments"):
        site.azure.remove_environment(ADA, "qa")
    site.azure.remove_environment(GRACE, "qa")
    ended = await site.ended(run)
    missing, error = await site.ask("GET", "distributedtask/environments/1")
    listed = await site.value("distributedtask/environments")

    assert ended["result"] == "failed"
    assert (ended["approvals"][0]["id"], ended["approvals"][0]["status"]) == (approval["id"], "canceled")
    issues = site.records(run, "Job")["Deploy"]["issues"]
    assert [issue["message"] for issue in issues] == ["Environment qa does not exist or has been deleted."]
    assert (missing, error["typeKey"], [one["name"] for one in listed]) == (404, "EnvironmentNotFoundException", ["prod"])
    with pytest.raises(Denied, match="does not exist"):
        site.azure.remove_environment(GRACE, "qa")


async def test_a_stage_does_not_wait_for_one_environment_when_the_other_is_gone(tmp_path: Path, root: Path) -> None:
    both = PlanStage("prod", "Prod", (job("release", "prod"), job("deploy", "qa")))
    async with running(tmp_path / "world", root, plan=replace(PLAN, stages=(both,))) as site:
        site.azure.protect("qa", [ALAN])
        run = await site.azure.queue(ADA)
        await site.azure.wait_for(lambda: len(site.azure.run(run)["approvals"]) == 2, 8)

        site.azure.remove_environment(GRACE, "qa")
        ended = await site.ended(run)
        stage = site.records(run, "Stage")["Prod"]["result"]

    assert (ended["result"], stage) == ("failed", "failed")
    assert {one["status"] for one in ended["approvals"]} == {"canceled"}


async def test_who_has_no_licence_is_refused_everything_until_they_have_one(tmp_path: Path, root: Path) -> None:
    async with running(tmp_path / "world", root) as site:
        site.azure.without_licence(GRACE)
    async with running(tmp_path / "world", root) as site:
        refused = {
            path: await site.ask("GET", path, GRACE) for path in ("build/builds", "https://dev.azure.com/contoso/_apis/connectionData")
        }
        stranger, unknown = await site.ask("GET", "build/builds", LINUS)
        site.azure.without_licence(GRACE, licensed=True)
        welcome, me = await site.ask("GET", "https://dev.azure.com/contoso/_apis/connectionData", GRACE)

    assert {(status, error["message"].partition(":")[0]) for status, error in refused.values()} == {(401, "VS403366")}
    assert (stranger, unknown["message"].partition(":")[0]) == (401, "TF400813")
    assert (welcome, me["authenticatedUser"]["id"]) == (200, GRACE.oid)


@pytest.mark.parametrize(
    "url",
    [
        "build/builds?$top=x",
        "build/builds?definitions=1,two",
        "build/builds?minTime=yesterday",
        "build/builds?buildIds=99999999999",
        "build/builds/1/logs/1?startLine=-1",
        "test/Runs?skip=x",
        "test/Runs?buildIds=x",
        "pipelines/approvals?top=1.5",
        "pipelines/checks/configurations?resourceId=prod",
        "git/repositories/ml-delivery/commits?searchCriteria.$top=x",
        "distributedtask/environments/2/environmentdeploymentrecords?top=x",
        "https://vsrm.dev.azure.com/contoso/ml-delivery/_apis/release/releases?$top=x",
    ],
)
async def test_a_wrong_number_is_the_callers_mistake(site: Site, url: str) -> None:
    await site.waiting(await site.azure.queue(ADA))

    status, error = await site.ask("GET", url)

    assert (status, error["typeKey"], error["eventId"]) == (400, "InvalidArgumentValueException", 3000)


async def test_a_wrong_body_is_the_callers_mistake(site: Site, receiver: Receiver) -> None:
    hooks = "https://dev.azure.com/contoso/_apis/hooks"
    made = site.azure.project.hooks.create("dev.azure.com", subscription(receiver.url), BOT.oid)
    wrong: list[tuple[str, str, object]] = [
        ("PATCH", APPROVALS, ["a1"]),
        ("PATCH", APPROVALS, [{"approvalId": "a1", "reassignTo": "Grace"}]),
        ("PATCH", APPROVALS, [{"approvalId": "a1", "status": "deferred", "deferredTo": "soon"}]),
        ("POST", f"{hooks}/notificationsquery", {"maxResults": "abc"}),
        ("POST", f"{hooks}/notificationsquery", {"minCreatedDate": "yesterday"}),
        ("POST", "build/builds", {"definition": {"id": "one"}}),
        ("POST", "build/builds", {"definition": 1}),
        ("POST", "pipelines/checks/configurations", {"type": [], "resource": {}}),
    ]

    await site.waiting(await site.azure.queue(ADA))
    answers = [await site.ask(method, url, GRACE, body=body) for method, url, body in wrong]
    listed = await site.ask("GET", f"{hooks}/subscriptions/{made.id}/notifications?maxResults=abc")

    assert [status for status, _ in [*answers, listed]] == [400] * 9
    assert all(error["message"] for _, error in [*answers, listed])


@pytest.mark.parametrize(("fault", "status"), [("ado.403", 403), ("ado.409", 409), ("ado.500", 500)])
async def test_one_write_is_refused_on_request(site: Site, fault: str, status: int) -> None:
    approval = await site.waiting(await site.azure.queue(ADA))
    site.world.faults.arm(fault, method="PATCH")

    read, _ = await site.ask("GET", APPROVALS)
    refused, error = await patch(site, GRACE, approval["id"], status="approved")
    accepted, _ = await patch(site, GRACE, approval["id"], status="approved")

    assert (read, refused, accepted) == (200, status, 200)
    assert error["typeKey"]


async def test_only_a_write_can_conflict(site: Site) -> None:
    site.world.faults.arm("ado.409")

    read, _ = await site.ask("GET", APPROVALS)
    written, _ = await site.ask("POST", "pipelines/1/runs", body={})

    assert (read, written) == (200, 409)


async def test_an_answer_can_be_accepted_and_ignored(site: Site) -> None:
    approval = await site.waiting(await site.azure.queue(ADA))
    site.world.faults.arm("ado.200_unchanged")

    status, ignored = await patch(site, GRACE, approval["id"], status="approved")

    assert (status, ignored["value"][0]["status"], "actualApprover" in ignored["value"][0]["steps"][0]) == (200, "pending", False)


async def test_nothing_is_delivered_while_hooks_are_dropped(site: Site, receiver: Receiver) -> None:
    faults = site.world.faults
    made = site.azure.project.hooks.create("dev.azure.com", subscription(receiver.url, events.PENDING), BOT.oid)
    faults.arm("hooks.drop", times=-1)
    for _ in range(2):
        await site.waiting(await site.azure.queue(ADA))

    faults.arm("hooks.drop", times=0)
    run = await site.azure.queue(ADA)
    await site.waiting(run)
    (told,) = await receiver.have(1)

    assert (told["resource"]["runId"], made.sent) == (run, 1)
