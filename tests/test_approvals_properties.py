"""Whatever happens in whatever order: nothing is written that was not allowed to that person at that moment, and nothing twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from bot.app import Work
from bot.core.approvals import Answer, Approval, ApprovalState, ApprovalStep
from bot.core.errors import NotNow, OutsideError, Refused, Uncertain
from bot.core.events import ApprovalRequested
from bot.core.people import Member, Person
from bot.core.references import ApprovalOf
from bot.core.runs import State
from bot.core.team import Environment, Team
from bot.doors import SUBMISSION
from bot.inbox import Delivery
from bot.messages.kit import Message
from bot.ports import Acting, Bot, Operation, Whisper
from handlers import router
from handlers.runs import moved, sweep
from tests.artifacts import delivered, smoke
from tests.examples import (
    ACCOUNTS,
    ADA,
    ALAN,
    ALAN_ADO,
    CHANNEL,
    GRACE,
    GUEST,
    NOW,
    PENDING,
    RADIA,
    TEAM,
    V3,
    V4,
    WAITING,
)
from tests.fakes import FakeBoard, FakeChat, FakeModels, FakePipelines, FakeSignIn, FakeStore

GROUP = frozenset({"S0RELEASE", "S0MLTEAM"})
PEOPLE = {member.id: replace(member, groups=GROUP) for member in (ADA, GRACE, RADIA, GUEST)} | {ALAN.id: replace(ALAN, groups=GROUP)}
FACTS = f"4~3~{'ab' * 8}~passed"


def identity(member: Member) -> Person:
    account = ACCOUNTS.get(member.id)
    return Person(member.name, member.email, account.oid if account else f"oid-{member.id}")


@dataclass
class Truth(FakePipelines):
    """Azure DevOps, which also looks over our shoulder: each write is judged by what is true when it arrives."""

    judge: Callable[[Approval, Person, Answer], str] = lambda _, __, ___: ""
    broken: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    fails: list[OutsideError | None] = field(default_factory=list)  # what becomes of the next writes' answers
    needed: list[int] = field(default_factory=lambda: [1])

    async def decide(self, approval: Approval, answer: Answer, comment: str) -> Approval:
        fails = self.fails.pop(0) if self.fails else None
        if isinstance(fails, NotNow):
            raise fails
        now = next(one for one in self.waiting[approval.run_id] if one.id == approval.id)
        if now.state is not ApprovalState.PENDING:
            raise Refused("The approval is already completed.")
        if any(step.actual == self.who for step in now.steps):
            raise Refused("You have answered already.")
        if problem := self.judge(now, self.who, answer):
            self.broken.append(problem)
        self.accepted.append(f"{approval.id} {self.who.id}")
        step = ApprovalStep(self.who, ApprovalState(answer.value), self.who, comment, NOW)
        steps = (*now.steps, step)
        given = sum(one.state is ApprovalState.APPROVED for one in steps)
        done = answer is Answer.REJECT or given >= self.needed[0]
        after = replace(now, steps=steps, state=ApprovalState(answer.value) if done else ApprovalState.PENDING)
        self.waiting[approval.run_id] = tuple(after if one.id == approval.id else one for one in self.waiting[approval.run_id])
        if fails is not None:
            raise fails
        return after


class Theirs(Truth):
    """The same, under somebody's name."""

    def __init__(self, of: Truth, who: Person) -> None:
        self.__dict__.update(of.__dict__)
        self.who = who

    async def me(self) -> Person:
        return self.who


@dataclass
class Accounts:
    pipelines: Truth

    async def acting(self, person: str) -> Acting:
        me = identity(PEOPLE[person])
        return Acting(Theirs(self.pipelines, me), me, ACCOUNTS[person])

    async def account(self, person: str) -> object:
        return ACCOUNTS.get(person)

    async def forget(self, _: str) -> bool:
        return False


class Silent:
    async def whisper(self, to: Whisper, message: Message) -> None: ...

    async def fill_modal(self, *_: object) -> None: ...


