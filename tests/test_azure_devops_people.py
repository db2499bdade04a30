"""Azure DevOps under people's own names: the real SDK against the sandbox's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.azure_devops import AzureDevOps
from bot.core.approvals import Answer, Approval, ApprovalState, Order
from bot.core.errors import Gone, NotNow, Refused, SignInNeeded, Uncertain
from bot.core.people import Person
from bot.core.runs import State
from sandbox.azure_devops.server import AzureDevOps as LocalAzureDevOps
from sandbox.names import ADA, ALAN, BOT, GRACE, KATHERINE, LINUS, RADIA, RELEASE_MANAGERS, Character
from sandbox.tokens import AZURE_DEVOPS
from sandbox.world import World
from tests.sandboxes import sandbox
from tests.test_azure_devops import ORDER, PIPELINE, as_somebody, point_at, until

pytestmark = pytest.mark.world

SCOPES = ("vso.build_execute", "vso.release_manage")


def who(character: Character) -> Person:
    return Person(character.name, character.email, character.oid)


class Place:
    """The sandbox's Azure DevOps, the bot's own edge to it, and the same under anybody's name."""

    def __init__(self, world: World, local: LocalAzureDevOps, azure: AzureDevOps) -> None:
        self.world = world
        self.local = local
        self.azure = azure

    def acting(self, character: Character) -> AzureDevOps:
        return self.azure.acting(lambda: self.world.tokens.issue(character, AZURE_DEVOPS, SCOPES))

    async def waiting(self, by: Character = ADA) -> Approval:
        """What a fresh run of this person waits for."""
        run = await until(self.azure, (await self.acting(by).start(ORDER)).id, State.WAITING)
        (approval,) = [one for one in await self.azure.approvals(run) if one.state is ApprovalState.PENDING]
        return approval

    async def again(self, approval: Approval, as_who: AzureDevOps | None = None) -> Approval:
        run = await self.azure.run(approval.run_id)
        return next(one for one in await (as_who or self.azure).approvals(run) if one.id == approval.id)


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    file = tmp_path / "root" / "deploy" / "pipelines" / "azure-pipelines.yml"
    file.parent.mkdir(parents=True)
    file.write_text(PIPELINE)
    made: list[LocalAzureDevOps] = []

    def local(world: World) -> LocalAzureDevOps:
        made.append(LocalAzureDevOps(world))
        return made[0]

    async with sandbox(tmp_path / "world", local, root=tmp_path / "root") as world:
        point_at(world, monkeypatch)
        azure = await as_somebody(world, BOT, tmp_path)
        yield Place(world, made[0], azure)
        await azure.close()
        assert world.proxy is not None
        assert world.proxy.refused == []


async def test_each_call_carries_its_own_persons_name_however_many_run_at_once(place: Place) -> None:
    everybody = [ADA, GRACE, ALAN, KATHERINE, RADIA] * 8

    seen = await asyncio.gather(*(place.acting(person).me() for person in everybody), place.azure.me())

    assert [one.id for one in seen] == [*(person.oid for person in everybody), BOT.oid]
    assert seen[0] == who(ADA)


async def test_a_run_is_queued_for_the_person_and_approved_by_another(place: Place) -> None:
    approval = await place.waiting(ADA)
    run = await place.azure.run(approval.run_id)
    assert run.requested_for == run.requested_by == who(ADA)

    seen = {person.name: (await place.again(approval, place.acting(person))).mine for person in (ADA, ALAN, GRACE)}
    assert seen == {"Ada Lovelace": False, "Alan Turing": False, "Grace Hopper": True}
    place.local.protect("prod", [ADA, GRACE])
    own = await place.waiting(ADA)
    with pytest.raises(Refused, match="requester may not approve"):
        await place.acting(ADA).decide(own, Answer.APPROVE, "Mine.")
    after = await place.acting(GRACE).decide(approval, Answer.APPROVE, "Good numbers.")

    assert after.approved_by == (who(GRACE),)
    with pytest.raises(Refused, match="not an approver"):
        await place.azure.decide(approval, Answer.APPROVE, "as the bot")


