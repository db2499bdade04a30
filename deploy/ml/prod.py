"""Stage "Prod - Deploy on AKS": `python -m deploy.ml.prod --delivery DIR --out DIR`.

Deploys the delivered image to the model's Kubernetes online endpoint: a new deployment beside the one that serves, tested before any
traffic reaches it, then all traffic, then tested again through the endpoint. What served before stays at 0 %, to go back to. Only then does
the champion's tag move. Whatever fails leaves the traffic where it was; a repetition continues where the last attempt ended.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from deploy.ml.config import Model, load
from deploy.ml.smoke import Examples, Outcome, examples, smoke
from deploy.ml.stage import Failed, client, first_line, quote, read, run, say, write

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

PORT = 5001
LOG_LINES = 40


def main(arguments: Sequence[str]) -> None:
    """Deploy, test, move the traffic and the champion; write prod.json, whatever comes of it. Raises Failed."""
    asked = _arguments(arguments)
    config = load()
    image, registered = read(asked.delivery / "image.json"), read(asked.delivery / "model.json")
    model = config.model(registered["name"])
    if image["name"] != registered["name"]:
        raise Failed(f"The delivery's image is of {image['name']}, its model is {registered['name']}.")
    ml = client(config.workspace)
    release = Release(ml, model, image)
    try:
        outcome = release.roll_out()
    except HttpResponseError as problem:  # of Azure itself, not of the deployment
        outcome = Outcome(False, 0, None, first_line(problem))
    result = {
        "environment": "prod",
        "target": "aks",
        "endpoint": release.url,
        "deployment": release.name,
        "digest": image["digest"],
        "passed": outcome.passed,
        "checked": outcome.checked,
        "latency_ms": outcome.latency_ms,
        "detail": outcome.detail,
    }
    write(asked.out / "prod.json", result)
    if not outcome.passed:
        raise Failed(f"Prod: {outcome.detail}")
    crown(ml, registered["name"], str(registered["version"]))
    say(f"Prod: {outcome.detail}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of the deployments once the new one serves: `back` is the traffic to return to, `retired` are to be deleted."""

    back: Mapping[str, int]
    retired: tuple[str, ...]


def plan(traffic: Mapping[str, int], deployments: Iterable[str], new: str) -> Plan:
    """Keep what served before the new deployment; delete the rest. Where the new one serves already, keep everything."""
    serving = {name: share for name, share in traffic.items() if share > 0}
    others = set(serving) - {new}
    return Plan(serving, tuple(sorted(set(deployments) - {new} - others)) if others else ())


def deployment_name(digest: str) -> str:
    """A deployment's name: the image's digest, shortened."""
    return f"image-{digest.removeprefix('sha256:')[:12]}"


