"""Turns a plan into a run: stages in their order, checks before them, jobs on two agents, retries, cancellation; it survives restarts.

One task conducts each run; the records are the truth it goes by, so that it can start in the middle.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import shutil
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar
from xml.etree.ElementTree import ParseError

from sandbox.azure_devops import approvals, events, junit, views
from sandbox.azure_devops.agent import SUMMARY, JobOutcome, Space, Watch
from sandbox.azure_devops.approvals import Answer, Denied
from sandbox.azure_devops.changes import Changes
from sandbox.azure_devops.expressions import BadExpression, Ran, Scope, evaluate, expand_macros, truth
from sandbox.azure_devops.hooks import Hooks
from sandbox.azure_devops.plan import PlanJob, PlanStage, Result
from sandbox.azure_devops.records import (
    Approval,
    Artifact,
    Deployment,
    Environment,
    Issue,
    Job,
    Run,
    Stage,
    Store,
    TestRun,
    job_of,
    now,
    planned,
)
from sandbox.azure_devops.watch import RESULTS, JobWatch, end_step
from sandbox.names import COLLECTION_ID, PROJECT, PROJECT_ID, REPOSITORY_ID, Character

log = logging.getLogger("sandbox.azure_devops")

AGENTS = 2  # jobs at a time
WORKER = "Callboard sandbox 1"
LOST_AGENT = (
    "We stopped hearing from agent {agent}. Verify the agent machine is running and has a healthy network connection. "
    "Anything that terminates an agent process, starves it for CPU, or blocks its network access can cause this error."
)
# The service tells of runs and stages about a second after they moved, of builds about six.
SOON, LATER = 1.0, 6.0

_SEEN = {word: result for result, word in RESULTS.items()} | {"rejected": Result.FAILED}
_GOOD = frozenset({"succeeded", "succeededWithIssues"})

NodeT = TypeVar("NodeT", Stage, Job)


class RunJob(Protocol):
    """The agent, or what stands for it in a test."""

    async def __call__(self, job: PlanJob, space: Space, watch: Watch) -> JobOutcome:
        """Run the job."""
        ...


class Places:
    """Where the files of runs are: logs, artifacts, working folders."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folder(self, run: int) -> Path:
        """Everything of a run."""
        return self._folder / str(run)

    def log(self, run: int, number: int) -> Path:
        """A log's file."""
        return self._folder / str(run) / "logs" / f"{number}.log"

    def artifacts(self, run: int) -> Path:
        """The folder with one folder for each artifact."""
        return self._folder / str(run) / "artifacts"

    def work(self, run: int, stage: Stage, job: Job) -> Path:
        """A job's working folder."""
        return self._folder / str(run) / "work" / f"{stage.name}.{stage.attempt}.{job.name}.{job.attempt}"

    def clear_work(self) -> None:
        """Remove the working folders that an ended sandbox left."""
        for folder in self._folder.glob("*/work"):
            shutil.rmtree(folder, ignore_errors=True)


