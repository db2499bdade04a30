"""The pages of releases: their list, one release with its stages and approvals, its logs; and the forms on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from sandbox.azure_devops import releases as rules
from sandbox.azure_devops import show
from sandbox.azure_devops.approvals import Denied
from sandbox.azure_devops.orchestrator import Places
from sandbox.azure_devops.project import Project
from sandbox.azure_devops.records import Step
from sandbox.azure_devops.releases import Release, ReleaseApproval, ReleaseDeployment, ReleaseStage
from sandbox.azure_devops.views import name_of
from sandbox.names import Character

PATH = "/_releaseProgress"
_LOGS = "release-environment-logs"
_MOODS = {"notStarted": "pending", "queued": "queued", "inProgress": "running"}
_WORDS = {"notStarted": "Not deployed", "queued": "Queued", "inProgress": "In progress", "partiallySucceeded": "Partially succeeded"}


class ShowPage(Protocol):
    """Renders a template as a page of the site."""

    def __call__(self, request: web.Request, template: str, **values: Any) -> web.Response: ...


# A text that changes whenever a page with this log of this release should be fetched again.
Stamp = Callable[[int, int, Places], str]


@dataclass(frozen=True, slots=True)
class Ask:
    """An approval as a release's page shows it; `denied` says why the chosen person may not answer it, if so."""

    stage: ReleaseStage
    approval: ReleaseApproval
    denied: str


