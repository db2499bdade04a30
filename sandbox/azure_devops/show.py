"""What the pages say about records: words, times, log lines. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sandbox.azure_devops.records import Approval, ApprovalStep, Check, Job, Run, Stage, Step
from sandbox.azure_devops.views import GROUPS, KNOWN, name_of
from sandbox.names import ADO_GROUPS, ADO_MEMBERS, AGENT

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_STAMPED = re.compile(r"^(\d{4}-\d\d-\d\dT[\d:.]+Z) ?(.*)$")
_MARKED = re.compile(r"^##\[(\w+)\](.*)$")
SHOWN_LINES = 5_000

WORDS = {
    "succeeded": "Succeeded",
    "succeededWithIssues": "Succeeded with issues",
    "partiallySucceeded": "Partially succeeded",
    "failed": "Failed",
    "rejected": "Rejected",
    "canceled": "Canceled",
    "skipped": "Skipped",
    "running": "Running",
    "waiting": "Waiting",
    "pending": "Not started",
    "canceling": "Canceling",
    "queued": "Queued",
}


def mood(of: Run | Stage | Job | Step) -> str:
    """The one word that chooses icon and colour."""
    if of.result:
        return of.result
    match of:
        case Run():
            if of.state == "cancelling":
                return "canceling"
            moods = [mood(stage) for stage in of.stages]
            return "waiting" if "waiting" in moods and "running" not in moods else "running"
        case Stage() if of.waiting:
            return "waiting"
        case Job() if of.state == "pending" and of.queued:
            return "queued"
        case _:
            return "running" if of.state == "inProgress" else "pending"


def words(of: Run | Stage | Job | Step) -> str:
    """The state in words."""
    return WORDS[mood(of)]


def length(start: datetime | None, end: datetime | None) -> str:
    """A duration as Azure Pipelines writes it: `<1s`, `42s`, `3m 5s`, `1h 4m`."""
    if start is None or end is None:
        return ""
    seconds = max(int((end - start).total_seconds()), 0)
    if seconds < 1:
        return "<1s"
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m {seconds % 60}s"
    return f"{seconds // 3600}h {seconds % 3600 // 60}m"


def ago(then: datetime, at: datetime) -> str:
    """How long ago, in words."""
    past = at - then
    for unit, name in ((timedelta(days=1), "d"), (timedelta(hours=1), "h"), (timedelta(minutes=1), "m")):
        if past >= unit:
            return f"{past // unit}{name} ago"
    return "just now"


def reason(run: Run) -> str:
    """Why the run exists, and for whom."""
    who = KNOWN[run.requested_for].name
    return f"Individual CI for {who}" if run.reason == "individualCI" else f"Manually run by {who}"


def initials(name: str) -> str:
    """Two letters for an avatar."""
    parts = name.split()
    return "".join(part[0] for part in (parts[0], parts[-1])).upper() if len(parts) > 1 else name[:2].upper()


def columns(run: Run) -> list[list[Stage]]:
    """The stages by how deep they are in the graph, for drawing it from left to right."""
    depends = {stage.name: stage.depends_on for stage in run.plan.stages}
    depth: dict[str, int] = {}
    for stage in run.plan.stages:  # a stage comes after those it depends on
        depth[stage.name] = 1 + max((depth.get(name, 0) for name in depends[stage.name]), default=0)
    levels = sorted(set(depth.values()))
    return [[stage for stage in run.stages if depth[stage.name] == level] for level in levels]


def waits_for(approvals: Collection[Approval]) -> str:
    """What a waiting stage waits for."""
    people = [name_of(step.approver) for one in approvals for step in one.steps if step.status == "pending"]
    return f"Waiting for {' or '.join(people)}" if people else "Waiting"


def identities() -> list[tuple[str, str]]:
    """Who can be an approver: ids and names."""
    people = [(who.oid, who.name) for who in ADO_MEMBERS if who is not AGENT]
    return people + [(group.oid, name_of(group.oid)) for group in ADO_GROUPS]


def members_of(id: str) -> str:
    """Who answers for a group; nothing for a person."""
    return ", ".join(name_of(member) for member in GROUPS[id].members) if id in GROUPS else ""


def part_mood(step: ApprovalStep) -> str:
    """The icon of one part of an approval."""
    moods = {"pending": "waiting", "uninitiated": "pending", "deferred": "queued", "approved": "succeeded", "timedOut": "failed"}
    return moods.get(step.status, step.status)


def part_words(step: ApprovalStep) -> str:
    """What became of one part of an approval, so far."""
    match step.status:
        case "approved" | "rejected":
            return f"{step.status.capitalize()} by {name_of(step.actual)}"
        case "deferred" if step.deferred:
            return f"Approved by {name_of(step.actual)}, as of {step.deferred:%d %b %Y, %H:%M} UTC"
        case _:
            return {"pending": "Waiting", "uninitiated": "Not yet their turn", "timedOut": "Timed out"}.get(
                step.status, step.status.capitalize()
            )


def how_many(of: Approval | Check) -> str:
    """How many have to approve, in which order, and who may not."""
    everybody = len(of.steps) if isinstance(of, Approval) else len(of.approvers)
    count = f"{of.minimum} of {everybody} must approve" if of.minimum else "All must approve"
    order = "one after the other" if of.execution_order == "inSequence" else "in any order"
    return f"{count}, {order}{'; whoever requested the run may not' if of.requester_excluded else ''}."


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log: its number, its time of day, what it is (`section`, `error`, `command`, ...) and its text."""

    number: int
    time: str
    kind: str
    text: str


def log_lines(text: str) -> Sequence[Line]:
    """The end of a log, line by line, without terminal colours."""
    lines = text.splitlines()
    first = max(len(lines) - SHOWN_LINES, 0)
    return [_line(number, line) for number, line in enumerate(lines[first:], first + 1)]


def _line(number: int, raw: str) -> Line:
    stamped = _STAMPED.match(_ANSI.sub("", raw))
    time, text = (stamped[1][11:19], stamped[2]) if stamped else ("", _ANSI.sub("", raw))
    marked = _MARKED.match(text)
    if marked:
        return Line(number, time, marked[1], marked[2])
    if text.startswith("[command]"):
        return Line(number, time, "command", text.removeprefix("[command]"))
    return Line(number, time, "plain", text)


@dataclass(frozen=True, slots=True)
class DiffLine:
    """One line of a unified diff; `kind` is file, hunk, add, remove or same."""

    kind: str
    text: str


def diff_lines(text: str) -> list[DiffLine]:
    """A unified diff for reading: of each file its name, its hunks and nothing else."""
    shown: list[DiffLine] = []
    head = False
    for line in text.splitlines():
        if line.startswith("diff --git "):
            head = True
            shown.append(DiffLine("file", line.rpartition(" b/")[2]))
        elif line.startswith("@@"):
            head = False
            shown.append(DiffLine("hunk", line))
        elif not head:
            kinds = {"+": "add", "-": "remove"}
            shown.append(DiffLine(kinds.get(line[:1], "same"), line))
    return shown
