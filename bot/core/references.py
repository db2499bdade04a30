"""What a button carries: which thing it was about. Never authority, and never believed before the thing has been read again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID, uuid5

_NAMED = re.compile(r"(run/|release/|#)?(\d+)", re.IGNORECASE | re.ASCII)
OURS = UUID("5f0d3c5a-6e4b-4d0c-9d0e-ca11b0a2d000")


class Unknown(Exception):
    """The value of a button is none of ours; the message is a sentence fit for a person."""


class Thing(StrEnum):
    """What a card is about: a run of a pipeline, or a classic release."""

    RUN = "run"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Ref:
    """A run of a pipeline or a classic release; their numbers overlap."""

    thing: Thing
    id: int

    def __str__(self) -> str:
        return f"{self.thing.value}/{self.id}"

    @classmethod
    def named(cls, word: str) -> Ref | None:
        """What a person calls it: `480`, `#480`, `run/480`, `release/12`; None where it is none of these."""
        found = _NAMED.fullmatch(word)
        if found is None or not _number(found[2]):
            return None
        return cls(Thing.RELEASE if (found[1] or "").lower().startswith("release") else Thing.RUN, int(found[2]))


@dataclass(frozen=True, slots=True)
class StageAttempt:
    """One attempt of one stage of one run or release."""

    ref: Ref
    stage: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.ref}/{self.stage}/{self.attempt}"

    @classmethod
    def read(cls, value: str) -> StageAttempt:
        """The attempt that a button names. Raises Unknown."""
        match value.split("/"):
            case ["run" | "release" as thing, number, *stage, attempt] if any(stage) and _number(number) and _number(attempt):
                return cls(Ref(Thing(thing), int(number)), "/".join(stage), int(attempt))
            case [run, stage, attempt] if stage and _number(run) and _number(attempt):  # before there were releases
                return cls(Ref(Thing.RUN, int(run)), stage, int(attempt))
            case _:
                raise Unknown("This button is none of ours, or very old. Use the newest message instead.")


@dataclass(frozen=True, slots=True)
class ApprovalOf:
    """One approval of one run or release, and a mark of the facts that were shown with it."""

    ref: Ref
    approval_id: str
    facts: str = ""

    def __str__(self) -> str:
        return "/".join((str(self.ref), self.approval_id, *([self.facts] if self.facts else [])))

    @classmethod
    def read(cls, value: str) -> ApprovalOf:
        """The approval that a button names. Raises Unknown."""
        match value.split("/"):
            case ["run" | "release" as thing, number, approval, *facts] if approval and _number(number) and len(facts) < 2:
                return cls(Ref(Thing(thing), int(number)), approval, *facts)
            case [number, approval] if approval and _number(number):  # before there were releases
                return cls(Ref(Thing.RUN, int(number)), approval)
            case _:
                raise Unknown("This button is none of ours, or very old. Use the newest message or `/approve` instead.")


def token(*parts: str) -> str:
    """The id of an operation: the same for the same parts, and safe as a parameter of a run."""
    return str(uuid5(OURS, "\n".join(parts)))


def _number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 19
