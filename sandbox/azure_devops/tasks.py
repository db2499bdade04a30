"""The tasks the agent knows, with the inputs, defaults and error texts of the real ones.

https://learn.microsoft.com/azure/devops/pipelines/tasks/reference/
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol
from xml.etree import ElementTree as Xml

ArtifactKind = Literal["Container", "PipelineArtifact"]


class TaskFailed(Exception):
    """The task ends as failed; the message is its error line."""


class Work(Protocol):
    """What the agent offers to the task it runs. Inputs have their macros expanded; their names are in small letters."""

    @property
    def inputs(self) -> Mapping[str, str]: ...
    @property
    def artifacts(self) -> Path:
        """The folder of the run's artifacts."""
        ...

    @property
    def checkout_source(self) -> tuple[Path, str]:
        """The repository and the commit that `checkout: self` means."""
        ...

    def variable(self, name: str) -> str:
        """A variable's value; empty if unset."""
        ...

    def set_variable(self, name: str, value: str) -> None: ...
    def prepend_path(self, folder: Path) -> None: ...
    def say(self, text: str) -> None:
        """A line in the step's log."""
        ...

    def warn(self, text: str) -> None:
        """A warning in the log and among the step's issues."""
        ...

    async def run(self, command: Sequence[str], folder: Path) -> int:
        """Run a process with the step's environment, its output going to the log; the exit code."""
        ...

    def published(self, name: str, folder: Path, kind: ArtifactKind) -> None: ...
    def tests(self, file: Path, title: str) -> None: ...


Task = Callable[[Work], Awaitable[None]]


def find(task: str) -> Task | None:
    """The task of that name and version, whatever the case of its letters."""
    return next((known for name, known in TASKS.items() if name.lower() == task.lower()), None)


def _input(work: Work, *names: str, default: str = "") -> str:
    """An input by its name or one of its aliases."""
    return next((value for name in names if (value := work.inputs.get(name.lower(), "").strip())), default)


def _required(work: Work, *names: str) -> str:
    if value := _input(work, *names):
        return value
    raise TaskFailed(f"Input required: {names[0]}")


def _yes(work: Work, *names: str) -> bool:
    return _input(work, *names).lower() == "true"


def _folder(work: Work, text: str) -> Path:
    """A path as inputs give it: absolute, or relative to the sources."""
    return Path(work.variable("System.DefaultWorkingDirectory"), text)


async def script(work: Work) -> None:
    """`script:` and `bash:`."""
    code = await _bash(work, work.inputs["script"], _folder(work, _input(work, "workingDirectory")))
    if code:
        raise TaskFailed(f"Bash exited with code '{code}'.")


async def azure_cli(work: Work) -> None:
    """A bash script under the service connection's identity, which the agent's environment carries.

    https://learn.microsoft.com/azure/devops/pipelines/tasks/reference/azure-cli-v2
    """
    connection = _required(work, "connectedServiceNameARM", "azureSubscription")
    if (kind := _required(work, "scriptType").lower()) != "bash":
        raise TaskFailed(f"The sandbox's agent runs Linux and has no '{kind}': use scriptType bash.")
    folder = _folder(work, _input(work, "cwd", "workingDirectory"))
    work.say(f"Service connection: {connection}")
    if _required(work, "scriptLocation").lower() == "inlinescript":
        code = await _bash(work, _required(work, "inlineScript"), folder)
    else:
        file = _folder(work, _required(work, "scriptPath"))
        if not file.is_file():
            raise TaskFailed(f"Not found scriptPath: {file}")
        arguments = _input(work, "scriptArguments", "arguments")
        code = await _bash(work, f'bash "{file}" {arguments}', folder)
    if code:
        raise TaskFailed(f"Script failed with exit code: {code}")


async def _bash(work: Work, text: str, folder: Path) -> int:
    file = _written(text, Path(work.variable("Agent.TempDirectory")))
    work.say("Generating script.")
    if len(lines := text.strip().splitlines()) == 1:
        work.say("Script contents:")
        work.say(lines[0])
    work.say("========================== Starting Command Output ===========================")
    return await work.run(["/usr/bin/env", "bash", "--noprofile", "--norc", str(file)], folder)


def _written(text: str, folder: Path) -> Path:
    file = folder / f"{uuid.uuid4()}.sh"
    file.write_text(text)
    return file


async def checkout(work: Work) -> None:
    """`checkout: self` clones the run's commit."""
    repository, commit = work.checkout_source
    home = Path(work.variable("Pipeline.Workspace"))
    folder = home / _input(work, "path", default="s")
    work.say(f"Syncing repository: {work.variable('Build.Repository.Name') or repository.stem} (Git)")
    shutil.rmtree(folder, ignore_errors=True)
    # Whose files the repository is does not matter here: it is the one we were told to build.
    git = ["git", "-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false"]
    for action, command, where in (
        ("clone", [*git, "clone", "--quiet", "--local", "--no-checkout", str(repository), str(folder)], home),
        ("checkout", [*git, "checkout", "--progress", "--force", "--detach", commit], folder),
    ):
        if code := await work.run(command, where):
            raise TaskFailed(f"Git {action} failed with exit code: {code}")