@dataclass
class Play:
    """One team, one run that waits, and everything that may happen to it."""

    minimum: int
    now: datetime = NOW
    pipelines: Truth = field(default_factory=Truth)
    models: FakeModels = field(default_factory=FakeModels)
    store: FakeStore = field(default_factory=FakeStore)
    sent: int = 0

    def __post_init__(self) -> None:
        self.pipelines.judge = self.judged
        self.pipelines.runs[480] = replace(WAITING, committer=ALAN_ADO)
        self.pipelines.waiting[480] = (PENDING,)
        self.pipelines.artifacts[480, "delivery"] = delivered()
        self.pipelines.artifacts[480, "qa"] = {"qa.json": smoke("qa")}
        self.models.known["diabetes"] = (V3,)
        self.store.operations["op-480"] = Operation("op-480", "retrain", ADA.id, "diabetes", "done", {}, NOW)
        self.work = self.started()

    @property
    def team(self) -> Team:
        prod: Environment = replace(TEAM.environments["prod"], minimum=self.minimum)
        return replace(TEAM, environments={"prod": prod})

    @property
    def bot(self) -> Bot:
        chat = FakeChat(dict(PEOPLE))
        return Bot(self.team, self.pipelines, Accounts(self.pipelines), self.models, chat, FakeBoard(), self.store, lambda: self.now)  # type: ignore[arg-type]

    def started(self) -> Work:
        """A fresh process: only what was kept is left."""
        return Work(self.bot, Silent(), router, FakeSignIn(), lambda: "T0CONTOSO")

    def judged(self, approval: Approval, who: Person, answer: Answer) -> str:
        """Why this write should never have been sent, by rules of this test's own."""
        attempt = next(stage.attempt for stage in self.pipelines.runs[480].stages if stage.name == "prod")
        if who not in {identity(GRACE), identity(RADIA)}:
            return f"{who.name} may not decide"
        if approval.attempt != attempt:
            return "another attempt"
        if answer is Answer.APPROVE:
            if self.models.known["diabetes"][0].version != "3":
                return "superseded"
            if any(one.kind == "lock" and one.state == "held" for one in self.store.operations.values()):
                return "locked"
            voters = {one.person for one in self.store.operations.values() if one.kind == "vote"} | {who.name}
            agreed = {step.actual.name for step in approval.steps if step.actual is not None} | {
                PEOPLE[voter].name if voter in PEOPLE else voter for voter in voters
            }
            if self.pipelines.needed[0] - len(approval.approved_by) <= 1 and len(agreed) < self.minimum:
                return "too few have agreed"
        return ""

    async def step(self, what: str, who: str) -> None:
        """One thing that happens."""
        match what:
            case "approve" | "reject":
                await self.submits(what, who)
            case "an old button":
                await self.submits("approve", who, oldest=True)
            case "twice":
                await asyncio.gather(self.submits("approve", who), self.submits("approve", GRACE.id))
            case "hook":
                await moved(self.bot, ApprovalRequested(480, PENDING.id))
            case "sweep":
                await sweep(self.bot)
            case "restart":
                self.work = self.started()
            case "later" | "earlier":
                self.now += timedelta(minutes=7 if what == "later" else -3)
            case _:
                self.outside(what, who)

    def outside(self, what: str, who: str) -> None:
        """One thing that happens elsewhere."""
        match what:
            case "there":
                self.answered_there(RADIA)
            case "retry":
                self.retried(slow=who == GRACE.id)
            case "lock":
                lock = Operation(f"lock-{len(self.store.operations)}", "lock", who, "prod", "held", {"reason": "x"}, self.now)
                self.store.operations[lock.id] = lock
            case "unlock":
                locks = {key: one for key, one in self.store.operations.items() if one.kind == "lock"}
                self.store.operations |= {key: replace(one, state="released") for key, one in locks.items()}
            case "champion":
                self.models.known["diabetes"] = (replace(V4, version="9", champion=True),)
            case _:
                self.pipelines.fails.append(Uncertain("The answer was lost.") if what == "lost" else NotNow("Not now."))

    async def submits(self, what: str, who: str, *, oldest: bool = False) -> None:
        self.sent += 1
        asked = self.pipelines.waiting[480][0 if oldest else -1]
        told = {"state": {"approval": str(ApprovalOf(asked.ref, asked.id, FACTS))}, "origin": {"channel": CHANNEL}}
        view = {
            "id": f"V{self.sent}",
            "callback_id": what,
            "private_metadata": json.dumps(told),
            "state": {"values": {"reason": {"reason": {"value": "because"}}}},
        }
        body = json.dumps({"body": {"user": {"id": who}, "view": view}, "view": None}).encode()
        await self.work([Delivery(f"s{self.sent}", f"person:{who}", SUBMISSION, body, self.now)])

    def answered_there(self, who: Member) -> None:
        newest = self.pipelines.waiting[480][-1]
        if newest.state is ApprovalState.PENDING:
            me = identity(who)
            step = ApprovalStep(me, ApprovalState.APPROVED, me, "there", self.now)
            after = replace(newest, state=ApprovalState.APPROVED, steps=(*newest.steps, step))
            self.pipelines.waiting[480] = (*self.pipelines.waiting[480][:-1], after)

    def retried(self, *, slow: bool) -> None:
        """The stage is tried again: a new attempt, a new approval; the old one is over, or not yet where the service is slow."""
        run = self.pipelines.runs[480]
        attempt = max(stage.attempt for stage in run.stages) + 1
        stages = tuple(replace(one, attempt=attempt, state=State.WAITING) if one.name == "prod" else one for one in run.stages)
        self.pipelines.runs[480] = replace(run, stages=stages)
        known = self.pipelines.waiting[480]
        over = [replace(one, state=ApprovalState.CANCELED) if one.state is ApprovalState.PENDING else one for one in known]
        self.pipelines.waiting[480] = (*(known if slow else over), replace(PENDING, id=f"a{attempt}", attempt=attempt))


HAPPENS = (
    *("approve", "approve", "approve", "an old button", "reject", "twice", "hook", "sweep", "restart", "there", "retry", "retry"),
    *("lock", "lock", "unlock", "champion", "lost", "busy", "later", "earlier"),
)
WHO = (GRACE.id, RADIA.id, GRACE.id, RADIA.id, ADA.id, ALAN.id, GUEST.id)
steps = st.lists(st.tuples(st.sampled_from(HAPPENS), st.sampled_from(WHO)), min_size=3, max_size=16)


@settings(max_examples=500, deadline=None)
@example(1, 1, [("retry", GRACE.id), ("an old button", GRACE.id)])
@given(st.sampled_from([1, 1, 2, 3]), st.sampled_from([1, 1, 2]), steps)
def test_no_order_of_things_makes_a_write_that_was_not_allowed_or_two_for_one(
    minimum: int, needed: int, happens: list[tuple[str, str]]
) -> None:
    play = Play(minimum)
    play.pipelines.needed[0] = needed

    async def all_of_it() -> None:
        for what, who in happens:
            await play.step(what, who)

    asyncio.run(all_of_it())

    assert play.pipelines.broken == []
    assert len(play.pipelines.accepted) == len(set(play.pipelines.accepted)), "nobody's answer was taken twice"
    for approval in play.pipelines.waiting[480]:
        answers = [step for step in approval.steps if step.actual is not None]
        assert len(answers) <= needed
