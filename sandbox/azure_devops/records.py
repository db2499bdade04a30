"""What the local Azure DevOps keeps: runs with their stages, jobs and steps, approvals, environments, tests. Data; no rule lives here."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Generic, TypeVar

from pydantic import TypeAdapter

from sandbox.azure_devops.plan import Plan, PlanJob, PlanStage
from sandbox.state import State, Table


def now() -> datetime:
    """The present, in UTC, to the millisecond as the service writes it."""
    present = datetime.now(UTC)
    return present.replace(microsecond=present.microsecond // 1000 * 1000)


def new_id() -> str:
    """A fresh GUID."""
    return str(uuid.uuid4())


@dataclass(slots=True)
class Issue:
    """An error or warning of a job or step."""

    kind: str
    message: str


@dataclass(slots=True)
class Step:
    """One task of a job; `log` is the number of its log once it started."""

    title: str
    task: str
    name: str = ""
    id: str = field(default_factory=new_id)
    state: str = "pending"  # pending | inProgress | completed
    result: str | None = None  # succeeded | succeededWithIssues | failed | canceled | skipped
    started: datetime | None = None
    finished: datetime | None = None
    log: int | None = None
    issues: list[Issue] = field(default_factory=list)


@dataclass(slots=True)
class Job:
    """One job of a stage; its first step is "Initialize job", its last "Finalize Job", the plan's are between."""

    name: str
    title: str
    environment: str | None = None
    id: str = field(default_factory=new_id)
    phase: str = field(default_factory=new_id)
    attempt: int = 1
    state: str = "pending"
    result: str | None = None
    queued: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None
    worker: str | None = None
    steps: list[Step] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Stage:
    """One stage at its newest attempt; `previous` holds the earlier ones, oldest first, each with the timeline it is found under."""

    name: str
    title: str
    order: int
    jobs: list[Job]
    id: str = field(default_factory=new_id)
    timeline: str = field(default_factory=new_id)
    checkpoint: str = field(default_factory=new_id)
    attempt: int = 1
    state: str = "pending"  # pending (also while it waits for approval) | inProgress | completed
    result: str | None = None  # a step's words, or rejected
    entered: bool = False  # its turn has come: it waits, runs or has run
    canceling: bool = False
    started: datetime | None = None
    finished: datetime | None = None
    approvals: list[str] = field(default_factory=list)
    previous: list[Stage] = field(default_factory=list)

    @property
    def waiting(self) -> bool:
        """Whether it waits for its checks."""
        return self.entered and self.state == "pending"


@dataclass(slots=True)
class Artifact:
    """A published artifact: a folder under the run's."""

    id: int
    name: str
    kind: str  # Container | PipelineArtifact
    source: str


@dataclass(slots=True)
class Run:
    """One run of a pipeline, which is also a build."""

    id: int
    number: str
    pipeline: int
    plan: Plan
    reason: str  # manual | individualCI
    branch: str
    commit: str
    commit_message: str
    commit_author: str
    requested_by: str
    requested_for: str
    queued: datetime
    stages: list[Stage]
    parameters: dict[str, str] = field(default_factory=dict)  # those that were given when queueing
    variables: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    id_of_plan: str = field(default_factory=new_id)
    timeline: str = field(default_factory=new_id)
    state: str = "notStarted"  # notStarted | inProgress | cancelling | completed, a build's words
    result: str | None = None  # succeeded | partiallySucceeded | failed | canceled
    started: datetime | None = None
    finished: datetime | None = None
    changed: datetime | None = None
    changed_by: str = ""
    change: int = 0
    logs: int = 0
    artifacts: list[Artifact] = field(default_factory=list)
    attachments: dict[str, str] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)

    def stage(self, name: str) -> Stage | None:
        """The stage of that name (the YAML's, in any case of letters)."""
        return next((stage for stage in self.stages if stage.name.lower() == name.lower()), None)

    def steps(self) -> Iterator[tuple[Stage, Job, Step]]:
        """Every step of every attempt."""
        for newest in self.stages:
            for stage in (*newest.previous, newest):
                for job in stage.jobs:
                    for step in job.steps:
                        yield stage, job, step


@dataclass(slots=True)
class Assigned:
    """Who had the duty before it was handed over, by whom, when and why."""

    approver: str
    by: str
    at: datetime
    comment: str = ""


@dataclass(slots=True)
class ApprovalStep:
    """One approver's part of an approval; people and groups are given by their ids."""

    approver: str
    order: int
    status: str  # uninitiated | pending | deferred | approved | rejected | skipped | canceled | timedOut
    initiated: datetime | None = None
    actual: str | None = None
    comment: str = ""
    modified: datetime | None = None
    modified_by: str | None = None
    deferred: datetime | None = None  # when a yes that was given takes effect
    history: list[Assigned] = field(default_factory=list)


