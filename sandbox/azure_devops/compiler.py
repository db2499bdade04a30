"""Azure Pipelines YAML to a Plan: templates, parameters and `${{ }}` expressions, refused where the service refuses them.

What the schema knows and the sandbox does not run is refused, too, and said to be just that.
https://learn.microsoft.com/azure/devops/pipelines/yaml-schema/
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from sandbox.azure_devops import expressions
from sandbox.azure_devops.document import Node, Place, Rows, Table, Word, bad, read
from sandbox.azure_devops.plan import BadPipeline, Plan, PlanJob, PlanStage, PlanStep
from sandbox.azure_devops.templates import Names, Pending, bind, expand, include, items, members

Section = Literal["stages", "jobs", "steps", "variables"]
Unit = TypeVar("Unit", PlanStage, PlanJob)

_RUN_NUMBER = "$(Date:yyyyMMdd).$(Rev:r)"
_JOB_MINUTES = 60.0  # what a Microsoft-hosted agent gives a job that does not ask
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)

_PIPELINE = {"name", "trigger", "pr", "variables", "stages", "jobs", "steps", "pool", "appendCommitMessageToRunName"}
_STAGE = {"stage", "displayName", "dependsOn", "condition", "variables", "jobs", "pool"}
_ANY_JOB = {"displayName", "dependsOn", "condition", "variables", "pool", "timeoutInMinutes", "continueOnError"}
_JOB = _ANY_JOB | {"job", "steps"}
_DEPLOYMENT = _ANY_JOB | {"deployment", "environment", "strategy"}
_HOOKS = ("preDeploy", "deploy", "routeTraffic", "postRouteTraffic")  # in the order they run
_ANY_STEP = {"displayName", "name", "condition", "continueOnError", "enabled", "env", "timeoutInMinutes"}
_STEPS: Mapping[str, Collection[str]] = {
    "script": {"workingDirectory"},
    "bash": {"workingDirectory"},
    "checkout": {"clean", "fetchDepth", "fetchTags", "lfs", "submodules", "path", "persistCredentials"},
    "task": {"inputs"},
    "publish": {"artifact"},
    "download": {"artifact", "patterns", "path"},
}
_TITLES = {"script": "CmdLine", "bash": "Bash", "publish": "PublishPipelineArtifact", "download": "DownloadPipelineArtifact"}
_NOTHING = {("checkout", "none"), ("download", "none")}
# What the service knows and the sandbox does not run.
_NOT_HERE = {
    *("resources", "schedules", "extends", "lockBehavior", "isSkippable", "templateContext", "group", "container", "services", "workspace"),
    *("uses", "cancelTimeoutInMinutes", "parallel", "matrix", "maxParallel", "rolling", "canary", "on", "tags", "drafts", "autoCancel"),
    *(
        "pwsh",
        "powershell",
        "reviewApp",
        "getPackage",
        "upload",
        "failOnStderr",
        "errorActionPreference",
        "retryCountOnTaskFailure",
        "target",
    ),
}


def compile(root: Path, file: str, parameters: Mapping[str, str], variables: Mapping[str, str]) -> Plan:  # noqa: A001 - it compiles
    """The plan of the pipeline in `file` (relative to `root`) with these parameters; BadPipeline says what is wrong and where.

    `variables` are the run's own (predefined and set when queueing); the YAML's come on top of them.
    """
    document = read(root, file)
    start = Place(file, 1, 1)
    for name, value in parameters.items():
        if not value:
            raise BadPipeline(f"/{file}: A value for the '{name}' parameter must be provided.")
    values = bind(document, {name: Word(value, start) for name, value in parameters.items()}, start)
    plan = _Compiler(root).pipeline(document, Names(file, values, dict(variables)))
    shown = {name: json.dumps(value) if isinstance(value, Table | Rows) else expressions.as_text(value) for name, value in values.items()}
    return replace(plan, parameters=shown)


@dataclass(frozen=True, slots=True)
class _Fields:
    """The members of one mapping, read by name."""

    at: Place
    members: Mapping[str, Pending]

    def __contains__(self, key: str) -> bool:
        return key in self.members

    def seeing(self, variables: Mapping[str, str]) -> _Fields:
        """The same with more variables in sight."""
        return _Fields(
            self.at,
            {key: (node, replace(names, variables={**names.variables, **variables})) for key, (node, names) in self.members.items()},
        )

    def node(self, key: str) -> Node | None:
        return expand(*self.members[key]) if key in self.members else None

    def text(self, key: str, default: str = "") -> str:
        return _text(node) if (node := self.node(key)) is not None else default

    def texts(self, key: str) -> dict[str, str]:
        """A mapping of texts, such as `env`."""
        match self.node(key):
            case None:
                return {}
            case Table() as table:
                return {str(name): _text(value) for name, value in table.items()}
            case other:
                raise bad(other, "Expected a mapping")

    def list(self, key: str) -> tuple[str, ...]:
        """A text or a list of texts, such as `dependsOn`."""
        match self.node(key):
            case None | "":
                return ()
            case Rows() as rows:
                return tuple(_text(row) for row in rows)
            case other:
                return (_text(other),)

    def flag(self, key: str, *, default: bool = False) -> bool:
        if not (text := self.text(key)):
            return default
        if text.lower() not in {"true", "false"}:
            raise BadPipeline(f"{self.place(key)}: The value '{text}' is not a valid Boolean.")
        return text.lower() == "true"

    def minutes(self, key: str, default: float) -> float:
        text = self.text(key)
        if text and not re.fullmatch(r"\d+", text):
            raise BadPipeline(f"{self.place(key)}: The value '{text}' is not a valid Integer.")
        return float(text) if text else default

    def condition(self) -> str:
        text = self.text("condition") or "succeeded()"
        _check(text, self.place("condition"))
        return text

    def name(self, key: str, kind: str, default: str = "") -> str:
        name = self.text(key) or default
        if name and not _NAME.fullmatch(name):
            raise BadPipeline(
                f"{self.place(key)}: {kind} '{name}' has an invalid name. "
                "Valid names may only contain alphanumeric characters and '_' and may not start with a number."
            )
        return name

    def place(self, key: str) -> Place:
        return self.members[key][0].at if key in self.members else self.at


@dataclass
class _Compiler:
    """Walks one pipeline's files; all that changes is how many templates it has read."""

    root: Path
    templates: int = 0

    def pipeline(self, document: Table, names: Names) -> Plan:
        top = _fields(_without_parameters(document), names, _PIPELINE)
        own = self._variables(top, "variables")
        top = top.seeing(own)
        work = [key for key in ("stages", "jobs", "steps") if key in top]
        match work:
            case ["stages"]:
                stages = self._stages(top)
            case ["jobs"]:
                stages = (PlanStage("__default", "Stage", self._jobs(top, "__default")),)
            case ["steps"]:
                stages = (PlanStage("__default", "Stage", (PlanJob("Job", "Job", self._job_steps(top)),)),)
            case []:
                raise bad(document, "Required property is missing: stages, jobs or steps")
            case _:
                raise BadPipeline(f"{top.place(work[1])}: Unexpected value '{work[1]}'")
        trigger = _trigger(top)
        return Plan(
            name=top.text("name") or _RUN_NUMBER,
            stages=stages,
            parameters={},
            variables={**names.variables, **own},
            branches=trigger.branches,
            branches_excluded=trigger.branches_excluded,
            paths=trigger.paths,
            paths_excluded=trigger.paths_excluded,
        )

    def _stages(self, top: _Fields) -> tuple[PlanStage, ...]:
        stages: list[PlanStage] = []
        for table, names in self._rows(top, "stages"):
            fields = _fields(table, names, _STAGE)
            own = self._variables(fields, "variables")
            fields = fields.seeing(own)
            name = fields.name("stage", "Stage", f"Stage{len(stages) + 1}")
            before = (stages[-1].name,) if stages else ()
            stages.append(
                PlanStage(
                    name=name,
                    title=fields.text("displayName") or name,
                    jobs=self._jobs(fields, name),
                    depends_on=fields.list("dependsOn") if "dependsOn" in fields else before,
                    condition=fields.condition(),
                    variables=own,
                )
            )
        return _linked(stages, "Stage", "The pipeline must contain at least one stage with no dependencies.", top.place("stages"))

    def _jobs(self, stage: _Fields, stage_name: str) -> tuple[PlanJob, ...]:
        jobs: list[PlanJob] = []
        for table, names in self._rows(stage, "jobs"):
            deployment = "deployment" in members(table, names)
            fields = _fields(table, names, _DEPLOYMENT if deployment else _JOB)
            own = self._variables(fields, "variables")
            fields = fields.seeing(own)
            name = fields.name("deployment" if deployment else "job", "Job", f"Job{len(jobs) + 1}")
            jobs.append(
                PlanJob(
                    name=name,
                    title=fields.text("displayName") or name,
                    steps=self._deployment_steps(fields) if deployment else self._job_steps(fields),
                    depends_on=fields.list("dependsOn"),
                    condition=fields.condition(),
                    environment=_environment(fields) if deployment else None,
                    variables=own,
                    timeout_minutes=fields.minutes("timeoutInMinutes", _JOB_MINUTES),
                    continue_on_error=fields.flag("continueOnError"),
                )
            )
        return _linked(jobs, "Job", f"Stage {stage_name} must contain at least one job with no dependencies.", stage.place("jobs"))

    def _job_steps(self, job: _Fields) -> tuple[PlanStep, ...]:
        """A job's steps; the sources are checked out unless a step says how."""
        steps = self._steps(job)
        if not any(step.task == "checkout" for step in steps):
            _, names = job.members["steps"]
            steps = (_checkout("self", {}, names), *steps)
        return _done(steps)

    def _deployment_steps(self, job: _Fields) -> tuple[PlanStep, ...]:
        """The hooks of runOnce one after the other; `deploy` starts by downloading all artifacts unless a step says what to download.

        The service runs each hook as a job of its own; here they share one.
        """
        strategy = _inner(job, "strategy", {"runOnce"})
        once = _inner(strategy, "runOnce", _HOOKS)
        steps: list[PlanStep] = []
        for hook in (hook for hook in _HOOKS if hook in once):
            own = self._steps(_inner(once, hook, {"steps", "pool"}))
            if hook == "deploy" and not any(step.task == "download" for step in own):
                steps.append(PlanStep("download", _TITLES["download"], inputs={"source": "current"}))
            steps.extend(own)
        return _done(steps)

    def _steps(self, fields: _Fields) -> tuple[PlanStep, ...]:
        steps = [step for table, names in self._rows(fields, "steps") if (step := _step(table, names))]
        named = [step.name for step in steps if step.name]
        if twice := next((name for name in named if named.count(name) > 1), None):
            raise BadPipeline(
                f"{fields.place('steps')}: The step name {twice} appears more than once. Step names must be unique within a job."
            )
        return tuple(steps)

    def _variables(self, fields: _Fields, key: str) -> dict[str, str]:
        """Variables in either form; each may use those before it."""
        found: dict[str, str] = {}
        if key not in fields:
            return found
        node, names = fields.members[key]
        opened = expand(node, names) if isinstance(node, Word) else node
        if isinstance(opened, Table):
            for name, pending in members(opened, names).items():
                found[str(name)] = _variable(_Fields(name.at, {"value": pending}).seeing(found))
            return found
        for table, inside in self._rows(fields, "variables"):
            row = _fields(table, inside, {"name", "value", "readonly"}).seeing(found)
            found[row.text("name")] = _variable(row)
        return found

    def _rows(self, fields: _Fields, section: Section) -> Iterator[tuple[Table, Names]]:
        """The mappings of a section's list, those of the templates it names among them."""
        if section not in fields:
            raise BadPipeline(f"{fields.at}: Required property is missing: {section}")
        node, names = fields.members[section]
        if isinstance(node, Word):
            node, names = expand(node, names), replace(names, done=True)
        if not isinstance(node, Rows):
            raise bad(node, "Expected a sequence")
        for item, inside in items(node, names):
            if not isinstance(item, Table):
                raise bad(item, "Expected a mapping")
            if "template" in members(item, inside):
                yield from self._template(_fields(item, inside, {"template", "parameters"}), inside, section)
            else:
                yield item, inside

    def _template(self, call: _Fields, names: Names, section: Section) -> Iterator[tuple[Table, Names]]:
        self.templates += 1
        file, given = call.node("template"), call.node("parameters")
        if not isinstance(file, Word):
            raise BadPipeline(f"{call.place('template')}: Expected a scalar")
        if given is not None and not isinstance(given, Table):
            raise bad(given, "Expected a mapping")
        values: dict[str, Node] = dict(given.items() if given is not None else ())
        document, inside = include(self.root, file, values, names, depth=self.templates)
        top = _fields(_without_parameters(document), inside, {section})
        if section == "variables" and isinstance(top.node("variables"), Table):
            for name, value in self._variables(top, "variables").items():
                yield _variable_row(name, value, top.at), replace(inside, done=True)
        else:
            yield from self._rows(top, section)


