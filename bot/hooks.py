"""The service-hook subscriptions that bring Azure DevOps' events to the bot: what should be there, and how to get there.

`python -m bot hooks` shows the difference, `python -m bot hooks apply` removes it. Doing it twice changes nothing.
https://learn.microsoft.com/azure/devops/service-hooks/events
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bot.core.team import Team

PATH = "/hooks/azure-devops"
HEADER = "X-Callboard-Secret"
ENABLED = "enabled"

# Event, its publisher and the version of its payload. Of `build.complete` 1.0 and 2.0 differ in kind; 2.0 has the result.
PIPELINE_EVENTS = (
    ("ms.vss-pipelines.run-state-changed-event", "pipelines", "5.1-preview.1"),
    ("ms.vss-pipelines.stage-state-changed-event", "pipelines", "5.1-preview.1"),
    ("ms.vss-pipelines.job-state-changed-event", "pipelines", "5.1-preview.1"),
    ("ms.vss-pipelinechecks-events.approval-pending", "pipelines", "5.1-preview.1"),
    ("ms.vss-pipelinechecks-events.approval-completed", "pipelines", "5.1-preview.1"),
    ("build.complete", "tfs", "2.0"),
)
RELEASE_EVENTS = (
    ("ms.vss-release.release-created-event", "rm", "3.0-preview.1"),
    ("ms.vss-release.release-abandoned-event", "rm", "3.0-preview.1"),
    ("ms.vss-release.deployment-started-event", "rm", "3.0-preview.1"),
    ("ms.vss-release.deployment-completed-event", "rm", "3.0-preview.1"),
    ("ms.vss-release.deployment-approval-pending-event", "rm", "3.0-preview.1"),
    ("ms.vss-release.deployment-approval-completed-event", "rm", "3.0-preview.1"),
)


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where the bot takes deliveries: its public `url` (without a path), and what a delivery has to carry."""

    url: str
    username: str
    password: str = field(repr=False)
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Subscription:
    """One subscription; `id` and `status` are the service's. `inputs` filter events, `consumer` says where they go."""

    publisher: str
    event: str
    version: str
    inputs: Mapping[str, str]
    consumer: Mapping[str, str] = field(repr=False)
    consumer_id: str = "webHooks"
    action: str = "httpRequest"
    id: str = ""
    status: str = ENABLED

    @property
    def subject(self) -> str:
        """What it is about, for people."""
        about = next((self.inputs[key] for key in ("pipelineId", "definitionName", "releaseDefinitionId") if self.inputs.get(key)), "all")
        return f"{self.event} of {about}"


