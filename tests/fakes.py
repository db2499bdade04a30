"""Hand-written stand-ins at the narrowest waist, the ports; and the `World` that a test sets up and looks at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta

from bot.core.approvals import Answer, Approval, ApprovalState, ApprovalStep
from bot.core.audit import GENESIS, Entry, Recorded, digest, line
from bot.core.errors import Gone, OutsideError, SignInNeeded
from bot.core.models import ModelVersion
from bot.core.people import Account, Member, Person
from bot.core.references import Ref, Thing
from bot.core.runs import Failure, Order, Run, State
from bot.core.team import Team
from bot.messages.kit import Home, Message
from bot.ports import Acting, Bot, File, Operation, Whisper
from tests.examples import ACCOUNTS, ADA_ADO, ALAN_ADO, BOT_ADO, GRACE_ADO, MEMBERS, NOW, QUEUED, RADIA_ADO, TEAM


@dataclass
class FakePipelines:
    """Azure DevOps as the test wants it. `errors` holds what a method raises, by its name, once for each entry."""

    runs: dict[int, Run] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    artifacts: dict[tuple[int, str], Mapping[str, bytes]] = field(default_factory=dict)
    waiting: dict[int, tuple[Approval, ...]] = field(default_factory=dict)
    releases: dict[int, Run] = field(default_factory=dict)
    attachments: dict[tuple[int, str], Mapping[str, bytes]] = field(default_factory=dict)
    release_failures: dict[int, Failure] = field(default_factory=dict)
    release_waiting: dict[int, tuple[Approval, ...]] = field(default_factory=dict)
    redeployments: list[tuple[int, str, str]] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    decisions: list[tuple[str, Answer, str]] = field(default_factory=list)
    answers_needed: int = 1
    meanwhile: Approval | None = None  # what somebody else has made of an approval just before ours arrives
    retries: list[tuple[int, str]] = field(default_factory=list)
    reassignments: list[tuple[str, Person, str]] = field(default_factory=list)
    ado_groups: dict[str, frozenset[str]] = field(default_factory=dict)
    known_people: tuple[Person, ...] = (ADA_ADO, GRACE_ADO, ALAN_ADO, RADIA_ADO)
    who: Person = BOT_ADO
    calls: list[str] = field(default_factory=list)
    errors: dict[str, list[OutsideError]] = field(default_factory=dict)
    after: dict[str, list[OutsideError]] = field(default_factory=dict)  # raised once the write has been made: its answer was lost

    async def run(self, run_id: int) -> Run:
        self._called("run")
        if run_id not in self.runs:
            raise Gone(f"Run {run_id} does not exist.")
        return self.runs[run_id]

    async def recent(self, pipeline_id: int, since: datetime) -> tuple[Run, ...]:
        self._called("recent")
        found = [run for run in self.runs.values() if run.pipeline_id == pipeline_id and run.created >= since]
        return tuple(replace(run, stages=()) for run in sorted(found, key=lambda run: run.created, reverse=True))

    async def release(self, release_id: int) -> Run:
        self._called("release")
        if release_id not in self.releases:
            raise Gone(f"Release {release_id} does not exist.")
        return self.releases[release_id]

    async def recent_releases(self, definition_id: int, since: datetime) -> tuple[Run, ...]:
        self._called("recent_releases")
        found = [one for one in self.releases.values() if one.pipeline_id == definition_id and one.created >= since]
        return tuple(sorted(found, key=lambda one: one.created, reverse=True))

    async def failure(self, run: Run) -> Failure | None:
        self._called("failure")
        return (self.failures if run.thing is Thing.RUN else self.release_failures).get(run.id)

    async def attached(self, release: Run, stage: str) -> Mapping[str, bytes]:
        self._called(f"attached {stage}")
        return self.attachments.get((release.id, stage), {})

    async def artifact(self, run_id: int, name: str) -> Mapping[str, bytes]:
        self._called(f"artifact {name}")
        if run_id not in self.runs:
            raise Gone(f"Run {run_id} does not exist.")
        return self.artifacts.get((run_id, name), {})

    async def approvals(self, run: Run) -> tuple[Approval, ...]:
        self._called("approvals")
        return self._waiting(run.thing).get(run.id, ())

    async def pending_approvals(self) -> tuple[Approval, ...]:
        self._called("pending_approvals")
        known = [one for waiting in (self.waiting, self.release_waiting) for approvals in waiting.values() for one in approvals]
        return tuple(approval for approval in known if approval.state is ApprovalState.PENDING)

    async def start(self, order: Order) -> Run:
        self._called("start")
        self.orders.append(order)
        number = 900 + len(self.orders)
        self.runs[number] = replace(
            QUEUED, id=number, number=f"20261123.{number}", pipeline_id=order.pipeline_id, parameters=order.parameters
        )
        self._lost("start")
        return self.runs[number]

    async def started(self, pipeline_id: int, token: str, since: datetime) -> Run | None:
        self._called("started")
        found = [run for run in self.runs.values() if run.pipeline_id == pipeline_id and run.created >= since]
        return next((run for run in found if run.parameters.get("requestId") == token), None)

    async def deployed(self, pipeline_id: int, stage: str, before: int) -> tuple[int, ...]:
        self._called("deployed")
        found = [run for run in self.runs.values() if run.pipeline_id == pipeline_id and run.id < before]
        done = [run.id for run in found if (it := run.stage(stage)) is not None and it.state is State.SUCCEEDED]
        return tuple(sorted(done, reverse=True))

    async def redeployable(self, definition_id: int, stage: str, before: int) -> tuple[int, ...]:
        self._called("redeployable")
        found = [one for one in self.releases.values() if one.pipeline_id == definition_id and one.id < before]
        done = [one.id for one in found if (it := one.stage(stage)) is not None and it.state is State.SUCCEEDED]
        return tuple(sorted(done, reverse=True))

    async def redeploy(self, release_id: int, stage: str, comment: str) -> None:
        self._called("redeploy")
        self.redeployments.append((release_id, stage, comment))
        self.releases[release_id] = _again(self.releases[release_id], stage)
        self._lost("redeploy")

    async def groups_of(self, person: Person) -> frozenset[str]:
        self._called("groups_of")
        return self.ado_groups.get(person.id or "", frozenset())

    async def people(self, named: str) -> tuple[Person, ...]:
        self._called("people")
        return tuple(person for person in self.known_people if named in {person.name, person.email})

    async def decide(self, approval: Approval, answer: Answer, comment: str) -> Approval:
        if self.meanwhile is not None:
            self._waiting(approval.thing)[approval.run_id] = (self.meanwhile,)
        self._called("decide")
        self.decisions.append((approval.id, answer, comment))
        state = ApprovalState(answer.value)
        step = ApprovalStep(self.who, state, self.who, comment, NOW)
        given = sum(one.state is ApprovalState.APPROVED for one in (*approval.steps, step))
        whole = state if state is ApprovalState.REJECTED or given >= self.answers_needed else ApprovalState.PENDING
        return self._changed(replace(approval, state=whole, steps=(*approval.steps, step)), "decide")

    async def defer(self, approval: Approval, until: datetime, comment: str) -> Approval:
        self._called("defer")
        self.decisions.append((approval.id, Answer.APPROVE, comment))
        step = ApprovalStep(self.who, ApprovalState.DEFERRED, self.who, comment, NOW, until=until)
        return self._changed(replace(approval, state=ApprovalState.DEFERRED, steps=(*approval.steps, step)), "defer")

    async def reassign(self, approval: Approval, to: Person, comment: str) -> Approval:
        self._called("reassign")
        self.reassignments.append((approval.id, to, comment))
        return self._changed(replace(approval, steps=(*approval.steps, ApprovalStep(to, ApprovalState.PENDING))), "reassign")

    def _changed(self, approval: Approval, name: str) -> Approval:
        known = self._waiting(approval.thing)
        known[approval.run_id] = tuple(approval if one.id == approval.id else one for one in known[approval.run_id])
        self._lost(name)
        return approval

    def _waiting(self, thing: Thing) -> dict[int, tuple[Approval, ...]]:
        return self.waiting if thing is Thing.RUN else self.release_waiting

    async def cancel(self, run_id: int) -> None:
        self._called("cancel")
        self.runs[run_id] = replace(self.runs[run_id], state=State.CANCELING)
        self._lost("cancel")

    async def retry(self, run_id: int, stage: str, *, everything: bool = False) -> None:
        self._called("retry")
        self.retries.append((run_id, stage))
        self.runs[run_id] = _again(self.runs[run_id], stage)
        self._lost("retry")

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.errors.get(name):
            raise self.errors[name].pop(0)

    def _lost(self, name: str) -> None:
        if self.after.get(name):
            raise self.after[name].pop(0)


def _again(run: Run, stage: str) -> Run:
    """The run or release at work once more, its stage at its next attempt."""
    parts = tuple(replace(one, state=State.PENDING, attempt=one.attempt + 1) if one.name == stage else one for one in run.stages)
    return replace(run, state=State.RUNNING, finished=None, stages=parts)


class FakeHands(FakePipelines):
    """The same Azure DevOps under one person's identity: it shares everything with the bot's but who it is."""

    def __init__(self, of: FakePipelines, who: Person) -> None:
        self.__dict__.update(of.__dict__)
        self.who = who

    async def me(self) -> Person:
        self._called("me")
        return self.who


@dataclass
class FakeIdentities:
    """Who is signed in, and as whom: `accounts` by Slack user id. `errors` holds what `acting` raises, by the person."""

    pipelines: FakePipelines
    chat: FakeChat
    accounts: dict[str, Account] = field(default_factory=lambda: dict(ACCOUNTS))
    errors: dict[str, list[OutsideError]] = field(default_factory=dict)

    service: bool = False

    async def acting(self, person: str) -> Acting:
        if self.service:
            return Acting(FakeHands(self.pipelines, BOT_ADO), BOT_ADO)
        if self.errors.get(person):
            raise self.errors[person].pop(0)
        account = self.accounts.get(person)
        if account is None:
            raise SignInNeeded("Sign in first.")
        me = Person(account.name, account.username, account.oid)
        hands = FakeHands(self.pipelines, me)
        return Acting(hands, me, account)

    async def account(self, person: str) -> Account | None:
        return self.accounts.get(person)

    async def forget(self, person: str) -> bool:
        return self.accounts.pop(person, None) is not None


@dataclass
class FakeSignIn:
    """Where people sign in: `links` holds for whom there is a link, and for which delivery. `fresh` says whether a token was renewed."""

    links: list[tuple[str, str]] = field(default_factory=list)
    fresh: list[bool] = field(default_factory=list)
    errors: list[OutsideError] = field(default_factory=list)

    async def renew(self, _: str) -> bool:
        return self.fresh.pop(0) if self.fresh else False

    async def link(self, person: str, delivery: str) -> str:
        if self.errors:
            raise self.errors.pop(0)
        self.links.append((person, delivery))
        return "https://login.microsoftonline.com/contoso/oauth2/v2.0/authorize?state=s"


@dataclass
class FakeModels:
    """Azure Machine Learning: `known` by model name, newest first."""

    known: dict[str, tuple[ModelVersion, ...]] = field(default_factory=dict)
    values: dict[str, Mapping[str, float]] = field(default_factory=dict)
    errors: list[OutsideError] = field(default_factory=list)

    async def versions(self, model: str) -> tuple[ModelVersion, ...]:
        if self.errors:
            raise self.errors.pop(0)
        return self.known.get(model, ())

    async def metrics(self, run_id: str) -> Mapping[str, float]:
        if run_id not in self.values:
            raise Gone(f"There is no MLflow run {run_id}.")
        return self.values[run_id]


@dataclass
class FakeChat:
    """Slack: who is who, and what was whispered to whom."""

    members: dict[str, Member] = field(default_factory=lambda: {member.id: member for member in MEMBERS})
    whispers: list[tuple[Whisper, Message]] = field(default_factory=list)
    handed: list[tuple[str, File]] = field(default_factory=list)
    homes: dict[str, Home] = field(default_factory=dict)
    errors: list[OutsideError] = field(default_factory=list)  # raised by `permalink`, `hand` and `publish`

    async def member(self, person: str) -> Member:
        if person not in self.members:
            raise Gone(f"Slack does not know {person}.")
        return self.members[person]

    async def whisper(self, to: Whisper, message: Message) -> None:
        self.whispers.append((to, message))

    async def permalink(self, channel: str, ts: str) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return f"https://contoso.slack.com/archives/{channel}/p{ts.replace('.', '')}"

    async def publish(self, person: str, home: Home) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.homes[person] = home

    async def hand(self, person: str, file: File) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.handed.append((person, file))


@dataclass
class FakeBoard:
    """The board in memory: what each channel shows now, and how often it was asked. While Slack is `away`, nothing has been posted yet."""

    shown: dict[tuple[str, str], Message] = field(default_factory=dict)
    under: dict[tuple[str, str], str | None] = field(default_factory=dict)
    files: dict[tuple[str, str], File] = field(default_factory=dict)
    shows: int = 0
    readings: int = 0
    away: bool = False

    async def reading(self) -> int:
        self.readings += 1
        return self.readings

    async def show(self, channel: str, subject: str, message: Message, *, under: str | None = None, reading: int = 0) -> None:
        if under is not None and (channel, under) not in self.shown:
            raise LookupError(f"{under!r} has not been shown in {channel}.")
        self.shows += 1
        self.shown[channel, subject] = message
        self.under[channel, subject] = under

    async def attach(self, channel: str, subject: str, file: File, *, under: str) -> None:
        if (channel, under) not in self.shown:
            raise LookupError(f"{under!r} has not been shown in {channel}.")
        self.files.setdefault((channel, subject), file)

    async def where(self, channel: str, subject: str) -> str | None:
        known = [*self.shown]
        posted = (channel, subject) in self.shown and not self.away
        return f"1795426200.{known.index((channel, subject)):06d}" if posted else None


@dataclass
class FakeStore:
    """The bot's memory, in memory."""

    operations: dict[str, Operation] = field(default_factory=dict)
    audit: list[Entry] = field(default_factory=list)
    cards: dict[Ref, bool] = field(default_factory=dict)

    async def offer(self, operation: Operation) -> Operation:
        return self.operations.setdefault(operation.id, operation)

    async def operation(self, id: str) -> Operation | None:
        return self.operations.get(id)

    async def advance(self, id: str, *, of: tuple[str, ...], to: str, result: str = "") -> bool:
        known = self.operations.get(id)
        if known is None or known.state not in of:
            return False
        self.operations[id] = replace(known, state=to, result=result)
        return True

    async def operations_of(self, kind: str, subject: str | None = None, *, states: tuple[str, ...] = ()) -> tuple[Operation, ...]:
        known = [one for one in self.operations.values() if one.kind == kind and subject in {None, one.subject}]
        return tuple(one for one in known if not states or one.state in states)

    async def record(self, entry: Entry) -> None:
        self.audit.append(entry)

    async def trail(self, *, subject: str = "", model: str = "", person: str = "", limit: int) -> tuple[Recorded, ...]:
        found = [
            one
            for one in chained(self.audit)
            if (not subject or _below(one, subject))
            and (not model or one.model == model or _below(one, f"model/{model}"))
            and person in {"", one.person}
        ]
        return tuple(reversed(found))[:limit]

    async def watch(self, ref: Ref, *, final: bool) -> None:
        self.cards[ref] = final

    async def watched(self) -> tuple[Ref, ...]:
        return tuple(ref for ref, final in self.cards.items() if not final)

    async def final(self, refs: tuple[Ref, ...]) -> frozenset[Ref]:
        return frozenset(ref for ref in refs if self.cards.get(ref))


