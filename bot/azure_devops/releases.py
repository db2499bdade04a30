"""Classic releases on Azure DevOps: `edge` comes here for what is about a release. They live on a host of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bot.azure_devops import release_reading as reading
from bot.azure_devops.reading import ARTIFACT_BYTES, Site, first_error, plain
from bot.core.approvals import Answer, Approval
from bot.core.errors import Gone, OutsideError, Refused
from bot.core.people import Person
from bot.core.runs import Failure, Run

if TYPE_CHECKING:
    from bot.azure_devops.wire import Clients, Wire

SMOKE_TEST = "smoke-test"  # the type under which a task attaches what a deployment answered
_WITH = "environments,artifacts,approvals"
_LISTED = 100
_LOG_BYTES = 512 * 1024  # of the end of a log
_LOG_LINES = 200


class Releases:
    """Releases of the team's `definitions` as one identity sees them; `me` says whose that is."""

    def __init__(self, wire: Wire, project: str, site: Site, definitions: Collection[int], me: Callable[[], Awaitable[Person]]) -> None:
        self._wire = wire
        self._project = project
        self._site = site
        self._definitions = definitions
        self._me = me

    async def release(self, release_id: int) -> Run:
        """The release with all its stages, as it is now."""
        return reading.release(await self._said(release_id), self._site)

    async def recent(self, definition_id: int, since: datetime) -> tuple[Run, ...]:
        """Releases made since then, newest first; a list knows neither attempts nor steps of their stages."""
        found = await self._wire.read(
            lambda ask: ask.releases.get_releases(
                self._project, definition_id=definition_id, min_created_time=since, query_order="descending", top=_LISTED, expand=_WITH
            )
        )
        return tuple(reading.release(one, self._site) for one in found)

    async def failure(self, run: Run) -> Failure | None:
        """Why a deployment failed, or None where none did."""
        said = await self._said(run.id)
        culprit = reading.culprit(said)
        if culprit is None:
            return None
        lines = await self._log(run.id, culprit)
        return Failure(
            stage=culprit.environment.name,
            job=(culprit.job.name if culprit.job else "") or "",
            step=(culprit.task.name if culprit.task else "") or "",
            error=first_error(culprit.errors, lines),
            tail=lines,
            log_url=self._site.release_log(run.id, culprit.environment.id),
        )

    async def _log(self, release_id: int, culprit: reading.Culprit) -> tuple[str, ...]:
        """The end of the failed task's log; a decoration, so a failure is not passed on."""
        task, phase = culprit.task, culprit.phase
        if task is None or phase is None or not task.log_url:
            return ()

        def ask(clients: Clients) -> bytes:
            said = clients.releases.get_task_log(self._project, release_id, culprit.environment.id, phase.id, task.id)
            return _end(said, _LOG_BYTES)

        try:
            text = (await self._wire.read(ask)).decode("utf-8", "replace")
        except OutsideError:
            return ()
        return plain(text.splitlines()[-_LOG_LINES:])

    async def attached(self, run: Run, stage: str) -> Mapping[str, bytes]:
        """The smoke tests that the last attempt of the stage has attached to its tasks, by their names."""
        environment = reading.environment(await self._said(run.id), stage)
        attempt = reading.latest(environment) if environment is not None else None
        if environment is None or attempt is None:
            return {}

        def ask(clients: Clients) -> dict[str, bytes]:
            found: dict[str, bytes] = {}
            for plan in dict.fromkeys(phase.run_plan_id for phase in attempt.release_deploy_phases or () if phase.run_plan_id):
                place = (self._project, run.id, environment.id, attempt.attempt, plan)
                for one in clients.releases.get_release_task_attachments(*place, SMOKE_TEST):
                    content = clients.releases.get_release_task_attachment_content(
                        *place, one.timeline_id, one.record_id, SMOKE_TEST, one.name
                    )
                    found[one.name] = _whole(content, one.name)
            return found

        try:
            return await self._wire.read(ask)
        except Gone:
            return {}

    async def approvals(self, run: Run) -> tuple[Approval, ...]:
        """Every approval of the release that people were asked for, decided ones too."""
        return reading.approvals(await self._said(run.id))

    async def pending(self) -> tuple[Approval, ...]:
        """Every approval that waits, of the team's releases; those of groups have to be asked for."""
        if not self._definitions:
            return ()
        found = await self._wire.read(
            lambda ask: ask.releases.get_approvals(
                self._project, status_filter="pending", top=_LISTED, query_order="ascending", include_my_group_approvals=True
            )
        )
        return tuple(
            reading.approval(one, one.release.id, one.release_environment.name)
            for one in found
            if one.release_definition.id in self._definitions and not one.is_automated
        )

    async def redeployable(self, definition_id: int, stage: str, before: int) -> tuple[int, ...]:
        """The releases below this number that have been deployed to the stage, newest first; of the last deployments only."""
        found = await self._wire.read(
            lambda ask: ask.releases.get_deployments(
                self._project, definition_id=definition_id, deployment_status="succeeded", query_order="descending", top=_LISTED
            )
        )
        ids = {one.release.id for one in found if one.release_environment.name == stage}
        return tuple(sorted((number for number in ids if number < before), reverse=True))

    async def decide(self, approval: Approval, answer: Answer, comment: str) -> Approval:
        """Answer an approval, once; returns what Azure DevOps then says. Raises Refused where it is not on record as this identity's."""
        me = await self._me()
        return reading.proved(await self._update(approval, {"status": answer.value, "comments": comment}), answer, me)

    async def reassign(self, approval: Approval, to: Person, comment: str) -> Approval:
        """Hand an approval over, once; returns what Azure DevOps then says. Raises Refused where it did not."""
        change = {"status": "reassigned", "approver": {"id": to.id}, "comments": comment}
        return reading.handed_over(await self._update(approval, change), to)

    async def _update(self, approval: Approval, change: Mapping[str, Any]) -> Approval:
        said = await self._wire.write(lambda to: to.releases.update_release_approval(change, self._project, int(approval.id)))
        return reading.approval(said, approval.run_id, approval.stage)

    async def redeploy(self, release_id: int, stage: str, comment: str) -> None:
        """Deploy a stage of a release once more, once."""
        said = await self._said(release_id)
        environment = reading.environment(said, stage)
        if environment is None:
            raise Gone(f"{said.name} has no stage {stage}.")
        change = {"status": "inProgress", "comment": comment}
        await self._wire.write(lambda to: to.releases.update_release_environment(change, self._project, release_id, environment.id))

    async def _said(self, release_id: int) -> Any:
        try:
            return await self._wire.read(lambda ask: ask.releases.get_release(self._project, release_id))
        except Gone:
            raise Gone(f"Release {release_id} does not exist.") from None


def _end(chunks: Iterator[bytes], size: int) -> bytes:
    """The last so many bytes."""
    kept = bytearray()
    for chunk in chunks:
        kept += chunk
        del kept[: max(0, len(kept) - size)]
    return bytes(kept)


def _whole(chunks: Iterator[bytes], name: str) -> bytes:
    """All of it. Raises Refused for what is too big."""
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > ARTIFACT_BYTES:
            raise Refused(f"The attachment {name} is bigger than {ARTIFACT_BYTES // 1024**2} MiB.")
    return bytes(content)
