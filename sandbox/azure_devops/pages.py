"""The pages: runs, logs, approvals, code, environments and hooks, at the paths the real site has; a little script keeps them fresh.

Whoever is chosen at the top right acts, under the same rules as over the API.
"""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import yaml
from aiohttp import web
from jinja2 import Environment as Templates
from jinja2 import FileSystemLoader, StrictUndefined

from sandbox.azure_devops import candidates, show, views
from sandbox.azure_devops.approvals import Answer, Denied, refusal
from sandbox.azure_devops.candidates import BadSettings
from sandbox.azure_devops.environment_pages import EnvironmentPages
from sandbox.azure_devops.hooks import MASK, Subscription
from sandbox.azure_devops.orchestrator import Places
from sandbox.azure_devops.packing import packed
from sandbox.azure_devops.plan import BadPipeline
from sandbox.azure_devops.project import Project
from sandbox.azure_devops.records import Job, Run, Stage, Step, now
from sandbox.azure_devops.release_pages import ReleasePages
from sandbox.azure_devops.repository import MAIN, NoSuchThing
from sandbox.azure_devops.rest import files_of
from sandbox.azure_devops.wire import unlicensed
from sandbox.names import ADA, ADO_MEMBERS, ORGANIZATION, PROJECT, PROJECT_ID, Character

PREFIX = "/dev.azure.com"
HOME = f"{PREFIX}/{ORGANIZATION}/{PROJECT}"
COOKIE = "ado-person"
_BECOME = "/_person"
PEOPLE = tuple(who for who in ADO_MEMBERS if who.slack and who.title != "App")

_HERE = Path(__file__).parent
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_TABS = {"results": "Summary", "logs": "Logs", "artifacts": "Artifacts", "tests": "Tests"}
_TESTS_VIEW = "ms.vss-test-web.build-test-results-tab"