class Orchestrator:
    """Conducts every run of the store."""

    def __init__(
        self,
        store: Store,
        hooks: Hooks,
        places: Places,
        *,
        changes: Changes,
        run_job: RunJob,
        repository: Path,
        environment: Callable[[], Mapping[str, str]],
        access_token: Callable[[], str],
        completed: Callable[[Run], None],
    ) -> None:
        self._changes = changes
        self._store = store
        self._hooks = hooks
        self._places = places
        self._run_job = run_job
        self._repository = repository
        self._environment = environment
        self._access_token = access_token
        self._completed = completed
        self.agents = asyncio.Semaphore(AGENTS)
        self._conductors: dict[int, asyncio.Task[None]] = {}
        self._watches: dict[str, _Watch] = {}

    async def start(self) -> None:
        """Go on with what was going on; jobs that ran when the sandbox ended have lost their agent."""
        await asyncio.to_thread(self._places.clear_work)
        for run in self._store.runs:
            if run.state != "completed":
                self._mourn(run)
                self._conduct(run)

    async def stop(self) -> None:
        """Stop conducting; the records stay as they are."""
        conductors = tuple(self._conductors.values())
        for conductor in conductors:
            conductor.cancel()
        await asyncio.gather(*conductors, return_exceptions=True)

    def begin(self, run: Run) -> None:
        """Start a run that was just recorded."""
        run.state, run.started = "inProgress", now()
        self._keep(run)
        self._hooks.happened(events.run_moved(run, now()), delay=SOON)
        self._conduct(run)

    def cancel(self, run: Run, who: Character) -> None:
        """Cancel what runs and what waits; a completed run stays as it is."""
        if run.state in {"completed", "cancelling"}:
            return
        run.state, run.changed_by = "cancelling", who.oid
        self._hooks.happened(events.run_moved(run, now()), delay=SOON)
        for stage in run.stages:
            self._cancel_stage(run, stage)
        self._keep(run)

    def cancel_stage(self, run: Run, stage: Stage, who: Character) -> None:
        """Cancel one stage. Raises Denied where it has completed."""
        if stage.state == "completed":
            raise Denied(400, "InvalidStageStateException", f"The stage {stage.name} is completed and cannot be canceled.")
        run.changed_by = who.oid
        self._cancel_stage(run, stage)
        stage.canceling = True
        self._keep(run)

    def retry(self, run: Run, stage: Stage, who: Character, *, everything: bool = False) -> None:
        """Run the failed jobs of a stage again (or all), and what depends on it afterwards. Raises Denied."""
        if stage.state != "completed":
            raise Denied(400, "InvalidStageStateException", f"The stage {stage.name} has not completed and cannot be retried.")
        if stage.result == "skipped":
            raise Denied(400, "InvalidStageStateException", f"The stage {stage.name} was skipped and cannot be retried.")
        if stage.result in _GOOD and not everything:
            raise Denied(400, "InvalidStageStateException", f"The stage {stage.name} has no failed jobs to retry.")
        _again(run, stage, everything=everything)
        for name in _dependents(run, stage.name):
            follower = run.stage(name)
            if follower is not None and follower.state == "completed":
                _again(run, follower, everything=True)
        run.changed_by = who.oid
        run.state, run.result, run.finished = "inProgress", None, None
        self._keep(run)
        self._hooks.happened(events.run_moved(run, now()), delay=SOON)
        self._conduct(run)

    def decide(self, approval: Approval, who: Character, answer: Answer) -> None:
        """Answer an approval as this person. Raises Denied."""
        run = self._run(approval.run)
        approvals.decide(approval, who, answer, run.requested_for, now())
        self._store.approvals.keep(approval.id, approval)
        if approval.status != "pending":
            self._told(run, approval)
        self._keep(run)

    def environment_removed(self, environment: Environment) -> None:
        """Nobody can approve for what is gone: what waited for it fails."""
        for approval in self._store.approvals:
            if approval.environment == environment.id and approval.status == "pending":
                run = self._run(approval.run)
                self._close(run, approval, "canceled")
                self._keep(run)

    def time_out(self, approval: Approval) -> None:
        """Let an approval have waited long enough."""
        approval.expires = now()
        self._store.approvals.keep(approval.id, approval)
        self._keep(self._run(approval.run))

    def _conduct(self, run: Run) -> None:
        present = self._conductors.get(run.id)
        if present is None or present.done():
            task = asyncio.create_task(self._conductor(run), name=f"run {run.id}")
            self._conductors[run.id] = task
            task.add_done_callback(lambda done: self._conducted(run, done))

    def _conducted(self, run: Run, task: asyncio.Task[None]) -> None:
        if self._conductors.get(run.id) is task:
            del self._conductors[run.id]
        if not task.cancelled() and (trouble := task.exception()):
            log.error("run %s cannot go on", run.id, exc_info=trouble)

    async def _conductor(self, run: Run) -> None:
        depends = {stage.name: stage.depends_on for stage in run.plan.stages}
        while any(stage.state != "completed" for stage in run.stages):
            await self._walk(run.stages, depends, lambda stage: self._stage(run, stage))
        self._complete(run)

    async def _walk(
        self, nodes: Collection[NodeT], depends: Mapping[str, Collection[str]], work: Callable[[NodeT], Awaitable[None]]
    ) -> None:
        """Work on every node that is not completed, as soon as all it depends on is; return when nothing is left that can be done."""
        tasks: dict[str, asyncio.Future[None]] = {}
        by_name = {node.name: node for node in nodes}

        def ready() -> list[NodeT]:
            return [
                node
                for node in nodes
                if node.state != "completed"
                and node.name not in tasks
                and all(by_name[name].state == "completed" for name in depends[node.name])
            ]

        try:
            while True:
                for node in ready():
                    tasks[node.name] = asyncio.ensure_future(work(node))
                if not tasks:
                    return
                # A retry makes a stage ready while others still run.
                more = asyncio.ensure_future(self._changes.until(lambda: bool(ready())))
                try:
                    await asyncio.wait({*tasks.values(), more}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    more.cancel()
                for name, task in tuple(tasks.items()):
                    if task.done():
                        del tasks[name]
                        task.result()
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    def _complete(self, run: Run) -> None:
        run.result = _run_result(run)
        run.state, run.finished = "completed", now()
        self._keep(run)
        pipeline = self._store.pipelines.get(run.pipeline)
        self._hooks.happened(events.run_moved(run, now()), delay=SOON)
        self._hooks.happened(events.build_completed(run, pipeline.name if pipeline else "", now()), delay=LATER)
        self._completed(run)

    async def _stage(self, run: Run, stage: Stage) -> None:
        plan = planned(run.plan, stage.name)
        if not stage.entered:
            if stage.canceling or not self._holds(plan.condition, _stage_scope(run, plan), stage):
                self._end_stage(run, stage, "canceled" if stage.canceling else "skipped")
                return
            stage.entered = True
            self._moved(run, stage)
        if stage.state == "pending":
            blocked = await self._checks(run, stage)
            if blocked is not None:
                self._end_stage(run, stage, blocked)
                return
            stage.state, stage.started = "inProgress", now()
            self._moved(run, stage)
        depends = {job.name: job.depends_on for job in plan.jobs}
        await self._walk(stage.jobs, depends, lambda job: self._job(run, stage, job))
        self._end_stage(run, stage, _stage_result(stage, plan))

    def _end_stage(self, run: Run, stage: Stage, result: str) -> None:
        at = now()
        stage.state, stage.result = "completed", result
        if stage.entered:
            stage.started = stage.started or at
            stage.finished = at
        self._moved(run, stage)

    async def _checks(self, run: Run, stage: Stage) -> str | None:
        """Wait for the approvals that protect the stage's environments; None to go on, or the stage's result."""
        if not stage.approvals:
            self._ask(run, stage)
        asked = self._store.approvals_of(stage)

        def decided() -> bool:
            over = any(one.status in {"rejected", "canceled"} for one in asked)
            return stage.canceling or over or all(one.status != "pending" for one in asked)

        def stirred(moment: datetime) -> bool:
            return decided() or _next_moment(asked) != moment

        while not decided():
            moment = _next_moment(asked)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changes.until(partial(stirred, moment)), max((moment - now()).total_seconds(), 0))
            for approval in asked:
                if approvals.take_effect(approval, now()):
                    self._store.approvals.keep(approval.id, approval)
                    if approval.status != "pending":
                        self._told(run, approval)
                    self._keep(run)
            if any(one.status == "pending" and one.expires <= now() for one in asked):
                break
        if stage.canceling:
            return "canceled"
        for approval in asked:
            if approval.status == "pending":
                self._close(run, approval, "timedOut" if approval.expires <= now() else "canceled")
        if any(approval.status == "rejected" for approval in asked):
            return "rejected"
        gone = next((one for one in self._store.environments if one.deleted and one.id in {asking.environment for asking in asked}), None)
        if gone:
            self._miss(run, stage, gone)
            return "failed"
        return None if all(approval.status == "approved" for approval in asked) else "skipped"

    def _miss(self, run: Run, stage: Stage, environment: Environment) -> None:
        """End the jobs of a stage whose environment is gone: the first one says so."""
        missing = f"Environment {environment.name} does not exist or has been deleted."
        waiting = [job for job in stage.jobs if job.state != "completed"]
        waiting[0].issues.append(Issue("error", missing))
        for job in waiting:
            self._end_job(run, stage, job, "failed" if job is waiting[0] else "skipped")

    def _close(self, run: Run, approval: Approval, status: str) -> None:
        """End an approval that nobody answered."""
        approvals.close(approval, status, now())
        self._store.approvals.keep(approval.id, approval)
        self._told(run, approval)

    def _ask(self, run: Run, stage: Stage) -> None:
        names = dict.fromkeys(job.environment for job in stage.jobs if job.environment and job.state != "completed")
        protected = {self._environment_of(run, name).id for name in names}
        for check in self._store.checks:
            if check.environment in protected:
                approval = approvals.ask(check, run.id, stage.name, stage.attempt, now())
                self._store.approvals.keep(approval.id, approval)
                stage.approvals.append(approval.id)
                self._told(run, approval)
        self._keep(run)

    def _environment_of(self, run: Run, name: str) -> Environment:
        """The environment, made on first use as the service does."""
        found = self._store.environment(name)
        if found is None:
            found = Environment(self._store.state.next("ado.environment"), name, "", now(), run.requested_for)
            self._store.environments.keep(found.id, found)
        return found

    async def _job(self, run: Run, stage: Stage, job: Job) -> None:
        plan = next(one for one in planned(run.plan, stage.name).jobs if one.name == job.name)
        scope = _job_scope(run, stage, plan, self._variables(run, stage, job))
        if not self._holds(plan.condition, scope, job):
            self._end_job(run, stage, job, "canceled" if stage.canceling else "skipped")
            return
        job.queued = job.queued or now()
        self._job_moved(run, stage, job)
        async with self.agents:
            if stage.canceling and not self._holds(plan.condition, _canceled(scope), job):
                self._end_job(run, stage, job, "canceled")
                return
            await self._work(run, stage, job, plan, scope)

    async def _work(self, run: Run, stage: Stage, job: Job, plan: PlanJob, scope: Scope) -> None:
        job.state, job.started, job.worker = "inProgress", now(), WORKER
        for step in job.steps:
            step.title = expand_macros(step.title, scope.variables)
        space = Space(
            folder=self._places.work(run.id, stage, job),
            repository=self._repository,
            commit=run.commit,
            artifacts=self._places.artifacts(run.id),
            environment=self._environment(),
            scope=scope,
            secrets=frozenset({*run.secrets, "System.AccessToken"}),
        )
        space.artifacts.mkdir(parents=True, exist_ok=True)
        watch = _Watch(self, run, stage, job)
        self._watches[job.id] = watch
        if stage.canceling:
            watch.canceled.set()
        deployment = self._deploys(run, stage, job)
        self._job_moved(run, stage, job)
        try:
            watch.open(0, f"Job started on agent {WORKER}.\nBuild directory: {space.folder.name}\nCommit: {run.commit}")
            outcome = await self._run_job(plan, space, watch)
            job.outputs = dict(outcome.outputs)
            result = RESULTS[outcome.result]
        except Exception as trouble:
            # A broken agent fails its job, never the sandbox.
            log.exception("the agent broke in job %s of run %s", job.name, run.id)
            job.issues.append(Issue("error", f"The agent failed: {type(trouble).__name__}: {trouble}"))
            result = "failed"
        finally:
            watch.close()
            del self._watches[job.id]
        await asyncio.to_thread(shutil.rmtree, space.folder, ignore_errors=True)
        watch.open(len(job.steps) - 1, "Cleaning up task key\nStart cleaning up orphan processes.\nFinished cleaning up.")
        if deployment:
            deployment.result, deployment.finished = result, now()
            self._store.deployments.keep(deployment.id, deployment)
        self._end_job(run, stage, job, result)

    def _deploys(self, run: Run, stage: Stage, job: Job) -> Deployment | None:
        if job.environment is None:
            return None
        environment = self._environment_of(run, job.environment)
        number = self._store.state.next("ado.deployment")
        record = Deployment(
            id=number,
            environment=environment.id,
            run=run.id,
            stage=stage.name,
            stage_attempt=stage.attempt,
            job=job.name,
            job_attempt=job.attempt,
            queued=job.queued or now(),
            started=job.started,
        )
        return self._store.deployments.keep(number, record)

    def _end_job(self, run: Run, stage: Stage, job: Job, result: str) -> None:
        job.state, job.result, job.finished = "completed", result, now()
        for step in job.steps:
            end_step(step, "skipped" if step.state == "pending" else "canceled")
        self._job_moved(run, stage, job)

    def _cancel_stage(self, run: Run, stage: Stage) -> None:
        if stage.state == "completed":
            return
        stage.canceling = stage.entered
        for approval in self._store.approvals_of(stage):
            if approval.status == "pending":
                self._close(run, approval, "canceled")
        for job in stage.jobs:
            if job.id in self._watches:
                self._watches[job.id].canceled.set()

    def _mourn(self, run: Run) -> None:
        """Jobs whose agent died with the sandbox have failed."""
        for stage in run.stages:
            for job in stage.jobs:
                if job.state == "inProgress":
                    job.issues.append(Issue("error", LOST_AGENT.format(agent=WORKER)))
                    job.state, job.result, job.finished = "completed", "canceled" if stage.canceling else "failed", now()
                    for step in job.steps:
                        end_step(step, "skipped" if step.state == "pending" else "canceled")
                    self._job_moved(run, stage, job)
        for deployment in self._store.deployments:
            if deployment.run == run.id and deployment.result is None:
                deployment.result, deployment.finished = "failed", now()
                self._store.deployments.keep(deployment.id, deployment)

    def _holds(self, condition: str, scope: Scope, of: Stage | Job) -> bool:
        try:
            return truth(evaluate(condition, scope))
        except BadExpression as wrong:
            if isinstance(of, Job):
                of.issues.append(Issue("error", f"The condition of job {of.name} is wrong: {wrong}"))
            log.warning("the condition of %s is wrong: %s", of.name, wrong)
            return False

    def _variables(self, run: Run, stage: Stage, job: Job) -> dict[str, str]:
        pipeline = self._store.pipelines.get(run.pipeline)
        assert pipeline is not None
        # What the YAML says wins over what was set when queueing, and that over the pipeline's own variables; nothing over the service's.
        # https://learn.microsoft.com/azure/devops/pipelines/process/variables#expansion-of-variables
        return {
            **pipeline.variables,
            **run.variables,
            **run.plan.variables,
            **planned(run.plan, stage.name).variables,
            **predefined(run, pipeline.name),
            "System.StageName": stage.name,
            "System.StageDisplayName": stage.title,
            "System.StageAttempt": str(stage.attempt),
            "System.PhaseName": job.name,
            "System.PhaseDisplayName": job.title,
            "System.PhaseAttempt": str(job.attempt),
            "System.JobId": job.id,
            "System.JobAttempt": str(job.attempt),
            "System.TimelineId": run.timeline,
            "System.PlanId": run.id_of_plan,
            "System.AccessToken": self._access_token(),
        }

    def _run(self, number: int) -> Run:
        run = self._store.runs.get(number)
        assert run is not None
        return run

    def _told(self, run: Run, approval: Approval) -> None:
        environment = self._store.environments.get(approval.environment)
        self._hooks.happened(events.approval_moved(run, approval, environment.name if environment else "", now()), delay=SOON)

    def _moved(self, run: Run, stage: Stage) -> None:
        self._keep(run)
        self._hooks.happened(events.stage_moved(run, stage, now()), delay=SOON)

    def _job_moved(self, run: Run, stage: Stage, job: Job) -> None:
        self._keep(run)
        self._hooks.happened(events.job_moved(run, stage, job, now()), delay=SOON)

    def _keep(self, run: Run) -> None:
        run.change += 1
        run.changed = now()
        self._store.runs.keep(run.id, run)
        self._changes.happened()

    def changed(self, run: Run) -> None:
        """A step of the run changed."""
        self._keep(run)

    def log_file(self, run: Run) -> tuple[int, Path]:
        """The number and file of the run's next log."""
        run.logs += 1
        file = self._places.log(run.id, run.logs)
        file.parent.mkdir(parents=True, exist_ok=True)
        return run.logs, file

    def published(self, run: Run, job: Job, name: str, kind: str) -> None:
        """An artifact is there, or has more in it."""
        if not any(artifact.name == name for artifact in run.artifacts):
            run.artifacts.append(Artifact(self._store.state.next("ado.artifact"), name, kind, job.id))
        self._keep(run)

    def tested(self, run: Run, stage: Stage, job: Job, file: Path, title: str) -> str | None:
        """Take up a JUnit file; what is wrong with it, if anything."""
        number = self._store.state.next("ado.test")
        try:
            found = junit.read(file.read_text(errors="replace"))
        except (OSError, ParseError, ValueError) as wrong:
            return f"Failed to read {file.name}. Error : {wrong}"
        name = title or f"JUnit_TestResults_{run.id}"
        published = TestRun(number, run.id, name, stage.name, job.name, now(), list(found))
        self._store.tests.keep(number, published)
        self._keep(run)
        return None


