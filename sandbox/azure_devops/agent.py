"""The build agent: runs one job's steps as real processes and speaks `##vso` with them, as the Azure Pipelines agent does.

It knows nothing of runs, approvals or REST; whoever starts a job hands it a Space and listens with a Watch.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import platform
import re
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

from sandbox import processes
from sandbox.azure_devops import commands, tasks
from sandbox.azure_devops.expressions import Scope, evaluate, expand_macros, resolve, truth
from sandbox.azure_devops.plan import PlanJob, PlanStep, Result
from sandbox.azure_devops.tasks import ArtifactKind, TaskFailed

_AGENT = "Callboard sandbox 1"
_LAST_WORDS = 2.0  # seconds to go on reading when a process has ended and a child of it holds its output open
_AFTER_CANCEL = 300.0  # seconds that `always()` steps of a canceled job get (cancelTimeoutInMinutes: 5)
_LONGEST_LINE = 1 << 20
SUMMARY = "Distributedtask.Core.Summary"  # the kind of attachment that pages show
_NOT_EXPORTED = re.compile(r"[=\0]")  # what no name in an environment may hold


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Space:
    """Where and as whom a job runs.

    `folder`: Pipeline.Workspace, made if missing; the agent itself sets every variable that names a folder in it.
    `repository`, `commit`: what `checkout: self` clones. `artifacts`: the run's artifacts, one folder each, shared by all its jobs.
    `scope.variables`: the run's and the stage's variables, `Build.*` and `System.*` among them;
    its dependencies serve the job's `$[ ... ]`. `secrets`: names of variables whose values are masked and not exported.
    `environment`: that of every process, from `World.outside(AGENT)`.
    """

    folder: Path
    repository: Path
    commit: str
    artifacts: Path
    environment: Mapping[str, str]
    scope: Scope = field(default_factory=Scope)
    secrets: frozenset[str] = frozenset()
    clock: Callable[[], datetime] = now


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """How the job ended. `outputs` are named as others read them: `step.variable`, in a deployment job `job.step.variable`."""

    result: Result
    outputs: Mapping[str, str]


class Watch(Protocol):
    """Who wants to know; `step` counts the job's steps from 0. Files are to be read before returning."""

    @property
    def canceled(self) -> asyncio.Event:
        """Set to cancel the job: the running step is killed, later ones run only if their condition says so (`always()`)."""
        ...

    def step_started(self, step: int) -> None:
        """The step's process or task begins; a skipped step never starts."""
        ...

    def step_finished(self, step: int, result: Result) -> None:
        """Every step finishes, skipped ones as SKIPPED."""
        ...

    def line(self, step: int, text: str) -> None:
        """One line of the step's log, with its time in front and secrets masked."""
        ...

    def issue(self, step: int, kind: Literal["error", "warning"], message: str) -> None:
        """An issue for the timeline record of the step, secrets masked."""
        ...

    def artifact(self, name: str, folder: Path, kind: ArtifactKind) -> None:
        """An artifact is published, or more files are in it; `folder` is `Space.artifacts / name`."""
        ...

    def tests(self, file: Path, title: str) -> None:
        """A JUnit XML file is published as a test run of that title (may be empty)."""
        ...

    def attachment(self, kind: str, name: str, file: Path) -> None:
        """A file is attached to the job's record; one of the kind `SUMMARY` is Markdown for the run's summary."""
        ...

    def build_number(self, number: str) -> None:
        """A step renamed the run."""
        ...

    def build_tag(self, tag: str) -> None:
        """A step tagged the run."""
        ...


async def run_job(job: PlanJob, space: Space, watch: Watch) -> JobOutcome:
    """Run the job's steps in order and say how it ended.

    Cancelling this coroutine kills the running step's processes at once and runs nothing more (the sandbox is stopping).
    """
    desk = _Desk(job, space, watch)
    deadline = asyncio.get_running_loop().time() + job.timeout_minutes * 60
    try:
        for index, step in enumerate(job.steps):
            desk.variables["Agent.JobStatus"] = str(desk.result)
            if not truth(evaluate(step.condition, desk.scope())):
                watch.step_finished(index, Result.SKIPPED)
                continue
            watch.step_started(index)
            work = _Work(desk, index, step)
            work.say(f"##[section]Starting: {work.title}")
            result = await _attempt(work, deadline if job.timeout_minutes else None)
            work.say(f"##[section]Finishing: {work.title}")
            desk.settle(result)
            watch.step_finished(index, result)
    finally:
        desk.clean_up()
    return JobOutcome(desk.result, desk.outputs)


