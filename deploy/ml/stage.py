"""What every stage script shares with the pipeline: the files it hands on, logging commands, and how it ends."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.ml.config import Mistake, Workspace

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

SCHEMA = 1


class Failed(Exception):
    """The stage cannot do its work; the message is the one line that people read."""


def say(line: str) -> None:
    """A line of progress in the step's log."""
    print(line, flush=True)


def quote(text: str) -> None:
    """Somebody else's log in the step's log, indented, and unable to command the agent."""
    for line in text.splitlines():
        say("  " + line.replace("##vso[", "## vso[").replace("##[", "## ["))


def command(kind: str, text: str, **properties: str) -> str:
    """A logging command of Azure Pipelines, its text escaped so that it stays one line and starts no other command.

    https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands
    """
    given = ";".join(f"{name}={_escape(value).replace(';', '%3B').replace(']', '%5D')}" for name, value in properties.items())
    return f"##vso[{kind}{' ' + given if given else ''}]{_escape(text)}"


def set_variable(name: str, value: str, *, output: bool = False) -> None:
    """Set a variable for the steps after this one; an output variable is there for later stages, too."""
    say(command("task.setvariable", value, variable=name, **({"isoutput": "true"} if output else {})))


def read(file: Path) -> dict[str, Any]:
    """A file that an earlier stage handed on. Raises Failed."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as problem:
        raise Failed(f"{file} cannot be read: {problem.strerror}.") from None
    except ValueError as problem:
        raise Failed(f"{file} is not JSON: {problem}.") from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise Failed(f"{file} has schema {schema!r}; this script reads {SCHEMA}.")
    return dict(document)


def write(file: Path, document: Mapping[str, Any]) -> None:
    """Hand a file on."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"schema": SCHEMA} | dict(document), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    say(f"Wrote {file}")


def client(workspace: Workspace) -> MLClient:
    """The workspace's client, under the identity that the agent runs with.

    Imported here: it costs seconds that a stage with a mistake in its arguments need not wait for.
    """
    from azure.ai.ml import MLClient  # noqa: PLC0415
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415

    logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)  # it warns of its own experiments whenever it loads more of itself
    return MLClient(DefaultAzureCredential(), workspace.subscription, workspace.resource_group, workspace.name, enable_telemetry=False)


def commit() -> str:
    """The commit that the run builds, or nothing outside of a pipeline."""
    return os.environ.get("BUILD_SOURCEVERSION", "")


def build() -> str:
    """The run's number, or nothing outside of a pipeline."""
    return os.environ.get("BUILD_BUILDID", "")


def run(stage: Callable[[Sequence[str]], None]) -> None:
    """Run a stage's `main` as a program: it ends with 0, or with one clear error line and 1."""
    try:
        stage(sys.argv[1:])
    except (Failed, Mistake) as problem:
        _end(str(problem))
    except Exception as problem:  # noqa: BLE001 whatever Azure raises ends the stage, and its first line is what people read
        traceback.print_exc()
        _end(first_line(problem))


def first_line(problem: BaseException) -> str:
    """An exception in one line: the SDKs' messages are long, and coloured."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(problem)).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(problem).__name__}: {lines[0] if lines else 'no message'}"


def _end(message: str) -> None:
    say(command("task.logissue", message, type="error"))
    sys.exit(1)


def _escape(text: str) -> str:
    kept = re.sub("%(?=AZP25|0D|0A|3B|5D)", "%AZP25", text)
    return kept.replace("\r", "%0D").replace("\n", "%0A")