async def use_python(work: Work) -> None:
    """The agent has one Python, the one that runs the sandbox."""
    wanted = _input(work, "versionSpec", default="3.x")
    have = ".".join(map(str, sys.version_info[:3]))
    if not satisfies(have, wanted):
        raise TaskFailed(
            f"Version spec {wanted} for architecture {_input(work, 'architecture', default='x64')} did not match any version in "
            f"Agent.ToolsDirectory.\nVersions in {work.variable('Agent.ToolsDirectory')}:\n\n{have}"
        )
    folder = Path(sys.executable).parent
    work.set_variable("pythonLocation", str(folder))
    work.prepend_path(folder)
    work.say(f"Found tool in cache: Python {have} x64")


def satisfies(version: str, spec: str) -> bool:
    """Whether "3.11.2" fits a spec of UsePythonVersion: `3.x`, `3.11`, `>=3.11 <3.14`, with `||` between alternatives."""
    have = _numbers(version)
    return any(all(_fits(have, part) for part in parts) for alternative in spec.split("||") if (parts := alternative.split()))


def _fits(have: tuple[int, ...], part: str) -> bool:
    found = re.fullmatch(r"(>=|<=|>|<|=)?v?([0-9.x*]+)", part)
    if not found:
        return False
    bound = _numbers(found[2])
    head = have[: len(bound)]
    match found[1]:
        case ">=":
            return head >= bound
        case "<=":
            return head <= bound
        case ">":
            return head > bound
        case "<":
            return have < bound
        case _:
            return head == bound


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers: (3, 11) of "3.11.x"."""
    return tuple(int(part) for part in re.split(r"[x*]", version)[0].split(".") if part)


async def publish_build_artifacts(work: Work) -> None:
    """A container artifact: published again, its files are replaced and new ones added."""
    source = _folder(work, _input(work, "PathtoPublish", default=work.variable("Build.ArtifactStagingDirectory")))
    name = _input(work, "ArtifactName", default="drop")
    if _input(work, "ArtifactType", "publishLocation", default="Container").lower() != "container":
        raise TaskFailed("The sandbox's agent has no file share: use publishLocation Container.")
    if not source.exists():
        raise TaskFailed(f"Publishing build artifacts failed with an error: Not found PathtoPublish: {source}")
    if source.is_dir() and not any(source.iterdir()):
        work.warn(f"Directory '{source}' is empty. Nothing will be added to build artifact '{name}'.")
        return
    await upload(work, source, name, "Container")


async def publish_pipeline_artifact(work: Work) -> None:
    """A pipeline artifact: once published, it never changes."""
    source = _folder(work, _input(work, "targetPath", "path", default=work.variable("Pipeline.Workspace")))
    name = _input(work, "artifact", "artifactName", default=work.variable("System.JobId") or "drop")
    if (work.artifacts / name).exists():
        raise TaskFailed(f"Artifact {name} already exists for build {work.variable('Build.BuildId')}.")
    await upload(work, source, name, "PipelineArtifact")


async def upload(work: Work, source: Path, name: str, kind: ArtifactKind) -> None:
    """Copy a file, or what is in a folder, into an artifact of the run."""
    if (host := work.variable("System.HostType")) == "release":
        raise TaskFailed(f"Uploading server artifacts is not supported in {host}.")
    if not name or re.search(r'[\\/:*?"<>|]', name) or name in {".", ".."}:
        raise TaskFailed(f"Artifact name is not valid: {name}. It cannot contain '\\', '/', ':', '*', '?', '\"', '<', '>' or '|'.")
    target = work.artifacts / name
    files = await asyncio.to_thread(_copy, source, target)
    work.say(f"Uploaded {source} to artifact '{name}' ({files} files)")
    work.published(name, target, kind)
    work.say(f"Associated artifact {name} with build {work.variable('Build.BuildId')}")


def _copy(source: Path, target: Path) -> int:
    """Copy onto what is there; how many files are there then."""
    if not source.exists():
        raise TaskFailed(f"Path does not exist: {source}")
    target.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target / source.name)
    return sum(1 for file in target.rglob("*") if file.is_file())


async def download_build_artifacts(work: Work) -> None:
    """One artifact of this run, to a folder of its name below downloadPath."""
    _current_only(work, "buildType")
    target = _folder(work, _input(work, "downloadPath", default=work.variable("System.ArtifactsDirectory")))
    patterns = _input(work, "itemPattern", default="**")
    work.say(f"Downloading artifacts for build: {work.variable('Build.BuildId')}")
    if _input(work, "downloadType", default="single").lower() == "specific":
        names = _artifact_names(work)
    else:
        names = [_required(work, "artifactName")]
    for name in names:
        await _download(work, name, target / name, patterns, below=work.artifacts)


async def download_pipeline_artifact(work: Work) -> None:
    """A named artifact straight into the path; without a name all of them, each into a folder of its name."""
    _current_only(work, "buildType", "source")
    target = _folder(work, _input(work, "path", "targetPath", "downloadPath", default=work.variable("Pipeline.Workspace")))
    patterns = _input(work, "patterns", "itemPattern", default="**")
    if name := _input(work, "artifact", "artifactName"):
        await _download(work, name, target, patterns, below=work.artifacts / name)
        return
    for each in _artifact_names(work):
        await _download(work, each, target / each, patterns, below=work.artifacts / each)


async def download(work: Work) -> None:
    """`download: current` puts artifacts into folders of their names in the workspace."""
    _current_only(work, "source")
    home = Path(work.variable("Pipeline.Workspace"))
    patterns = _input(work, "patterns", default="**")
    for name in [only] if (only := _input(work, "artifact")) else _artifact_names(work):
        await _download(work, name, home / (_input(work, "path") or name), patterns, below=work.artifacts / name)


def _current_only(work: Work, *names: str) -> None:
    if _input(work, *names, default="current").lower() != "current":
        raise TaskFailed("The sandbox downloads the artifacts of the current run only.")


def _artifact_names(work: Work) -> list[str]:
    return sorted(folder.name for folder in work.artifacts.iterdir()) if work.artifacts.is_dir() else []


async def _download(work: Work, name: str, target: Path, patterns: str, *, below: Path) -> None:
    """Copy the files of an artifact that match a pattern; the patterns are relative to `below`."""
    source = work.artifacts / name
    if not source.is_dir():
        raise TaskFailed(
            f"Artifact {name} not found for build {work.variable('Build.BuildId')}. "
            "Please ensure you have published artifacts in any previous phases of the current build."
        )
    files = [file for file in _matching(below, patterns) if file.is_relative_to(source)]
    await asyncio.to_thread(_copy_each, files, source, target)
    work.say(f"Downloaded {len(files)} files of artifact '{name}' to {target}")


def _copy_each(files: Sequence[Path], source: Path, target: Path) -> None:
    for file in files:
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, place)


def _matching(folder: Path, patterns: str) -> list[Path]:
    """The files below a folder that match one of the lines; `**` alone is everything, `!` in front takes away."""
    chosen: set[Path] = set()
    for pattern in filter(None, (line.strip() for line in patterns.splitlines())):
        wanted = pattern.removeprefix("!")
        found = {file for file in folder.glob("**/*" if wanted in {"**", "**/*"} else wanted) if file.is_file()}
        chosen = chosen - found if pattern.startswith("!") else chosen | found
    return sorted(chosen)


async def publish_test_results(work: Work) -> None:
    """JUnit files become test runs."""
    if (form := _input(work, "testRunner", "testResultsFormat", default="JUnit")) != "JUnit":
        raise TaskFailed(f"The sandbox reads JUnit files, not {form}.")
    folder = _folder(work, _input(work, "searchFolder"))
    patterns = _input(work, "testResultsFiles", default="**/TEST-*.xml")
    absolute = [Path(line.strip()) for line in patterns.splitlines() if line.strip().startswith("/")]
    relative = "\n".join(line for line in patterns.splitlines() if not line.strip().startswith("/"))
    files = [file for file in absolute if file.is_file()] + _matching(folder, relative)
    if not files:
        text = f"No test result files matching '[ '{patterns}' ]' were found."
        if _yes(work, "failTaskOnMissingResultsFile"):
            raise TaskFailed(text)
        work.warn(text)
        return
    failed = 0
    for file in files:
        try:
            failed += sum(
                1 for case in Xml.parse(file).iter("testcase") if case.find("failure") is not None or case.find("error") is not None
            )
        except Xml.ParseError as wrong:
            work.warn(f"Failed to read {file}. Error : {wrong}.")
            continue
        work.tests(file, _input(work, "testRunTitle"))
        work.say(f"Result file {file} published.")
    if failed and _yes(work, "failTaskOnFailedTests"):
        raise TaskFailed(
            "There are one or more test failures detected in result files. "
            "Detailed summary of published test results can be viewed in the Tests tab."
        )


TASKS: Mapping[str, Task] = {
    "checkout": checkout,
    "script": script,
    "bash": script,
    "publish": publish_pipeline_artifact,
    "download": download,
    "AzureCLI@2": azure_cli,
    "UsePythonVersion@0": use_python,
    "PublishBuildArtifacts@1": publish_build_artifacts,
    "DownloadBuildArtifacts@1": download_build_artifacts,
    "PublishPipelineArtifact@1": publish_pipeline_artifact,
    "DownloadPipelineArtifact@2": download_pipeline_artifact,
    "PublishTestResults@2": publish_test_results,
}