async def _attempt(work: _Work, deadline: float | None) -> Result:
    """Run one step until it ends, times out or is canceled."""
    canceled = work.desk.watch.canceled
    limit = _time_limit(work, deadline)
    step = asyncio.ensure_future(work.perform())
    # What runs after a cancellation runs on purpose: nothing but its time ends it.
    stop = asyncio.ensure_future(_never() if work.desk.canceled else canceled.wait())
    try:
        done, _ = await asyncio.wait({step, stop}, timeout=limit.seconds, return_when=asyncio.FIRST_COMPLETED)
        if step in done:
            return step.result()
        await _cancel(step)
        if stop in done:
            work.fail("The operation was canceled.")
            return Result.CANCELED
        if limit.ends_job:
            minutes = work.desk.job.timeout_minutes
            work.fail(f"The job running on agent {_AGENT} ran longer than the maximum time of {minutes:g} minutes.")
            work.desk.timed_out = True
            return Result.CANCELED
        work.fail("The task has timed out.")
        return work.settled(Result.FAILED)
    finally:
        await _cancel(step)
        await _cancel(stop)


@dataclass(frozen=True, slots=True)
class _Limit:
    """How long a step may take, and whether it is then the job's time that is up."""

    seconds: float | None
    ends_job: bool = False


def _time_limit(work: _Work, deadline: float | None) -> _Limit:
    if work.desk.canceled:
        return _Limit(_AFTER_CANCEL)
    own = work.step.timeout_minutes * 60 or None
    if deadline is None:
        return _Limit(own)
    left = max(0.0, deadline - asyncio.get_running_loop().time())
    return _Limit(own) if own is not None and own < left else _Limit(left, ends_job=True)


async def _never() -> None:
    await asyncio.Event().wait()


async def _cancel(task: asyncio.Future[Any]) -> None:
    """Cancel a task and wait until it has cleaned up; its own end is not ours."""
    task.cancel()
    await asyncio.wait({task})


class _Desk:
    """What the steps of one job share: variables, outputs, processes, and how it goes so far."""

    def __init__(self, job: PlanJob, space: Space, watch: Watch) -> None:
        self.job = job
        self.space = space
        self.watch = watch
        self.status = Result.SUCCEEDED
        self.timed_out = False
        self.outputs: dict[str, str] = {}
        self.path = [str(Path(sys.executable).parent)]
        self.processes: list[asyncio.subprocess.Process] = []
        self.secret_names = {name.casefold() for name in space.secrets}
        self.masked: set[str] = {value for name, value in space.scope.variables.items() if name.casefold() in self.secret_names}
        self.variables = self._first_variables()

    @property
    def canceled(self) -> bool:
        return self.timed_out or self.watch.canceled.is_set()

    @property
    def result(self) -> Result:
        return Result.CANCELED if self.canceled else self.status

    def scope(self) -> Scope:
        """What a step's condition sees."""
        given = self.space.scope
        return Scope(self.variables, given.dependencies, given.stage_dependencies, (self.status,), self.canceled)

    def settle(self, result: Result) -> None:
        """Let a step's result count for the job."""
        if result is Result.FAILED or (result is Result.SUCCEEDED_WITH_ISSUES and self.status is Result.SUCCEEDED):
            self.status = result

    def environment(self) -> dict[str, str]:
        """The variables as processes see them; secrets are not among them."""
        exported = {
            _exported(name): value
            for name, value in self.variables.items()
            if name.casefold() not in self.secret_names and not _NOT_EXPORTED.search(name) and "\0" not in value
        }
        path = os.pathsep.join([*self.path, self.space.environment.get("PATH", os.defpath)])
        return {**self.space.environment, "PATH": path, **exported}

    def clean_up(self) -> None:
        """End what the steps left running."""
        for process in self.processes:
            processes.clear(process)

    def _first_variables(self) -> dict[str, str]:
        folder = self.space.folder.resolve()
        home = {
            "Pipeline.Workspace": folder,
            "Agent.BuildDirectory": folder,
            "Agent.WorkFolder": folder.parent,
            "Agent.HomeDirectory": folder.parent,
            "Agent.ToolsDirectory": Path(sys.prefix),
            "Agent.TempDirectory": folder / "_temp",
            "Build.SourcesDirectory": folder / "s",
            "Build.Repository.LocalPath": folder / "s",
            "System.DefaultWorkingDirectory": folder / "s",
            "Build.BinariesDirectory": folder / "b",
            "Build.ArtifactStagingDirectory": folder / "a",
            "Build.StagingDirectory": folder / "a",
            "System.ArtifactsDirectory": folder / "a",
            "Common.TestResultsDirectory": folder / "TestResults",
        }
        for path in home.values():
            path.mkdir(parents=True, exist_ok=True)
        given = {**self.space.scope.variables, **self.job.variables}
        about = {
            "TF_BUILD": "True",
            "Agent.Id": "1",
            "Agent.Name": _AGENT,
            "Agent.MachineName": platform.node(),
            "Agent.OS": platform.system(),
            "Agent.OSArchitecture": "ARM64" if platform.machine() in {"arm64", "aarch64"} else "X64",
            "Agent.JobName": self.job.title,
            "System.JobName": self.job.name,
            "System.JobDisplayName": self.job.title,
            "Build.SourceVersion": self.space.commit,
        }
        if self.job.environment is not None:
            about["Environment.Name"] = self.job.environment
        known = {name: resolve(value, self.space.scope) for name, value in given.items()} | about
        known |= {name: str(path) for name, path in home.items()}
        for _ in range(10):  # a variable may be made of others, which may be made of others
            expanded = {name: expand_macros(value, known) for name, value in known.items()}
            if expanded == known:
                break
            known = expanded
        return known


