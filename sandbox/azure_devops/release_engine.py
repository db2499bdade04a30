"""Takes releases through their stages: the builds that start them, approvals, jobs on the same agents, redeployments; it survives restarts.

One task conducts each release; the records are the truth it goes by, so that it can start in the middle.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

from sandbox.azure_devops import release_events as events
from sandbox.azure_devops import releases as rules
from sandbox.azure_devops.agent import Space
from sandbox.azure_devops.approvals import Denied
from sandbox.azure_devops.changes import Changes
from sandbox.azure_devops.expressions import Scope
from sandbox.azure_devops.hooks import Hooks
from sandbox.azure_devops.orchestrator import LOST_AGENT, SOON, WORKER, Places, RunJob, predefined
from sandbox.azure_devops.records import Issue, Job, Run, Store, job_of, now
from sandbox.azure_devops.release_definitions import Approvers, StagePlan
from sandbox.azure_devops.releases import (
    Attachment,
    Definition,
    Json,
    Place,
    Release,
    ReleaseApproval,
    ReleaseDeployment,
    ReleaseStage,
    ReleaseStore,
    When,
)
from sandbox.azure_devops.views import KNOWN, RELEASE_SERVICE
from sandbox.azure_devops.watch import RESULTS, JobWatch, end_step
from sandbox.names import Character

log = logging.getLogger("sandbox.azure_devops.releases")

# How a deployment ends: its stage's status, its own, and its operation's.
_ENDS = {
    "succeeded": ("succeeded", "succeeded", "Approved"),
    "succeededWithIssues": ("partiallySucceeded", "partiallySucceeded", "PhasePartiallySucceeded"),
    "failed": ("rejected", "failed", "PhaseFailed"),
    "rejected": ("rejected", "notDeployed", "Rejected"),
    "rejectedAfter": ("rejected", "failed", "Rejected"),
    "canceled": ("canceled", "notDeployed", "Canceled"),
}


class ReleaseEngine:
    """Conducts every release, and is asked for whatever people may do with one."""

    def __init__(
        self,
        store: ReleaseStore,
        builds: Store,
        hooks: Hooks,
        places: Places,
        build_places: Places,
        *,
        changes: Changes,
        run_job: RunJob,
        agents: asyncio.Semaphore,
        repository: Path,
        environment: Callable[[], Mapping[str, str]],
        access_token: Callable[[], str],
    ) -> None:
        self.store = store
        self.places = places
        self._builds = builds
        self._hooks = hooks
        self._build_places = build_places
        self._changes = changes
        self._run_job = run_job
        self._agents = agents
        self._repository = repository
        self._environment = environment
        self._access_token = access_token
        self._conductors: dict[int, asyncio.Task[None]] = {}
        self._watches: dict[int, _Watch] = {}

    async def start(self) -> None:
        """Go on with what was going on; jobs that ran when the sandbox ended have lost their agent."""
        await asyncio.to_thread(self.places.clear_work)
        for release in self.store.releases:
            if any(stage.open for stage in release.stages):
                self._mourn(release)
                self._conduct(release)

    async def stop(self) -> None:
        """Stop conducting; the records stay as they are."""
        conductors = tuple(self._conductors.values())
        for conductor in conductors:
            conductor.cancel()
        await asyncio.gather(*conductors, return_exceptions=True)

    def define(self, document: Json, who: Character, old: Definition | None = None) -> Definition:
        """A new definition, or the next revision of an old one. Raises BadDefinition."""
        at = now()
        stages = document.get("environments")
        kept = {stage["id"] for stage in old.document["environments"]} if old else set()
        numbered = [
            stage if stage.get("id") in kept else stage | {"id": self.store.state.next("ado.release-definition-stage")}
            for stage in (stages if isinstance(stages, list) else [])
            if isinstance(stage, dict)
        ]
        number = old.id if old else self.store.state.next("ado.release-definition")
        revision = old.revision + 1 if old else 1
        made = Definition(
            id=number,
            revision=revision,
            document=document | {"id": number, "revision": revision, "environments": numbered},
            created=old.created if old else at,
            created_by=old.created_by if old else who.oid,
            modified=at,
            modified_by=who.oid,
        )
        _ = made.blueprint  # what cannot be read is not kept
        self.store.definitions.keep(number, made)
        self._changes.happened()
        return made

    def build_completed(self, run: Run) -> None:
        """Start the releases that wait for such builds; a build starts a definition once, however often it is retried."""
        for definition in self.store.definitions:
            blueprint = definition.blueprint
            wanted = any(trigger.fits(run.branch, run.tags) for trigger in blueprint.triggers)
            before = any(one.definition == definition.id and one.build == run.id for one in self.store.releases)
            if blueprint.pipeline == run.pipeline and wanted and not before and run.result in {"succeeded", "partiallySucceeded"}:
                self._create(definition, run, by=RELEASE_SERVICE.oid, of=run.requested_for, reason="continuousIntegration")

    def create(
        self, definition: Definition, build: int | None, who: Character, *, description: str = "", manual: Collection[str] = ()
    ) -> Release:
        """A release by hand, by default of the newest good build; `manual` stages do not start by themselves. Raises Denied."""
        rules.allow(who, rules.DEPLOY, "create releases")
        of = [run for run in self._builds.runs if run.pipeline == definition.blueprint.pipeline and run.state == "completed"]
        good = [run for run in of if run.result in {"succeeded", "partiallySucceeded"}]
        run = next((run for run in of if run.id == build), None) if build is not None else (good[-1] if good else None)
        if run is None:
            wanted = "successful build" if build is None else f"completed build {build}"
            raise Denied(400, "InvalidRequestException", f"There is no {wanted} to make a release of {definition.blueprint.name} of.")
        names = {stage.name for stage in definition.blueprint.stages}
        if unknown := sorted(set(manual) - names):
            raise Denied(400, "InvalidRequestException", f"The definition has no environment {unknown[0]}.")
        return self._create(definition, run, by=who.oid, of=who.oid, reason="manual", description=description, manual=manual)

    def deploy(self, release: Release, stage: ReleaseStage, who: Character, comment: str = "") -> ReleaseDeployment:
        """Deploy by hand, for the first time or again; approvals are asked afresh. Raises Denied."""
        rules.allow(who, rules.DEPLOY, "manage deployments")
        if release.status != "active":
            raise Denied(400, "InvalidRequestException", f"{release.name} is {release.status}: it cannot be deployed.")
        if stage.open:
            raise Denied(400, "InvalidRequestException", f"A deployment of {release.name} to {stage.name} is already under way.")
        return self._queue(release, stage, by=who.oid, of=who.oid, reason="manual", comment=comment)

    def cancel(self, release: Release, stage: ReleaseStage, who: Character, comment: str = "") -> None:
        """Cancel the deployment that is under way. Raises Denied."""
        rules.allow(who, rules.DEPLOY, "manage deployments")
        deployment = stage.open
        if deployment is None:
            raise Denied(400, "InvalidRequestException", f"No deployment of {release.name} to {stage.name} is under way.")
        self._cancel(release, deployment, who, comment)
        self._keep(release)

    def abandon(self, release: Release, who: Character, comment: str = "") -> None:
        """Never deploy this release again; what waits for approval is canceled. Raises Denied, also while a job runs."""
        rules.allow(who, rules.DEPLOY, "manage releases")
        if release.status == "abandoned":
            raise Denied(400, "InvalidRequestException", f"{release.name} is already abandoned.")
        if busy := next((stage.name for stage in release.stages if stage.open and stage.open.step == "job"), None):
            raise Denied(400, "InvalidRequestException", f"{release.name} cannot be abandoned while it is being deployed to {busy}.")
        release.status, release.comment = "abandoned", comment
        release.modified, release.modified_by = now(), who.oid
        for stage in release.stages:
            if stage.open:
                self._cancel(release, stage.open, who, comment)
        self._keep(release)
        self._hooks.happened(events.about(events.ABANDONED, release, now()), delay=SOON)

    def decide(self, approval: ReleaseApproval, who: Character, status: str, comment: str = "", to: str = "") -> None:
        """Approve, reject or hand an approval over (`reassigned`, to the person or group `to`). Raises Denied."""
        place = self.store.place(approval)
        rules.allow(who, rules.VIEW, "view releases")
        if status == "reassigned":
            rules.hand_over(approval, who, to, comment, now())
        elif denied := rules.refusal(approval, place, who):
            raise denied
        else:
            rules.decide(approval, who, status, comment, now())
        self._told(place, approval)
        self._keep(place.release)

    def _create(
        self, definition: Definition, run: Run, *, by: str, of: str, reason: str, description: str = "", manual: Collection[str] = ()
    ) -> Release:
        at = now()
        blueprint = definition.blueprint
        number = self.store.state.next(f"ado.release-name.{definition.id}")
        name = re.sub(r"\$\(rev:r+\)", str(number), blueprint.release_name, flags=re.IGNORECASE).replace("$(Build.BuildNumber)", run.number)
        stages = [
            ReleaseStage(self.store.state.next("ado.release-stage"), plan.id, plan.name, plan.rank, manual=plan.name in manual)
            for plan in blueprint.stages
        ]
        release = Release(
            id=self.store.state.next("ado.release"),
            name=name,
            definition=definition.id,
            revision=definition.revision,
            snapshot=definition.document,
            build=run.id,
            reason=reason,
            created=at,
            created_by=by,
            created_for=of,
            modified=at,
            modified_by=by,
            stages=stages,
            description=description,
        )
        self._keep(release)
        self._hooks.happened(events.about(events.CREATED, release, at), delay=SOON)
        for stage, plan in zip(stages, blueprint.stages, strict=True):
            if plan.at_start and not stage.manual:
                self._queue(release, stage, by=by, of=of, reason="automated")
        return release

    def _queue(self, release: Release, stage: ReleaseStage, *, by: str, of: str, reason: str, comment: str = "") -> ReleaseDeployment:
        at = now()
        deployment = ReleaseDeployment(
            id=self.store.state.next("ado.release-deployment"),
            attempt=len(stage.deployments) + 1,
            reason=reason,
            requested_by=by,
            requested_for=of,
            queued=at,
            job=job_of(release.blueprint.stage(stage.of).job),
            modified=at,
            modified_by=by,
            comment=comment,
        )
        stage.deployments.append(deployment)
        stage.status, stage.modified = "queued", at
        self._keep(release)
        self._conduct(release)
        return deployment

    def _cancel(self, release: Release, deployment: ReleaseDeployment, who: Character, comment: str) -> None:
        deployment.canceling, deployment.modified, deployment.modified_by = True, now(), who.oid
        self._close(deployment, "canceled", comment)
        if deployment.id in self._watches:
            self._watches[deployment.id].canceled.set()

    def _conduct(self, release: Release) -> None:
        present = self._conductors.get(release.id)
        if present is None or present.done():
            task = asyncio.create_task(self._conductor(release), name=f"release {release.id}")
            self._conductors[release.id] = task
            task.add_done_callback(lambda done: self._conducted(release, done))

    def _conducted(self, release: Release, task: asyncio.Task[None]) -> None:
        if self._conductors.get(release.id) is task:
            del self._conductors[release.id]
        if not task.cancelled() and (trouble := task.exception()):
            log.error("%s cannot go on", release.name, exc_info=trouble)

    async def _conductor(self, release: Release) -> None:
        """Work on every deployment that is under way until none is."""
        tasks: dict[int, asyncio.Future[None]] = {}

        def ready() -> list[tuple[ReleaseStage, ReleaseDeployment]]:
            return [(stage, stage.open) for stage in release.stages if stage.open and stage.open.id not in tasks]

        try:
            while True:
                for stage, deployment in ready():
                    tasks[deployment.id] = asyncio.ensure_future(self._deploy(release, stage, deployment))
                if not tasks:
                    return
                more = asyncio.ensure_future(self._changes.until(lambda: bool(ready())))
                try:
                    await asyncio.wait({*tasks.values(), more}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    more.cancel()
                for number, task in tuple(tasks.items()):
                    if task.done():
                        del tasks[number]
                        task.result()
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _deploy(self, release: Release, stage: ReleaseStage, deployment: ReleaseDeployment) -> None:
        plan, place = release.blueprint.stage(stage.of), Place(release, stage, deployment)
        result = "succeeded"
        if deployment.step == "before":
            stage.status = "inProgress"
            result = await self._approval(place, When.BEFORE, plan.before)
            if result == "succeeded":
                deployment.step, deployment.started = "job", now()
                deployment.status, deployment.operation = "inProgress", "QueuedForAgent"
                self._keep(release)
                self._hooks.happened(events.deployment(events.STARTED, release, stage, deployment, now()), delay=SOON)
        if deployment.step == "job":
            result = await self._job(release, stage, deployment, plan)
            if result in {"succeeded", "succeededWithIssues"}:
                deployment.step = "after"
                self._keep(release)
        if deployment.step == "after":
            worked = deployment.job.result or "succeeded"
            approved = await self._approval(place, When.AFTER, plan.after)
            result = worked if approved == "succeeded" else "rejectedAfter" if approved == "rejected" else approved
        self._end(release, stage, deployment, result)

    def _end(self, release: Release, stage: ReleaseStage, deployment: ReleaseDeployment, result: str) -> None:
        deployment.step, deployment.finished = "done", now()
        stage.status, deployment.status, deployment.operation = _ENDS[result]
        stage.modified = now()
        end_job(deployment.job, "canceled" if result == "canceled" else "skipped")
        self._keep(release)
        self._hooks.happened(events.deployment(events.COMPLETED, release, stage, deployment, now()), delay=SOON)
        if stage.status == "succeeded" and release.status == "active":
            self._follow(release, stage, deployment)

    def _follow(self, release: Release, done: ReleaseStage, before: ReleaseDeployment) -> None:
        """Start the stages whose turn has come with the success of one of those they follow."""
        status = {stage.name: stage.status for stage in release.stages}
        for stage in release.stages:
            follows = release.blueprint.stage(stage.of).follows
            due = done.name in follows and all(status[name] == "succeeded" for name in follows)
            if due and not stage.manual and not stage.open:
                self._queue(release, stage, by=before.requested_by, of=before.requested_for, reason="automated")

    async def _approval(self, place: Place, when: When, approvers: Approvers) -> str:
        """Ask and wait, rank after rank; `succeeded`, `rejected` or `canceled`."""
        release, deployment = place.release, place.deployment
        deployment.operation = "Pending"
        if not approvers.ranks:
            if not any(one.when is when for one in self.store.approvals_of(deployment)):
                self._ask(place, when, 1, None)
                self._keep(release)
            return "canceled" if deployment.canceling else "succeeded"

        def asked() -> list[ReleaseApproval]:
            return [one for one in self.store.approvals_of(deployment) if one.when is when]

        def moved() -> bool:
            decided = rules.outcome(approvers, asked()) is not None
            return deployment.canceling or decided or rules.next_rank(approvers, asked()) is not None

        while not deployment.canceling and (decided := rules.outcome(approvers, asked())) is None:
            if (rank := rules.next_rank(approvers, asked())) is not None:
                for who in approvers.ranks[rank]:
                    self._ask(place, when, rank, who)
                self._keep(release)
            pending = [one for one in asked() if one.status == "pending"]
            left = (min(one.expires for one in pending) - now()).total_seconds()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changes.until(moved), max(left, 0))
            if not moved():
                self._time_out(place)
        if deployment.canceling:
            return "canceled"
        self._close(deployment, "canceled" if decided == "rejected" else "skipped")
        self._keep(release)
        return "rejected" if decided == "rejected" else "succeeded"

    def _ask(self, place: Place, when: When, rank: int, who: str | None) -> None:
        number = self.store.state.next("ado.release-approval")
        approval = rules.ask(place, when, rank, who, number=number, at=now())
        place.deployment.approvals.append(number)
        self.store.approvals.keep(number, approval)
        if who is not None:
            self._told(place, approval)

    def _time_out(self, place: Place) -> None:
        """Nobody answered in time: the deployment is rejected."""
        for approval in self.store.approvals_of(place.deployment):
            if approval.status == "pending" and approval.expires <= now():
                rules.close(approval, "rejected", now(), "The approval timed out.")
                self._told(place, approval)

    def _close(self, deployment: ReleaseDeployment, status: str, comment: str = "") -> None:
        for approval in self.store.approvals_of(deployment):
            if approval.status == "pending":
                rules.close(approval, status, now(), comment)
                self.store.approvals.keep(approval.id, approval)

    def _told(self, place: Place, approval: ReleaseApproval) -> None:
        self.store.approvals.keep(approval.id, approval)
        self._hooks.happened(events.approval(place, approval, now()), delay=SOON)

    async def _job(self, release: Release, stage: ReleaseStage, deployment: ReleaseDeployment, plan: StagePlan) -> str:
        job = deployment.job
        if job.state == "completed":  # its agent was lost with the sandbox
            return job.result or "failed"
        job.queued = job.queued or now()
        async with self._agents:
            if deployment.canceling:
                return "canceled"
            run = self._builds.runs.get(release.build)
            assert run is not None
            job.state, job.started, job.worker = "inProgress", now(), WORKER
            deployment.operation = "PhaseInProgress"
            deployment.phase_number = deployment.phase_number or self.store.state.next("ado.release-phase")
            watch = _Watch(self, release, deployment)
            self._watches[deployment.id] = watch
            space = Space(
                folder=self.places.folder(release.id) / "work" / f"{stage.id}.{deployment.attempt}",
                repository=self._repository,
                commit=run.commit,
                artifacts=self._build_places.artifacts(run.id),
                environment=self._environment(),
                scope=Scope(variables=self._variables(release, stage, deployment, plan, run)),
                secrets=frozenset({"System.AccessToken"}),
            )
            self._keep(release)
            try:
                watch.open(0, f"Job started on agent {WORKER}.\nRelease directory: {space.folder.name}")
                outcome = await self._run_job(plan.job, space, watch)
                result = RESULTS[outcome.result]
            except Exception as trouble:
                # A broken agent fails its job, never the sandbox.
                log.exception("the agent broke in %s of %s", stage.name, release.name)
                job.issues.append(Issue("error", f"The agent failed: {type(trouble).__name__}: {trouble}"))
                result = "failed"
            finally:
                watch.close()
                del self._watches[deployment.id]
            await asyncio.to_thread(shutil.rmtree, space.folder, ignore_errors=True)
            watch.open(len(job.steps) - 1, "Cleaning up task key\nStart cleaning up orphan processes.\nFinished cleaning up.")
            end_job(job, result)
            return result

    def _mourn(self, release: Release) -> None:
        """Jobs whose agent died with the sandbox have failed."""
        for stage in release.stages:
            deployment = stage.open
            if deployment and deployment.job.state == "inProgress":
                deployment.job.issues.append(Issue("error", LOST_AGENT.format(agent=WORKER)))
                end_job(deployment.job, "canceled" if deployment.canceling else "failed")
        self._keep(release)

    def _variables(self, release: Release, stage: ReleaseStage, deployment: ReleaseDeployment, plan: StagePlan, run: Run) -> dict[str, str]:
        """What a job of a release sees; a stage's variables win over the release's, and nothing over the service's.

        https://learn.microsoft.com/azure/devops/pipelines/release/variables
        """
        blueprint = release.blueprint
        pipeline = self._builds.pipelines.get(run.pipeline)
        assert pipeline is not None
        of, artifact = KNOWN[deployment.requested_for], f"Release.Artifacts.{blueprint.alias}"
        build = predefined(run, pipeline.name)
        named = (
            "BuildId",
            "BuildNumber",
            "BuildUri",
            "DefinitionId",
            "DefinitionName",
            "SourceBranch",
            "SourceBranchName",
            "SourceVersion",
        )
        return {
            **blueprint.variables,
            **plan.variables,
            **build,
            **{f"{artifact}.{name}": build[f"Build.{name}"] for name in named},
            f"{artifact}.Type": "Build",
            "Release.PrimaryArtifactSourceAlias": blueprint.alias,
            "Release.ReleaseId": str(release.id),
            "Release.ReleaseName": release.name,
            "Release.ReleaseUri": f"vstfs:///ReleaseManagement/Release/{release.id}",
            "Release.ReleaseDescription": release.description,
            "Release.Reason": release.reason[0].upper() + release.reason[1:],
            "Release.DefinitionId": str(release.definition),
            "Release.DefinitionName": blueprint.name,
            "Release.DefinitionEnvironmentId": str(stage.of),
            "Release.EnvironmentId": str(stage.id),
            "Release.EnvironmentName": stage.name,
            "Release.AttemptNumber": str(deployment.attempt),
            "Release.DeploymentId": str(deployment.id),
            "Release.RequestedFor": of.name,
            "Release.RequestedForEmail": of.email,
            "Release.RequestedForId": of.oid,
            "Agent.ReleaseDirectory": "$(System.DefaultWorkingDirectory)",
            "System.HostType": "release",
            "System.JobId": deployment.job.id,
            "System.PlanId": deployment.plan,
            "System.TimelineId": deployment.timeline,
            "System.AccessToken": self._access_token(),
        }

    def _keep(self, release: Release) -> None:
        release.modified = now()
        self.store.releases.keep(release.id, release)
        self._changes.happened()

    def changed(self, release: Release) -> None:
        """A step of one of its jobs changed."""
        self._keep(release)

    def log_file(self, release: Release) -> tuple[int, Path]:
        """The number and file of the release's next log."""
        release.logs += 1
        file = self.places.log(release.id, release.logs)
        file.parent.mkdir(parents=True, exist_ok=True)
        return release.logs, file