class Release:
    """One image on its way into an endpoint; `try_out` is the smoke test."""

    def __init__(self, ml: MLClient, model: Model, image: Mapping[str, Any], try_out: Callable[..., Outcome] = smoke) -> None:
        self._ml = ml
        self._model = model
        self._image = image
        self._examples: Examples = examples(image)
        self._try_out = try_out
        self.name = deployment_name(image["digest"])
        self.url = ""

    def roll_out(self) -> Outcome:
        """Deploy beside, test, move the traffic, test again, clear away. A test that fails leaves the traffic as it was.

        Raises HttpResponseError where Azure itself refuses.
        """
        endpoint = self._endpoint()
        self.url = str(endpoint.scoring_uri)
        deployments = {each.name: each for each in self._ml.online_deployments.list(self._model.endpoint)}
        intent = plan(endpoint.traffic or {}, deployments, self.name)
        serves = self.name in intent.back
        headers = self._headers()
        ready = self.name in deployments and deployments[self.name].provisioning_state == "Succeeded"
        if not ready and (problem := self._deploy()):
            return self._given_up(Outcome(False, 0, None, problem), keep=serves)
        beside = self._try_out(self.url, self._examples, headers | {"azureml-model-deployment": self.name})
        if not beside.passed:
            return self._given_up(beside, keep=serves)
        self._send({self.name: 100})
        outcome = self._try_out(self.url, self._examples, headers)
        if not outcome.passed:
            if not serves:
                say(f"Back to {', '.join(intent.back) or 'no traffic'}.")
                self._send(intent.back)
            return self._given_up(outcome, keep=serves)
        for name in intent.retired:
            say(f"Deployment {name} is no longer needed.")
            _finish(self._ml.online_deployments.begin_delete, name=name, endpoint_name=self._model.endpoint)
        return outcome

    def _endpoint(self) -> Any:
        try:
            return self._ml.online_endpoints.get(self._model.endpoint)
        except ResourceNotFoundError:
            from azure.ai.ml.entities import KubernetesOnlineEndpoint  # noqa: PLC0415

            say(f"Endpoint {self._model.endpoint} is new.")
            wanted = KubernetesOnlineEndpoint(name=self._model.endpoint, compute=self._model.kubernetes, auth_mode="key")
            _finish(self._ml.online_endpoints.begin_create_or_update, wanted)
            return self._ml.online_endpoints.get(self._model.endpoint)

    def _deploy(self) -> str | None:
        """Make the deployment and wait for it; returns what went wrong, or None."""
        from azure.ai.ml.entities import Environment, KubernetesOnlineDeployment  # noqa: PLC0415

        say(f"Deployment {self.name}: {self._image['location']}")
        route = {"port": PORT, "path": "/health"}
        environment = Environment(
            name=f"{self._model.name}-scoring",
            version=self.name.removeprefix("image-"),
            image=self._image["location"],
            inference_config={"liveness_route": route, "readiness_route": route, "scoring_route": {"port": PORT, "path": "/invocations"}},
        )
        try:
            wanted = KubernetesOnlineDeployment(
                name=self.name,
                endpoint_name=self._model.endpoint,
                environment=self._ml.environments.create_or_update(environment),
                instance_count=1,
                tags={"digest": self._image["digest"]},
            )
            _finish(self._ml.online_deployments.begin_create_or_update, wanted)
        except HttpResponseError as problem:
            return first_line(problem)
        return None

    def _given_up(self, outcome: Outcome, *, keep: bool) -> Outcome:
        """Show the log of a deployment that is not good, and delete it unless it is what serves."""
        operations, endpoint = self._ml.online_deployments, self._model.endpoint
        with contextlib.suppress(HttpResponseError):  # the reason to give up is the one to be told
            quote(operations.get_logs(name=self.name, endpoint_name=endpoint, lines=LOG_LINES))
        if not keep:
            try:
                _finish(operations.begin_delete, name=self.name, endpoint_name=endpoint)
            except HttpResponseError as problem:
                say(f"Deployment {self.name} was not cleared away: {first_line(problem)}")
        return outcome

    def _send(self, traffic: Mapping[str, int]) -> None:
        endpoint = self._ml.online_endpoints.get(self._model.endpoint)
        endpoint.traffic = dict(traffic)
        _finish(self._ml.online_endpoints.begin_create_or_update, endpoint)

    def _headers(self) -> dict[str, str]:
        keys = self._ml.online_endpoints.get_keys(self._model.endpoint)
        return {"Authorization": f"Bearer {keys.primary_key}"}


def _finish(begin: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    """Wait for a long-running operation. The SDK prints a dot whenever it looks, which would spoil the log's next line."""
    with contextlib.redirect_stdout(io.StringIO()):
        begin(*arguments, **named).result()


def crown(ml: MLClient, name: str, version: str) -> None:
    """Make the version the champion: tagged first, so that there is never none; whoever was it before is `former` now."""
    for found in sorted(ml.models.list(name=name), key=lambda each: str(each.version) != version):
        stage = (found.tags or {}).get("stage")
        new = "champion" if str(found.version) == version else "former" if stage == "champion" else stage
        if new == stage:
            continue
        changed = ml.models.get(name, found.version)
        changed.tags = {**changed.tags, "stage": new}
        ml.models.create_or_update(changed)
        say(f"{name} version {found.version} is now {new}.")


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.ml.prod", description="Deploy the delivered image to Prod and smoke-test it.")
    parser.add_argument("--delivery", type=Path, required=True, help="folder with image.json and model.json")
    parser.add_argument("--out", type=Path, required=True, help="folder for prod.json")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(main)
