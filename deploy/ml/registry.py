"""The model registry as the stages use it: which version is the champion, which is next, and what its tags say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.ml.stage import Failed

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

STAGE = "stage"
CHAMPION = "champion"
CHALLENGER = "challenger"
METRIC = "metric."


def versions(client: MLClient, name: str) -> list[Any]:
    """Every version of a model, highest number first; empty for a model nobody has registered."""
    from azure.core.exceptions import ResourceNotFoundError  # noqa: PLC0415

    try:
        return sorted(client.models.list(name=name), key=lambda model: number(model.version), reverse=True)
    except ResourceNotFoundError:
        return []


def champion(found: Iterable[Any]) -> Any | None:
    """The version that is tagged as champion; the highest, should a broken-off deployment have left two."""
    return next((model for model in found if (model.tags or {}).get(STAGE) == CHAMPION), None)


def chosen(found: Iterable[Any], version: str) -> Any:
    """The version a person asked for, or the `latest`. Raises Failed."""
    known = list(found)
    for model in known:
        if version in ("latest", str(model.version)):
            return model
    raise Failed(f"Version {version} is not registered; known: {', '.join(str(model.version) for model in known) or 'none'}.")


def download(client: MLClient, name: str, version: str, folder: Path) -> Path:
    """The folder with a registered version's MLmodel file, somewhere below the given one. Raises Failed."""
    client.models.download(name=name, version=version, download_path=str(folder))
    return mlflow_model(folder, f"{name} version {version}")


def mlflow_model(folder: Path, of: str) -> Path:
    """The folder with the MLmodel file, wherever the SDK has put it below this one. Raises Failed."""
    found = sorted(folder.rglob("MLmodel"), key=lambda file: len(file.parts))
    if not found:
        raise Failed(f"{of} holds no MLflow model, and no other can be scored or served.")
    return found[0].parent


def next_version(found: Iterable[Any]) -> str:
    """The version after the highest. The service's own numbering is not safe against two at once, so it is given."""
    return str(max((number(model.version) for model in found), default=0) + 1)


def number(version: str) -> int:
    """A version as a number; one that is none comes before all others."""
    return int(version) if str(version).isdigit() else 0


def document(model: Any, metrics: Mapping[str, float]) -> dict[str, Any]:
    """model.json."""
    tags = model.tags or {}
    return {
        "name": model.name,
        "version": str(model.version),
        "id": model.id,
        "algorithm": tags.get("algorithm", ""),
        "run_id": tags.get("run_id", ""),
        "commit": tags.get("commit", ""),
        "data_fingerprint": tags.get("data_fingerprint", ""),
        "metrics": dict(metrics),
    }