Show = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refusal(Exception):
    """What the page cannot or will not do; shown to the person."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Pages:
    """The application under `/dev.azure.com` on the page's port."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._store = project.store
        self._releases = ReleasePages(project, self._page, self._stamp, _me, HOME)
        self._environments = EnvironmentPages(project, self._page, _me, HOME)
        self._templates = Templates(
            loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._templates.globals.update(
            home=HOME,
            people=PEOPLE,
            known=views.KNOWN,
            mood=show.mood,
            words=show.words,
            length=show.length,
            ago=lambda then: show.ago(then, now()),
            initials=show.initials,
            reason=show.reason,
            columns=show.columns,
            pipelines=self._store.pipelines,
            waits_for=show.waits_for,
            approvals_of=self._store.approvals_of,
            name_of=views.name_of,
            members_of=show.members_of,
            part_mood=show.part_mood,
            part_words=show.part_words,
            how_many=show.how_many,
            clock=lambda at: at.strftime("%d %b %Y, %H:%M:%S") if at else "",
            now=now,
        )

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(middlewares=[self._guard])
        project = f"/{ORGANIZATION}/{{project:{PROJECT}|{PROJECT_ID}}}"
        app.router.add_static("/static", _HERE / "static")
        for path in ("", "/", f"/{ORGANIZATION}", f"/{ORGANIZATION}/", project, project + "/"):
            app.router.add_get(path, _go_home)
        for path, handler in (
            ("/_build", self._runs),
            ("/_build/definition", self._runs),
            ("/_build/results", self._results),
            ("/_build/run", self._run_form),
            ("/_build/log", self._raw_log),
            ("/_build/artifact", self._artifact),
            (f"/_git/{PROJECT}", self._code),
            (f"/_git/{PROJECT}/commit/{{sha:[0-9a-f]{{4,40}}}}", self._commit),
            ("/_settings/serviceHooks", self._hooks),
            ("/_version", self._version),
        ):
            app.router.add_get(project + path, handler)
        for page in (*self._releases.routes(), *self._environments.routes()):
            app.router.add_route(page.method, project + page.path, page.handler)
        for path, handler in (
            (_BECOME, self._become),
            ("/_build/run", self._run),
            ("/_build/cancel", self._cancel),
            ("/_build/retry", self._retry),
            ("/_build/approval", self._decide),
            (f"/_git/{PROJECT}/merge", self._merge),
        ):
            app.router.add_post(project + path, handler)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Show) -> web.StreamResponse:
        """Only this machine's pages may post; every answer carries the policy; what is refused is shown."""
        try:
            if urlsplit(f"//{request.host}").hostname not in {"127.0.0.1", "localhost"}:
                raise Refusal(403, "This page is served to this machine only.")
            if request.method != "GET" and not _same_origin(request):
                raise Refusal(403, "This request came from another page and was refused.")
            if request.method != "GET" and not request.path.endswith(_BECOME) and _me(request).oid in self._project.unlicensed:
                raise Refusal(403, unlicensed(_me(request)))
            answer = await handler(request)
        except Refusal as refused:
            answer = self._refused(request, refused.status, str(refused))
        except Denied as denied:
            answer = self._refused(request, denied.status, str(denied))
        except (BadPipeline, BadSettings, NoSuchThing) as wrong:
            answer = self._refused(request, 400, str(wrong))
        except web.HTTPNotFound:
            answer = self._refused(request, 404, "There is no such page.")
        except web.HTTPRedirection as redirection:
            redirection.headers.update(_HEADERS)
            raise
        answer.headers.update(_HEADERS)
        return answer

    def _refused(self, request: web.Request, status: int, message: str) -> web.Response:
        return self._page(request, "refused.html", status=status, section="", title="Not possible", message=message)

    def _page(self, request: web.Request, template: str, *, status: int = 200, **values: Any) -> web.Response:
        shared = {"me": _me(request), "here": str(request.rel_url), "stamp": self._stamp()}
        text = self._templates.get_template(template).render(shared | values)
        return web.Response(text=text, status=status, content_type="text/html")

    async def _version(self, request: web.Request) -> web.Response:
        """A text that changes whenever the page that asks should be fetched again."""
        if release := _number(request, "release"):
            return web.Response(text=self._stamp(release, _number(request, "log"), self._project.releases.places))
        return web.Response(text=self._stamp(_number(request, "run"), _number(request, "log")))

    def _stamp(self, run: int = 0, log: int = 0, places: Places | None = None) -> str:
        file = (places or self._project.places).log(run, log)
        size = file.stat().st_size if log and file.exists() else 0
        return f"{self._project.changes.version}.{size}"

    async def _runs(self, request: web.Request) -> web.Response:
        runs = sorted(self._store.runs, key=lambda run: run.id, reverse=True)[:100]
        return self._page(request, "runs.html", section="pipelines", title="Runs", runs=runs, pipeline=next(iter(self._store.pipelines)))

    async def _results(self, request: web.Request) -> web.Response:
        run = self._asked(request)
        view = request.query.get("view", "results")
        tab = "tests" if view == _TESTS_VIEW else view if view in _TABS else "results"
        shared: dict[str, Any] = {
            "section": "pipelines",
            "title": f"#{run.number}",
            "run": run,
            "tab": tab,
            "tabs": {name: title for name, title in _TABS.items() if name != "tests" or self._tests(run)},
            "tests_view": _TESTS_VIEW,
            "tests": self._tests(run),
            "pipeline": self._store.pipelines.get(run.pipeline),
        }
        match tab:
            case "logs":
                return await self._logs(request, run, shared)
            case "artifacts":
                folder = self._project.places.artifacts(run.id)
                listed = await asyncio.to_thread(lambda: {one.name: sorted(files_of(folder / one.name).items()) for one in run.artifacts})
                return self._page(request, "artifacts.html", files=listed, **shared)
            case "tests":
                return self._page(request, "tests.html", **shared)
            case _:
                return self._page(
                    request, "summary.html", asks=self._asks(request, run), errors=_errors(run), identities=show.identities(), **shared
                )

    async def _logs(self, request: web.Request, run: Run, shared: Mapping[str, Any]) -> web.Response:
        steps = list(_latest(run))
        asked = request.query.get("t") or request.query.get("j") or request.query.get("s")
        chosen = next((found for found in steps if asked in {found[2].id, found[1].id, found[0].id} and found[2].log), None)
        if asked is None:
            chosen = _interesting(steps)
        lines: list[show.Line] = []
        # Before the log is read: what comes while it is shown makes the page ask again.
        log = chosen[2].log if chosen and chosen[2].state != "completed" else None
        stamp = self._stamp(run.id, log or 0)
        if chosen and chosen[2].log is not None:
            file = self._project.places.log(run.id, chosen[2].log)
            text = await asyncio.to_thread(lambda: file.read_text(encoding="utf-8", errors="replace") if file.exists() else "")
            lines = list(show.log_lines(text))
        stage, job, step = chosen or (None, None, None)
        wanted = request.query.get("l", "")
        return self._page(request, "logs.html", stage=stage, job=job, step=step, lines=lines, wanted=wanted, stamp=stamp, **shared)

    async def _raw_log(self, request: web.Request) -> web.StreamResponse:
        run = self._asked(request)
        file = self._project.places.log(run.id, _number(request, "logId"))
        if not file.exists():
            raise Refusal(404, "There is no such log.")
        return web.Response(text=await asyncio.to_thread(file.read_text, "utf-8", "replace"), content_type="text/plain")

    async def _artifact(self, request: web.Request) -> web.StreamResponse:
        run = self._asked(request)
        name, path = request.query.get("artifactName", ""), request.query.get("path", "")
        if not any(one.name == name for one in run.artifacts):
            raise Refusal(404, "There is no such artifact.")
        files = await asyncio.to_thread(files_of, self._project.places.artifacts(run.id) / name)
        if not path:
            body = await asyncio.to_thread(packed, {f"{name}/{inner}": content for inner, content in files.items()})
            return web.Response(body=body, content_type="application/zip", headers=_attached(f"{name}.zip"))
        if path not in files:
            raise Refusal(404, "There is no such file.")
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        safe = kind if kind in {"application/json", "image/png", "text/plain"} else "application/octet-stream"
        headers = {} if safe != "application/octet-stream" else _attached(path.rpartition("/")[2])
        return web.Response(body=files[path], content_type=safe, headers=headers)

    async def _run_form(self, request: web.Request) -> web.Response:
        pipeline = next(iter(self._store.pipelines))
        text = await asyncio.to_thread(self._project.repository.read, pipeline.file)
        return self._page(
            request, "run_form.html", section="pipelines", title="Run pipeline", pipeline=pipeline, parameters=_parameters(text)
        )

    async def _run(self, request: web.Request) -> web.Response:
        pipeline = next(iter(self._store.pipelines))
        form = await request.post()
        given = {name.removeprefix("p."): str(value) for name, value in form.items() if name.startswith("p.") and value}
        run = await self._project.queue(pipeline, _me(request), parameters=given)
        raise web.HTTPSeeOther(_run_path(run))

    async def _cancel(self, request: web.Request) -> web.Response:
        run = self._asked_in(await request.post())
        self._project.cancel(run, _me(request))
        raise web.HTTPSeeOther(_run_path(run))

    async def _retry(self, request: web.Request) -> web.Response:
        form = await request.post()
        run = self._asked_in(form)
        stage = run.stage(str(form.get("stage", "")))
        if stage is None:
            raise Refusal(404, "There is no such stage.")
        self._project.retry(run, stage, _me(request), everything=form.get("everything") == "yes")
        raise web.HTTPSeeOther(_run_path(run))

    async def _decide(self, request: web.Request) -> web.Response:
        form = await request.post()
        run = self._asked_in(form)
        status = str(form.get("status", ""))
        answer = Answer(
            id=str(form.get("approval", "")),
            status="" if status == "reassigned" else status,
            comment=str(form.get("comment", "")).strip(),
            until=_moment(str(form.get("until", ""))) if status == "deferred" else None,
            to=str(form.get("to", "")) if status == "reassigned" else "",
        )
        self._project.decide(_me(request), answer)
        raise web.HTTPSeeOther(_run_path(run))

    async def _become(self, request: web.Request) -> web.Response:
        form = await request.post()
        chosen = next((who for who in PEOPLE if who.oid == form.get("person")), ADA)
        back = str(form.get("back", ""))
        answer = web.Response(status=303, headers={"Location": back if back.startswith(f"{PREFIX}/") else HOME})
        answer.set_cookie(COOKIE, chosen.oid, path=PREFIX, httponly=True, samesite="Strict")
        return answer

    async def _code(self, request: web.Request) -> web.Response:
        repository = self._project.repository
        commits = await asyncio.to_thread(repository.commits, MAIN, 30)
        text = await asyncio.to_thread(repository.read, candidates.FILE)
        path = request.query.get("path", "").lstrip("/")
        opened = await asyncio.to_thread(repository.read, path) if path else ""
        files = await asyncio.to_thread(repository.files)
        return self._page(
            request,
            "code.html",
            section="repos",
            title="Repos",
            commits=commits,
            models=candidates.candidates(text),
            files=files,
            path=path,
            content=opened,
            runs=self._runs_by_commit(),
        )

    async def _commit(self, request: web.Request) -> web.Response:
        repository = self._project.repository
        commit = await asyncio.to_thread(repository.commit, request.match_info["sha"])
        changes = await asyncio.to_thread(repository.changes, commit.sha)
        diff = show.diff_lines(await asyncio.to_thread(repository.diff, commit.sha))
        return self._page(
            request,
            "commit.html",
            section="repos",
            title=commit.sha[:8],
            commit=commit,
            changes=changes,
            diff=diff[: show.SHOWN_LINES],
            more=max(len(diff) - show.SHOWN_LINES, 0),
            runs=self._runs_by_commit().get(commit.sha, []),
        )

    async def _merge(self, request: web.Request) -> web.Response:
        form = await request.post()
        model = str(form.get("model", ""))
        named = {tuple(name.split(".")): str(value).strip() for name, value in form.items() if name.startswith("s.")}
        wanted = {(parts[1], parts[2]): value for parts, value in named.items() if len(parts) == 3}
        text = await asyncio.to_thread(self._project.repository.read, candidates.FILE)
        changed = candidates.change(text, model, wanted)
        title = str(form.get("title", "")).strip().partition("\n")[0][:200] or f"Change the candidates of {model}"
        _, runs = await self._project.merge(_me(request), title, {candidates.FILE: changed})
        raise web.HTTPSeeOther(_run_path(runs[0]) if runs else f"{HOME}/_git/{PROJECT}")

    async def _hooks(self, request: web.Request) -> web.Response:
        subscriptions = self._project.hooks.subscriptions()
        asked = request.query.get("subscription", "")
        chosen = next((one for one in subscriptions if one.id == asked), None)
        history = self._project.hooks.history(chosen.id) if chosen else self._project.hooks.everything()
        return self._page(
            request,
            "hooks.html",
            section="hooks",
            title="Service hooks",
            subscriptions=subscriptions,
            chosen=chosen,
            history=history[:60],
            filters=_filters,
            mask=MASK,
            by_id={one.id: one for one in subscriptions},
        )

    def _asked(self, request: web.Request) -> Run:
        return self._run_numbered(_number(request, "buildId"))

    def _asked_in(self, form: Mapping[str, Any]) -> Run:
        number = str(form.get("run", ""))
        return self._run_numbered(int(number) if number.isdigit() else 0)

    def _run_numbered(self, number: int) -> Run:
        run = self._store.runs.get(number)
        if run is None:
            raise Refusal(404, f"The run {number} does not exist.")
        return run

    def _tests(self, run: Run) -> list[Any]:
        return [one for one in self._store.tests if one.run == run.id]

    def _runs_by_commit(self) -> dict[str, list[Run]]:
        found: dict[str, list[Run]] = {}
        for run in self._store.runs:
            found.setdefault(run.commit, []).append(run)
        return found

    def _asks(self, request: web.Request, run: Run) -> list[dict[str, Any]]:
        """What waits for an answer, and why the chosen person may not give it, if so."""
        me = _me(request)
        asks = []
        for stage in run.stages:
            for approval in self._store.approvals_of(stage):
                environment = self._store.environments.get(approval.environment)
                denied = refusal(approval, me, run.requested_for)
                asks.append({"approval": approval, "stage": stage, "environment": environment, "denied": str(denied) if denied else ""})
        return asks


