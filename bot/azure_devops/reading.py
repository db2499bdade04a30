"""What Azure DevOps says, as our types: SDK models and JSON in, core types out. Pure; no SDK, no clock, no await.

Where a comment names no source, the shape is the one of the REST reference:
https://learn.microsoft.com/rest/api/azure/devops/build/timeline/get
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from bot.core.approvals import Answer, Approval, ApprovalState, ApprovalStep, Order
from bot.core.errors import Refused
from bot.core.people import Person
from bot.core.runs import FailedTest, Job, Run, Stage, State, Step
from bot.core.runs import Order as RunOrder

TESTS = 10  # failing tests that people see
ARTIFACT_BYTES = 8 * 1024 * 1024
ARTIFACT_FILES = 1000

_RESULTS = {
    "succeeded": State.SUCCEEDED,
    "succeededWithIssues": State.PARTIAL,
    "partiallySucceeded": State.PARTIAL,
    "failed": State.FAILED,
    "abandoned": State.FAILED,  # the agent was lost
    "canceled": State.CANCELED,
    "skipped": State.SKIPPED,
    "manuallyQueued": State.PENDING,  # a stage that a person has to start
    "dependentOnManualQueue": State.PENDING,
}
_STATUSES = {
    "inProgress": State.RUNNING,
    "cancelling": State.CANCELING,
    "notStarted": State.PENDING,
    "postponed": State.PENDING,
    "pending": State.PENDING,
}


@dataclass(frozen=True, slots=True)
class Site:
    """Where a project's pages are: nothing but the production addresses."""

    organization: str
    project: str

    def run(self, run_id: int) -> str:
        """The page of a run."""
        return f"https://dev.azure.com/{self.organization}/{self.project}/_build/results?buildId={run_id}"

    def log(self, run_id: int, job: str, task: str) -> str:
        """The page of a step's log, by the ids of the timeline's records."""
        return f"{self.run(run_id)}&view=logs&j={job}&t={task}"

    def release(self, release_id: int) -> str:
        """The page of a classic release."""
        return f"{self._releases}?_a=release-pipeline-progress&releaseId={release_id}"

    def release_log(self, release_id: int, environment_id: int) -> str:
        """The page of what a deployment of a release logged."""
        return f"{self._releases}?_a=release-environment-logs&releaseId={release_id}&environmentId={environment_id}"

    @property
    def _releases(self) -> str:
        return f"https://dev.azure.com/{self.organization}/{self.project}/_releaseProgress"

    def commit(self, repository: Any, commit: str) -> str:
        """The page of a commit; empty where we do not know the host."""
        kind = repository.type if repository else None
        if not commit:
            return ""
        if kind == "TfsGit":
            return f"https://dev.azure.com/{self.organization}/{self.project}/_git/{repository.name or repository.id}/commit/{commit}"
        if kind == "GitHub":
            return f"https://github.com/{repository.id}/commit/{commit}"
        return ""


@dataclass(frozen=True, slots=True)
class Commit:
    """Who wrote the commit that a run builds, and its message."""

    committer: Person | None = None
    message: str = ""


def run(
    build: Any,
    records: Sequence[Any],
    site: Site,
    *,
    commit: Commit | None = None,
    parameters: Mapping[str, str] | None = None,
    rejected: frozenset[str] = frozenset(),
) -> Run:
    """A run out of its build and the records of its timeline; `rejected` holds the ids of approvals that were turned down."""
    commit = commit or Commit()
    state = _state(build.status, build.result)
    if state.finished and any(stage.state == "inProgress" for stage in Tree.of(records).stages()):
        state = State.RUNNING  # a stage was retried between the two readings
    parts = stages(records, finished=state.finished, rejected=rejected)
    queued = moment(build.queue_time) or moment(build.start_time) or datetime.fromtimestamp(0, UTC)
    return Run(
        id=build.id,
        number=build.build_number or str(build.id),
        pipeline_id=build.definition.id,
        pipeline=build.definition.name or "",
        state=_with_stages(state, parts),
        branch=build.source_branch or "",
        commit=build.source_version or "",
        url=site.run(build.id),
        created=queued,
        started=moment(build.start_time),
        finished=moment(build.finish_time),
        reason=build.reason or "manual",
        requested_by=person(build.requested_by),
        requested_for=person(build.requested_for),
        committer=commit.committer,
        commit_message=commit.message or (build.trigger_info or {}).get("ci.message", ""),
        commit_url=site.commit(build.repository, build.source_version or ""),
        parameters=dict(parameters if parameters is not None else build.template_parameters or {}),
        stages=parts,
    )


