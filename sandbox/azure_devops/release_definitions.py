"""A release definition's JSON, as people import it and as REST takes it, read into what the sandbox acts on. Pure.

What the service knows and the sandbox does not run is refused and said to be just that.
https://learn.microsoft.com/rest/api/azure/devops/release/definitions/create
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.azure_devops import tasks
from sandbox.azure_devops.plan import PlanJob, PlanStep
from sandbox.names import ADO_GROUPS, ADO_MEMBERS, PROJECT_ID

Json = dict[str, Any]

# Who may be an approver.
IDENTITIES = frozenset({*(who.oid for who in ADO_MEMBERS), *(group.oid for group in ADO_GROUPS)})
MONTH = 43200  # minutes: how long an approval waits where its options do not say
# Tasks are named by their ids here. https://learn.microsoft.com/azure/devops/pipelines/tasks/reference/
BASH = "6c731c3c-3c68-459a-a5c9-bde6e6595b5b"
TASKS: Mapping[str, str] = {
    "33c63b11-352b-45a2-ba1b-54cb568a29ca": "UsePythonVersion",
    "46e4be58-730b-4389-8a2f-ea10b3e5e815": "AzureCLI",
    BASH: "Bash",
}


class BadDefinition(Exception):
    """The definition is refused; the message says why."""


@dataclass(frozen=True, slots=True)
class Approvers:
    """Who approves before or after a deployment; with nobody in it, it approves itself.

    `ranks` are the approvers' ids by their rank: those of one rank in any order, the next rank once all of it approved.
    `required` approvals suffice, 0 asks for all; `timeout` is in minutes.
    """

    ranks: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    required: int = 0
    creator_excluded: bool = False
    timeout: int = MONTH


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage (an environment, in REST's words): when it starts by itself, who approves, and its job."""

    id: int
    name: str
    rank: int
    before: Approvers
    after: Approvers
    at_start: bool
    follows: tuple[str, ...]
    variables: Mapping[str, str]
    job: PlanJob


