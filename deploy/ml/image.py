"""Stage "Scoring image": `python -m deploy.ml.image --model-json FILE --out DIR`.

Builds one immutable image of a registered model in the container registry and hands on its digest. What goes into the image decides its
tag: the same content is built once, however often the stage runs. Beside the digest it hands on a few rows with the registered model's own
predictions, which the smoke tests in QA and Prod compare with.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from azure.identity import DefaultAzureCredential

from deploy.ml import score
from deploy.ml.config import Workspace, load
from deploy.ml.registry import download
from deploy.ml.smoke import Examples
from deploy.ml.stage import Failed, client, quote, read, run, say, write

if TYPE_CHECKING:
    from azure.mgmt.containerregistrytasks import ContainerRegistryTasksMgmtClient

SERVING = Path(__file__).parent / "serving"
INGREDIENTS = ("Dockerfile", "serve.py", "requirements.lock")
EXAMPLES = 5
PATIENCE = 1800.0  # seconds a build may take
_MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


def main(arguments: Sequence[str]) -> None:
    """Build the image, or find it, and write image.json."""
    asked = _arguments(arguments)
    config = load()
    workspace = config.workspace
    model = read(asked.model_json)
    name, version = str(model["name"]), str(model["version"])
    seed = config.model(name).seed
    score.get_ready()
    with tempfile.TemporaryDirectory() as scratch:
        folder = download(client(workspace), name, version, Path(scratch) / "download")
        context = assemble(folder, Path(scratch) / "context")
        given = {"PYTHON": f"{sys.version_info.major}.{sys.version_info.minor}", "MODEL": name, "VERSION": version}
        tag = f"v{version}-{fingerprint(context, given)[:12]}"
        registry = Registry(workspace)
        digest = registry.digest(name, tag)
        if digest:
            say(f"{name}:{tag} is already built.")
        else:
            digest = registry.build(name, tag, archive(context), given)
        examples = known_answers(folder, seed)
    document = {"name": name, "tag": tag, "digest": digest, "location": f"{registry.server}/{name}@{digest}"}
    write(asked.out / "image.json", document | {"examples": examples.document})


def known_answers(model: Path, seed: int) -> Examples:
    """A few rows of the hold-out set, and what the model itself says of them."""
    import mlflow.pyfunc  # noqa: PLC0415  # it costs seconds, and most of what can go wrong goes wrong before

    from deploy.ml import data  # noqa: PLC0415

    rows = data.first(data.split(data.load(), seed).holdout, EXAMPLES).features
    predictions = mlflow.pyfunc.load_model(str(model)).predict(rows)
    return Examples(
        columns=tuple(str(column) for column in rows.columns),
        rows=tuple(tuple(float(value) for value in row) for row in rows.to_numpy()),
        predictions=tuple(float(value) for value in predictions),
    )


def assemble(model: Path, context: Path) -> Path:
    """Lay the build context out: the recipe of `serving/`, and the model."""
    context.mkdir(parents=True)
    for name in INGREDIENTS:
        shutil.copyfile(SERVING / name, context / name)
    shutil.copytree(model, context / "model")
    return context


def fingerprint(context: Path, arguments: Mapping[str, str]) -> str:
    """A hash of everything that decides what the image is."""
    whole = hashlib.sha256()
    for name, value in sorted(arguments.items()):
        whole.update(f"{name}={value}\0".encode())
    for file in _files(context):
        whole.update(f"{file.relative_to(context).as_posix()}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\0".encode())
    return whole.hexdigest()


def archive(context: Path) -> bytes:
    """The context as a .tar.gz that is the same for the same content: sorted, without times and owners."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for file in _files(context):
            entry = tarfile.TarInfo(file.relative_to(context).as_posix())
            entry.size = file.stat().st_size
            entry.mode = 0o644
            with file.open("rb") as content:
                tar.addfile(entry, content)
    return buffer.getvalue()