async def test_two_of_three_have_to_approve(place: Place) -> None:
    place.local.protect("prod", [GRACE, KATHERINE, RADIA], minimum=2)
    approval = await place.waiting()

    first = await place.acting(GRACE).decide(approval, Answer.APPROVE, "Yes.")
    assert (first.state, first.left) == (ApprovalState.PENDING, 1)
    with pytest.raises(Refused):
        await place.acting(GRACE).decide(first, Answer.APPROVE, "Yes again.")
    second = await place.acting(RADIA).decide(first, Answer.APPROVE, "Me, too.")

    assert second.state is ApprovalState.APPROVED
    assert {person.name for person in second.approved_by} == {GRACE.name, RADIA.name}


async def test_approvers_in_sequence_have_their_turn(place: Place) -> None:
    place.local.protect("prod", [KATHERINE, GRACE], minimum=0, order="inSequence")
    approval = await place.waiting()

    assert approval.order is Order.SEQUENCE
    assert [step.turn for step in approval.steps] == [True, False]
    with pytest.raises(Refused, match="not yet the turn"):
        await place.acting(GRACE).decide(approval, Answer.APPROVE, "Me first.")
    after = await place.acting(KATHERINE).decide(approval, Answer.APPROVE, "Yes.")

    assert [step.turn for step in after.steps] == [True, True]


async def test_one_member_answers_for_a_group_and_is_named(place: Place) -> None:
    place.local.protect("prod", [RELEASE_MANAGERS])
    approval = await place.waiting()

    (step,) = approval.steps
    assert (step.assigned.name, step.assigned.group) == (r"[ml-delivery]\Release Managers", True)
    with pytest.raises(Refused, match="not an approver"):
        await place.acting(ALAN).decide(approval, Answer.APPROVE, "")
    after = await place.acting(RADIA).decide(approval, Answer.APPROVE, "For all of us.")

    assert (after.state, after.approved_by) == (ApprovalState.APPROVED, (who(RADIA),))


async def test_a_yes_for_later_takes_effect_then(place: Place) -> None:
    approval = await place.waiting()
    soon = datetime.now(UTC) + timedelta(seconds=2)

    after = await place.acting(GRACE).defer(approval, soon, "Not yet.")
    assert (after.state, after.steps[0].state) == (ApprovalState.PENDING, ApprovalState.DEFERRED)
    assert after.steps[0].until == soon.replace(microsecond=0)
    with pytest.raises(Refused, match="a time to come"):
        await place.acting(RADIA).defer(approval, soon - timedelta(days=1), "")

    run = await until(place.azure, approval.run_id, State.RUNNING, State.SUCCEEDED)
    assert run.stage("prod") is not None
    assert (await place.again(approval)).approved_by == (who(GRACE),)


async def test_a_part_is_handed_over_to_somebody_else(place: Place) -> None:
    approval = await place.waiting()

    with pytest.raises(Refused, match="an approver of this check already"):
        await place.acting(GRACE).reassign(approval, who(RADIA), "")
    with pytest.raises(Refused, match="requester of the run"):
        await place.acting(GRACE).reassign(approval, who(ADA), "")
    with pytest.raises(Refused, match="identities are invalid"):
        await place.acting(GRACE).reassign(approval, Person("Nobody", None, "6c0f5c3e-51f4-4a9b-9a5e-000000000000"), "")
    after = await place.acting(GRACE).reassign(approval, who(ALAN), "He knows the model.")

    assert who(ALAN) in [step.assigned for step in after.steps]
    with pytest.raises(Refused, match="not an approver"):
        await place.acting(GRACE).decide(after, Answer.APPROVE, "")
    assert (await place.acting(ALAN).decide(after, Answer.APPROVE, "Yes.")).approved_by == (who(ALAN),)


async def test_a_deleted_environment_ends_what_waits_for_it(place: Place) -> None:
    approval = await place.waiting()

    place.local.remove_environment(GRACE, "prod")
    run = await until(place.azure, approval.run_id, State.FAILED)

    assert (await place.again(approval)).state is ApprovalState.CANCELED
    failure = await place.azure.failure(run)
    assert failure is not None
    assert failure.error == "Environment prod does not exist or has been deleted."