class ReleasePages:
    """The handlers, by their paths below the project."""

    def __init__(self, project: Project, page: ShowPage, stamp: Stamp, me: Callable[[web.Request], Character], home: str) -> None:
        self._engine = project.releases
        self._store = project.releases.store
        self._builds = project.store
        self._page = page
        self._stamp = stamp
        self._me = me
        self._home = home

    def routes(self) -> list[web.RouteDef]:
        """The routes of a project."""
        return [
            web.get("/_release", self._list),
            web.get(PATH, self._release),
            web.post("/_release/approval", self._decide),
            web.post("/_release/deploy", self._deploy),
            web.post("/_release/cancel", self._cancel),
            web.post("/_release/abandon", self._abandon),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        if "releaseId" in request.query:  # the address that REST gives
            raise web.HTTPFound(self._address(self._asked(request.query.get("releaseId", ""))))
        releases = list(self._store.releases)[::-1][:100]
        definition = next(iter(self._store.definitions), None)
        return self._page(
            request,
            "releases.html",
            section="releases",
            title="Releases",
            definition=definition,
            rows=[(release, self._builds.runs.get(release.build)) for release in releases],
            **_SHOWN,
        )

    async def _release(self, request: web.Request) -> web.Response:
        release = self._asked(request.query.get("releaseId", ""))
        shared: dict[str, Any] = {
            "section": "releases",
            "title": release.name,
            "release": release,
            "build": self._builds.runs.get(release.build),
            "path": PATH,
            "logs_view": _LOGS,
            **_SHOWN,
        }
        if request.query.get("_a") == _LOGS:
            return await self._logs(request, release, shared)
        return self._page(
            request,
            "release.html",
            asks=[ask for stage in release.stages for one in stage.deployments for ask in self._asks(request, release, stage, one)],
            identities=show.identities(),
            approvals_of_release=self._store.approvals_of,
            attached=[(stage, one, file) for stage in release.stages for one in stage.deployments for file in one.attachments],
            **shared,
        )

    async def _logs(self, request: web.Request, release: Release, shared: Mapping[str, Any]) -> web.Response:
        steps = [(stage, one, step) for stage in release.stages for one in stage.deployments for step in one.job.steps if step.log]
        stage_asked, asked = request.query.get("environmentId", ""), request.query.get("taskId", "")
        here = [found for found in steps if stage_asked in {"", str(found[0].id)}]
        chosen = next((found for found in steps if str(found[2].log) == asked), None) or _interesting(here)
        lines: list[show.Line] = []
        # Before the log is read: what comes while it is shown makes the page ask again.
        growing = chosen[2].log if chosen and chosen[2].state != "completed" else None
        stamp = self._stamp(release.id, growing or 0, self._engine.places)
        if chosen:
            file = self._engine.places.log(release.id, chosen[2].log or 0)
            text = await asyncio.to_thread(lambda: file.read_text(encoding="utf-8", errors="replace") if file.exists() else "")
            lines = list(show.log_lines(text))
        step = chosen[2] if chosen else None
        return self._page(request, "release_logs.html", step=step, lines=lines, stamp=stamp, **shared)

    async def _decide(self, request: web.Request) -> web.Response:
        form = await request.post()
        number, to = _text(form, "approval"), _text(form, "approver")
        approval = self._store.approvals.get(number)
        if approval is None:
            raise Denied(404, "NotFound", "There is no such approval.")
        self._engine.decide(approval, self._me(request), _text(form, "status"), _text(form, "comment"), to)
        raise web.HTTPSeeOther(self._address(self._store.place(approval).release))

    async def _deploy(self, request: web.Request) -> web.Response:
        form = await request.post()
        release, stage = self._stage(form)
        self._engine.deploy(release, stage, self._me(request), _text(form, "comment"))
        raise web.HTTPSeeOther(self._address(release))

    async def _cancel(self, request: web.Request) -> web.Response:
        release, stage = self._stage(await request.post())
        self._engine.cancel(release, stage, self._me(request))
        raise web.HTTPSeeOther(self._address(release))

    async def _abandon(self, request: web.Request) -> web.Response:
        release = self._asked(_text(await request.post(), "release"))
        self._engine.abandon(release, self._me(request))
        raise web.HTTPSeeOther(self._address(release))

    def _asks(self, request: web.Request, release: Release, stage: ReleaseStage, deployment: ReleaseDeployment) -> list[Ask]:
        place, me = rules.Place(release, stage, deployment), self._me(request)
        asked = [one for one in self._store.approvals_of(deployment) if one.approver]
        return [Ask(stage, one, str(rules.refusal(one, place, me) or "")) for one in asked]

    def _address(self, release: Release) -> str:
        return f"{self._home}{PATH}?_a=release-pipeline-progress&releaseId={release.id}"

    def _asked(self, number: str) -> Release:
        release = self._store.releases.get(number)
        if release is None:
            raise Denied(404, "NotFound", "There is no such release.")
        return release

    def _stage(self, form: Mapping[str, Any]) -> tuple[Release, ReleaseStage]:
        release = self._asked(_text(form, "release"))
        number = _text(form, "stage")
        stage = release.stage(int(number)) if number.isdigit() else None
        if stage is None:
            raise Denied(404, "NotFound", "There is no such stage.")
        return release, stage


def mood(of: ReleaseStage | ReleaseDeployment) -> str:
    """The one word that chooses icon and colour of a stage, or of one attempt."""
    match of:
        case ReleaseStage(status="inProgress") if of.open and of.open.step in {"before", "after"}:
            return "waiting"
        case ReleaseStage():
            return _MOODS.get(of.status, of.status)
        case ReleaseDeployment(step="done"):
            return {"notDeployed": "rejected" if of.operation == "Rejected" else "canceled"}.get(of.status, of.status)
        case _:
            return "running" if of.step == "job" else "waiting"


def words(stage: ReleaseStage) -> str:
    """The state of a stage in words."""
    if mood(stage) == "waiting" and stage.open:
        return "Waiting for approval"
    return _WORDS.get(stage.status, stage.status.capitalize())


def why(release: Release) -> str:
    """Why the release exists, and for whom."""
    who = name_of(release.created_for)
    return f"Continuous deployment for {who}" if release.reason == "continuousIntegration" else f"Created by {who}"


_SHOWN: dict[str, Any] = {"stage_mood": mood, "stage_words": words, "why": why, "name_of": name_of}


def _interesting(steps: list[tuple[ReleaseStage, ReleaseDeployment, Step]]) -> tuple[ReleaseStage, ReleaseDeployment, Step] | None:
    """What one wants to see first: a failed step of the newest attempt, the running one, the last of the tasks."""
    if not steps:
        return None
    newest = [found for found in steps if found[1] is steps[-1][1]]
    for wanted in ("failed", "canceled", "running"):
        for found in newest:
            if show.mood(found[2]) == wanted:
                return found
    return next((found for found in reversed(newest) if found[2].task not in {"initialize", "finalize"}), newest[-1])


def _text(form: Mapping[str, Any], name: str) -> str:
    return str(form.get(name, "")).strip()