class _Work:
    """One step at work; what `tasks.Work` asks for."""

    def __init__(self, desk: _Desk, index: int, step: PlanStep) -> None:
        self.desk = desk
        self.index = index
        self.step = step
        self.title = expand_macros(step.title, desk.variables)
        self.inputs: Mapping[str, str] = {name.lower(): expand_macros(value, desk.variables) for name, value in step.inputs.items()}
        self.artifacts = desk.space.artifacts
        self.checkout_source = (desk.space.repository, desk.space.commit)
        self._completed: Result | None = None

    async def perform(self) -> Result:
        """Run the step's task; its result."""
        return self.settled(await self._result())

    def settled(self, result: Result) -> Result:
        """The result with `continueOnError` applied."""
        return Result.SUCCEEDED_WITH_ISSUES if result is Result.FAILED and self.step.continue_on_error else result

    async def _result(self) -> Result:
        task = tasks.find(self.step.task)
        if task is None:
            name, _, version = self.step.task.partition("@")
            self.fail(
                f"A task is missing. The pipeline references a task called '{name}'. This usually indicates the task isn't installed, "
                "and you may be able to install it from the Marketplace: https://marketplace.visualstudio.com. "
                f"(Task version {version}, job '{self.desk.job.name}', step '{self.step.name}'.)"
            )
            return Result.FAILED
        try:
            await task(self)
        except TaskFailed as failed:
            self.fail(str(failed))
            return Result.FAILED
        return self._completed or Result.SUCCEEDED

    def variable(self, name: str) -> str:
        return expand_macros(f"$({name})", {name: "", **self.desk.variables})

    def set_variable(self, name: str, value: str) -> None:
        known = next((each for each in self.desk.variables if each.casefold() == name.casefold()), name)
        self.desk.variables[known] = value

    def prepend_path(self, folder: Path) -> None:
        self.desk.path.insert(0, str(folder))

    def say(self, text: str) -> None:
        stamp = self.desk.space.clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")
        for line in commands.mask(text, frozenset(self.desk.masked)).splitlines() or [""]:
            self.desk.watch.line(self.index, f"{stamp} {line}")

    def warn(self, text: str) -> None:
        self._issue("warning", text)

    def fail(self, text: str) -> None:
        """An error in the log and among the step's issues."""
        self._issue("error", text)

    def published(self, name: str, folder: Path, kind: ArtifactKind) -> None:
        self.desk.watch.artifact(name, folder, kind)

    def tests(self, file: Path, title: str) -> None:
        self.desk.watch.tests(file, title)

    async def run(self, command: Sequence[str], folder: Path) -> int:
        self.say(f"[command]{' '.join(command)}")
        environment = self.desk.environment()
        environment |= {name: expand_macros(value, self.desk.variables) for name, value in self.step.env.items()}
        _insist_on(folder)
        output, theirs = await _pipe()
        try:
            with theirs:
                process = await processes.start(command, folder=folder, environment=environment, output=theirs)
            self.desk.processes.append(process)
            return await self._attend(process, output.reader)
        finally:
            output.transport.close()

    async def _attend(self, process: asyncio.subprocess.Process, output: asyncio.StreamReader) -> int:
        """Listen to a process until it ends; end it if we are no longer wanted."""
        listening = asyncio.ensure_future(self._listen(output))
        try:
            code = await process.wait()
            # A child left in the background may hold the pipe: its words are not waited for.
            await asyncio.wait({listening}, timeout=_LAST_WORDS)
            if listening.done():
                listening.result()
            return code
        finally:
            if process.returncode is None:
                await asyncio.shield(processes.end(process))
            await _cancel(listening)

    async def _listen(self, output: asyncio.StreamReader) -> None:
        async for line in _lines(output):
            if command := commands.parse(line):
                await self._obey(command)
            else:
                self.say(line)

    async def _obey(self, command: commands.Command) -> None:
        value = command.value.strip()
        match command.name:
            case "task.setvariable":
                self._set(command)
            case "task.logissue":
                self._issue("error" if command.properties.get("type", "").lower() == "error" else "warning", command.value)
            case "task.complete":
                self._complete(command)
            case "task.prependpath":
                self.prepend_path(Path(value))
            case "task.setsecret":
                self.desk.masked.add(command.value)
            case "task.uploadsummary":
                self._attach(SUMMARY, Path(value).stem, Path(value))
            case "task.addattachment":
                self._attach(command.properties.get("type", ""), command.properties.get("name", ""), Path(value))
            case "artifact.upload":
                await self._upload(command)
            case "build.updatebuildnumber":
                self.set_variable("Build.BuildNumber", value)
                self.desk.watch.build_number(value)
            case "build.addbuildtag":
                self.desk.watch.build_tag(value)
            case other if other not in {"task.setprogress", "task.debug", "task.logdetail"}:
                self.warn(f"##vso[{other}] is not a recognized command for this agent.")

    def _set(self, command: commands.Command) -> None:
        name = command.properties.get("variable", "")
        if not name:
            self.fail("Required field 'variable' is missing in ##vso[task.setvariable] command.")
            return
        if output := command.properties.get("isoutput", "").lower() == "true":
            prefix = f"{self.desk.job.name}." if self.desk.job.environment is not None else ""
            self.desk.outputs[f"{prefix}{self.step.name}.{name}"] = command.value
            name = f"{self.step.name}.{name}"
        if command.properties.get("issecret", "").lower() == "true":
            self.desk.secret_names.add(name.casefold())
            self.desk.masked.add(command.value)
        elif not output and name.casefold() in self.desk.secret_names:
            self.desk.masked.add(command.value)  # once secret, always secret
        self.set_variable(name, command.value)

    def _complete(self, command: commands.Command) -> None:
        if command.value:
            self.say(command.value)
        match command.properties.get("result", "Succeeded").lower():
            case "failed" | "canceled":
                self._completed = Result.FAILED
            case "succeededwithissues" if self._completed is not Result.FAILED:
                self._completed = Result.SUCCEEDED_WITH_ISSUES
            case _:
                pass

    def _attach(self, kind: str, name: str, file: Path) -> None:
        if not kind or not name:
            self.fail("Cannot add task attachment, attachment type or attachment name is not provided.")
        elif file.is_file():
            self.desk.watch.attachment(kind, name, file)
        else:
            self.warn(f"Cannot upload task attachment file, attachment file location does not exist: {file}")

    async def _upload(self, command: commands.Command) -> None:
        source = Path(command.value.strip())
        name = command.properties.get("artifactname", "") or command.properties.get("containerfolder", "")
        try:
            await tasks.upload(self, source, name, "Container")
        except TaskFailed as failed:
            self.fail(str(failed))
            self._completed = Result.FAILED

    def _issue(self, kind: Literal["error", "warning"], text: str) -> None:
        masked = commands.mask(text, frozenset(self.desk.masked))
        first, *more = masked.splitlines() or [""]
        self.say(f"##[{kind}]{first}")
        for line in more:
            self.say(line)
        self.desk.watch.issue(self.index, kind, masked)


@dataclass(frozen=True, slots=True)
class _Output:
    reader: asyncio.StreamReader
    transport: asyncio.BaseTransport


async def _pipe() -> tuple[_Output, BinaryIO]:
    """Our end of a pipe and the one for a process.

    A pipe of our own, since Process.wait() waits for asyncio's until the last child has closed it (python/cpython#119710).
    """
    ours, theirs = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb"))
    return _Output(reader, transport), os.fdopen(theirs, "wb")


def _insist_on(folder: Path) -> None:
    if not folder.is_dir():
        raise TaskFailed(f"Not found workingDirectory: {folder}")


def _exported(name: str) -> str:
    return name.upper().replace(".", "_").replace(" ", "_")


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Lines of output as they come; a line without end is cut where it would fill the memory."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    while chunk := await stream.read(1 << 16):
        *whole, rest = (rest + decoder.decode(chunk)).split("\n")
        for line in whole:
            yield line.rstrip("\r")
        if len(rest) > _LONGEST_LINE:
            yield rest
            rest = ""
    if rest:
        yield rest
