"""The project `ml-delivery`: everything people, the API and the driver may do with it, in one place and under one set of rules."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from sandbox.azure_devops import approvals
from sandbox.azure_devops.approvals import MONTH, Answer, Denied
from sandbox.azure_devops.changes import Changes
from sandbox.azure_devops.hooks import Hooks
from sandbox.azure_devops.orchestrator import Orchestrator, Places, RunJob, predefined
from sandbox.azure_devops.plan import BadPipeline, Plan
from sandbox.azure_devops.records import Approval, Check, Environment, Pipeline, Run, Stage, Store, now, stages_of
from sandbox.azure_devops.release_engine import ReleaseEngine
from sandbox.azure_devops.releases import ReleaseStore
from sandbox.azure_devops.repository import MAIN, Repository
from sandbox.azure_devops.views import SERVICE
from sandbox.names import (
    ADA,
    ADO_MEMBERS,
    AGENT,
    BOT,
    GRACE,
    KATHERINE,
    LOCATION,
    PIPELINE,
    PIPELINE_ID,
    PROJECT,
    RADIA,
    REGISTRY,
    RESOURCE_GROUP,
    SUBSCRIPTION,
    WORKSPACE,
    Character,
)
from sandbox.tokens import AZURE_DEVOPS
from sandbox.world import World

FILE = "deploy/pipelines/azure-pipelines.yml"
RELEASE_FILE = "deploy/pipelines/deploy-webservice.json"
INSTRUCTIONS = "Compare the candidate with the champion, look at QA's smoke test, then decide. Reject with a reason."

# Who may do what; everybody in the organisation may look.
QUEUE = frozenset(who.oid for who in ADO_MEMBERS if who is not AGENT)
ADMINISTER = frozenset({BOT.oid, GRACE.oid})

Compile = Callable[[Path, str, Mapping[str, str], Mapping[str, str]], Plan]


class Project:
    """The records, the repository, the hooks and the orchestrator, and what may be done with them."""

    def __init__(self, world: World, *, run_job: RunJob, compile: Compile) -> None:
        folder = world.folder / "azure-devops"
        self.store = Store(world.state)
        self.faults = world.faults
        self._unlicensed = world.state.table("ado.unlicensed")
        self.changes = Changes()
        releases = ReleaseStore(world.state)
        self.hooks = Hooks(self.store, releases, world.faults, self.changes)
        self.places = Places(folder / "runs")
        self.repository = Repository(folder / "repository.git", world.root)
        self.orchestrator = Orchestrator(
            self.store,
            self.hooks,
            self.places,
            changes=self.changes,
            run_job=run_job,
            repository=self.repository.folder,
            environment=lambda: world.outside(AGENT),
            access_token=lambda: world.tokens.issue(AGENT, AZURE_DEVOPS),
            completed=self._completed,
        )
        self.releases = ReleaseEngine(
            releases,
            self.store,
            self.hooks,
            Places(folder / "releases"),
            self.places,
            changes=self.changes,
            run_job=run_job,
            agents=self.orchestrator.agents,
            repository=self.repository.folder,
            environment=lambda: world.outside(AGENT),
            access_token=lambda: world.tokens.issue(AGENT, AZURE_DEVOPS),
        )
        self._compile = compile
        self._queueing = asyncio.Lock()
        self._seed()
        self._seed_release(world.root / RELEASE_FILE)

    async def start(self) -> None:
        """Seed the repository, deliver what is queued, conduct what is under way."""
        await asyncio.to_thread(self.repository.seed)
        await self.hooks.start()
        await self.releases.start()
        await self.orchestrator.start()

    async def stop(self) -> None:
        """Stop every task."""
        await self.releases.stop()
        await self.orchestrator.stop()
        await self.hooks.stop()

    async def plan(self, pipeline: Pipeline, version: str, parameters: Mapping[str, str], variables: Mapping[str, str]) -> Plan:
        """The pipeline at a commit, compiled. Raises BadPipeline, NoSuchThing."""
        return await asyncio.to_thread(self._plan, pipeline, version, parameters, variables)

    async def queue(
        self,
        pipeline: Pipeline,
        who: Character,
        *,
        branch: str = MAIN,
        version: str | None = None,
        parameters: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
        skip: Collection[str] = (),
    ) -> Run:
        """Start a run by hand. Raises Denied, BadPipeline, NoSuchThing."""
        _allow(who, QUEUE, "Queue builds", f"for build pipeline {pipeline.id}")
        if variables:
            names = ", ".join(sorted(variables))
            raise Denied(
                400,
                "PipelineRunVariableException",
                f"You can't set the following variables ({names}). If you want to be able to set these variables, edit the pipeline and "
                "select Settable at queue time on the variables tab of the pipeline editor.",
            )
        commit = await asyncio.to_thread(self.repository.head, branch) if version is None else version
        run = await self._record(pipeline, branch, commit, dict(parameters or {}), by=who, of=who, reason="manual")
        unknown = [name for name in skip if run.stage(name) is None]
        if unknown:
            raise BadPipeline(f"The stage {unknown[0]} to skip does not exist.")
        for name in skip:
            stage = run.stage(name)
            assert stage is not None
            stage.state, stage.result = "completed", "skipped"
        self.store.runs.keep(run.id, run)
        self.orchestrator.begin(run)
        return run

    async def merge(self, author: Character, message: str, changes: Mapping[str, str]) -> tuple[str, list[Run]]:
        """Merge a pull request that gives files new content; the merge commit and the runs it started. Raises NoSuchThing, BadPipeline."""
        number = self.store.state.next("ado.pull-request", 12)
        sha = await asyncio.to_thread(self.repository.merge, author, message, changes, number=number)
        self.changes.happened()
        runs = []
        for pipeline in self.store.pipelines:
            plan = await self.plan(pipeline, sha, {}, {})
            if plan.starts_on_push(MAIN, list(changes)):
                run = await self._record(pipeline, MAIN, sha, {}, by=SERVICE, of=author, reason="individualCI")
                self.store.runs.keep(run.id, run)
                self.orchestrator.begin(run)
                runs.append(run)
        return sha, runs

    def cancel(self, run: Run, who: Character) -> None:
        """Cancel a run. Raises Denied."""
        _allow(who, QUEUE, "Stop builds", f"for build pipeline {run.pipeline}")
        self.orchestrator.cancel(run, who)

    def cancel_stage(self, run: Run, stage: Stage, who: Character) -> None:
        """Cancel a stage. Raises Denied."""
        _allow(who, QUEUE, "Stop builds", f"for build pipeline {run.pipeline}")
        self.orchestrator.cancel_stage(run, stage, who)

    def retry(self, run: Run, stage: Stage, who: Character, *, everything: bool = False) -> None:
        """Retry a stage. Raises Denied."""
        _allow(who, QUEUE, "Queue builds", f"for build pipeline {run.pipeline}")
        self.orchestrator.retry(run, stage, who, everything=everything)

    def decide(self, who: Character, answer: Answer) -> Approval:
        """Answer an approval. Raises Denied."""
        approval = self.store.approvals.get(answer.id)
        if approval is None:
            raise Denied(404, "ApprovalNotFoundException", f"The approval {answer.id} does not exist or you have no permission to see it.")
        self.orchestrator.decide(approval, who, answer)
        return approval

    def environment(self, name: str) -> Environment:
        """The environment of that name. Raises Denied."""
        found = self.store.environment(name)
        if found is None:
            raise Denied(404, "EnvironmentNotFoundException", f"Environment {name} does not exist or has been deleted.")
        return found

    def check(self, who: Character, wanted: Check) -> Check:
        """Add an approval check to an environment, or change the one of that number, for whoever is asked from then on. Raises Denied."""
        self.administer(who)
        approvals.validate(wanted)
        made = wanted if wanted.id else replace(wanted, id=self.store.state.next("ado.check"))
        self.store.checks.keep(made.id, made)
        self.changes.happened()
        return made

    def remove_environment(self, who: Character, name: str) -> None:
        """Delete an environment; what waits for it fails. Raises Denied."""
        _allow(who, ADMINISTER, "Administer environments", f"for environment {name}")
        found = self.environment(name)
        found.deleted = True
        self.store.environments.keep(found.id, found)
        for check in self.store.checks:
            if check.environment == found.id:
                self.store.checks.drop(check.id)
        self.orchestrator.environment_removed(found)
        self.changes.happened()

    @property
    def unlicensed(self) -> Collection[str]:
        """The ids of members who have no licence: every call of theirs is refused."""
        return self._unlicensed

    def license(self, who: Character, *, licensed: bool) -> None:
        """Give a member a licence, or take it away; it stays so over restarts."""
        if licensed:
            self._unlicensed.pop(who.oid, None)
        else:
            self._unlicensed[who.oid] = True

    def administer(self, who: Character) -> None:
        """Whether the person may edit subscriptions, checks and the permissions of environments. Raises Denied."""
        _allow(who, ADMINISTER, "Edit subscriptions", "")

    def _completed(self, run: Run) -> None:
        self.releases.build_completed(run)

    def _plan(self, pipeline: Pipeline, version: str, parameters: Mapping[str, str], variables: Mapping[str, str]) -> Plan:
        with tempfile.TemporaryDirectory() as folder:
            self.repository.export(version, Path(folder))
            return self._compile(Path(folder), pipeline.file, parameters, {**pipeline.variables, **variables})

    async def _record(
        self, pipeline: Pipeline, branch: str, version: str, parameters: dict[str, str], *, by: Character, of: Character, reason: str
    ) -> Run:
        commit = await asyncio.to_thread(self.repository.commit, version)
        at = now()
        # One at a time, so that numbers and their revisions follow one another.
        async with self._queueing:
            draft = Run(
                id=0,
                number="",
                pipeline=pipeline.id,
                plan=Plan("", (), {}),
                reason=reason,
                branch=branch,
                commit=commit.sha,
                commit_message=commit.message,
                commit_author=commit.author.name,
                requested_by=by.oid,
                requested_for=of.oid,
                queued=at,
                stages=[],
                parameters=parameters,
            )
            draft.plan = await self.plan(pipeline, commit.sha, parameters, predefined(draft, pipeline.name))
            draft.id = self.store.state.next("ado.run")
            draft.number = self._number(draft.plan.name, pipeline, at)
            draft.stages = stages_of(draft.plan)
            return draft

    def _number(self, form: str, pipeline: Pipeline, at: datetime) -> str:
        """The run's name; a revision counts the runs whose names are otherwise the same.

        https://learn.microsoft.com/azure/devops/pipelines/process/run-number
        """
        text = re.sub(r"\$\(Date:([^)]*)\)", lambda found: _date(found[1], at), form)
        text = re.sub(r"\$\((Build\.DefinitionName|SourceBranchName)\)", lambda found: {"B": pipeline.name}.get(found[1][0], "main"), text)
        revision = re.search(r"\$\(Rev:(\.?r+)\)", text)
        if revision is None:
            return text
        key = text.replace(revision[0], "*")
        count = self.store.state.next(f"ado.revision.{pipeline.id}.{key}")
        dot = "." if revision[1].startswith(".") else ""
        return text.replace(revision[0], f"{dot}{count:0{len(revision[1].lstrip('.'))}d}")

    def _seed(self) -> None:
        """What the organisation had before anything ran."""
        if len(self.store.pipelines):
            return
        at = now()
        variables = {
            "serviceConnection": "azure-ml-delivery",
            "subscription": SUBSCRIPTION,
            "resourceGroup": RESOURCE_GROUP,
            "workspace": WORKSPACE,
            "location": LOCATION,
            "registry": REGISTRY,
        }
        self.store.pipelines.keep(PIPELINE_ID, Pipeline(PIPELINE_ID, PIPELINE, FILE, at, ADA.oid, variables=variables))
        for name, description in (
            ("qa", "Azure Container Instances: deployed by itself, smoke-tested."),
            ("prod", "Azure Kubernetes Service: after approval."),
        ):
            number = self.store.state.next("ado.environment")
            self.store.environments.keep(number, Environment(number, name, description, at, GRACE.oid))
        prod = self.store.environment("prod")
        assert prod is not None
        number = self.store.state.next("ado.check")
        check = Check(
            id=number,
            environment=prod.id,
            approvers=[GRACE.oid, KATHERINE.oid, RADIA.oid],
            minimum=1,
            execution_order="anyOrder",
            instructions=INSTRUCTIONS,
            requester_excluded=True,
            timeout=MONTH,
            created=at,
            created_by=GRACE.oid,
            modified=at,
            modified_by=GRACE.oid,
        )
        self.store.checks.keep(number, check)

    def _seed_release(self, file: Path) -> None:
        """The release definition that the repository has for import, as somebody imported it once."""
        if file.is_file() and not len(self.releases.store.definitions):
            self.releases.define(json.loads(file.read_text(encoding="utf-8")), GRACE)


def _allow(who: Character, allowed: frozenset[str], permission: str, where: str) -> None:
    if who.oid not in allowed:
        place = f"{where} in team project {PROJECT}".strip()
        raise Denied(
            403,
            "AccessDeniedException",
            f"TF215106: Access denied. {who.name} needs {permission} permissions {place} to perform the action. "
            "For more information, contact the Azure DevOps Server administrator.",
        )


def _date(form: str, at: datetime) -> str:
    """A .NET date format, as far as run numbers use it."""
    words = {"yyyy": "%Y", "yy": "%y", "MM": "%m", "dd": "%d", "HH": "%H", "mm": "%M", "ss": "%S"}
    return at.strftime(re.sub("|".join(words), lambda found: words[found[0]], form))
