"""Service-hook events: typed hints that say where to look, never what is true."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunMoved:
    """A run changed: queued, started, canceling, completed."""

    run_id: int


@dataclass(frozen=True, slots=True)
class StageMoved:
    """A stage of a run changed."""

    run_id: int
    stage: str
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class JobMoved:
    """A job of a run changed."""

    run_id: int
    stage: str | None
    job: str


@dataclass(frozen=True, slots=True)
class ApprovalRequested:
    """Azure DevOps waits for people."""

    run_id: int
    approval_id: str


@dataclass(frozen=True, slots=True)
class ApprovalCompleted:
    """Azure DevOps no longer waits: approved, rejected, timed out or canceled."""

    run_id: int
    approval_id: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """A kind of event we did not ask for: kept, and left alone."""

    kind: str


Event = RunMoved | StageMoved | JobMoved | ApprovalRequested | ApprovalCompleted


class Malformed(Exception):
    """A known kind of event in a shape we do not know: our bug, never the sender's."""
