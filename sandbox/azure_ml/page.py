"""The studio's pages: models with their versions, jobs with their logs and metrics, and what is deployed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from aiohttp import web

from sandbox import names
from sandbox.azure_ml.arm import ArmError
from sandbox.azure_ml.assets import Assets
from sandbox.azure_ml.containers import ContainerInstances
from sandbox.azure_ml.endpoints import OnlineEndpoints
from sandbox.azure_ml.jobs import Jobs
from sandbox.azure_ml.mlflow import Tracking

_TEMPLATES = Path(__file__).parent / "templates"
_POLICY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_DIGEST = re.compile(r"\b((?:sha256:)?[0-9a-f]{12})[0-9a-f]{28,52}\b")  # what one tells apart by its beginning
_LATEST = 200  # jobs that one page lists


class Studio:
    """Read-only pages; `application` serves them below any prefix, with the paths of the real studio."""

    def __init__(self, assets: Assets, jobs: Jobs, tracking: Tracking, endpoints: OnlineEndpoints, containers: ContainerInstances) -> None:
        self._assets = assets
        self._jobs = jobs
        self._tracking = tracking
        self._endpoints = endpoints
        self._containers = containers
        self._pages = jinja2.Environment(loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined)
        self._pages.filters["digits"] = lambda text: _DIGEST.sub(r"\1…", text)
        self._pages.filters["when"] = lambda moment: moment[:19].replace("T", " ") if moment else ""

    def application(self, prefix: str) -> web.Application:
        """The pages, with links that begin with the prefix."""
        app = web.Application()

        async def overview(_: web.Request) -> web.Response:
            return self._show("overview.html", prefix, models=self._models(), jobs=self._jobs.all()[:_LATEST], **self._deployed())

        async def model(request: web.Request) -> web.Response:
            name, _, version = request.match_info["name"].partition(":")
            versions = [_version(document) for document in self._assets.versions("models", name)]
            if not versions:
                raise web.HTTPNotFound(text=f"Model {name} was not found.")
            return self._show("model.html", prefix, name=name, versions=versions, chosen=version, metrics=_metrics(versions))

        async def job(request: web.Request) -> web.Response:
            name = request.match_info["name"]
            try:
                document = self._jobs.get(name)
            except ArmError as problem:
                raise web.HTTPNotFound(text=problem.message) from None
            run = await self._tracking.run(name)
            return self._show("job.html", prefix, job=document, history=self._jobs.history(name), run=run, log=self._jobs.text(name))

        app.add_routes(
            [
                web.get("/", overview),
                web.get("/{_list:model/list|endpoints|runs|experiments}", overview),
                web.get("/model/{name}", model),
                web.get("/model/{name}/details", model),
                web.get("/runs/{name}", job),
                web.get("/endpoints/realtime/{_name}/detail", overview),
                web.get("/studio.css", _style),
            ]
        )
        return app

    def _models(self) -> list[dict[str, Any]]:
        found = []
        for name in self._assets.names("models"):
            versions = [_version(document) for document in self._assets.versions("models", name)]
            champion = next((version for version in versions if version["champion"]), None)
            found.append({"name": name, "versions": versions, "champion": champion})
        return found

    def _deployed(self) -> dict[str, Any]:
        return {"endpoints": self._endpoints.all(), "groups": self._containers.all()}

    def _show(self, template: str, prefix: str, **values: Any) -> web.Response:
        page = self._pages.get_template(template).render(prefix=prefix, workspace=names.WORKSPACE, **values)
        return web.Response(text=page, content_type="text/html", headers=_POLICY)


def _version(document: Mapping[str, Any]) -> dict[str, Any]:
    tags = document["properties"]["tags"]
    return {
        "number": document["name"],
        "tags": {key: value for key, value in tags.items() if not key.startswith("metric.")},
        "metrics": {key.removeprefix("metric."): value for key, value in tags.items() if key.startswith("metric.")},
        "champion": tags.get("stage") == "champion",
        "created": document["systemData"]["createdAt"],
        "by": document["systemData"]["createdBy"],
        "archived": document["properties"]["isArchived"],
    }


def _metrics(versions: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for version in versions for name in version["metrics"]))


async def _style(_: web.Request) -> web.Response:
    return web.Response(text=(_TEMPLATES / "studio.css").read_text(encoding="utf-8"), content_type="text/css", headers=_POLICY)