class _Watch(JobWatch):
    """Writes down what the agent reports of one job of a run."""

    def __init__(self, orchestrator: Orchestrator, run: Run, stage: Stage, job: Job) -> None:
        super().__init__(job, open_log=lambda: orchestrator.log_file(run), changed=lambda: orchestrator.changed(run))
        self._to = orchestrator
        self._run = run
        self._stage = stage
        self._job = job

    def artifact(self, name: str, folder: Path, kind: str) -> None:
        """See Watch."""
        self._to.published(self._run, self._job, name, kind)

    def tests(self, file: Path, title: str) -> None:
        """See Watch."""
        wrong = self._to.tested(self._run, self._stage, self._job, file, title)
        if wrong:
            self.write(f"{now():%Y-%m-%dT%H:%M:%S.%f}0Z ##[warning]{wrong}")

    def attachment(self, kind: str, name: str, file: Path) -> None:
        """See Watch."""
        if kind == SUMMARY:
            self._run.attachments[name] = file.read_text(errors="replace")

    def build_number(self, number: str) -> None:
        """See Watch."""
        self._run.number = number
        self._to.changed(self._run)

    def build_tag(self, tag: str) -> None:
        """See Watch."""
        if tag not in self._run.tags:
            self._run.tags.append(tag)


def predefined(run: Run, pipeline: str) -> dict[str, str]:
    """The variables the service sets for every job.

    https://learn.microsoft.com/azure/devops/pipelines/build/variables
    """
    by, of = views.KNOWN[run.requested_by], views.KNOWN[run.requested_for]
    return {
        "Build.BuildId": str(run.id),
        "Build.BuildNumber": run.number,
        "Build.BuildUri": f"vstfs:///Build/Build/{run.id}",
        "Build.DefinitionId": str(run.pipeline),
        "Build.DefinitionName": pipeline,
        "Build.QueuedBy": by.name,
        "Build.QueuedById": by.oid,
        "Build.Reason": run.reason[0].upper() + run.reason[1:],
        "Build.RequestedFor": of.name,
        "Build.RequestedForEmail": of.email,
        "Build.RequestedForId": of.oid,
        "Build.Repository.ID": REPOSITORY_ID,
        "Build.Repository.Name": PROJECT,
        "Build.Repository.Provider": "TfsGit",
        "Build.Repository.Uri": f"{views.WEB}/_git/{PROJECT}",
        "Build.SourceBranch": run.branch,
        "Build.SourceBranchName": run.branch.rpartition("/")[2],
        "Build.SourceVersion": run.commit,
        "Build.SourceVersionAuthor": run.commit_author,
        "Build.SourceVersionMessage": run.commit_message.partition("\n")[0],
        "System.CollectionUri": f"{views.BASE}/",
        "System.TeamFoundationCollectionUri": f"{views.BASE}/",
        "System.CollectionId": COLLECTION_ID,
        "System.TeamProject": PROJECT,
        "System.TeamProjectId": PROJECT_ID,
        "System.DefinitionId": str(run.pipeline),
        "System.DefinitionName": pipeline,
        "System.HostType": "build",
    }


