"""`bot.ports.Pipelines` on Azure DevOps: each method asks as little as it can, at the same time where it can."""

from __future__ import annotations

import asyncio
import copy
import os
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bot.azure_devops import reading
from bot.azure_devops.releases import Releases
from bot.azure_devops.subscriptions import ServiceHooks
from bot.core.approvals import Answer, Approval, ApprovalState
from bot.core.errors import Gone, OutsideError, Refused
from bot.core.people import Person
from bot.core.references import Thing
from bot.core.runs import FailedTest, Failure, Order, Run

if TYPE_CHECKING:
    from bot.azure_devops.wire import Clients

T = TypeVar("T")

TOKEN = "requestId"  # noqa: S105 the template parameter that carries an order's token
_APPROVALS = "37794717-f36f-4d78-b2bf-4dc30d0cfbcd"  # the approvals API has an address, but no client in the SDK
_APPROVALS_VERSION = "7.2-preview.2"
_SKEW = timedelta(minutes=5)  # between the service's clock and ours
_LISTED = 200
_DEPLOYED = 30  # runs among which an earlier deployment is looked for
_LOG_LINES = 200  # the end of a log that is read


class AzureDevOps:
    """Azure DevOps as one identity sees it.

    `token` gives an Entra token for Azure DevOps and may block; it is called off the event loop, for every request.
    `environments` are the team's names by stage, for approvals that do not name theirs; `releases` are its classic release definitions.
    `cache` is where the SDK keeps its routes.
    """

    def __init__(
        self,
        organization: str,
        project: str,
        *,
        token: Callable[[], str],
        cache: Path,
        environments: Mapping[str, str] | None = None,
        releases: Collection[int] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        timeout: float = 15.0,
    ) -> None:
        # The SDK makes this folder when it is imported, in the home directory if nobody says otherwise: that may not be writable.
        os.environ.setdefault("AZURE_DEVOPS_CACHE_DIR", str(cache))
        from bot.azure_devops.wire import Wire  # noqa: PLC0415 only now may the SDK be imported

        self._project = project
        self._environments = environments or {}
        self._definitions = frozenset(releases)
        self._now = now
        self._site = reading.Site(organization, project)
        self._wire = Wire(organization, token, timeout=timeout)
        self._commits: Remembered[tuple[str, str], reading.Commit] = Remembered(256)
        self._parameters: Remembered[int, Mapping[str, str]] = Remembered(1024)
        self._me: Person | None = None
        self.hooks = ServiceHooks(self._wire, project)

    async def close(self) -> None:
        """Start no more calls."""
        self._wire.close()

    def acting(self, token: Callable[[], str]) -> AzureDevOps:
        """The same Azure DevOps, as a person: `token` gives theirs, may block, and may raise errors of ours."""
        theirs = copy.copy(self)
        theirs._wire, theirs._me = self._wire.acting(token), None
        # What a person is refused is no news for anybody else.
        theirs._commits, theirs._parameters = Remembered(256), Remembered(1024)
        return theirs

    async def me(self) -> Person:
        """Whom Azure DevOps takes this identity for. Raises Refused where that is nobody it lets in."""
        if self._me is None:
            self._me = await self._who_am_i()
        return self._me

    async def _who_am_i(self) -> Person:
        said = await self._wire.read(lambda ask: ask.location.get_connection_data())
        return reading.somebody(said.authenticated_user)

    # --- runs -------------------------------------------------------------------------------------------------------

    async def run(self, run_id: int) -> Run:
        """The run with all its stages, as it is now."""
        build, records = await asyncio.gather(self._build(run_id), self._timeline(run_id))
        commit, parameters, rejected = await asyncio.gather(
            self._commit(build), self._parameters_of(build), self._rejected(reading.doubtful(records))
        )
        return reading.run(build, records, self._site, commit=commit, parameters=parameters, rejected=rejected)

    async def recent(self, pipeline_id: int, since: datetime) -> tuple[Run, ...]:
        """Runs queued since then, newest first, without their stages."""
        builds = await self._builds(pipeline_id, since)
        return tuple(reading.run(build, (), self._site, parameters=self._parameters.get(build.id)) for build in builds)

    async def started(self, pipeline_id: int, token: str, since: datetime) -> Run | None:
        """The run that carries this token, if it exists."""
        builds = await self._builds(pipeline_id, since - _SKEW)
        for build in builds:
            parameters = await self._parameters_of(build)
            if parameters.get(TOKEN) == token:
                return reading.run(build, (), self._site, parameters=parameters)
        return None

    async def start(self, order: Order) -> Run:
        """Queue a run, once."""
        parameters = {**order.parameters, TOKEN: order.token}
        ask = {"templateParameters": parameters, "resources": {"repositories": {"self": {"refName": order.branch}}}}
        answer = await self._wire.write(lambda to: to.pipelines.run_pipeline(ask, self._project, order.pipeline_id))
        return reading.queued(answer, replace(order, parameters=parameters), self._site, self._now())

    async def retry(self, run_id: int, stage: str, *, everything: bool = False) -> None:
        """Run the failed jobs of a stage again, or all of them, once."""
        ask = {"state": "retry", "forceRetryAllJobs": everything}
        await self._wire.write(lambda to: to.build.update_stage(ask, run_id, stage, project=self._project))

    async def cancel(self, run_id: int) -> None:
        """Stop a run, once."""
        ask = {"status": "cancelling"}
        await self._wire.write(lambda to: to.build.update_build(ask, self._project, run_id))

    async def deployed(self, pipeline_id: int, stage: str, before: int) -> tuple[int, ...]:
        """The pipeline's runs below this number whose stage has succeeded, newest first; of the last ones only."""
        builds = await self._wire.read(
            lambda ask: ask.build.get_builds(
                self._project, definitions=[pipeline_id], status_filter="completed", query_order="queueTimeDescending", top=_DEPLOYED
            )
        )
        numbers = [build.id for build in builds if build.id < before]
        timelines = await asyncio.gather(*(self._timeline(number) for number in numbers))
        return tuple(number for number, records in zip(numbers, timelines, strict=True) if reading.succeeded(records, stage))

    async def _build(self, run_id: int) -> Any:
        try:
            return await self._wire.read(lambda ask: ask.build.get_build(self._project, run_id))
        except Gone:
            raise Gone(f"Run {run_id} does not exist.") from None

    async def _builds(self, pipeline_id: int, since: datetime) -> list[Any]:
        found: list[Any] = await self._wire.read(
            lambda ask: ask.build.get_builds(
                self._project, definitions=[pipeline_id], min_time=since, query_order="queueTimeDescending", top=_LISTED
            )
        )
        return found

    async def _timeline(self, run_id: int) -> list[Any]:
        """The records of the run's timeline; none for a run whose YAML was refused."""
        try:
            timeline = await self._wire.read(lambda ask: ask.build.get_build_timeline(self._project, run_id))
        except Gone:
            return []
        return (timeline.records if timeline else None) or []

    async def _commit(self, build: Any) -> reading.Commit | None:
        """Who wrote what the run builds, where Azure Repos keeps it; a decoration, so a failure is not passed on."""
        repository, sha = build.repository, build.source_version
        if repository is None or repository.type != "TfsGit" or not sha:
            return None
        known = self._commits.get((repository.id, sha))
        if known is None:
            try:
                answer = await self._wire.read(lambda ask: ask.git.get_commit(sha, repository.id, project=self._project))
                known = reading.commit_of(answer)
            except (Gone, Refused):
                known = reading.Commit()
            except OutsideError:
                return None
            self._commits.keep((repository.id, sha), known)
        return known

    async def _parameters_of(self, build: Any) -> Mapping[str, str]:
        """What the run was started with: the build may leave it out, the pipelines API has it. It never changes."""
        known = self._parameters.get(build.id)
        if known is None:
            if build.template_parameters is not None:
                known = dict(build.template_parameters)
            else:
                try:
                    run = await self._wire.read(lambda ask: ask.pipelines.get_run(self._project, build.definition.id, build.id))
                except (Gone, Refused):  # a classic pipeline has none
                    run = None
                known = {name: str(value) for name, value in ((run.template_parameters if run else None) or {}).items()}
            self._parameters.keep(build.id, known)
        return known

    # --- classic releases -------------------------------------------------------------------------------------------

    @property
    def _releases(self) -> Releases:
        return Releases(self._wire, self._project, self._site, self._definitions, self.me)

    async def release(self, release_id: int) -> Run:
        """The classic release with all its stages, as it is now."""
        return await self._releases.release(release_id)

    async def recent_releases(self, definition_id: int, since: datetime) -> tuple[Run, ...]:
        """Releases made since then, newest first, with their stages."""
        return await self._releases.recent(definition_id, since)

    async def attached(self, release: Run, stage: str) -> Mapping[str, bytes]:
        """The smoke tests that the last attempt of a release's stage has attached to its tasks, by their names."""
        return await self._releases.attached(release, stage)

    async def redeployable(self, definition_id: int, stage: str, before: int) -> tuple[int, ...]:
        """The definition's releases below this number whose stage has succeeded, newest first; of the last ones only."""
        return await self._releases.redeployable(definition_id, stage, before)

    async def redeploy(self, release_id: int, stage: str, comment: str) -> None:
        """Deploy a stage of a release once more, once."""
        await self._releases.redeploy(release_id, stage, comment)

    # --- failures and artifacts -------------------------------------------------------------------------------------

    async def failure(self, run: Run) -> Failure | None:
        """Why the run or release failed, or None where no job of it did."""
        if run.thing is Thing.RELEASE:
            return await self._releases.failure(run)
        build, records = await asyncio.gather(self._build(run.id), self._timeline(run.id))
        culprit = reading.culprit(records)
        if culprit is None:
            # A run whose YAML was refused has no jobs to blame.
            refused = [result.message for result in build.validation_results or () if result.message]
            return Failure(stage="", job="", step="", error=refused[0], tail=tuple(refused), log_url=run.url) if refused else None
        lines, tests = await asyncio.gather(self._log(run.id, culprit.log_id), self._failed_tests(build))
        task = culprit.task
        return Failure(
            stage=culprit.stage.identifier or culprit.stage.name,
            job=culprit.job.name or "",
            step=(task.name if task else "") or "",
            error=reading.first_error(culprit.errors, lines),
            tail=lines,  # more than people are shown: what has to be hidden must be seen whole
            tests=tests,
            log_url=self._site.log(run.id, culprit.job.id, task.id) if task else run.url,
        )

    async def _log(self, run_id: int, log_id: int | None) -> tuple[str, ...]:
        """The end of a log; nothing where there is none (any more)."""
        if log_id is None:
            return ()

        def ask(clients: Clients) -> list[str]:
            logs = clients.build.get_build_logs(self._project, run_id)
            length = next((log.line_count for log in logs if log.id == log_id), None) or 0
            lines: list[str] = clients.build.get_build_log_lines(
                self._project, run_id, log_id, start_line=max(1, length - _LOG_LINES + 1), end_line=max(1, length)
            )
            return lines

        try:
            return reading.plain(await self._wire.read(ask))
        except Gone:
            return ()

    async def _failed_tests(self, build: Any) -> tuple[FailedTest, ...]:
        """Failing tests that the run published; a decoration, so a failure is not passed on."""

        def ask(clients: Clients) -> list[Any]:
            failed: list[Any] = []
            for run in clients.test.get_test_runs(self._project, build_uri=build.uri or f"vstfs:///Build/Build/{build.id}") or ():
                if len(failed) < reading.TESTS:
                    failed += clients.test.get_test_results(self._project, run.id, outcomes=["Failed"], top=reading.TESTS)
            return failed

        try:
            return reading.failed_tests(await self._wire.read(ask))
        except OutsideError:
            return ()

    async def artifact(self, run_id: int, name: str) -> Mapping[str, bytes]:
        """The files of a published artifact by their path inside it; empty while it is not there."""

        def ask(clients: Clients) -> bytes:
            archive = bytearray()
            with closing(clients.build.get_artifact_content_zip(self._project, run_id, name)) as chunks:
                for chunk in chunks:
                    archive += chunk
                    if len(archive) > reading.ARTIFACT_BYTES:
                        raise Refused(f"The artifact {name} is bigger than {reading.ARTIFACT_BYTES // 1024**2} MiB.")
            return bytes(archive)

        archive = await self._wire.find(ask, "ArtifactNotFoundException")
        return reading.files(archive, name) if archive is not None else {}

    # --- approvals --------------------------------------------------------------------------------------------------

    async def approvals(self, run: Run) -> tuple[Approval, ...]:
        """Every approval that the timeline of the run knows, or the release, decided ones too."""
        if run.thing is Thing.RELEASE:
            return await self._releases.approvals(run)
        records = await self._timeline(run.id)
        gates = reading.gates(records)
        try:
            said = await self._approvals(approvalIds=",".join(gates)) if gates else []
        except (Gone, Refused):  # it does not know these ids: see open_gate
            said = []
        if reading.open_gate(records) and not any(one.get("status") == ApprovalState.PENDING.value for one in said):
            said += [one for one in await self._approvals(state="pending") if reading.owner(one) == run.id]
        return self._read(said, {run.id: records})

    async def pending_approvals(self) -> tuple[Approval, ...]:
        """Every approval of the project that waits, of runs and of releases."""
        said, of_releases = await asyncio.gather(self._approvals(state="pending"), self._releases.pending())
        run_ids = sorted({run_id for one in said if (run_id := reading.owner(one)) is not None})
        timelines = await asyncio.gather(*(self._timeline(run_id) for run_id in run_ids))
        return (*self._read(said, dict(zip(run_ids, timelines, strict=True))), *of_releases)

    def _read(self, said: Iterable[Mapping[str, Any]], timelines: Mapping[int, list[Any]]) -> tuple[Approval, ...]:
        """The approvals whose stage is known, out of what the service says and the timelines of their runs."""
        gates = {run_id: (reading.gates(records), reading.open_gate(records)) for run_id, records in timelines.items()}
        found: list[Approval] = []
        for one in said:
            run_id = reading.owner(one)
            known, open_gate = gates.get(run_id, ({}, None)) if run_id is not None else ({}, None)
            gate = known.get(one["id"]) or open_gate
            if run_id is not None and gate is not None:
                found.append(reading.approval(one, run_id, gate, reading.environment(one, gate.stage, self._environments)))
        return tuple(found)

    async def decide(self, approval: Approval, answer: Answer, comment: str) -> Approval:
        """Answer an approval, once; returns what Azure DevOps then says. Raises Refused where it is not on record as this identity's."""
        if approval.thing is Thing.RELEASE:
            return await self._releases.decide(approval, answer, comment)
        me = await self.me()
        after = await self._update(approval, status=answer.value, comment=comment)
        return reading.proved(approval, after, answer, me)

    async def defer(self, approval: Approval, until: datetime, comment: str) -> Approval:
        """Approve from that time on, once; returns what Azure DevOps then says. Raises Refused where it took no notice."""
        if approval.thing is Thing.RELEASE:
            raise Refused("Azure DevOps cannot take an approval of a release for later. Approve it when it may be deployed.")
        me = await self.me()
        later = until.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        after = await self._update(approval, status="deferred", deferredTo=later, comment=comment)
        if not any(step.until is not None and step.actual is not None and step.actual.id == me.id for step in after.steps):
            raise Refused("Azure DevOps did not record this as your approval for later. Look at the approval there.")
        return after

    async def reassign(self, approval: Approval, to: Person, comment: str) -> Approval:
        """Hand this identity's part of an approval over, once; returns what Azure DevOps then says. Raises Refused where it did not."""
        if approval.thing is Thing.RELEASE:
            return await self._releases.reassign(approval, to, comment)
        me = await self.me()
        after = await self._update(approval, assignedApprover={"id": me.id}, reassignTo={"id": to.id}, comment=comment)
        if not any(step.assigned.id == to.id for step in after.steps):
            raise Refused("Azure DevOps did not hand it over. Look at the approval there.")
        return after

    async def _update(self, approval: Approval, **change: Any) -> Approval:
        """The approval after a change of it, as Azure DevOps tells it."""
        ask = [{"approvalId": approval.id, **change}]
        said: list[dict[str, Any]] = await self._wire.write(
            lambda to: to.pipelines._send(
                "PATCH", _APPROVALS, _APPROVALS_VERSION, route_values={"project": self._project}, content=ask
            ).json()["value"]
        )
        one = next((one for one in said if one["id"] == approval.id), None)
        if one is None:
            raise Gone("This approval does not exist any more.")
        return reading.approval(one, approval.run_id, reading.Gate(approval.stage, approval.attempt), approval.environment)

    # --- people -----------------------------------------------------------------------------------------------------

    async def groups_of(self, person: Person) -> frozenset[str]:
        """The names of the project's groups that somebody belongs to, also through other groups."""
        if person.id is None:
            return frozenset()
        found = await self._wire.read(lambda ask: ask.identity.read_identities(identity_ids=person.id, query_membership="expanded"))
        groups = [descriptor for one in found if one for descriptor in one.member_of or ()]
        if not groups:
            return frozenset()
        known = await self._wire.read(lambda ask: ask.identity.read_identities(descriptors=",".join(groups)))
        return reading.groups(known, self._project)

    async def people(self, named: str) -> tuple[Person, ...]:
        """The people whom Azure DevOps knows by this name or e-mail address."""
        found = await self._wire.read(lambda ask: ask.identity.read_identities(search_filter="General", filter_value=named))
        return tuple(reading.somebody(one) for one in found if one and not one.is_container)

    async def _approvals(self, **query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self._wire.read(
            lambda ask: ask.pipelines._send(
                "GET",
                _APPROVALS,
                _APPROVALS_VERSION,
                route_values={"project": self._project},
                query_parameters={**query, "$expand": "steps,permissions"},
            ).json()["value"]
        )
        return found

    async def _rejected(self, ids: Iterable[str]) -> frozenset[str]:
        """Which of these approvals somebody turned down."""
        asked = ",".join(ids)
        if not asked:
            return frozenset()
        return frozenset(one["id"] for one in await self._approvals(approvalIds=asked) if one.get("status") == ApprovalState.REJECTED.value)


K = TypeVar("K")


class Remembered(Generic[K, T]):
    """What never changes, kept for the last so many keys."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[K, T] = OrderedDict()

    def get(self, key: K) -> T | None:
        """What is kept under the key."""
        return self._kept.get(key)

    def keep(self, key: K, value: T) -> None:
        """Keep it, and forget the oldest where there are too many."""
        self._kept[key] = value
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
