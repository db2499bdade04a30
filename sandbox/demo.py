"""`make demo`: the sandbox and the bot, until Ctrl-C, with a page to click in."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from sandbox.launch import NotReadyError
from sandbox.town import Town, town

WELCOME = """
  Callboard is up, with a whole world around it. Nothing of it leaves this machine.

    Slack          {page}/slack/
    Azure DevOps   {page}/dev.azure.com/contoso/ml-delivery/_build
    Azure ML       {page}/ml.azure.com/

  Open the Slack page and type as Ada:

    /retrain diabetes rows=60 alpha=100     a first model, a weak one; press Start, watch the card
    /retrain diabetes                       a better one, compared with it
    /mlops help                             everything else

  When the Prod message asks, switch to Grace (bottom left): she may approve, Ada may not.
  What the bot says: {log}
  Ctrl-C ends everything; the next `make demo` goes on where this one stopped, `make clean` forgets it.
"""


async def demo(folder: Path, *, page_port: int, bot_port: int) -> int:
    """Run until SIGINT or SIGTERM; returns the exit code."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    print("Starting Slack, Azure DevOps, Azure ML and the bot ...", flush=True)
    try:
        async with town(folder, page_port=page_port, bot_port=bot_port, socket_mode=True) as here:
            await _open(here)
            await ended.wait()
            print("\nEnding everything ...", flush=True)
    except (NotReadyError, OSError) as trouble:
        print(f"The demo cannot run: {trouble}")
        return 1
    return 0


async def _open(here: Town) -> None:
    await here.bot.start()
    await here.bot.command("hooks", "apply")
    print(WELCOME.format(page=here.world.page_url, log=here.bot.log), flush=True)
