"""Stage "QA - Deploy on ACI": `python -m deploy.ml.qa --delivery DIR --out DIR`.

Runs the delivered image as a container group in Azure Container Instances and smoke-tests it. The group is named after the model and is
replaced by each delivery; one that fails stays for a look. Its address is public, so it answers only to a key that is made for this
deployment and kept nowhere.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from azure.core.exceptions import HttpResponseError
from azure.identity import DefaultAzureCredential
from azure.mgmt.containerinstance import ContainerInstanceManagementClient
from azure.mgmt.containerinstance.models import (
    Container,
    ContainerGroup,
    ContainerGroupIdentity,
    ContainerHttpGet,
    ContainerPort,
    ContainerProbe,
    EnvironmentVariable,
    ImageRegistryCredential,
    IpAddress,
    Port,
    ResourceRequests,
    ResourceRequirements,
    UserAssignedIdentities,
)

from deploy.ml.config import Mistake, Workspace, load
from deploy.ml.smoke import Outcome, examples, smoke
from deploy.ml.stage import Failed, first_line, quote, read, run, say, write

PORT = 5001
LOG_LINES = 40
CRASHES = 2


def main(arguments: Sequence[str]) -> None:
    """Deploy, test, and write qa.json, whatever comes of it. Raises Failed where the deployment is not good."""
    asked = _arguments(arguments)
    workspace = load().workspace
    image = read(asked.delivery / "image.json")
    try:
        outcome, endpoint = deploy(workspace, image)
    except HttpResponseError as problem:
        outcome, endpoint = Outcome(False, 0, None, first_line(problem)), ""
    result = {
        "environment": "qa",
        "target": "aci",
        "endpoint": endpoint,
        "digest": image["digest"],
        "passed": outcome.passed,
        "checked": outcome.checked,
        "latency_ms": outcome.latency_ms,
        "detail": outcome.detail,
    }
    write(asked.out / "qa.json", result)
    if not outcome.passed:
        raise Failed(f"QA: {outcome.detail}")
    say(f"QA: {outcome.detail}")


def deploy(workspace: Workspace, image: Mapping[str, Any]) -> tuple[Outcome, str]:
    """Replace the model's container group and test it; returns how that went, and the address. Raises HttpResponseError."""
    name, key = f"{image['name']}-qa", secrets.token_urlsafe(32)
    with ContainerInstanceManagementClient(DefaultAzureCredential(), workspace.subscription) as instances:
        groups = instances.container_groups
        say(f"Container group {name}: {image['location']}")
        wanted = group(workspace, image, key)
        endpoint = address(groups.begin_create_or_update(workspace.resource_group, name, wanted, polling_interval=5).result())
        outcome = smoke(
            f"{endpoint}/invocations",
            examples(image),
            {"Authorization": f"Bearer {key}"},
            hopeless=lambda: crashing(groups.get(workspace.resource_group, name)),
        )
        if not outcome.passed:
            with contextlib.suppress(HttpResponseError):  # the test's own reason is the one to be told
                log = instances.containers.list_logs(workspace.resource_group, name, wanted.containers[0].name, tail=LOG_LINES)
                quote(log.content or "")
    return outcome, endpoint


def group(workspace: Workspace, image: Mapping[str, Any], key: str) -> ContainerGroup:
    """The container group of an image: one container, pulled under the identity that `callboard.toml` names."""
    probe = ContainerProbe(http_get=ContainerHttpGet(path="/health", port=PORT, scheme="http"), initial_delay_seconds=10, period_seconds=10)
    container = Container(
        name="model",
        image=image["location"],
        ports=[ContainerPort(port=PORT)],
        environment_variables=[EnvironmentVariable(name="SCORING_KEY", secure_value=key)],
        resources=ResourceRequirements(requests=ResourceRequests(cpu=1, memory_in_gb=1.5)),
        liveness_probe=probe,
        readiness_probe=probe,
    )
    identity = identity_id(workspace)
    return ContainerGroup(
        location=workspace.location,
        os_type="Linux",
        restart_policy="Always",
        containers=[container],
        ip_address=IpAddress(type="Public", ports=[Port(protocol="TCP", port=PORT)]),
        identity=ContainerGroupIdentity(type="UserAssigned", user_assigned_identities={identity: UserAssignedIdentities()}),
        image_registry_credentials=[ImageRegistryCredential(server=f"{workspace.registry}.azurecr.io", identity=identity)],
        tags={"model": image["name"], "digest": image["digest"]},
    )


def crashing(group: ContainerGroup) -> str | None:
    """Why it is no use to wait for the group's container, or None."""
    view: Any = group.containers[0].instance_view  # its annotations say that a container never has a state
    if view is None or (view.restart_count or 0) < CRASHES:
        return None
    states = (view.current_state, view.previous_state)
    code = next((state.exit_code for state in states if state and state.exit_code is not None), "an error")
    return f"The container was started {CRASHES} times again and ended with {code} each time."


def identity_id(workspace: Workspace) -> str:
    """The resource id of the identity to pull under. Raises Mistake."""
    if not workspace.pull_identity:
        raise Mistake(
            "callboard.toml: [azure_ml] needs pull_identity, the user-assigned identity that container instances pull images under."
        )
    group = f"/subscriptions/{workspace.subscription}/resourceGroups/{workspace.resource_group}"
    return f"{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{workspace.pull_identity}"


def address(group: ContainerGroup) -> str:
    """Where the group answers. Raises Failed."""
    found: Any = group.ip_address  # its annotations say that no group ever has a name
    host = (found.fqdn or found.ip) if found else None
    if not host or not found.ports:
        raise Failed(f"Container group {group.name} has no address.")
    return f"http://{host}:{found.ports[0].port}"


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.ml.qa", description="Deploy the delivered image to QA and smoke-test it.")
    parser.add_argument("--delivery", type=Path, required=True, help="folder with image.json")
    parser.add_argument("--out", type=Path, required=True, help="folder for qa.json")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(main)