def _next_moment(asked: Sequence[Approval]) -> datetime:
    """When something happens to what is asked, unless somebody answers before."""
    waiting = [approval for approval in asked if approval.status == "pending"]
    return min(at for one in waiting for at in (one.expires, approvals.next_effect(one)) if at is not None)


def _again(run: Run, stage: Stage, *, everything: bool) -> None:
    """A fresh attempt of a stage; jobs that succeeded keep their results unless everything is to run."""
    plan = planned(run.plan, stage.name)
    if stage.entered:
        old = copy.deepcopy(stage)
        stage.previous, old.previous = [*stage.previous, old], []
        stage.attempt += 1
        fresh = Stage(stage.name, stage.title, stage.order, [])
        stage.id, stage.timeline, stage.checkpoint = fresh.id, fresh.timeline, fresh.checkpoint
    kept = {job.name: job for job in stage.jobs if job.result in _GOOD and not everything}
    tries = {job.name: job.attempt + (1 if job.started else 0) for job in stage.jobs}
    stage.jobs = [kept.get(job.name) or job_of(job, max(tries[job.name], 1)) for job in plan.jobs]
    stage.state, stage.result, stage.entered, stage.canceling = "pending", None, False, False
    stage.started = stage.finished = None
    stage.approvals = []


def _dependents(run: Run, name: str) -> list[str]:
    """Every stage that depends on this one, directly or not, in order."""
    found = {name}
    for _ in run.plan.stages:
        found |= {stage.name for stage in run.plan.stages if found & set(stage.depends_on)}
    return [stage.name for stage in run.plan.stages if stage.name in found - {name}]


