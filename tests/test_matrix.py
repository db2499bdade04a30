"""Everybody, at everything, in every state: what they are answered, what Azure DevOps then has, and what the audit trail says.

The real work loop, router and database; Azure DevOps and Slack are stand-ins that keep their rules.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import product

import pytest

from bot.app import Work
from bot.core.approvals import Answer, Approval, ApprovalState, ApprovalStep
from bot.core.audit import Recorded
from bot.core.deciding import Case
from bot.core.errors import Refused, SignInNeeded
from bot.core.people import Account, Member, Person
from bot.core.references import ApprovalOf, Ref, StageAttempt, Thing, token
from bot.core.runs import Run, State
from bot.database import Database
from bot.doors import CLICK, COMMAND, SUBMISSION
from bot.inbox import Delivery
from bot.messages.kit import Message
from bot.ports import Acting, Bot, Operation, Whisper
from bot.store import SqlStore
from handlers import router
from tests.artifacts import delivered, smoke
from tests.examples import (
    ADA,
    ALAN,
    ALAN_ADO,
    CHANNEL,
    DELIVERY,
    DIABETES,
    GRACE,
    GUEST,
    NOW,
    PENDING,
    PROD_STAGE,
    QA_STAGE,
    RADIA,
    RELEASE_PENDING,
    RELEASE_WAITING,
    RELEASING,
    ROBOT,
    SUCCEEDED,
    TENANT,
    V3,
    V4,
    WAITING,
)
from tests.fakes import FakeBoard, FakeChat, FakeModels, FakePipelines, FakeSignIn

ALL = frozenset({"S0MLTEAM", "S0RELEASE"})
KATHERINE = Member("U0KATHE01", "Katherine Johnson", "katherine@contoso.example", groups=ALL)
EXPIRED = Member("U0EXPIR01", "Emmy Noether", "emmy@contoso.example", groups=ALL)
NOBODY = Member("U0NOBOD01", "Nobody Special", "nobody@contoso.example")
PEOPLE = {
    "requester": replace(ADA, groups=ALL),
    "head committer": replace(ALAN, groups=ALL),
    "approver": replace(GRACE, groups=ALL),
    "group approver": replace(RADIA, groups=ALL),
    "non-approver": NOBODY,
    "guest": GUEST,
    "bot": ROBOT,
    "signed out": KATHERINE,
    "expired": EXPIRED,
}
ACTIONS = ("approve", "reject", "defer", "reassign", "rerun", "roll back")
STATES = ("pending", "decided here", "decided there", "superseded", "other attempt")
OTHER = Person("Emil Post", "emil@contoso.example", "emil")
IN_GROUP = {RADIA.id}


def identity(member: Member) -> Person:
    return Person(member.name, member.email, f"oid-{member.id}")


@dataclass(frozen=True)
class Cell:
    """One square of the matrix: who does what, to what, while it stands how. `n` makes its numbers its own."""

    who: str
    thing: Thing
    action: str
    state: str
    n: int

    @property
    def member(self) -> Member:
        return PEOPLE[self.who]

    @property
    def ref(self) -> Ref:
        return Ref(self.thing, self.n)

    @property
    def source(self) -> int:
        """The run whose artifacts it is about."""
        return self.n if self.thing is Thing.RUN else 10_000 + self.n

    @property
    def stage(self) -> str:
        return "prod" if self.thing is Thing.RUN else PROD_STAGE


@dataclass
class Ruled(FakePipelines):
    """An Azure DevOps that keeps its rules, and a list of what was written: what, to what, by whom."""

    writes: list[tuple[str, Ref, str]] = field(default_factory=list)

    def _allowed(self, approval: Approval) -> Approval:
        now = next(one for one in self._waiting(approval.thing)[approval.run_id] if one.id == approval.id)
        if now.state is not ApprovalState.PENDING:
            raise Refused("The approval is already completed.")
        if self.who.id not in {identity(PEOPLE[name]).id for name in ("approver", "group approver", "signed out", "expired")}:
            raise Refused(f"{self.who.name} is not an approver of this check.")
        return now

    async def decide(self, approval: Approval, answer: Answer, comment: str) -> Approval:
        self.writes.append((answer.value, approval.ref, self.who.id or ""))
        return await super().decide(self._allowed(approval), answer, comment)

    async def defer(self, approval: Approval, until: datetime, comment: str) -> Approval:
        if approval.thing is Thing.RELEASE:
            raise Refused("A release's approval cannot be deferred.")
        self.writes.append(("deferred", approval.ref, self.who.id or ""))
        return await super().defer(self._allowed(approval), until, comment)

    async def reassign(self, approval: Approval, to: Person, comment: str) -> Approval:
        self.writes.append(("reassigned", approval.ref, self.who.id or ""))
        return await super().reassign(self._allowed(approval), to, comment)

    async def retry(self, run_id: int, stage: str, *, everything: bool = False) -> None:
        self.writes.append(("retried", Ref(Thing.RUN, run_id), self.who.id or ""))
        await super().retry(run_id, stage, everything=everything)

    async def redeploy(self, release_id: int, stage: str, comment: str) -> None:
        self.writes.append(("retried", Ref(Thing.RELEASE, release_id), self.who.id or ""))
        await super().redeploy(release_id, stage, comment)


class RuledHands(Ruled):
    def __init__(self, of: Ruled, who: Person) -> None:
        self.__dict__.update(of.__dict__)
        self.who = who

    async def me(self) -> Person:
        return self.who


@dataclass
class Accounts:
    """Everybody is signed in, but for one who never was, and one whose sign-in has expired."""

    pipelines: Ruled

    async def acting(self, person: str) -> Acting:
        account = await self.account(person)
        if account is None or person == EXPIRED.id:
            raise SignInNeeded("Sign in again.")
        me = identity(next(member for member in PEOPLE.values() if member.id == person))
        return Acting(RuledHands(self.pipelines, me), me, account)

    async def account(self, person: str) -> Account | None:
        member = next((member for member in PEOPLE.values() if member.id == person), None)
        if member is None or member is KATHERINE:
            return None
        return Account(TENANT, f"oid-{person}", member.name, member.email or "")

    async def forget(self, _: str) -> bool:
        return False


@dataclass
class Screen:
    """What was said in private."""

    said: list[str] = field(default_factory=list)

    async def whisper(self, to: Whisper, message: Message) -> None:
        self.said.append(message.text)

    async def fill_modal(self, *_: object) -> None:
        raise AssertionError


@dataclass
class Place:
    """One team for all cells."""

    pipelines: Ruled
    models: FakeModels
    screen: Screen
    store: SqlStore
    bot: Bot
    work: Work


def place(database: Database) -> Place:
    pipelines, models, screen = Ruled(), FakeModels(), Screen()
    store = SqlStore(database)
    everybody = (*PEOPLE.values(), Member("U0OTHER01", "Emil Post", OTHER.email, groups=ALL))
    chat = FakeChat({member.id: member for member in everybody})
    pipelines.known_people = (OTHER,)
    bot = Bot(RELEASING, pipelines, Accounts(pipelines), models, chat, FakeBoard(), store, lambda: NOW)

    return Place(pipelines, models, screen, store, bot, Work(bot, screen, router, FakeSignIn(), lambda: "T0CONTOSO"))


# The scene


async def scene(cell: Cell, here: Place) -> None:
    """Set things up as the cell says."""
    pipelines = here.pipelines
    here.models.known["diabetes"] = (replace(V4, version="9", champion=True), V3) if cell.state == "superseded" else (V3,)
    pipelines.artifacts[cell.source, "delivery"] = delivered()
    pipelines.artifacts[cell.source, "qa"] = {"qa.json": smoke("qa")}
    operation = Operation(f"op-{cell.source}", "retrain", ADA.id, "diabetes", "done", {}, NOW)
    await here.store.offer(operation)
    parameters = {"model": "diabetes", "action": "train", "requestId": operation.id}
    attempt = 2 if cell.state == "other attempt" else 1
    run = replace(WAITING, id=cell.source, parameters=parameters, committer=ALAN_ADO, requested_for=identity(PEOPLE["requester"]))
    run = _with(run, "prod", State.WAITING, attempt)
    if cell.thing is Thing.RUN:
        pipelines.runs[cell.n] = run
        pipelines.waiting[cell.n] = _approvals(cell, replace(PENDING, id=f"a{cell.n}", run_id=cell.n))
    else:
        pipelines.runs[cell.source] = replace(SUCCEEDED, id=cell.source, parameters=parameters, committer=ALAN_ADO)
        release = replace(RELEASE_WAITING, id=cell.n, source=cell.source, committer=ALAN_ADO)
        pipelines.releases[cell.n] = _with(release, PROD_STAGE, State.WAITING, attempt)
        pipelines.attachments[cell.n, QA_STAGE] = {"qa.json": smoke("qa")}
        pipelines.release_waiting[cell.n] = _approvals(cell, replace(RELEASE_PENDING, id=f"{cell.n}", run_id=cell.n))
    if cell.action == "rerun":
        _failed(cell, pipelines)
    if cell.action == "roll back":
        _deployed(cell, here)


def _approvals(cell: Cell, asked: Approval) -> tuple[Approval, ...]:
    decided = ApprovalStep(OTHER, ApprovalState.APPROVED, OTHER, f"decided in Slack by {OTHER.name}", NOW)
    match cell.state:
        case "decided here" | "decided there":
            return (replace(asked, state=ApprovalState.APPROVED, steps=(decided,)),)
        case "other attempt":
            return (replace(asked, state=ApprovalState.CANCELED), replace(asked, id=f"{asked.id}-2", attempt=2))
        case _:
            return (asked,)


def _with(run: Run, stage: str, state: State, attempt: int) -> Run:
    """The run with one of its stages at this state and attempt."""
    finished = NOW if state.finished else None
    stages = tuple(replace(one, state=state, attempt=attempt, finished=finished) if one.name == stage else one for one in run.stages)
    return replace(run, stages=stages, state=state if state.finished else run.state)


def _failed(cell: Cell, pipelines: Ruled) -> None:
    """The stage has failed; where somebody has decided, they have had it run again."""
    runs = pipelines.runs if cell.thing is Thing.RUN else pipelines.releases
    again = cell.state in {"decided here", "decided there"}
    attempt = 2 if again or cell.state == "other attempt" else 1
    runs[cell.n] = _with(runs[cell.n], cell.stage, State.RUNNING if again else State.FAILED, attempt)


def _deployed(cell: Cell, here: Place) -> None:
    """It has deployed version 3 before, and Prod serves version 4; where somebody has decided, it is being deployed again already."""
    runs = here.pipelines.runs if cell.thing is Thing.RUN else here.pipelines.releases
    here.pipelines.artifacts[cell.source, "delivery"] = delivered("3")
    back = cell.state == "superseded"
    here.models.known["diabetes"] = (replace(V4, champion=not back), replace(V3, champion=back))
    again = cell.state in {"decided here", "decided there"}
    runs[cell.n] = _with(runs[cell.n], cell.stage, State.WAITING if again else State.SUCCEEDED, 2 if cell.state == "other attempt" else 1)


# What is done


def delivery(kind: str, body: Mapping[str, object], key: str) -> Delivery:
    return Delivery(key, "person:x", kind, json.dumps({"body": body, "view": None}).encode(), NOW)


async def act(cell: Cell, here: Place) -> None:
    """The person does it, as Slack tells it."""
    user, channel, key = {"id": cell.member.id}, {"id": CHANNEL}, f"{cell.n}"

    def click(action: str, value: str) -> Delivery:
        return delivery(CLICK, {"user": user, "channel": channel, "actions": [{"action_id": action, "value": value}]}, key)

    match cell.action:
        case "rerun":
            await here.work([click("retry_stage", str(StageAttempt(cell.ref, cell.stage, 1)))])
        case "roll back":
            command = {"command": "/mlops", "text": f"rollback diabetes {cell.ref}", "trigger_id": key}
            await here.work([delivery(COMMAND, command | {"user_id": cell.member.id, "channel_id": CHANNEL}, f"{key}-ask")])
            start = token("rollback", f"command:{key}")
            if await here.store.operation(start) is not None:
                await here.work([click("steer_start", start)])
        case action:
            approval = (here.pipelines.waiting if cell.thing is Thing.RUN else here.pipelines.release_waiting)[cell.n][0]
            serving = here.models.known["diabetes"][0]
            facts = Case(WAITING, DIABETES, RELEASING.environments["prod"], approval, DELIVERY, None, serving).facts
            values = {"reason": "because"} | {"defer": {"until": "4"}, "reassign": {"to": "U0OTHER01"}}.get(action, {})
            told = {"state": {"approval": str(ApprovalOf(cell.ref, approval.id, facts))}, "origin": {"channel": CHANNEL}}
            view = {
                "id": f"V{key}",
                "callback_id": action,
                "private_metadata": json.dumps(told),
                "state": {"values": {name: {name: {"value": value}} for name, value in values.items()}},
            }
            await here.work([delivery(SUBMISSION, {"user": user, "view": view}, key)])


# What is expected

SIGN_IN = "Press Sign in"
ABOUT_PEOPLE = {"guest": "Guests of the workspace may not", "bot": "a person has to"}
WRITTEN = dict(zip(ACTIONS, ("approved", "rejected", "deferred", "reassigned", "retried", "retried"), strict=True))


def expected(cell: Cell) -> tuple[str, bool]:
    """What the person reads, and whether Azure DevOps has something from them afterwards."""
    if cell.who in ABOUT_PEOPLE:
        return ABOUT_PEOPLE[cell.who], False
    if cell.action in {"rerun", "roll back"}:
        return _steered(cell)
    if cell.who == "expired":
        return SIGN_IN, False
    if cell.state in {"decided here", "decided there"}:
        return "This was approved by Emil Post on 2026-11-23", False
    if cell.state == "other attempt":
        return "This approval is canceled", False
    own = {"requester": "You asked for", "head committer": "You committed", "non-approver": "You may not decide on prod"}
    if cell.who in own:
        return own[cell.who], False
    if cell.state == "superseded" and cell.action in {"approve", "defer"}:
        return "This is superseded: it was compared with version 3, and Prod serves version 9 now", False
    if cell.who == "signed out":
        return SIGN_IN, False
    if cell.action == "defer" and cell.thing is Thing.RELEASE:
        return "cannot be deferred", False
    return "on record in Azure DevOps", True


def _steered(cell: Cell) -> tuple[str, bool]:
    if cell.who == "non-approver":
        return ("You may not start, retry or stop" if cell.action == "rerun" else "You may not roll back"), False
    if cell.action == "rerun" and cell.state in {"decided here", "decided there", "other attempt"}:
        return "has been retried since", False
    if cell.action == "roll back" and cell.state in {"decided here", "decided there", "superseded"}:
        return "has not deployed another version of diabetes", False
    if cell.who in {"signed out", "expired"}:
        return SIGN_IN, False
    return ("runs again" if cell.action == "rerun" else "is asked to deploy again"), True


def cells() -> Iterator[Cell]:
    for n, (who, thing, action, state) in enumerate(product(PEOPLE, Thing, ACTIONS, STATES), 1000):
        yield Cell(who, thing, action, state, n)


async def test_everybody_at_everything_in_every_state(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    here = place(database)
    wrong: list[str] = []
    seen: Counter[str] = Counter()
    for cell in cells():
        await scene(cell, here)
        here.screen.said.clear()
        here.pipelines.writes.clear()

        await act(cell, here)

        sentence, written = expected(cell)
        said = here.screen.said[-1] if here.screen.said else "nothing"
        record = [(WRITTEN[cell.action], cell.ref, identity(cell.member).id)] if written else []
        trail = await here.store.trail(person=cell.member.id, limit=4)
        told = _told(cell, trail, sentence)
        seen["written" if written else "sign in" if sentence == SIGN_IN else "refused"] += 1
        if sentence not in said or here.pipelines.writes != record or told:
            wrong.append(f"{cell}: expected {sentence!r} and {record}; read {said!r}, wrote {here.pipelines.writes}; {told}")

    total = sum(seen.values())
    with capsys.disabled():
        print(f"\nThe matrix: {total} cells, {dict(seen)}, {len(wrong)} wrong.")
    assert wrong == []
    assert total == len(PEOPLE) * len(Thing) * len(ACTIONS) * len(STATES) == 540


def _told(cell: Cell, trail: tuple[Recorded, ...], sentence: str) -> str:
    """What is wrong with the newest line that the audit trail has about this."""
    if sentence == SIGN_IN:
        return ""  # nothing was decided: it goes on once they have signed in
    if not trail:
        return "the audit trail has no line about it"
    allowed = sentence in {"on record in Azure DevOps", "runs again", "is asked to deploy again"} or "has not deployed" in sentence
    return "" if trail[0].allowed is allowed else f"{cell.action}: the audit trail says {trail[0]}"