def chained(entries: Iterable[Entry]) -> list[Recorded]:
    """The audit trail of these entries, one a second."""
    rows: list[Recorded] = []
    for number, entry in enumerate(entries, 1):
        kept = line(entry, workspace="T0CONTOSO", correlation=f"click:{number}")
        content = {each.name: getattr(kept, each.name) for each in fields(kept)}
        row = Recorded(**content, id=number, at=NOW + timedelta(seconds=number), hash="")
        rows.append(replace(row, hash=digest(rows[-1].hash if rows else GENESIS, row)))
    return rows


def _below(row: Recorded, subject: str) -> bool:
    return row.subject == subject or row.subject.startswith(f"{subject}/")


@dataclass
class World:
    """Everything around the bot, and the bot in it."""

    team: Team = TEAM
    now: datetime = NOW
    pipelines: FakePipelines = field(default_factory=FakePipelines)
    identities: FakeIdentities = field(init=False)
    models: FakeModels = field(default_factory=FakeModels)
    chat: FakeChat = field(default_factory=FakeChat)
    board: FakeBoard = field(default_factory=FakeBoard)
    store: FakeStore = field(default_factory=FakeStore)

    def __post_init__(self) -> None:
        self.identities = FakeIdentities(self.pipelines, self.chat)

    @property
    def bot(self) -> Bot:
        return Bot(self.team, self.pipelines, self.identities, self.models, self.chat, self.board, self.store, lambda: self.now)