def _without_parameters(document: Table) -> Table:
    """The rest of a file once its parameters are bound."""
    rest = Table(document.at)
    rest.update({key: value for key, value in document.items() if key != "parameters"})
    return rest


def _fields(table: Table, names: Names, allowed: Collection[str]) -> _Fields:
    """The members of a mapping, none but those allowed."""
    found = members(table, names)
    for key in found:
        if key not in allowed:
            raise bad(key, f"'{key}' is not run by the sandbox" if key in _NOT_HERE else f"Unexpected value '{key}'")
    return _Fields(table.at, {str(key): value for key, value in found.items()})


def _inner(fields: _Fields, key: str, allowed: Collection[str]) -> _Fields:
    """The fields of a mapping within."""
    if key not in fields:
        raise BadPipeline(f"{fields.at}: Required property is missing: {key}")
    node, names = fields.members[key]
    if isinstance(node, Word):
        node, names = expand(node, names), replace(names, done=True)
    if not isinstance(node, Table):
        raise bad(node, "Expected a mapping")
    return _fields(node, names, allowed)


def _text(node: Node) -> str:
    match node:
        case Word():
            return str(node)
        case Table() if not node:  # a mapping of directives, none of which let anything through
            return ""
        case _:
            raise bad(node, "Expected a scalar")


