"""`python -m sandbox demo|story|pictures`: the whole product on one machine."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from pathlib import Path

from sandbox.demo import demo
from sandbox.pictures import pictures
from sandbox.story import story
from sandbox.trust import Trust


def main(argv: list[str] | None = None) -> int:
    """Parse the words and run; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    play = commands.add_parser("demo", help="a page to click in, until Ctrl-C")
    play.add_argument("--folder", type=Path, default=Path(".sandbox"), help="what it remembers (default: .sandbox)")
    play.add_argument("--port", type=int, default=8800, help="the pages' port (default: 8800)")
    play.add_argument("--bot-port", type=int, default=8801, help="the bot's port (default: 8801)")
    tell = commands.add_parser("story", help="the main job end to end, headless")
    tell.add_argument("--folder", type=Path, default=None, help="keep what it made here (default: a folder that is removed)")
    show = commands.add_parser("pictures", help="a short story on the pages, and a picture of everything one sees")
    show.add_argument("--folder", type=Path, default=Path("docs/pictures"), help="where they go (default: docs/pictures)")
    words = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    match words.command:
        case "demo":
            return asyncio.run(demo(words.folder, page_port=words.port, bot_port=words.bot_port))
        case "pictures":
            return asyncio.run(pictures(words.folder))
        case _ if words.folder is not None:
            return asyncio.run(story(words.folder, Trust))
        case _:
            with tempfile.TemporaryDirectory(prefix="callboard-story-", ignore_cleanup_errors=True) as folder:
                return asyncio.run(story(Path(folder), Trust))


if __name__ == "__main__":
    sys.exit(main())