def queued(answer: Any, order: RunOrder, site: Site, now: datetime) -> Run:
    """The run that was just queued, out of the pipelines API's short answer."""
    return Run(
        id=answer.id,
        number=answer.name or str(answer.id),
        pipeline_id=order.pipeline_id,
        pipeline=(answer.pipeline.name if answer.pipeline else "") or "",
        state=_state(answer.state, answer.result),
        branch=order.branch,
        commit="",
        url=site.run(answer.id),
        created=moment(answer.created_date) or now,
        parameters=dict(order.parameters),
    )


def commit_of(answer: Any) -> Commit:
    """Who committed, out of the git API's commit."""
    who = answer.committer or answer.author
    return Commit(Person(name=who.name or who.email, email=who.email) if who else None, answer.comment or "")


def person(identity: Any) -> Person | None:
    """Somebody, out of the SDK's IdentityRef."""
    if identity is None:
        return None
    return Person(name=identity.display_name or identity.unique_name or "", email=identity.unique_name, id=identity.id)


def approver(identity: Any) -> Person:
    """Whoever is asked or answers, a person or a group, out of the SDK's IdentityRef; what a group is called there is no address."""
    name, group = identity.display_name or identity.unique_name or "somebody", bool(identity.is_container)
    return Person(name=name, email=None if group else identity.unique_name, id=identity.id, group=group)


