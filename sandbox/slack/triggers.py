"""Trigger ids: the proof, good for three seconds and one use, that a person has just done something.

https://docs.slack.dev/interactivity/handling-user-interaction#modal_responses
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sandbox.faults import Faults
from sandbox.slack.workspace import SlackError

LIFETIME = 3.0


@dataclass
class Triggers:
    """The trigger ids given out, newest last."""

    faults: Faults
    clock: Callable[[], float] = time.monotonic
    _given: dict[str, tuple[str, float]] = field(default_factory=dict)
    _used: dict[str, None] = field(default_factory=dict)

    def give(self, user: str) -> str:
        """A fresh trigger id for what this person did."""
        trigger = f"{secrets.randbelow(10**13)}.{secrets.randbelow(10**12)}.{secrets.token_hex(16)}"
        self._given[trigger] = (user, self.clock())
        while len(self._given) > 500:
            del self._given[next(iter(self._given))]
        return trigger

    def exchange(self, trigger: str) -> str:
        """The person behind a trigger id, once. Raises SlackError."""
        if trigger in self._used:
            raise SlackError("exchanged_trigger_id")
        if trigger not in self._given:
            raise SlackError("invalid_trigger_id")
        user, since = self._given[trigger]
        if self.clock() - since > LIFETIME or self.faults.take("slack.expired_trigger") is not None:
            raise SlackError("expired_trigger_id")
        del self._given[trigger]
        self._used[trigger] = None
        while len(self._used) > 500:
            del self._used[next(iter(self._used))]
        return user