@dataclass(frozen=True, slots=True)
class Trigger:
    """Builds of any tag and branch that are asked for start a release; an empty branch is any."""

    branch: str
    tags: frozenset[str]

    def fits(self, branch: str, tags: Collection[str]) -> bool:
        """Whether a build of this branch with these tags is one."""
        return self.branch.removeprefix("refs/heads/") in {"", branch.removeprefix("refs/heads/")} and self.tags <= set(tags)


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A definition, read: what it deploys (the builds of `pipeline`, as `alias`), and its stages in order."""

    name: str
    release_name: str
    alias: str
    pipeline: int
    triggers: tuple[Trigger, ...]
    variables: Mapping[str, str]
    stages: tuple[StagePlan, ...]

    def stage(self, id: int) -> StagePlan:
        """The stage of that definition environment id."""
        return next(stage for stage in self.stages if stage.id == id)


def read(document: Json) -> Blueprint:
    """The definition. Raises BadDefinition."""
    name = _text(document, "name", "the definition")
    artifact = _only(_list(document, "artifacts"), "artifact")
    alias = _text(artifact, "alias", "the artifact")
    reference = _object(artifact, "definitionReference")
    source, project = _object(reference, "definition"), _object(reference, "project")
    if artifact.get("type") != "Build" or not str(source.get("id")).isdigit() or project.get("id") != PROJECT_ID:
        raise BadDefinition(f"The artifact {alias} is not of a build pipeline of this project: the sandbox releases nothing else.")
    stages = tuple(sorted((_stage(one, alias) for one in _list(document, "environments")), key=lambda stage: stage.rank))
    names = [stage.name for stage in stages]
    if not stages or len(set(names)) < len(names):
        raise BadDefinition("A definition has one stage or more, and their names differ.")
    for stage in stages:
        if missing := next((other for other in stage.follows if other not in names or other == stage.name), None):
            raise BadDefinition(f"The stage {stage.name} follows a stage that is not there: {missing}.")
    if document.get("variableGroups"):
        raise BadDefinition("The sandbox has no variable groups.")
    return Blueprint(
        name=name,
        release_name=str(document.get("releaseNameFormat") or "Release-$(rev:r)"),
        alias=alias,
        pipeline=int(source["id"]),
        triggers=tuple(trigger for one in _list(document, "triggers") for trigger in _triggers(one, alias)),
        variables=_variables(document),
        stages=stages,
    )


def _triggers(trigger: Json, alias: str) -> Iterator[Trigger]:
    if trigger.get("triggerType") not in {"artifactSource", 1} or trigger.get("artifactAlias") != alias:
        raise BadDefinition(f"The sandbox knows one kind of trigger: artifactSource, of the artifact {alias}.")
    for condition in _list(trigger, "triggerConditions") or [{}]:
        yield Trigger(str(condition.get("sourceBranch") or ""), frozenset(map(str, condition.get("tags") or ())))


def _stage(stage: Json, alias: str) -> StagePlan:
    name = _text(stage, "name", "a stage")
    for unknown in ("schedules", "environmentTriggers", "variableGroups", "demands"):
        if stage.get(unknown):
            raise BadDefinition(f"The stage {name} has {unknown}, which the sandbox does not know.")
    for gates in ("preDeploymentGates", "postDeploymentGates"):
        if (stage.get(gates) or {}).get("gates"):
            raise BadDefinition(f"The stage {name} has gates, which the sandbox does not know.")
    at_start, follows = False, []
    for condition in _list(stage, "conditions"):
        match condition:
            case {"conditionType": "event" | 1, "name": "ReleaseStarted"}:
                at_start = True
            case {"conditionType": "environmentState" | 2, "name": str(other), "value": "4"}:
                follows.append(other)
            case _:
                raise BadDefinition(f"The stage {name} has a condition that the sandbox does not know: {condition}.")
    return StagePlan(
        id=_number(stage, "id", 0),
        name=name,
        rank=_number(stage, "rank", 0),
        before=_approvers(stage, "preDeployApprovals", name),
        after=_approvers(stage, "postDeployApprovals", name),
        at_start=at_start,
        follows=tuple(follows),
        variables=_variables(stage),
        job=_job(_only(_list(stage, "deployPhases"), f"job in the stage {name}"), name, alias),
    )


def _approvers(stage: Json, which: str, name: str) -> Approvers:
    asked = stage.get(which) or {}
    options = asked.get("approvalOptions") or {}
    for unknown in ("autoTriggeredAndPreviousEnvironmentApprovedCanBeSkipped", "enforceIdentityRevalidation"):
        if options.get(unknown):
            raise BadDefinition(f"The stage {name} asks for {unknown}, which the sandbox does not know.")
    ranks: dict[int, tuple[str, ...]] = {}
    for step in _list(asked, "approvals"):
        if not step.get("isAutomated"):
            who, rank = str((step.get("approver") or {}).get("id")).lower(), _number(step, "rank", 1)
            if who not in IDENTITIES:
                raise BadDefinition(f"The stage {name} has an approver who is nobody here: {who}.")
            ranks[rank] = (*ranks.get(rank, ()), who)
    required = _number(options, "requiredApproverCount", 0)
    if required > sum(map(len, ranks.values())):
        raise BadDefinition(f"The stage {name} asks for {required} approvals and has fewer approvers.")
    return Approvers(
        ranks=dict(sorted(ranks.items())),
        required=required,
        creator_excluded=options.get("releaseCreatorCanBeApprover") is False,
        timeout=_number(options, "timeoutInMinutes", MONTH),
    )


def _job(phase: Json, stage: str, alias: str) -> PlanJob:
    if phase.get("phaseType") not in {"agentBasedDeployment", 1}:
        raise BadDefinition(f"The job of the stage {stage} is no agent job: the sandbox has no other.")
    given = phase.get("deploymentInput") or {}
    steps = [*_downloads(given, stage, alias), *(_step(task, stage) for task in _list(phase, "workflowTasks") if task.get("enabled", True))]
    title = str(phase.get("name") or "Agent job")
    return PlanJob(name="Agent", title=title, steps=tuple(steps), timeout_minutes=float(_number(given, "timeoutInMinutes", 0)))


def _downloads(given: Json, stage: str, alias: str) -> Iterator[PlanStep]:
    """What the agent does first, unless it is told not to: it downloads the artifacts, each below its alias."""
    asked = _list(given.get("artifactsDownloadInput") or {}, "downloadInputs") or [{"alias": alias, "artifactDownloadMode": "All"}]
    target = {"buildType": "current", "downloadPath": f"$(System.DefaultWorkingDirectory)/{alias}"}
    for one in () if given.get("skipArtifactsDownload") else asked:
        match one:
            case {"alias": str(of), "artifactDownloadMode": "All"} if of == alias:
                inputs = target | {"downloadType": "specific"}
                yield PlanStep("DownloadBuildArtifacts@1", f"Download artifacts - {alias}", inputs=inputs)
            case {"alias": str(of), "artifactDownloadMode": "Selective", "artifactItems": list(names)} if of == alias:
                for name in map(str, names):
                    inputs = target | {"downloadType": "single", "artifactName": name}
                    yield PlanStep("DownloadBuildArtifacts@1", f"Download artifact - {alias} - {name}", inputs=inputs)
            case {"artifactDownloadMode": "Skip"}:
                pass
            case _:
                raise BadDefinition(f"The stage {stage} downloads what the sandbox does not understand: {one}.")


def _step(task: Json, stage: str) -> PlanStep:
    title = _text(task, "name", f"a task of the stage {stage}")
    key = str(task.get("taskId")).lower()
    kind = f"{TASKS.get(key, key)}@{str(task.get('version')).partition('.')[0]}"
    inputs = {str(name): str(value) for name, value in (task.get("inputs") or {}).items()}
    if key == BASH:
        if inputs.get("targetType") != "inline":
            raise BadDefinition(f"The task '{title}' of the stage {stage} must have its script inline.")
        kind, inputs = "bash", {name: inputs.get(name, "") for name in ("script", "workingDirectory")}
    if tasks.find(kind) is None:
        raise BadDefinition(f"The task '{title}' of the stage {stage} is one that the sandbox's agent does not have: {kind}.")
    return PlanStep(
        task=kind,
        title=title,
        name=str(task.get("refName") or ""),
        inputs=inputs,
        env={str(name): str(value) for name, value in (task.get("environment") or {}).items()},
        condition="always()" if task.get("alwaysRun") else str(task.get("condition") or "succeeded()"),
        continue_on_error=bool(task.get("continueOnError")),
        timeout_minutes=float(_number(task, "timeoutInMinutes", 0)),
    )


def _variables(of: Json) -> dict[str, str]:
    variables = _object(of, "variables") if of.get("variables") else {}
    if secret := next((name for name, one in variables.items() if isinstance(one, dict) and one.get("isSecret")), None):
        raise BadDefinition(f"The variable {secret} is secret: the sandbox keeps no secrets of releases.")
    return {str(name): str((one or {}).get("value") or "") for name, one in variables.items()}


def _object(of: Json, key: str) -> Json:
    value = of.get(key)
    if not isinstance(value, dict):
        raise BadDefinition(f"{key} must be an object.")
    return value


def _list(of: Json, key: str) -> list[Json]:
    value = of.get(key) or []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise BadDefinition(f"{key} must be a list of objects.")
    return value


def _number(of: Json, key: str, default: int) -> int:
    value = of.get(key)
    if not isinstance(value, int | None):
        raise BadDefinition(f"{key} must be a number.")
    return value or default


def _text(of: Json, key: str, what: str) -> str:
    value = of.get(key)
    if not isinstance(value, str) or not value:
        raise BadDefinition(f"{what.capitalize()} needs a {key}.")
    return value


def _only(found: list[Json], what: str) -> Json:
    if len(found) != 1:
        raise BadDefinition(f"The sandbox wants exactly one {what}; there are {len(found)}.")
    return found[0]
