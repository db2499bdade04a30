"""Misbehaviour on request: what a test or the story asks a local server to do wrong, and how many times.

Armed by name in the process or over `POST /_sandbox/faults` on the page's port; a server asks `take(name)` where it could go wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Faults:
    """Armed faults: name -> (times left, detail)."""

    _armed: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)

    def arm(self, name: str, times: int = 1, **detail: Any) -> None:
        """Let the fault of that name happen `times` times; 0 disarms it, and less than 0 lets it happen until it is disarmed."""
        if times:
            self._armed[name] = (times, detail)
        else:
            self._armed.pop(name, None)

    def take(self, name: str, **place: Any) -> dict[str, Any] | None:
        """The fault's detail if it is to happen now, and one time less to come; None otherwise.

        `place` says where we are: a fault whose detail names another place (`method="chat.update"`) stays armed.
        """
        if name not in self._armed:
            return None
        times, detail = self._armed[name]
        if any(detail.get(key, value) != value for key, value in place.items()):
            return None
        self.arm(name, times - 1, **detail)
        return detail

    def armed(self, name: str) -> bool:
        """Whether the fault is still to happen."""
        return name in self._armed