def moment(value: datetime | str | None) -> datetime | None:
    """An aware time; Azure DevOps writes the year 1 where there is none."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if value is None or value.year == 1:
        return None
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)


# --- the timeline ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tree:
    """The records of a timeline by their parents, of the latest attempts only, each list in order."""

    children: Mapping[str | None, Sequence[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Any]) -> Tree:
        """The tree of these records."""
        children: dict[str | None, dict[tuple[str, str], Any]] = {}
        for record in records:
            siblings = children.setdefault(record.parent_id, {})
            # What ran again may be listed beside its earlier attempt, under the same identifier; tasks and checks stand for themselves.
            again = record.type in {"Stage", "Phase", "Job"} and record.identifier
            key = (record.type, record.identifier if again else record.id)
            if key not in siblings or _attempt(record) >= _attempt(siblings[key]):
                siblings[key] = record
        return cls({parent: sorted(siblings.values(), key=lambda r: r.order or 0) for parent, siblings in children.items()})

    def under(self, parent: Any, kind: str) -> list[Any]:
        """The records of that type directly under a record, or at the top under None."""
        return [record for record in self.children.get(parent.id if parent else None, ()) if record.type == kind]

    def stages(self) -> list[Any]:
        """The stages in order."""
        return self.under(None, "Stage")

    def jobs(self, stage: Any) -> list[Any]:
        """The jobs of a stage in order; between a stage and its jobs stand phases."""
        return [job for phase in self.under(stage, "Phase") for job in self.under(phase, "Job")]

    def checkpoint(self, stage: Any) -> Any | None:
        """The checks that a stage waits or waited for, of its latest attempt."""
        return max(self.under(stage, "Checkpoint"), key=_attempt, default=None)

    def approvals(self, stage: Any) -> list[Any]:
        """The approvals a stage has asked for in its latest attempt; each record's id is the approval's."""
        checkpoint = self.checkpoint(stage)
        return self.under(checkpoint, "Checkpoint.Approval") if checkpoint else []


def stages(records: Iterable[Any], *, finished: bool, rejected: frozenset[str]) -> tuple[Stage, ...]:
    """The stages of a run with their jobs and steps."""
    tree = Tree.of(records)
    return tuple(_stage(tree, record, finished=finished, rejected=rejected) for record in tree.stages())


def doubtful(records: Iterable[Any]) -> tuple[str, ...]:
    """The approvals that ended a stage: the timeline says that they failed, and only the approval itself says whether anybody said no."""
    tree = Tree.of(records)
    return tuple(
        approval.id
        for stage in tree.stages()
        if stage.state == "completed"
        for approval in tree.approvals(stage)
        if approval.state == "completed" and approval.result != "succeeded"
    )


def _waits(tree: Tree, stage: Any) -> bool:
    checkpoint = tree.checkpoint(stage)
    return stage.state != "completed" and checkpoint is not None and checkpoint.state == "inProgress"


def _stage(tree: Tree, record: Any, *, finished: bool, rejected: frozenset[str]) -> Stage:
    state = _state(record.state, record.result)
    if _waits(tree, record):
        state = State.WAITING
    elif record.state == "completed" and any(approval.id in rejected for approval in tree.approvals(record)):
        state = State.REJECTED
    elif record.state == "pending" and finished:
        state = State.SKIPPED
    return Stage(
        name=record.identifier or record.name,
        title=record.name or record.identifier,
        state=state,
        attempt=_attempt(record),
        started=moment(record.start_time),
        finished=moment(record.finish_time),
        jobs=tuple(_job(tree, job) for job in tree.jobs(record)),
    )


def _job(tree: Tree, record: Any) -> Job:
    return Job(
        name=record.name or "",
        state=_state(record.state, record.result),
        started=moment(record.start_time),
        finished=moment(record.finish_time),
        steps=tuple(
            Step(
                name=task.name or "",
                state=_state(task.state, task.result),
                started=moment(task.start_time),
                finished=moment(task.finish_time),
                log_id=task.log.id if task.log else None,
                errors=errors(task),
            )
            for task in tree.under(record, "Task")
        ),
        errors=errors(record),
    )


def _state(status: str | None, result: str | None) -> State:
    if status == "completed":
        return _RESULTS.get(result or "", State.FAILED)
    return _STATUSES.get(status or "", State.PENDING)


def _with_stages(state: State, parts: Sequence[Stage]) -> State:
    """What a build cannot say of itself: that it only waits, and that it ended because somebody said no."""
    states = {stage.state for stage in parts}
    if state is State.RUNNING and State.WAITING in states and State.RUNNING not in states:
        return State.WAITING
    if state in {State.FAILED, State.CANCELED} and State.REJECTED in states and State.FAILED not in states:
        return State.REJECTED
    return state


def _attempt(record: Any) -> int:
    return record.attempt or 1


# --- why it failed --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Culprit:
    """The first failed step of a run: its records, `task` None where the job failed without one."""

    stage: Any
    job: Any
    task: Any | None

    @property
    def log_id(self) -> int | None:
        """The log to read."""
        log = (self.task or self.job).log
        return log.id if log else None

    @property
    def errors(self) -> tuple[str, ...]:
        """Every error that was reported for the step, then for its job."""
        return (*(errors(self.task) if self.task else ()), *errors(self.job))


def culprit(records: Iterable[Any]) -> Culprit | None:
    """The first step that failed, in the order of the pipeline; None where no job failed."""
    tree = Tree.of(records)
    for stage in tree.stages():
        for job in tree.jobs(stage):
            if not _broken(job):
                continue
            task = next((task for task in tree.under(job, "Task") if _broken(task)), None)
            return Culprit(stage, job, task)
    return None


def _broken(record: Any) -> bool:
    return record.state == "completed" and record.result in {"failed", "abandoned"}


def errors(record: Any) -> tuple[str, ...]:
    """The errors a record reports."""
    return tuple(
        issue.message.strip() for issue in record.issues or () if issue.type == "error" and issue.message and issue.message.strip()
    )


_TIMESTAMP = re.compile(r"^\ufeff?\d{4}-\d\d-\d\dT[\d:.]+Z ?")
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_EXIT_CODE = re.compile(r"(exited with( exit)? code|exit code:? \d|process completed with exit code)", re.IGNORECASE)
_EXCEPTION = re.compile(r"^[\w.]*(Error|Exception|Interrupt|Warning|Failure|Exit)\b(:|$)")


def plain(lines: Iterable[str]) -> tuple[str, ...]:
    """Lines of a log without the agent's timestamps, colours and section marks."""
    bare = (_COLOUR.sub("", _TIMESTAMP.sub("", line)).rstrip() for line in lines)
    return tuple(line for line in bare if not line.startswith("##[section]"))