async def test_a_run_is_stopped_and_what_was_deployed_is_found_and_deployed_again(place: Place) -> None:
    stopped = await place.waiting()
    await place.acting(ADA).cancel(stopped.run_id)
    await until(place.azure, stopped.run_id, State.CANCELED)
    assert (await place.again(stopped)).state is ApprovalState.CANCELED

    approval = await place.waiting()
    await place.acting(GRACE).decide(approval, Answer.APPROVE, "Yes.")
    await until(place.azure, approval.run_id, State.SUCCEEDED)
    assert await place.azure.deployed(1, "prod", 2**31 - 1) == (approval.run_id,)
    assert await place.azure.deployed(1, "prod", approval.run_id) == ()
    with pytest.raises(Refused, match="no failed jobs"):
        await place.acting(GRACE).retry(approval.run_id, "prod")
    await place.acting(GRACE).retry(approval.run_id, "prod", everything=True)

    run = await until(place.azure, approval.run_id, State.WAITING)
    asked = [one for one in await place.azure.approvals(run) if one.state is ApprovalState.PENDING]
    assert [(one.attempt, one.id != approval.id) for one in asked] == [(2, True)]


async def test_people_and_their_groups_are_found(place: Place) -> None:
    assert await place.azure.groups_of(who(GRACE)) == {"Release Managers", "Contributors"}
    assert await place.azure.groups_of(who(ADA)) == {"Contributors"}
    assert await place.azure.groups_of(who(BOT)) == await place.azure.groups_of(Person("Nobody")) == frozenset()
    assert await place.azure.people("radia@contoso.example") == (who(RADIA),)
    assert await place.azure.people("nobody@contoso.example") == ()
    assert await place.azure.people(r"[ml-delivery]\Release Managers") == (), "a group is nobody"


async def test_who_is_nobody_there_and_whose_sign_in_is_over_are_told_different_things(place: Place) -> None:
    with pytest.raises(Refused, match="not a member of the Azure DevOps organisation"):
        await place.acting(LINUS).me()
    place.local.without_licence(KATHERINE)
    with pytest.raises(Refused, match="no licence for this: ask an administrator for Basic access"):
        await place.acting(KATHERINE).me()
    with pytest.raises(SignInNeeded, match="Sign in again"):
        await place.azure.acting(lambda: "forged").me()
    place.world.faults.arm("ado.html")
    with pytest.raises(SignInNeeded, match="Sign in again"):
        await place.acting(GRACE).me()

    def refuses() -> str:
        raise SignInNeeded("Sign in first.")

    with pytest.raises(SignInNeeded, match="Sign in first"):
        await place.azure.acting(refuses).me()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("ado.403", Refused),
        ("ado.409", Refused),
        ("ado.429", NotNow),
        ("ado.500", Uncertain),
        ("ado.503", Uncertain),
        ("ado.200_unchanged", Refused),
    ],
)
async def test_whatever_is_answered_to_a_decision_it_is_not_taken_for_a_yes(place: Place, fault: str, error: type[Exception]) -> None:
    approval = await place.waiting()
    grace = place.acting(GRACE)
    await grace.me()
    place.world.faults.arm(fault)

    with pytest.raises(error):
        await grace.decide(approval, Answer.APPROVE, "Yes.")

    assert (await place.again(approval)).state is ApprovalState.PENDING
    place.world.faults.arm("ado.lost_answer")
    with pytest.raises((Uncertain, NotNow)):
        await place.acting(RADIA).decide(approval, Answer.APPROVE, "Yes.")


async def test_an_approval_that_is_not_there_is_said_to_be_gone(place: Place) -> None:
    approval = await place.waiting()
    gone = Approval("00000000-0000-0000-0000-000000000001", approval.run_id, "prod", 1, "prod", ApprovalState.PENDING, approval.created)

    with pytest.raises(Gone):
        await place.acting(GRACE).decide(gone, Answer.APPROVE, "")