async def _go_home(_: web.Request) -> web.Response:
    raise web.HTTPFound(f"{HOME}/_build")


def _run_path(run: Run) -> str:
    return f"{HOME}/_build/results?buildId={run.id}"


def _me(request: web.Request) -> Character:
    """The person that was chosen at the top right; Ada at first."""
    return next((who for who in PEOPLE if who.oid == request.cookies.get(COOKIE)), ADA)


def _number(request: web.Request, name: str) -> int:
    text = request.query.get(name, "")
    return int(text) if text.isdigit() else 0


def _moment(text: str) -> datetime | None:
    """What a field for a time holds, in UTC; None where it is empty. Raises Refusal."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC) if text else None
    except ValueError:
        raise Refusal(400, f"This is no time: {text}") from None


def _same_origin(request: web.Request) -> bool:
    """Browsers say where a form comes from; who says nothing, or something else, is refused."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        return False
    return site == "same-origin" or (site is None and origin is not None)


def _attached(name: str) -> dict[str, str]:
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}"}


def _latest(run: Run) -> list[tuple[Stage, Job, Step]]:
    """Every step of the newest attempts of those jobs that have begun."""
    return [(stage, job, step) for stage in run.stages for job in stage.jobs if job.started for step in job.steps]


def _interesting(steps: list[tuple[Stage, Job, Step]]) -> tuple[Stage, Job, Step] | None:
    """What one wants to see first: the failed step, the running one, the last."""
    logged = [found for found in steps if found[2].log is not None]
    for wanted in ("failed", "canceled", "running"):
        for found in logged:
            if show.mood(found[2]) == wanted:
                return found
    theirs = [found for found in logged if found[2].task not in {"initialize", "finalize"}]
    return theirs[-1] if theirs else logged[-1] if logged else None


def _errors(run: Run) -> list[dict[str, Any]]:
    """The errors of the newest attempts, each with its place."""
    found: list[dict[str, Any]] = []
    for stage in run.stages:
        for job in stage.jobs:
            found += [{"stage": stage, "job": job, "step": None, "issue": issue} for issue in job.issues]
            for step in job.steps:
                found += [{"stage": stage, "job": job, "step": step, "issue": issue} for issue in step.issues]
    return found


def _parameters(text: str) -> list[dict[str, Any]]:
    """The parameters that the YAML declares, for the form."""
    declared = yaml.safe_load(text).get("parameters") or []
    return [
        {
            "name": str(one["name"]),
            "title": str(one.get("displayName") or one["name"]),
            "default": str(one.get("default", "")),
            "values": [str(value) for value in one.get("values") or []],
        }
        for one in declared
    ]


def _filters(subscription: Subscription) -> str:
    common = {"projectId", "subscriberId", "teamId", "tfsSubscriptionId", "hostId"}
    return ", ".join(f"{name} = {value}" for name, value in subscription.inputs.items() if value and name not in common) or "any"