def _check(expression: str, at: Place) -> None:
    """Refuse now what could not be evaluated later."""
    try:
        expressions.check(expression)
    except expressions.BadExpression as wrong:
        raise BadPipeline(f"{at}: {wrong}") from wrong


def _variable(row: _Fields) -> str:
    value = row.text("value")
    if value.startswith("$[") and value.endswith("]"):
        _check(value[2:-1], row.place("value"))
    return value


def _variable_row(name: str, value: str, at: Place) -> Table:
    row = Table(at)
    row.update({Word("name", at): Word(name, at), Word("value", at): Word(value, at)})
    return row


def _step(table: Table, names: Names) -> PlanStep | None:
    """One step; None if it is switched off."""
    keys = members(table, names)
    kind = next((str(key) for key in keys if key in _STEPS), "")
    fields = _fields(table, names, _ANY_STEP | {kind, *_STEPS.get(kind, ())} if kind else _ANY_STEP)
    if not kind:
        raise bad(table, "A step needs a script, bash, checkout, task, publish, download or template")
    if not fields.flag("enabled", default=True):
        return None
    match kind:
        case "task":
            task, inputs = fields.text("task"), fields.texts("inputs")
            if not re.fullmatch(r"[\w.-]+@\d+", task):
                raise BadPipeline(f"{fields.place('task')}: The task reference '{task}' is invalid. It needs a name and a version: Name@1")
            title = task.partition("@")[0]
        case "checkout":
            options = {key: fields.text(key) for key in _STEPS["checkout"] if key in fields}
            step = _checkout(fields.text("checkout"), options, names)
            task, title, inputs = step.task, step.title, dict(step.inputs)
        case _:
            task, title = kind, _TITLES[kind]
            first = {"publish": "path", "download": "source"}.get(kind, "script")
            inputs = {first: fields.text(kind)} | {key: fields.text(key) for key in _STEPS[kind] if key in fields}
    return PlanStep(
        task=task,
        title=expressions.expand_macros(fields.text("displayName") or title, names.variables),
        name=fields.name("name", "Step"),
        inputs=inputs,
        env=fields.texts("env"),
        condition=fields.condition(),
        continue_on_error=fields.flag("continueOnError"),
        timeout_minutes=fields.minutes("timeoutInMinutes", 0.0),
    )


