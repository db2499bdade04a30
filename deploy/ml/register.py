"""Stage `register`: puts the winner into the model registry, with everything that says where it comes from."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.ml import config, registry, stage

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

ATTEMPTS = 5  # at a version number that somebody else may take first


def main(argv: Sequence[str]) -> None:
    """Register the winner of an evaluation; a second time, the same version is found."""
    parser = argparse.ArgumentParser(description="Register the winner.")
    parser.add_argument("--training", required=True, type=Path)
    parser.add_argument("--evaluation", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    asked = parser.parse_args(argv)
    training, evaluation = stage.read(asked.training), stage.read(asked.evaluation)
    winner = chosen(evaluation)
    settings = config.load()
    model = settings.model(evaluation["model"])
    registered = register(stage.client(settings.workspace), model.name, winner, tags(training, winner))
    stage.write(asked.out / "model.json", registry.document(registered, winner["metrics"]))


def chosen(evaluation: Mapping[str, Any]) -> Mapping[str, Any]:
    """The candidate that won. Raises Failed where none did."""
    if evaluation["verdict"] != "pass":
        raise stage.Failed(f"The verdict is {evaluation['verdict']}: there is nothing to register.")
    for candidate in evaluation["candidates"]:
        if candidate["name"] == evaluation["winner"]:
            return dict(candidate)
    raise stage.Failed(f"The winner {evaluation['winner']!r} is not among the candidates.")


def tags(training: Mapping[str, Any], winner: Mapping[str, Any]) -> dict[str, str]:
    """What the version says of itself; nobody has to ask the tracking server to compare it."""
    return {
        registry.STAGE: registry.CHALLENGER,
        "algorithm": winner["algorithm"],
        "run_id": winner["run_id"],
        "job": winner["job"],
        "commit": training["commit"],
        "build_id": training["build_id"],
        "data_fingerprint": training["data_fingerprint"],
        **{f"parameter.{name}": str(value) for name, value in winner["parameters"].items()},
        **{f"{registry.METRIC}{name}": repr(value) for name, value in winner["metrics"].items()},
    }


def register(client: MLClient, name: str, winner: Mapping[str, Any], wanted: Mapping[str, str]) -> Any:
    """The registered version of this build and run: the one that is there, or a new one under the next free number. Raises Failed."""
    from azure.ai.ml.entities import Model  # noqa: PLC0415
    from azure.core.exceptions import HttpResponseError  # noqa: PLC0415

    for _ in range(ATTEMPTS):
        known = registry.versions(client, name)
        if there := already(known, wanted):
            stage.say(f"{name} version {there.version} is there already")
            return there
        version = registry.next_version(known)
        wish = Model(
            name=name,
            version=version,
            path=f"azureml://jobs/{winner['job']}/outputs/model",
            type="mlflow_model",
            description=f"{winner['algorithm']}, trained by run {winner['run_id']}",
            tags=dict(wanted),
        )
        try:
            registered = client.models.create_or_update(wish)
        except HttpResponseError as problem:
            if problem.status_code != 409:
                raise
            stage.say(f"Version {version} was taken by somebody else")
            continue
        stage.say(f"Registered {name} version {registered.version}: {winner['algorithm']}")
        return registered
    raise stage.Failed(f"{name} could not be registered: every version number tried was taken.")


def already(known: Sequence[Any], wanted: Mapping[str, str]) -> Any | None:
    """The version that an earlier attempt of this build registered for the same run."""
    for model in known:
        has = model.tags or {}
        if all(has.get(key) == wanted[key] for key in ("build_id", "run_id")):
            return model
    return None


if __name__ == "__main__":
    stage.run(main)
