"""`make bench`: measure everything, print one table, write bench/results.json."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from bench import accept, sandboxed
from bench.figure import table

ROUNDS = 7
RESULTS = Path(__file__).parent / "results.json"


async def main() -> None:
    """Measure, one figure after the other."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    began = time.monotonic()
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}; this takes about three minutes.\n")
    with tempfile.TemporaryDirectory(prefix="callboard-bench-", ignore_cleanup_errors=True) as folder:
        figures = [*await accept.measure(Path(folder), ROUNDS), *await sandboxed.measure(Path(folder), ROUNDS)]
    RESULTS.write_text(json.dumps([figure.document() for figure in figures], indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{table(figures)}\n")
    print(f"Medians, lowest and highest round; measured in {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f} at the end.")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(main())