def _done(steps: Sequence[PlanStep]) -> tuple[PlanStep, ...]:
    """The steps without `checkout: none` and `download: none`, which say what not to do."""
    return tuple(step for step in steps if (step.task, step.inputs.get("repository", step.inputs.get("source"))) not in _NOTHING)


def _checkout(repository: str, options: Mapping[str, str], names: Names) -> PlanStep:
    if repository not in {"self", "none"}:
        raise BadPipeline(f"/{names.file}: The repository '{repository}' is not declared in the resources of the pipeline.")
    branch, name = names.variables.get("Build.SourceBranchName"), names.variables.get("Build.Repository.Name")
    title = f"Checkout {name}@{branch} to {options.get('path', 's')}" if branch and name else "Checkout"
    return PlanStep("checkout", title, inputs={**options, "repository": repository})


def _environment(fields: _Fields) -> str:
    """The environment of a deployment: its name, or a mapping with one; a resource within it (`name.resource`) does not change the name."""
    match fields.node("environment"):
        case Table():
            name = _inner(fields, "environment", {"name", "resourceName", "resourceType"}).text("name")
        case Word() as word:
            name = word.partition(".")[0]
        case _:
            name = ""
    if not name:
        raise BadPipeline(f"{fields.at}: Required property is missing: environment")
    return name