def _ancestors(depends: Mapping[str, Collection[str]], names: Iterable[str]) -> set[str]:
    """These and all they depend on."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left.extend(depends[name])
    return found


def _ran_stage(stage: Stage) -> Ran:
    outputs = {f"{job.name}.{name}": value for job in stage.jobs for name, value in job.outputs.items()}
    return Ran(_SEEN[stage.result or "skipped"], outputs)


def _ran_job(job: Job) -> Ran:
    return Ran(_SEEN[job.result or "skipped"], job.outputs)


def _stage_scope(run: Run, plan: PlanStage) -> Scope:
    """What a stage's condition sees."""
    by_name = {stage.name: stage for stage in run.stages}
    depends = {stage.name: stage.depends_on for stage in run.plan.stages}
    earlier = _ancestors(depends, plan.depends_on)
    return Scope(
        variables={**run.variables, **run.plan.variables, "Build.SourceBranch": run.branch, "Build.Reason": run.reason},
        dependencies={name: _ran_stage(by_name[name]) for name in plan.depends_on},
        before=tuple(_SEEN[by_name[name].result or "skipped"] for name in depends if name in earlier),
        canceled=run.state == "cancelling",
    )


def _job_scope(run: Run, stage: Stage, plan: PlanJob, variables: Mapping[str, str]) -> Scope:
    """What a job's condition and variables see."""
    here = planned(run.plan, stage.name)
    by_name = {job.name: job for job in stage.jobs}
    depends = {job.name: job.depends_on for job in here.jobs}
    earlier = _ancestors(depends, plan.depends_on)
    return Scope(
        variables=variables,
        dependencies={name: _ran_job(by_name[name]) for name in plan.depends_on},
        stage_dependencies={
            other.name: {job.name: _ran_job(job) for job in other.jobs} for other in run.stages if other.name in here.depends_on
        },
        before=tuple(_SEEN[by_name[name].result or "skipped"] for name in depends if name in earlier),
        canceled=stage.canceling,
    )


def _canceled(scope: Scope) -> Scope:
    return Scope(scope.variables, scope.dependencies, scope.stage_dependencies, scope.before, canceled=True)


def _stage_result(stage: Stage, plan: PlanStage) -> str:
    """A stage is as good as its worst job; a failed one that may fail leaves it with issues."""
    forgiven = {job.name for job in plan.jobs if job.continue_on_error}
    results = {"succeededWithIssues" if job.name in forgiven and job.result == "failed" else job.result for job in stage.jobs}
    if "canceled" in results and stage.canceling:
        return "canceled"
    return next((bad for bad in ("failed", "canceled", "succeededWithIssues") if bad in results), _all(results))


def _all(results: Collection[str | None]) -> str:
    return "skipped" if set(results) == {"skipped"} else "succeeded"


def _run_result(run: Run) -> str:
    results = {stage.result for stage in run.stages}
    if run.state == "cancelling":
        return "canceled"
    if results & {"failed", "rejected"}:
        return "failed"
    if "canceled" in results:
        return "canceled"
    return "partiallySucceeded" if "succeededWithIssues" in results else "succeeded"
