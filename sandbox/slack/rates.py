"""How many calls Slack takes: a number per minute for each method, and one message a second in each channel with a burst.

https://docs.slack.dev/apis/web-api/rate-limits
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

TIER_1, TIER_2, TIER_3, TIER_4 = 1, 20, 50, 100
SPECIAL = 600

PER_MINUTE = {
    "apps.connections.open": TIER_1 * 10,  # Slack lets a few more through: an app may open ten sockets at once.
    "auth.test": SPECIAL,
    "blocks.validate": TIER_3,
    "chat.delete": TIER_3,
    "chat.getPermalink": SPECIAL,
    "chat.postEphemeral": TIER_4,
    "chat.postMessage": SPECIAL,
    "chat.update": TIER_3,
    "conversations.history": TIER_3,
    "conversations.info": TIER_3,
    "conversations.list": TIER_2,
    "conversations.members": TIER_4,
    "conversations.open": TIER_3,
    "conversations.replies": TIER_3,
    "files.completeUploadExternal": TIER_4,
    "files.getUploadURLExternal": TIER_4,
    "files.info": TIER_4,
    "reactions.add": TIER_3,
    "reactions.remove": TIER_2,
    "team.info": TIER_3,
    "usergroups.list": TIER_2,
    "usergroups.users.list": TIER_2,
    "users.info": TIER_4,
    "users.list": TIER_2,
    "users.lookupByEmail": TIER_3,
    "views.open": TIER_4,
    "views.publish": TIER_4,
    "views.push": TIER_4,
    "views.update": TIER_4,
}


@dataclass(slots=True)
class _Bucket:
    """Tokens that come back at `rate` a second, at most `size` of them."""

    size: float
    rate: float
    tokens: float
    at: float

    def wait(self, now: float) -> float:
        """Take a token and give 0, or the seconds until there is one."""
        self.tokens = min(self.size, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) / self.rate


@dataclass
class Rates:
    """The limits, to be changed at will, and what is left of them."""

    per_minute: dict[str, int] = field(default_factory=lambda: dict(PER_MINUTE))
    posts_per_second: float = 1.0  # in one channel
    burst: int = 6
    clock: Callable[[], float] = time.monotonic
    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    def retry_after(self, method: str, channel: str | None) -> int:
        """The seconds to wait before this call would be taken; 0 takes it."""
        wait = self._take(method, self.per_minute.get(method, TIER_3), 60.0)
        if not wait and method == "chat.postMessage" and channel:
            wait = self._take(f"post {channel}", self.burst, self.burst / self.posts_per_second)
        return math.ceil(wait)

    def _take(self, name: str, size: float, seconds: float) -> float:
        now = self.clock()
        bucket = self._buckets.get(name)
        if bucket is None or bucket.size != size:
            bucket = self._buckets[name] = _Bucket(size, size / seconds, size, now)
            if len(self._buckets) > 1_000:
                del self._buckets[next(iter(self._buckets))]
        return bucket.wait(now)