def first_error(reported: Sequence[str], lines: Sequence[str]) -> str:
    """The line that says most: a reported error, an error in the log, an exception; what only gives an exit code comes last."""
    marked = [line.removeprefix("##[error]").strip() for line in lines if line.startswith("##[error]")]
    raised = [line.strip() for line in reversed(lines) if _EXCEPTION.match(line)]
    known = [error.splitlines()[0] for error in reported]
    telling = [line for line in (*known, *marked) if not _EXIT_CODE.search(line)]
    return next(iter((*telling, *raised, *known, *marked)), "")


def failed_tests(results: Iterable[Any]) -> tuple[FailedTest, ...]:
    """Failing tests, out of the test API's results."""
    return tuple(
        FailedTest(result.automated_test_name or result.test_case_title or "a test", (result.error_message or "").strip())
        for result in results
    )[:TESTS]


# --- approvals ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gate:
    """What an approval stands in front of, as the timeline knows it."""

    stage: str
    attempt: int


def gates(records: Iterable[Any]) -> dict[str, Gate]:
    """The gates of a run by the ids of their approvals, of earlier attempts, too, where the timeline still has them."""
    tree = Tree.of(records)
    found: dict[str, Gate] = {}
    for stage in tree.stages():
        newest = tree.checkpoint(stage)
        for checkpoint in tree.under(stage, "Checkpoint"):
            attempt = _attempt(stage) if checkpoint is newest else _attempt(checkpoint)
            for record in tree.under(checkpoint, "Checkpoint.Approval"):
                found[record.id] = Gate(stage.identifier or stage.name, attempt)
    return found


def open_gate(records: Iterable[Any]) -> Gate | None:
    """The gate of the only stage that waits: what an approval stands for whose id the timeline does not have.

    That the ids are the same is what the service does; its documentation does not promise it.
    """
    tree = Tree.of(records)
    waiting = [stage for stage in tree.stages() if _waits(tree, stage)]
    return Gate(waiting[0].identifier or waiting[0].name, _attempt(waiting[0])) if len(waiting) == 1 else None


def owner(approval: Mapping[str, Any]) -> int | None:
    """The run an approval belongs to."""
    match approval:
        case {"pipeline": {"owner": {"id": int() | str() as run_id}}}:
            return int(run_id)
    return None


def approval(said: Mapping[str, Any], run_id: int, gate: Gate, environment: str) -> Approval:
    """An approval out of the approvals API's JSON."""
    return Approval(
        id=said["id"],
        run_id=run_id,
        stage=gate.stage,
        attempt=gate.attempt,
        environment=environment,
        state=_approval_state(said.get("status")),
        created=moment(said.get("createdOn")) or datetime.fromtimestamp(0, UTC),
        steps=tuple(_approval_step(step) for step in said.get("steps") or ()),
        minimum=said.get("minRequiredApprovers") or 0,
        instructions=said.get("instructions") or "",
        order=Order.SEQUENCE if said.get("executionOrder") == Order.SEQUENCE.value else Order.ANY,
        blocked=tuple(_approver(one) for one in said.get("blockedApprovers") or ()),
        mine=_mine(said.get("permissions")),
    )


def environment(said: Mapping[str, Any], stage: str, known: Mapping[str, str]) -> str:
    """The environment an approval protects: as it says itself, else as the team declares for the stage."""
    match said:
        case {"resource": {"name": str() as name}} if name:
            return name
    return known.get(stage, stage)


def proved(before: Approval, after: Approval, answer: Answer, me: Person) -> Approval:
    """The approval after an answer, if the answer counted and is on record as this identity's. Raises Refused."""
    if not accepted(before, after, answer):
        raise Refused("Azure DevOps did not accept the answer: this identity is not among the approvers, or has answered before.")
    old = {(step.assigned.id, step.at) for step in before.steps if step.actual is not None}
    new = [step for step in after.steps if step.actual is not None and (step.assigned.id, step.at) not in old]
    # Others may have answered since the reading, and this identity something else.
    if not any(step.actual is not None and step.actual.id == me.id and step.state.value == answer.value for step in new):
        raise Refused("Azure DevOps did not record this as your answer. Look at the approval there.")
    return after


