"""Stage `workspace`: gets or creates the workspace, the cluster that trains, the compute that serves, and the environment of jobs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deploy.ml import config, prepare, stage

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

ENVIRONMENT = "callboard-ml"
BASE_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
PYTHON = "3.11"
SIZE = "Standard_DS2_v2"
NODES = 4  # candidates that train at the same time; none are kept while nothing trains
IDLE = 120  # seconds that a node waits for more work


def conda(lock: str) -> dict[str, Any]:
    """The jobs' environment: the same versions as the stages', which is what makes a model loadable here."""
    requirements = [f"{pin.name}=={pin.version}" + (f" ; {pin.marker}" if pin.marker else "") for pin in prepare.pins(lock)]
    return {
        "name": ENVIRONMENT,
        "channels": ["conda-forge"],
        "dependencies": [f"python={PYTHON}", "pip", {"pip": requirements}],
    }


def environment_version() -> str:
    """The version of the jobs' environment that belongs to the lock."""
    return prepare.key(prepare.LOCK.read_text(encoding="utf-8"))


def main(argv: Sequence[str]) -> None:
    """Make sure that everything training needs is there; a second time, nothing happens."""
    parser = argparse.ArgumentParser(description="Get or create the workspace, its compute and its environment.")
    parser.parse_args(argv)
    settings = config.load()
    client = stage.client(settings.workspace)
    ensure_workspace(client, settings.workspace)
    for compute in sorted({model.compute for model in settings.models.values()} - {"local"}):
        ensure_compute(client, compute)
    if settings.workspace.cluster:
        for compute in sorted({model.kubernetes for model in settings.models.values()}):
            ensure_kubernetes(client, compute, settings.workspace)
    ensure_environment(client)


def ensure_workspace(client: MLClient, workspace: config.Workspace) -> None:
    """Get or create the workspace."""
    from azure.ai.ml.entities import Workspace  # noqa: PLC0415
    from azure.core.exceptions import ResourceNotFoundError  # noqa: PLC0415

    try:
        found = client.workspaces.get(workspace.name)
        stage.say(f"Workspace {found.name} is there, in {found.location}")
    except ResourceNotFoundError:
        stage.say(f"Creating workspace {workspace.name} in {workspace.location}")
        wish = Workspace(name=workspace.name, location=workspace.location, display_name=workspace.name)
        client.workspaces.begin_create(wish).result()
        stage.say(f"Workspace {workspace.name} is created")


def ensure_compute(client: MLClient, name: str) -> None:
    """Get or create a cluster that shrinks to nothing."""
    from azure.ai.ml.entities import AmlCompute  # noqa: PLC0415
    from azure.core.exceptions import ResourceNotFoundError  # noqa: PLC0415

    try:
        found = client.compute.get(name)
        stage.say(f"Compute {name} is there ({found.provisioning_state})")
    except ResourceNotFoundError:
        stage.say(f"Creating compute {name}: up to {NODES} nodes of {SIZE}")
        wish = AmlCompute(name=name, size=SIZE, min_instances=0, max_instances=NODES, idle_time_before_scale_down=IDLE)
        client.compute.begin_create_or_update(wish).result()


def ensure_kubernetes(client: MLClient, name: str, workspace: config.Workspace) -> None:
    """Get the compute that serves, or attach the cluster under that name."""
    from azure.ai.ml.entities import KubernetesCompute  # noqa: PLC0415
    from azure.core.exceptions import ResourceNotFoundError  # noqa: PLC0415

    try:
        found = client.compute.get(name)
        stage.say(f"Compute {name} is there ({found.provisioning_state})")
    except ResourceNotFoundError:
        stage.say(f"Attaching the AKS cluster {workspace.cluster} as {name}")
        group = f"/subscriptions/{workspace.subscription}/resourceGroups/{workspace.resource_group}"
        cluster = f"{group}/providers/Microsoft.ContainerService/managedClusters/{workspace.cluster}"
        client.compute.begin_create_or_update(KubernetesCompute(name=name, resource_id=cluster, namespace="default")).result()


def ensure_environment(client: MLClient) -> None:
    """Register the environment of the lock, under a version that is the lock's hash."""
    from azure.ai.ml.entities import Environment  # noqa: PLC0415
    from azure.core.exceptions import ResourceNotFoundError  # noqa: PLC0415

    version = environment_version()
    try:
        client.environments.get(ENVIRONMENT, version=version)
        stage.say(f"Environment {ENVIRONMENT}:{version} is there")
    except ResourceNotFoundError:
        stage.say(f"Registering environment {ENVIRONMENT}:{version}")
        lock = prepare.LOCK.read_text(encoding="utf-8")
        client.environments.create_or_update(Environment(name=ENVIRONMENT, version=version, image=BASE_IMAGE, conda_file=conda(lock)))


if __name__ == "__main__":
    stage.run(main)