def _linked(units: Sequence[Unit], kind: str, rootless: str, at: Place) -> tuple[Unit, ...]:
    """Stages or jobs whose names are unique and whose dependencies are known, in the case they were declared with, and without a cycle."""
    names = {unit.name.casefold(): unit.name for unit in units}
    if len(names) < len(units):
        seen = [unit.name.casefold() for unit in units]
        twice = next(unit.name for unit in units if seen.count(unit.name.casefold()) > 1)
        where = "a pipeline" if kind == "Stage" else "a stage"
        raise BadPipeline(f"{at}: The {kind.lower()} name {twice} appears more than once. {kind} names must be unique within {where}.")
    linked: list[Unit] = []
    for unit in units:
        for name in unit.depends_on:
            if name.casefold() not in names:
                raise BadPipeline(f"{at}: {kind} {unit.name} depends on unknown {kind.lower()} {name}.")
        linked.append(replace(unit, depends_on=tuple(names[name.casefold()] for name in unit.depends_on)))
    if not any(not unit.depends_on for unit in linked):
        raise BadPipeline(f"{at}: {rootless}")
    settled: set[str] = set()
    while len(settled) < len(linked):
        ready = {unit.name for unit in linked if unit.name not in settled and settled.issuperset(unit.depends_on)}
        if not ready:
            stuck = ", ".join(unit.name for unit in linked if unit.name not in settled)
            raise BadPipeline(f"{at}: The {kind.lower()}s {stuck} wait for each other.")
        settled |= ready
    return tuple(linked)


@dataclass(frozen=True, slots=True)
class _Trigger:
    branches: tuple[str, ...] = ("*",)  # without a trigger every branch starts runs
    branches_excluded: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    paths_excluded: tuple[str, ...] = ()


def _trigger(top: _Fields) -> _Trigger:
    match top.node("trigger"):
        case None:
            return _Trigger()
        case Word() as word:
            return _Trigger(branches=()) if word == "none" else _Trigger(branches=(str(word),))
        case Rows() as rows:
            return _Trigger(branches=tuple(_text(row) for row in rows))
        case _:
            fields = _inner(top, "trigger", {"batch", "branches", "paths"})
            included, excluded = _filter(fields, "branches")
            paths, paths_excluded = _filter(fields, "paths")
            return _Trigger(included or ("*",), excluded, paths, paths_excluded)


def _filter(fields: _Fields, key: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What `branches` or `paths` include and exclude."""
    match fields.node(key):
        case None:
            return (), ()
        case Rows() as rows:
            return tuple(_text(row) for row in rows), ()
        case _:
            inner = _inner(fields, key, {"include", "exclude"})
            return inner.list("include"), inner.list("exclude")
