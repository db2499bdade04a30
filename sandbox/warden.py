"""`warden.py SECONDS`: ends what the sandbox started once the sandbox is gone, even by SIGKILL.

A program of its own, on the standard library alone. It reads lines `+<group>` and `-<group>`: process groups to watch over, and to forget.
Its input closes with whoever started it; then every group it knows is asked to end, and made to after so many seconds.
(Linux could end a child with its parent, but not the child's own children.)
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time


def main(seconds: float) -> None:
    """Watch until the input ends, then end what is left."""
    groups: set[int] = set()
    for line in sys.stdin:
        change = groups.add if line.startswith("+") else groups.discard
        change(int(line[1:]))
    for group in groups:
        _told(group, signal.SIGTERM)
    until = time.monotonic() + seconds
    while any(_told(group, 0) for group in groups) and time.monotonic() < until:
        time.sleep(0.05)
    for group in groups:
        _told(group, signal.SIGKILL)


def _told(group: int, number: int) -> bool:
    """Send a signal to a group; whether there was anybody to hear it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
        return True
    return False


if __name__ == "__main__":
    main(float(sys.argv[1]))