@dataclass(frozen=True, slots=True)
class Repair:
    """A subscription of ours that has to be written anew, and why."""

    existing: Subscription
    wanted: Subscription
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The way from what is there to what should be; `others` belong to somebody else."""

    create: tuple[Subscription, ...] = ()
    repair: tuple[Repair, ...] = ()
    remove: tuple[Subscription, ...] = ()
    keep: tuple[Subscription, ...] = ()
    others: int = 0


class Subscriptions(Protocol):
    """The service's subscriptions; the `rm` publisher's live on a host of their own."""

    async def project_id(self) -> str:
        """The id of the project: filters take no name."""
        ...

    async def pipeline_name(self, pipeline_id: int) -> str:
        """The name of a pipeline: the filter of `build.complete` takes no id."""
        ...

    async def list(self, *, releases: bool) -> tuple[Subscription, ...]:
        """Every subscription of the organisation, those on the release host where asked for."""
        ...

    async def create(self, subscription: Subscription) -> None:
        """Add one."""
        ...

    async def replace(self, id: str, subscription: Subscription) -> None:
        """Write one anew, and switch it on."""
        ...

    async def remove(self, subscription: Subscription) -> None:
        """Remove one."""
        ...


async def show(azure: Subscriptions, team: Team, receiver: Receiver) -> tuple[str, ...]:
    """What is there and what `apply` would do, in lines for people. Changes nothing."""
    plan = await _plan(azure, team, receiver, renew=False)
    return (
        *(f"fine     {one.subject}" for one in plan.keep),
        *(f"missing  {one.subject}" for one in plan.create),
        *(f"broken   {one.existing.subject}: {one.why}" for one in plan.repair),
        *(f"surplus  {one.subject} ({one.id})" for one in plan.remove),
        *_left_alone(plan),
    )


async def apply(azure: Subscriptions, team: Team, receiver: Receiver, *, renew: bool = False) -> tuple[str, ...]:
    """Create, repair and remove until the subscriptions are as they should be; says what was changed, in lines for people.

    `renew` writes all of ours anew: after a change of password or secret, which the service never shows.
    """
    plan = await _plan(azure, team, receiver, renew=renew)
    said: list[str] = []
    for one in plan.create:
        await azure.create(one)
        said.append(f"created  {one.subject}")
    for repair in plan.repair:
        await azure.replace(repair.existing.id, repair.wanted)
        said.append(f"repaired {repair.wanted.subject}: {repair.why}")
    for one in plan.remove:
        await azure.remove(one)
        said.append(f"removed  {one.subject} ({one.id})")
    return (*said, *([f"fine     {len(plan.keep)} subscriptions"] if plan.keep else []), *_left_alone(plan))


async def _plan(azure: Subscriptions, team: Team, receiver: Receiver, *, renew: bool) -> Plan:
    project_id = await azure.project_id()
    names = {pipeline_id: await azure.pipeline_name(pipeline_id) for pipeline_id in _pipelines(team)}
    wanted = desired(team, receiver, project_id, names)
    return plan(wanted, await azure.list(releases=bool(team.releases)), renew=renew)


def _left_alone(plan: Plan) -> tuple[str, ...]:
    return (f"alone    {plan.others} of others",) if plan.others else ()


def _pipelines(team: Team) -> tuple[int, ...]:
    return tuple(sorted({model.pipeline_id for model in team.models.values()}))


def desired(team: Team, receiver: Receiver, project_id: str, names: Mapping[int, str]) -> tuple[Subscription, ...]:
    """The subscriptions a team needs: every event of every pipeline, and of every classic release definition."""
    consumer = {
        "url": receiver.url.rstrip("/") + PATH,
        "basicAuthUsername": receiver.username,
        "basicAuthPassword": receiver.password,
        "httpHeaders": f"{HEADER}:{receiver.secret}",
        "resourceDetailsToSend": "all",
        "messagesToSend": "none",
        "detailedMessagesToSend": "none",
    }
    of_pipelines = (
        Subscription(publisher, event, version, {"projectId": project_id, **_filter(event, pipeline_id, names)}, consumer)
        for pipeline_id in _pipelines(team)
        for event, publisher, version in PIPELINE_EVENTS
    )
    of_releases = (
        Subscription(publisher, event, version, {"projectId": project_id, "releaseDefinitionId": str(definition)}, consumer)
        for definition in team.releases
        for event, publisher, version in RELEASE_EVENTS
    )
    return (*of_pipelines, *of_releases)


def _filter(event: str, pipeline_id: int, names: Mapping[int, str]) -> dict[str, str]:
    return {"definitionName": names[pipeline_id]} if event == "build.complete" else {"pipelineId": str(pipeline_id)}


def plan(wanted: Sequence[Subscription], existing: Iterable[Subscription], *, renew: bool = False) -> Plan:
    """What to do. Ours are those of our project that deliver to our address; all others are left alone."""
    mine: dict[tuple[str, ...], list[Subscription]] = {}
    others = 0
    homes = {(one.consumer["url"], one.inputs["projectId"]) for one in wanted}
    for one in existing:
        if one.consumer_id == "webHooks" and (one.consumer.get("url", ""), one.inputs.get("projectId", "")) in homes:
            mine.setdefault(_key(one), []).append(one)
        else:
            others += 1
    create: list[Subscription] = []
    repair: list[Repair] = []
    remove: list[Subscription] = []
    keep: list[Subscription] = []
    for one in wanted:
        # Of several that do the same, the one that works is kept.
        found = sorted(mine.pop(_key(one), []), key=lambda other: (bool(difference(one, other)), other.id))
        if not found:
            create.append(one)
            continue
        remove += found[1:]
        why = difference(one, found[0]) or ("written anew" if renew else "")
        if why:
            repair.append(Repair(found[0], one, why))
        else:
            keep.append(found[0])
    remove += [one for left in mine.values() for one in left]
    return Plan(tuple(create), tuple(repair), tuple(remove), tuple(keep), others)


def difference(wanted: Subscription, existing: Subscription) -> str:
    """Why an existing subscription is not as wanted; empty where it is. What the service hides or adds is not compared."""
    if existing.status != ENABLED:
        return f"its status is {existing.status}"
    if existing.version != wanted.version:
        return f"its version is {existing.version}"
    theirs = {name: value for name, value in existing.inputs.items() if value and name not in _ADDED}
    for name in sorted(theirs.keys() | wanted.inputs.keys()):
        if theirs.get(name, "") != wanted.inputs.get(name, ""):
            return f"its filter {name} differs"
    for name, value in wanted.consumer.items():
        if name not in _HIDDEN and existing.consumer.get(name, "") != value:
            return f"its {name} differs"
    return ""


_ADDED = {"tfsSubscriptionId", "hostId"}  # by the service, when a subscription is created
_HIDDEN = {"basicAuthPassword", "httpHeaders"}  # come back masked


def _key(one: Subscription) -> tuple[str, ...]:
    about = next((one.inputs[key] for key in ("pipelineId", "definitionName", "releaseDefinitionId") if one.inputs.get(key)), "")
    return (one.publisher, one.event, about)