@dataclass(slots=True)
class Approval:
    """What one attempt of one stage waits for."""

    run: int
    stage: str
    attempt: int
    environment: int
    instructions: str
    execution_order: str  # anyOrder | inSequence
    minimum: int  # 0: all of them
    requester_excluded: bool
    steps: list[ApprovalStep]
    expires: datetime
    created: datetime
    blocked: list[str] = field(default_factory=list)
    status: str = "pending"
    id: str = field(default_factory=new_id)
    modified: datetime | None = None


@dataclass(slots=True)
class Check:
    """An approval check that protects an environment."""

    id: int
    environment: int
    approvers: list[str]
    minimum: int
    execution_order: str
    instructions: str
    requester_excluded: bool
    timeout: int  # minutes
    created: datetime
    created_by: str
    modified: datetime
    modified_by: str
    blocked: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Environment:
    """A place that deployment jobs deploy to."""

    id: int
    name: str
    description: str
    created: datetime
    created_by: str
    deleted: bool = False


@dataclass(slots=True)
class Deployment:
    """One deployment job on an environment."""

    id: int
    environment: int
    run: int
    stage: str
    stage_attempt: int
    job: str
    job_attempt: int
    queued: datetime
    started: datetime | None = None
    finished: datetime | None = None
    result: str | None = None


@dataclass(slots=True)
class TestResult:
    """One test case; `outcome` is Passed, Failed or NotExecuted, `duration` milliseconds."""

    __test__ = False  # not for pytest to collect

    id: int
    name: str
    storage: str
    outcome: str
    duration: float
    message: str = ""
    stack: str = ""


@dataclass(slots=True)
class TestRun:
    """The tests of one published file."""

    __test__ = False

    id: int
    run: int
    name: str
    stage: str
    job: str
    created: datetime
    results: list[TestResult] = field(default_factory=list)


@dataclass(slots=True)
class Pipeline:
    """A pipeline: its YAML and the variables defined for it in the web page."""

    id: int
    name: str
    file: str
    created: datetime
    created_by: str
    folder: str = "\\"
    revision: int = 1
    variables: dict[str, str] = field(default_factory=dict)


RecordT = TypeVar("RecordT")


class Shelf(Generic[RecordT]):
    """A typed table: records by their id, in order of creation. After changing a record in place, `keep` it."""

    def __init__(self, table: Table, kind: type[RecordT]) -> None:
        self._table = table
        self._adapter: TypeAdapter[RecordT] = TypeAdapter(kind)
        self._live: dict[str, RecordT] = {key: self._adapter.validate_python(document) for key, document in table.items()}

    def keep(self, id: int | str, record: RecordT) -> RecordT:
        """Write the record down."""
        self._table[str(id)] = self._adapter.dump_python(record, mode="json")
        self._live[str(id)] = record
        return record

    def drop(self, id: int | str) -> None:
        """Forget the record."""
        del self._table[str(id)]
        del self._live[str(id)]

    def get(self, id: int | str) -> RecordT | None:
        """The record of that id."""
        return self._live.get(str(id))

    def __iter__(self) -> Iterator[RecordT]:
        return iter(tuple(self._live.values()))

    def __len__(self) -> int:
        return len(self._live)


class Store:
    """Every record of the local Azure DevOps."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.pipelines = Shelf(state.table("ado.pipelines"), Pipeline)
        self.runs = Shelf(state.table("ado.runs"), Run)
        self.approvals = Shelf(state.table("ado.approvals"), Approval)
        self.environments = Shelf(state.table("ado.environments"), Environment)
        self.checks = Shelf(state.table("ado.checks"), Check)
        self.deployments = Shelf(state.table("ado.deployments"), Deployment)
        self.tests = Shelf(state.table("ado.tests"), TestRun)

    def environment(self, name: str) -> Environment | None:
        """The environment of that name, in any case of letters."""
        return next((one for one in self.environments if one.name.lower() == name.lower() and not one.deleted), None)

    def approvals_of(self, stage: Stage) -> list[Approval]:
        """What this attempt of the stage waits for, or waited."""
        return [approval for key in stage.approvals if (approval := self.approvals.get(key))]


def stages_of(plan: Plan) -> list[Stage]:
    """The stages of a fresh run."""
    return [Stage(stage.name, stage.title, order, [job_of(job) for job in stage.jobs]) for order, stage in enumerate(plan.stages, 1)]


def job_of(plan: PlanJob, attempt: int = 1) -> Job:
    """A job that has not started."""
    planned = [Step(step.title, step.task, step.name) for step in plan.steps]
    return Job(
        plan.name,
        plan.title,
        plan.environment,
        attempt=attempt,
        steps=[Step("Initialize job", "initialize"), *planned, Step("Finalize Job", "finalize")],
    )


def planned(plan: Plan, name: str) -> PlanStage:
    """The stage's part of the plan."""
    return next(stage for stage in plan.stages if stage.name == name)
