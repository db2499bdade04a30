"""Does something to the outside world once, however often it is asked for. No feature: features call it instead of each other.

An operation goes from "offered" to "doing" to "done". Nothing is sent again before the world has been searched for its trace.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from bot.core.errors import Gone, NotNow, Refused, SignInNeeded, Uncertain
from bot.ports import Bot, Operation

T = TypeVar("T")

# Longer than any write can be under way (15 s to answer, and as much again to connect): older ones were interrupted.
UNDER_WAY = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What was done; `again` where it had been done before."""

    value: T
    again: bool


async def once(bot: Bot, operation: Operation, *, find: Callable[[], Awaitable[T | None]], do: Callable[[], Awaitable[T]]) -> Outcome[T]:
    """Do it, unless it has been done: `find` looks for its trace, `do` does it.

    Raises what they raise: Refused and Gone end the operation, after NotNow and SignInNeeded it is as if never tried, Uncertain leaves it
    to the person.
    """
    known = await bot.store.offer(operation)
    if known.state == "dropped":
        raise Refused("This was cancelled. Give the command again.")
    if not await bot.store.advance(operation.id, of=("offered",), to="doing", result=_now(bot)):
        found = await _look(bot, await bot.store.offer(operation), find)
        if found is not None:
            return Outcome(found, again=True)
    try:
        value = await do()
    except Uncertain:
        trace = await find()
        if trace is None:
            await bot.store.advance(operation.id, of=("doing",), to="failed", result="The answer was lost, and there is no trace of it.")
            raise
        value = trace
    except (NotNow, SignInNeeded):  # nothing was done
        await bot.store.advance(operation.id, of=("doing",), to="offered")
        raise
    except (Refused, Gone) as error:
        await bot.store.advance(operation.id, of=("doing",), to="failed", result=str(error))
        raise
    await bot.store.advance(operation.id, of=("doing",), to="done")
    return Outcome(value, again=False)


async def _look(bot: Bot, known: Operation, find: Callable[[], Awaitable[T | None]]) -> T | None:
    """The trace of an operation that was begun before; None means that it is ours to do now. Raises NotNow while it is under way."""
    if known.state == "doing" and bot.now() - _since(known) < UNDER_WAY:
        raise NotNow("This is being done at the moment.", after=30)
    found = await find()
    if found is not None:
        await bot.store.advance(known.id, of=("doing", "failed"), to="done")
        return found
    # One of many who come here may go on; "failed" stands for an attempt that left no trace.
    if known.state == "doing":
        await bot.store.advance(known.id, of=("doing",), to="failed", result="It was interrupted, and there is no trace of it.")
    if not await bot.store.advance(known.id, of=("failed",), to="doing", result=_now(bot)):
        raise Gone("This was done before, and what it made is gone. Give the command again.")
    return None


def _now(bot: Bot) -> str:
    return bot.now().isoformat()


def _since(operation: Operation) -> datetime:
    """Since when it is being done; its creation where that was not written down."""
    try:
        return datetime.fromisoformat(operation.result)
    except ValueError:
        return operation.created