def accepted(before: Approval, after: Approval, answer: Answer) -> bool:
    """Whether the answer counted: Azure DevOps may answer 200 and change nothing."""
    answered = sum(step.state.value == answer.value for step in after.steps)
    return after.state.value == answer.value or answered > sum(step.state.value == answer.value for step in before.steps)


def succeeded(records: Iterable[Any], stage: str) -> bool:
    """Whether the stage has done its work, with or without issues."""
    good = {State.SUCCEEDED, State.PARTIAL}
    return any((one.identifier or one.name) == stage and _state(one.state, one.result) in good for one in Tree.of(records).stages())


def somebody(identity: Any) -> Person:
    """Somebody, out of the identity API's Identity."""
    properties = identity.properties or {}
    mail = next((value.get("$value") for name in ("Account", "Mail") if isinstance(value := properties.get(name), dict)), None)
    return Person(name=identity.custom_display_name or identity.provider_display_name or "somebody", email=mail, id=identity.id)


def groups(identities: Iterable[Any], project: str) -> frozenset[str]:
    """The names of the project's own groups, which stand behind its name: `[ml-delivery]\\Release Managers`."""
    own = f"[{project}]\\".lower()
    names = [one.provider_display_name or "" for one in identities if one]
    return frozenset(name[len(own) :] for name in names if name.lower().startswith(own))


def _approval_step(step: Mapping[str, Any]) -> ApprovalStep:
    actual = step.get("actualApprover")
    return ApprovalStep(
        assigned=_approver(step.get("assignedApprover") or {}),
        state=_approval_state(step.get("status")),
        actual=_approver(actual) if actual else None,
        comment=step.get("comment") or "",
        at=moment(step.get("lastModifiedOn")) if actual else None,
        turn=step.get("status") != "uninitiated",
        until=moment(step.get("deferredTo")),
    )


def _approver(identity: Mapping[str, Any]) -> Person:
    unique = identity.get("uniqueName")
    name = identity.get("displayName") or unique or "somebody"
    return Person(name=name, email=unique, id=identity.get("id"), group=bool(identity.get("isContainer")))


def _mine(permissions: object) -> bool | None:
    """Whether whoever asked may answer; None where the service does not say."""
    if not isinstance(permissions, str):
        return None
    return "update" in {word.strip() for word in permissions.split(",")}


def _approval_state(status: str | None) -> ApprovalState:
    """Uninitiated steps wait for their turn; a status we do not know has ended without an answer."""
    if status in {None, "undefined", "uninitiated"}:
        return ApprovalState.PENDING
    try:
        return ApprovalState(status)
    except ValueError:
        return ApprovalState.CANCELED


# --- artifacts ------------------------------------------------------------------------------------------------------


def files(archive: bytes, name: str) -> dict[str, bytes]:
    """The files of an artifact's zip by their path inside the artifact. Raises Refused for one that is too big or plays tricks."""
    found: dict[str, bytes] = {}
    left = ARTIFACT_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            if len(entries) > ARTIFACT_FILES:
                raise Refused(f"The artifact {name} has more than {ARTIFACT_FILES} files.")
            for entry in entries:
                with opened.open(entry) as file:
                    content = file.read(left + 1)  # an entry may lie about its size
                if len(content) > left:
                    raise Refused(f"The artifact {name} is bigger than {ARTIFACT_BYTES // 1024**2} MiB.")
                left -= len(content)
                found[_inside(entry.filename, name)] = content
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError):
        raise Refused(f"The artifact {name} is not a readable zip.") from None
    return found


def _inside(path: str, name: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or "\\" in path or ":" in parts[0] or path.startswith("/"):
        raise Refused(f"The artifact {name} has a file outside its folder.")
    # The service puts everything into a folder of the artifact's name.
    return str(PurePosixPath(*parts[1:])) if len(parts) > 1 and parts[0] == name else str(PurePosixPath(*parts))
