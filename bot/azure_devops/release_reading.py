"""What Azure DevOps says of classic releases, as our types: SDK models in, core types out. Pure; no SDK, no clock, no await.

A *stage* is what the REST API calls an environment, an *attempt* what it calls a deploy step.
https://learn.microsoft.com/rest/api/azure/devops/release/releases/get-release
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bot.azure_devops.reading import Site, approver, moment, person
from bot.core.approvals import Answer, Approval, ApprovalState, ApprovalStep
from bot.core.errors import Refused
from bot.core.people import Person
from bot.core.references import Thing
from bot.core.runs import Job, Run, Stage, State, Step

_STAGES = {
    "undefined": State.PENDING,
    "notStarted": State.PENDING,
    "scheduled": State.PENDING,
    "queued": State.PENDING,
    "inProgress": State.RUNNING,
    "succeeded": State.SUCCEEDED,
    "partiallySucceeded": State.PARTIAL,
    "canceled": State.CANCELED,
    "rejected": State.FAILED,  # by a person, too: see _stage
}
_TASKS = {
    "unknown": State.PENDING,
    "pending": State.PENDING,
    "inProgress": State.RUNNING,
    "success": State.SUCCEEDED,
    "succeeded": State.SUCCEEDED,
    "partiallySucceeded": State.PARTIAL,
    "canceled": State.CANCELED,
    "skipped": State.SKIPPED,
    "failure": State.FAILED,
    "failed": State.FAILED,
}
_APPROVALS = {
    "pending": ApprovalState.PENDING,
    "approved": ApprovalState.APPROVED,
    "rejected": ApprovalState.REJECTED,
    "canceled": ApprovalState.CANCELED,
    "skipped": ApprovalState.SKIPPED,
    "reassigned": ApprovalState.SKIPPED,  # somebody else was asked instead
}
# Of several stages at rest the first of these says how the release stands.
_WORST = (State.FAILED, State.REJECTED, State.CANCELED, State.PARTIAL, State.SUCCEEDED)


def release(said: Any, site: Site) -> Run:
    """A release with its stages, whatever of them the answer has."""
    environments = _ordered(said)
    parts = tuple(_stage(environment) for environment in environments)
    state = _state(said, environments, parts)
    source = _source(said)
    reference = source.definition_reference if source is not None else {}
    build, number = _named(reference, "version")
    return Run(
        id=said.id,
        number=said.name or str(said.id),
        pipeline_id=said.release_definition.id,
        pipeline=said.release_definition.name or "",
        state=state,
        branch=_named(reference, "branch")[0],
        commit=_named(reference, "sourceVersion")[0],
        url=site.release(said.id),
        created=moment(said.created_on) or datetime.fromtimestamp(0, UTC),
        started=min((part.started for part in parts if part.started), default=None),
        finished=max((part.finished for part in parts if part.finished), default=None) if state.finished else None,
        reason=said.reason or "manual",
        requested_by=person(said.created_by),
        requested_for=person(said.created_for) or person(said.created_by),
        stages=parts,
        thing=Thing.RELEASE,
        source=int(build) if build else None,
        source_number=number,
        source_url=site.run(int(build)) if build else "",
    )


def approvals(said: Any) -> tuple[Approval, ...]:
    """Every approval of a release that people were asked for, decided ones too, in the order of its stages."""
    return tuple(
        approval(one, said.id, environment.name)
        for environment in _ordered(said)
        for one in (*(environment.pre_deploy_approvals or ()), *(environment.post_deploy_approvals or ()))
        if not one.is_automated
    )


def approval(said: Any, release_id: int, stage: str) -> Approval:
    """One approval: what one approver, a person or a group, was asked."""
    state = _APPROVALS.get(said.status, ApprovalState.CANCELED)
    actual = approver(said.approved_by) if said.approved_by is not None else None
    step = ApprovalStep(
        assigned=approver(said.approver),
        state=state,
        actual=actual,
        comment=said.comments or "",
        at=moment(said.modified_on) if actual is not None else None,
    )
    return Approval(
        id=str(said.id),
        run_id=release_id,
        stage=stage,
        attempt=said.attempt or 1,
        environment=stage,
        state=state,
        created=moment(said.created_on) or datetime.fromtimestamp(0, UTC),
        steps=(step,),
        minimum=1,
        thing=Thing.RELEASE,
        post=said.approval_type == "postDeploy",
    )


def proved(after: Approval, answer: Answer, me: Person) -> Approval:
    """The approval after an answer, if it is on record as this identity's: a 200 alone proves nothing. Raises Refused."""
    if after.state.value != answer.value:
        raise Refused("Azure DevOps did not accept the answer: this identity is not among the approvers, or has answered before.")
    if not any(step.actual is not None and step.actual.id == me.id for step in after.steps):
        raise Refused("Azure DevOps did not record this as your answer. Look at the approval there.")
    return after


def handed_over(after: Approval, to: Person) -> Approval:
    """The approval after it was handed over, if it was. Raises Refused."""
    if not any(step.assigned.id == to.id for step in after.steps):
        raise Refused("Azure DevOps did not hand it over. Look at the approval there.")
    return after


def environment(said: Any, stage: str) -> Any | None:
    """The stage of a release by its name."""
    return next((one for one in said.environments or () if one.name == stage), None)


