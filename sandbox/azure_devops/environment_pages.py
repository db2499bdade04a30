"""The pages of environments: what was deployed there, and who has to approve it. Administrators change that, and delete environments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from aiohttp import web

from sandbox.azure_devops import show
from sandbox.azure_devops.approvals import MONTH, ORDERS, Denied
from sandbox.azure_devops.project import ADMINISTER, Project
from sandbox.azure_devops.records import Check, Environment, now
from sandbox.azure_devops.release_pages import ShowPage
from sandbox.names import Character


class EnvironmentPages:
    """The handlers, by their paths below the project."""

    def __init__(self, project: Project, page: ShowPage, me: Callable[[web.Request], Character], home: str) -> None:
        self._project = project
        self._store = project.store
        self._page = page
        self._me = me
        self._home = home

    def routes(self) -> list[web.RouteDef]:
        """The routes of a project."""
        return [
            web.get("/_environments", self._list),
            web.get("/_environments/{id:[0-9]+}", self._environment),
            web.post("/_environments/{id:[0-9]+}/check", self._protect),
            web.post("/_environments/{id:[0-9]+}/delete", self._delete),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        newest = {one.environment: (one, self._store.runs.get(one.run)) for one in self._store.deployments}
        return self._page(
            request,
            "environments.html",
            section="environments",
            title="Environments",
            environments=[one for one in self._store.environments if not one.deleted],
            newest=newest,
            checks={check.environment for check in self._store.checks},
        )

    async def _environment(self, request: web.Request) -> web.Response:
        environment = self._asked(request)
        deployments = [(one, self._store.runs.get(one.run)) for one in self._store.deployments if one.environment == environment.id]
        return self._page(
            request,
            "environment.html",
            section="environments",
            title=environment.name,
            environment=environment,
            deployments=deployments[::-1],
            checks=self._checks(environment),
            fresh=_fresh(environment, self._me(request)),
            may_edit=self._me(request).oid in ADMINISTER,
            identities=show.identities(),
        )

    async def _protect(self, request: web.Request) -> web.Response:
        environment, form, me = self._asked(request), await request.post(), self._me(request)
        number, minimum = str(form.get("check", "")), str(form.get("minimum", ""))
        old = next((check for check in self._checks(environment) if str(check.id) == number), _fresh(environment, me))
        if not minimum.isdecimal():
            raise Denied(400, "CheckConfigurationException", f"The minimum number of approvers must be a whole number, not '{minimum}'.")
        chosen = [str(oid) for oid in form.getall("approver", [])]
        wanted = replace(
            old,
            # Who is there already keeps their place in the sequence.
            approvers=[*(oid for oid in old.approvers if oid in chosen), *(oid for oid in chosen if oid not in old.approvers)],
            minimum=int(minimum),
            execution_order=str(form.get("order", "")),
            requester_excluded=form.get("requester") != "may",
            instructions=str(form.get("instructions", "")).strip(),
            modified=now(),
            modified_by=me.oid,
        )
        self._project.check(me, wanted)
        raise web.HTTPSeeOther(f"{self._home}/_environments/{environment.id}")

    async def _delete(self, request: web.Request) -> web.Response:
        self._project.remove_environment(self._me(request), self._asked(request).name)
        raise web.HTTPSeeOther(f"{self._home}/_environments")

    def _asked(self, request: web.Request) -> Environment:
        environment = self._store.environments.get(request.match_info["id"])
        if environment is None or environment.deleted:
            raise Denied(404, "EnvironmentNotFoundException", "There is no such environment.")
        return environment

    def _checks(self, environment: Environment) -> list[Check]:
        return [check for check in self._store.checks if check.environment == environment.id]


def _fresh(environment: Environment, who: Character) -> Check:
    """What the form for a new check starts from."""
    at = now()
    return Check(
        id=0,
        environment=environment.id,
        approvers=[],
        minimum=1,
        execution_order=ORDERS[0],
        instructions="",
        requester_excluded=True,
        timeout=MONTH,
        created=at,
        created_by=who.oid,
        modified=at,
        modified_by=who.oid,
    )
