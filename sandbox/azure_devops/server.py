"""The local Azure DevOps as a service of the sandbox, and what tests and the story may do with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from aiohttp import web

from sandbox.azure_devops import agent, compiler, release_views, views
from sandbox.azure_devops.approvals import MONTH, Answer
from sandbox.azure_devops.orchestrator import RunJob
from sandbox.azure_devops.pages import PREFIX, Pages
from sandbox.azure_devops.project import INSTRUCTIONS, Compile, Project
from sandbox.azure_devops.records import Check, Run, now
from sandbox.azure_devops.releases import Release
from sandbox.azure_devops.rest import DEV, VSRM, VSSPS, Rest
from sandbox.azure_devops.wire import Host
from sandbox.names import BOT, GRACE, Character, Group
from sandbox.world import World

Json = dict[str, Any]


class AzureDevOps:
    """The organisation `contoso`: two hosts, pages, and the project behind them. `run_job` and `compile` are the agent and the compiler."""

    def __init__(self, world: World, *, run_job: RunJob = agent.run_job, compile: Compile = compiler.compile) -> None:
        self._world = world
        self.project = Project(world, run_job=run_job, compile=compile)
        self._rest = Rest(self.project)

    def hosts(self) -> Mapping[str, web.Application]:
        """See Service."""
        tokens, faults, unlicensed = self._world.tokens, self._world.faults, self.project.unlicensed
        return {host: Host(self._rest.locations(host), tokens, faults, unlicensed).app() for host in (DEV, VSRM, VSSPS)}

    def pages(self) -> Mapping[str, web.Application]:
        """See Service."""
        return {PREFIX: Pages(self.project).app()}

    async def start(self) -> None:
        """See Service."""
        await self.project.start()

    async def stop(self) -> None:
        """See Service."""
        await self.project.stop()

    def runs(self) -> list[Json]:
        """Every run as the build API shows it, oldest first."""
        return [self.run(run.id) for run in self.project.store.runs]

    def run(self, id: int) -> Json:
        """A run as the build API shows it, with `timeline` and `approvals` (steps included). Raises LookupError."""
        run = self._run(id)
        pipeline = self.project.store.pipelines.get(run.pipeline)
        assert pipeline is not None
        approvals = [one for one in self.project.store.approvals if one.run == id]
        return views.build(run, pipeline) | {
            "timeline": views.timeline(run, self.project.store),
            "approvals": [views.approval(one, self.project.store, BOT, frozenset({"steps"})) | {"stage": one.stage} for one in approvals],
        }

    async def queue(self, who: Character, parameters: Mapping[str, str] | None = None) -> int:
        """Start a run of the only pipeline by hand; its number. Raises Denied, BadPipeline."""
        pipeline = next(iter(self.project.store.pipelines))
        return (await self.project.queue(pipeline, who, parameters=parameters)).id

    def approve_as(self, person: Character, approval_id: str, status: str = "approved", comment: str = "") -> Json:
        """Answer an approval as this person, as on the page; the approval as it is then. Raises Denied."""
        return self._decided(person, Answer(approval_id, status, comment))

    def defer_as(self, person: Character, approval_id: str, until: datetime, comment: str = "") -> Json:
        """Approve as this person, from a time to come on; the approval as it is then. Raises Denied."""
        return self._decided(person, Answer(approval_id, "deferred", comment, until))

    def reassign_as(self, person: Character, approval_id: str, to: Character | Group, comment: str = "") -> Json:
        """Hand this person's part over to somebody else; the approval as it is then. Raises Denied."""
        return self._decided(person, Answer(approval_id, comment=comment, to=to.oid))

    def time_out(self, approval_id: str) -> None:
        """Let an approval have waited as long as it may. Raises LookupError."""
        approval = self.project.store.approvals.get(approval_id)
        if approval is None:
            raise LookupError(f"There is no approval {approval_id}.")
        self.project.orchestrator.time_out(approval)

    def protect(
        self,
        environment: str,
        approvers: Sequence[Character | Group],
        *,
        minimum: int = 1,
        order: str = "anyOrder",
        requester_may: bool = False,
        instructions: str = INSTRUCTIONS,
        blocked: Sequence[Character | Group] = (),
    ) -> None:
        """Let these people and groups, and nobody else, decide on what goes to an environment, from the next approval on. Raises Denied."""
        of = self.project.environment(environment)
        for check in self.project.store.checks:
            if check.environment == of.id:
                self.project.store.checks.drop(check.id)
        at = now()
        wanted = Check(
            id=0,
            environment=of.id,
            approvers=[who.oid for who in approvers],
            minimum=minimum,
            execution_order=order,
            instructions=instructions,
            requester_excluded=not requester_may,
            timeout=MONTH,
            created=at,
            created_by=GRACE.oid,
            modified=at,
            modified_by=GRACE.oid,
            blocked=[who.oid for who in blocked],
        )
        self.project.check(GRACE, wanted)

    def remove_environment(self, who: Character, name: str) -> None:
        """Delete an environment as this person, as on the page: what waits for it fails. Raises Denied."""
        self.project.remove_environment(who, name)

    def without_licence(self, person: Character, *, licensed: bool = False) -> None:
        """Take a member's licence away (or give it back): Azure DevOps then refuses every call of theirs."""
        self.project.license(person, licensed=licensed)

    async def merge(self, author: Character, message: str, changes: Mapping[str, str]) -> tuple[str, list[int]]:
        """Merge a pull request into main; the merge commit and the numbers of the runs it started. Raises NoSuchThing."""
        sha, runs = await self.project.merge(author, message, changes)
        return sha, [run.id for run in runs]

    def retry(self, person: Character, run_id: int, stage: str) -> None:
        """Retry a failed stage as this person, as on the page. Raises Denied, LookupError."""
        run = self._run(run_id)
        found = run.stage(stage)
        if found is None:
            raise LookupError(f"There is no stage {stage} of the run {run_id}.")
        self.project.retry(run, found, person)

    def cancel_as(self, person: Character, run_id: int) -> None:
        """Cancel a run as this person, as on the page. Raises Denied, LookupError."""
        self.project.cancel(self._run(run_id), person)

    def releases(self) -> list[Json]:
        """Every release as the release API shows it, oldest first."""
        return [self.release(release.id) for release in self.project.releases.store.releases]

    def release(self, id: int) -> Json:
        """A release as the release API shows it, each of its environments with the approvals of every attempt. Raises LookupError."""
        return release_views.release(self._release(id), self.project.releases.store, self.project.store)

    def approve_release_as(self, person: Character, approval_id: int, status: str = "approved", comment: str = "") -> Json:
        """Answer an approval of a release as this person, as on the page; the approval as it is then. Raises Denied, LookupError."""
        approval = self.project.releases.store.approvals.get(approval_id)
        if approval is None:
            raise LookupError(f"There is no approval {approval_id} of a release.")
        self.project.releases.decide(approval, person, status, comment)
        return release_views.approval(approval, self.project.releases.store)

    def redeploy_as(self, person: Character, release_id: int, environment: str) -> None:
        """Deploy a release to the stage of that name (again) as this person, as on the page. Raises Denied, LookupError."""
        release = self._release(release_id)
        stage = next((one for one in release.stages if one.name == environment), None)
        if stage is None:
            raise LookupError(f"There is no environment {environment} of {release.name}.")
        self.project.releases.deploy(release, stage, person)

    def abandon_as(self, person: Character, release_id: int) -> None:
        """Abandon a release as this person, as on the page. Raises Denied, LookupError."""
        self.project.releases.abandon(self._release(release_id), person)

    def _decided(self, person: Character, answer: Answer) -> Json:
        approval = self.project.decide(person, answer)
        return views.approval(approval, self.project.store, person, frozenset({"steps"}))

    def _run(self, id: int) -> Run:
        run = self.project.store.runs.get(id)
        if run is None:
            raise LookupError(f"There is no run {id}.")
        return run

    def _release(self, id: int) -> Release:
        release = self.project.releases.store.releases.get(id)
        if release is None:
            raise LookupError(f"There is no release {id}.")
        return release

    async def wait_for(self, predicate: Callable[[], bool], seconds: float = 60) -> None:
        """Return once the predicate holds; it is looked at whenever a run or a release changes. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            await self.project.changes.until(predicate)