def latest(environment: Any) -> Any | None:
    """The last attempt to deploy to a stage, where the answer has attempts."""
    return max(environment.deploy_steps or (), key=lambda attempt: attempt.attempt or 1, default=None)


@dataclass(frozen=True, slots=True)
class Culprit:
    """The first failed step of a release: its stage, attempt, phase, job, and `task`, None where the job failed without one."""

    environment: Any
    attempt: Any
    phase: Any | None = None
    job: Any | None = None
    task: Any | None = None

    @property
    def errors(self) -> tuple[str, ...]:
        """Every error that was reported, the closest first."""
        logged = [one.error_log for one in (self.phase, self.attempt) if one is not None and one.error_log]
        return (*(error for one in (self.task, self.job, self.attempt) if one is not None for error in _errors(one)), *logged)


def culprit(said: Any) -> Culprit | None:
    """The first step that failed, in the order of the stages; None where no deployment failed."""
    for one in _ordered(said):
        attempt = latest(one)
        if attempt is None or _stage(one).state is not State.FAILED:
            continue
        for phase in attempt.release_deploy_phases or ():
            for each in phase.deployment_jobs or ():
                task = next((task for task in each.tasks or () if _TASKS.get(task.status) is State.FAILED), None)
                if task is not None or (each.job is not None and _TASKS.get(each.job.status) is State.FAILED):
                    return Culprit(one, attempt, phase, each.job, task)
        return Culprit(one, attempt)
    return None


def _ordered(said: Any) -> list[Any]:
    return sorted(said.environments or (), key=lambda one: (one.rank or 0, one.id))


def _source(said: Any) -> Any | None:
    """The build that is deployed: the primary artifact, if that is one."""
    builds = [one for one in said.artifacts or () if one.type == "Build" and _named(one.definition_reference or {}, "version")[0].isdigit()]
    return next((one for one in builds if one.is_primary), builds[0] if builds else None)


def _named(reference: Any, key: str) -> tuple[str, str]:
    """The id and the name of a part of what an artifact refers to."""
    found = reference.get(key)
    return (found.id or "", found.name or "") if found is not None else ("", "")


def _state(said: Any, environments: Sequence[Any], parts: Sequence[Stage]) -> State:
    """A release has no state of its own: it moves as long as a stage does, and then stands as its stages do."""
    if said.status == "abandoned":
        return State.CANCELED
    states = {part.state for part in parts}
    for moving in (State.RUNNING, State.WAITING):
        if moving in states:
            return moving
    if any(one.status == "queued" or _due(one, environments) for one in environments):
        return State.RUNNING
    return next((state for state in _WORST if state in states), State.PENDING)


def _due(one: Any, environments: Iterable[Any]) -> bool:
    """Whether the stage starts by itself any moment: it has not been started, and all that it waits for have succeeded."""
    if one.status != "notStarted":
        return False
    succeeded = {other.name for other in environments if other.status == "succeeded"}
    awaited = {condition.name for condition in one.conditions or () if condition.condition_type == "environmentState"}
    return bool(awaited) and awaited <= succeeded


def _stage(one: Any) -> Stage:
    attempt, asked = latest(one), [*(one.pre_deploy_approvals or ()), *(one.post_deploy_approvals or ())]
    number = max([each.attempt or 1 for each in (*asked, *(one.deploy_steps or ()))], default=1)
    answers = {each.status for each in asked if (each.attempt or 1) == number}
    state = _STAGES.get(one.status, State.PENDING)
    if not state.finished and "pending" in answers:
        state = State.WAITING
    elif state is State.FAILED and "rejected" in answers:
        state = State.REJECTED
    jobs = tuple(
        _job(phase, each) for phase in (attempt.release_deploy_phases if attempt else None) or () for each in phase.deployment_jobs or ()
    )
    return Stage(
        name=one.name,
        title=one.name,
        state=state,
        attempt=number,
        started=min((job.started for job in jobs if job.started), default=None),
        finished=moment(attempt.last_modified_on) if attempt is not None and state.finished else None,
        jobs=jobs,
    )


def _job(phase: Any, each: Any) -> Job:
    job = each.job
    return Job(
        name=(job.name if job else None) or phase.name or "",
        state=_TASKS.get(job.status if job else "", State.PENDING),
        started=_began(job) if job else None,
        finished=_ended(job) if job else None,
        steps=tuple(
            Step(
                name=task.name or "",
                state=_TASKS.get(task.status, State.PENDING),
                started=_began(task),
                finished=_ended(task),
                log_id=task.id if task.log_url else None,
                errors=_errors(task),
            )
            for task in each.tasks or ()
        ),
        errors=_errors(job) if job else (),
    )


def _began(task: Any) -> datetime | None:
    return moment(task.start_time) or moment(task.date_started)


def _ended(task: Any) -> datetime | None:
    return moment(task.finish_time) or moment(task.date_ended)


def _errors(one: Any) -> tuple[str, ...]:
    """The errors that a task, a job or an attempt reports; the service writes their kind in either case."""
    return tuple(
        issue.message.strip()
        for issue in one.issues or ()
        if (issue.issue_type or "").lower() == "error" and issue.message and issue.message.strip()
    )
