"""Starts the production bot, unchanged, as a process of its own inside the sandbox's environment."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp
from cryptography.fernet import Fernet

from sandbox import processes
from sandbox.entra.server import Entra
from sandbox.names import BOT, CLIENT_ID, TENANT
from sandbox.slack.server import Slack
from sandbox.world import World


class NotReadyError(Exception):
    """The bot did not come up; the message has the end of its log."""


class BotProcess:
    """The bot: `start`, `stop` (SIGTERM), `kill` (SIGKILL), as often as wanted; its data and log survive in the world's folder."""

    def __init__(self, world: World, slack: Slack, entra: Entra, *, socket_mode: bool = False, config: Path | None = None) -> None:
        self._world = world
        self._slack = slack
        self._entra = entra
        self._socket_mode = socket_mode
        self.config = config or world.root / "callboard.toml"
        self._process: asyncio.subprocess.Process | None = None
        self.data = world.folder / "bot"
        self.log = world.folder / "bot.log"
        self.port = int(world.bot_url.rpartition(":")[2])
        kept = world.state.table("bot")
        if "hooks" not in kept:
            kept["hooks"] = {"password": secrets.token_urlsafe(24), "secret": secrets.token_urlsafe(24)}
        if "key" not in kept:
            kept["key"] = Fernet.generate_key().decode()
        self._key: str = kept["key"]
        self._hooks: Mapping[str, str] = kept["hooks"]

    def environment(self) -> dict[str, str]:
        """What differs from production is only where the proxy and the CA are, and whose secrets these are."""
        environment = self._world.outside(BOT) | {
            "SLACK_BOT_TOKEN": self._slack.bot_token,
            "SLACK_SIGNING_SECRET": self._slack.signing_secret,
            "HOOKS_USERNAME": "azure-devops",
            "HOOKS_PASSWORD": self._hooks["password"],
            "HOOKS_SECRET": self._hooks["secret"],
            "ENTRA_TENANT": TENANT,
            "ENTRA_CLIENT_ID": CLIENT_ID,
            "ENTRA_CLIENT_SECRET": self._entra.client_secret,
            "CALLBOARD_KEYS": self._key,
            "CALLBOARD_URL": self._world.bot_url,
            "CALLBOARD_CONFIG": str(self.config),
            "CALLBOARD_DATA": str(self.data),
            "CALLBOARD_HOST": "127.0.0.1",
            "CALLBOARD_PORT": str(self.port),
            "LOG_FORMAT": "json",
        }
        environment.pop("DATABASE_URL", None)
        environment.pop("SLACK_APP_TOKEN", None)
        if self._socket_mode:
            environment["SLACK_APP_TOKEN"] = self._slack.app_token
        return environment

    @property
    def pid(self) -> int:
        """The process id of the running bot."""
        assert self._process is not None
        return self._process.pid

    async def start(self, seconds: float = 60) -> None:
        """Start the bot and return once it says that it is ready. Raises NotReadyError."""
        command = [sys.executable, "-m", "bot"]
        self._process = await processes.start(command, folder=self._world.root, environment=self.environment(), output=self.log)
        async with asyncio.timeout(seconds), aiohttp.ClientSession() as session:
            try:
                while not await self._ready(session):
                    if self._process.returncode is not None:
                        raise NotReadyError(f"The bot ended with {self._process.returncode}:\n{self.tail()}")
                    await asyncio.sleep(0.05)
            except TimeoutError:
                raise NotReadyError(f"The bot was not ready after {seconds} s:\n{self.tail()}") from None

    async def command(self, *words: str) -> str:
        """Run `python -m bot <words>` beside the running bot and return what it printed. Raises NotReadyError where it fails."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bot",
            *words,
            cwd=self._world.root,
            env=self.environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode:
            raise NotReadyError(f"`python -m bot {' '.join(words)}` ended with {process.returncode}:\n{output.decode()}")
        return output.decode()

    async def stop(self, seconds: float = 20) -> int | None:
        """Ask the bot to end, and make it after `seconds`; returns its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        await processes.end(process, seconds)
        return process.returncode

    async def kill(self) -> None:
        """SIGKILL, as a machine that goes away."""
        process, self._process = self._process, None
        if process is not None:
            await processes.kill(process)

    async def _ready(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self._world.bot_url}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    def tail(self) -> str:
        """The end of the bot's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:]) if self.log.exists() else ""