class _Watch(JobWatch):
    """Writes down what the agent reports of a release's job."""

    def __init__(self, engine: ReleaseEngine, release: Release, deployment: ReleaseDeployment) -> None:
        super().__init__(deployment.job, open_log=lambda: engine.log_file(release), changed=lambda: engine.changed(release))
        self._deployment = deployment

    def attachment(self, kind: str, name: str, file: Path) -> None:
        """See Watch."""
        record = next((step.id for step in self._deployment.job.steps if step.state == "inProgress"), self._deployment.job.id)
        text = file.read_text(encoding="utf-8", errors="replace")
        others = [one for one in self._deployment.attachments if (one.kind, one.name) != (kind, name)]
        self._deployment.attachments = [*others, Attachment(kind, name, text, record, now())]

    def artifact(self, name: str, folder: Path, kind: str) -> None:
        """See Watch; a release publishes no artifacts."""

    def tests(self, file: Path, title: str) -> None:
        """See Watch; the tasks of a release publish no tests."""

    def build_number(self, number: str) -> None:
        """See Watch; a release does not change the build it deploys."""

    def build_tag(self, tag: str) -> None:
        """See Watch; a release does not change the build it deploys."""


def end_job(job: Job, result: str) -> None:
    """A job that has not completed ends with this result, and so do its steps."""
    if job.state == "completed":
        return
    job.state, job.result, job.finished = "completed", result, now()
    for step in job.steps:
        end_step(step, "skipped" if step.state == "pending" else "canceled")
