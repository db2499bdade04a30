"""`make demo`: the sandbox and the bot, until Ctrl-C, with a page to click in."""

from __future__ import annotations

import asyncio
import fcntl
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.launch import NotReadyError
from sandbox.town import Town, town

WELCOME = """
  Callboard is up, with a whole world around it. Nothing of it leaves this machine.

    Slack          {page}/slack/
    Azure DevOps   {page}/dev.azure.com/contoso/ml-delivery/_build
    Azure ML       {page}/ml.azure.com/

  Open the Slack page and type as Ada:

    /retrain diabetes rows=60 alpha=100     a first model, a weak one; press Start, sign in as Ada, watch the card
    /retrain diabetes                       a better one, compared with it
    /mlops help                             everything else

  When the Prod message asks, switch to Grace (bottom left): she may approve, once signed in; Ada may not, she asked for the run.
  What the bot says: {log}
  Ctrl-C ends everything; the next `make demo` goes on where this one stopped, `make clean` forgets it.
"""


class Busy(Exception):
    """Somebody else has what the demo needs."""


async def demo(folder: Path, *, page_port: int, bot_port: int) -> int:
    """Run until SIGINT or SIGTERM; returns the exit code."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    try:
        with _alone(folder):
            _must_be_free("--port", page_port)
            _must_be_free("--bot-port", bot_port)
            print("Starting Slack, Azure DevOps, Azure ML and the bot ...", flush=True)
            async with town(folder, page_port=page_port, bot_port=bot_port, socket_mode=True) as here:
                await _open(here, ended)
                await ended.wait()
                print("\nEnding everything ...", flush=True)
    except (Busy, NotReadyError, OSError) as trouble:
        print(f"The demo cannot run: {trouble}")
        return 1
    return 0


async def _open(here: Town, ended: asyncio.Event) -> None:
    """Start the bot and say where everything is; an early Ctrl-C is heard between the steps."""
    await here.bot.start()
    if ended.is_set():
        return
    await here.bot.command("hooks", "apply")
    if not ended.is_set():
        print(WELCOME.format(page=here.world.page_url, log=here.bot.log), flush=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else plays in this folder. Raises Busy."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # never inherited, so it ends with this process, however that ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another one runs in {folder}. End it, or give another --folder.") from None
        yield


def _must_be_free(option: str, port: int) -> None:
    """Raise Busy where somebody listens on the port: another bot there would even seem to be ours."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise Busy(f"port {port} is taken. End who listens there, or give another {option}.") from None