class Registry:
    """The container registry: asks for an image's digest, and has images built."""

    def __init__(self, workspace: Workspace) -> None:
        self.server = f"{workspace.registry}.azurecr.io"
        self._where = (workspace.resource_group, workspace.registry)
        self._subscription = workspace.subscription
        self._credential = DefaultAzureCredential()

    def digest(self, repository: str, tag: str) -> str | None:
        """The digest behind a tag; None while there is none.

        https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md
        """
        entra = self._credential.get_token("https://containerregistry.azure.net/.default").token
        with requests.Session() as session:
            refresh = self._token(session, "exchange", "refresh_token", grant_type="access_token", access_token=entra)
            scope = f"repository:{repository}:pull"
            access = self._token(session, "token", "access_token", grant_type="refresh_token", refresh_token=refresh, scope=scope)
            answer = session.head(
                f"https://{self.server}/v2/{repository}/manifests/{tag}",
                headers={"Authorization": f"Bearer {access}", "Accept": _MANIFESTS},
                timeout=30,
            )
        if answer.status_code == requests.codes.not_found:
            return None
        answer.raise_for_status()
        return str(answer.headers["Docker-Content-Digest"])

    def build(self, repository: str, tag: str, context: bytes, arguments: Mapping[str, str]) -> str:
        """Have the image built from the packed context; returns its digest. Raises Failed."""
        from azure.mgmt.containerregistrytasks import ContainerRegistryTasksMgmtClient  # noqa: PLC0415
        from azure.mgmt.containerregistrytasks.models import Argument, DockerBuildRequest, PlatformProperties  # noqa: PLC0415

        with ContainerRegistryTasksMgmtClient(self._credential, self._subscription) as tasks:
            source = tasks.registries.get_build_source_upload_url(*self._where)
            requests.put(str(source.upload_url), data=context, headers={"x-ms-blob-type": "BlockBlob"}, timeout=300).raise_for_status()
            request = DockerBuildRequest(
                source_location=source.relative_path,
                docker_file_path="Dockerfile",
                image_names=[f"{repository}:{tag}"],
                is_push_enabled=True,
                arguments=[Argument(name=name, value=value) for name, value in arguments.items()],
                platform=PlatformProperties(os="Linux", architecture="amd64"),
                timeout=int(PATIENCE),
            )
            scheduled = tasks.registries.schedule_run(*self._where, request)
            say(f"Build {scheduled.run_id} of {self.server}/{repository}:{tag}")
            return self._finished(tasks, str(scheduled.run_id), tag)

    def _finished(self, tasks: ContainerRegistryTasksMgmtClient, run_id: str, tag: str) -> str:
        until, pause = time.monotonic() + PATIENCE, 0.3
        while (current := tasks.runs.get(*self._where, run_id)).status in ("Queued", "Started", "Running"):
            if time.monotonic() > until:
                raise Failed(f"Build {run_id} has not ended after {PATIENCE:.0f} s.")
            time.sleep(pause)
            pause = min(pause * 1.5, 5)
        log = requests.get(str(tasks.runs.get_log_sas_url(*self._where, run_id).log_link), timeout=60)
        lines = [line for line in log.text.splitlines() if line.strip()] if log.ok else []
        quote("\n".join(lines))
        if current.status != "Succeeded":
            reason = next((line for line in reversed(lines) if "Run ID:" not in line), current.run_error_message)
            raise Failed(f"Build {run_id} ended as {current.status}: {reason}")
        built = {image.tag: image.digest for image in current.output_images or ()}
        if tag not in built:
            raise Failed(f"Build {run_id} succeeded without an image {tag}.")
        return str(built[tag])

    def _token(self, session: requests.Session, step: str, kind: str, **form: str) -> str:
        answer = session.post(f"https://{self.server}/oauth2/{step}", data={"service": self.server, **form}, timeout=30)
        if not answer.ok:
            raise Failed(f"The registry {self.server} does not let us in: HTTP {answer.status_code} at {step}.")
        token: Any = answer.json()[kind]
        return str(token)


def _files(folder: Path) -> list[Path]:
    return sorted((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.relative_to(folder).as_posix())


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.ml.image", description="Build the scoring image of a registered model.")
    parser.add_argument("--model-json", type=Path, required=True, help="what the register stage handed on")
    parser.add_argument("--out", type=Path, required=True, help="folder for image.json")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(main)
