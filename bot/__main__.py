"""`python -m bot`: the settings become edges, the edges a Callboard, and that runs until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING

from bot.logs import set_up
from bot.settings import EnvironmentVariables, Settings, SettingsProblem, dotenv, load

if TYPE_CHECKING:
    from aiohttp import web

log = logging.getLogger("bot")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one of the commands; gives the exit code."""
    asked = _parser().parse_args(arguments)
    if asked.command == "keys" and asked.do == "new":
        return _new_key()
    try:
        settings = load({**_dotenv(), **os.environ})
    except SettingsProblem as problem:
        print(problem, file=sys.stderr)
        return 2
    set_up(settings.environment.LOG_LEVEL, settings.environment.LOG_FORMAT)
    settings.environment.CALLBOARD_DATA.mkdir(parents=True, exist_ok=True)
    match asked.command:
        case "hooks":
            return asyncio.run(_hooks(settings, apply=asked.do == "apply", renew=asked.renew))
        case "doctor":
            return asyncio.run(_doctor(settings))
        case "keys":
            return asyncio.run(_keys(settings))
        case "parked":
            return asyncio.run(_parked(settings, asked.again))
        case "audit":
            return _audit_verify(settings, asked.expect) if asked.do == "verify" else _audit_export(settings, asked.since, asked.file)
        case _:
            return _run(settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bot", description="Callboard: machine-learning delivery, run from Slack.")
    commands = parser.add_subparsers(dest="command", metavar="command")
    commands.add_parser("run", help="run the bot (what happens without a command, too)")
    hooks = commands.add_parser("hooks", help="Azure DevOps' service-hook subscriptions: list them, or make them as they should be")
    hooks.add_argument("do", nargs="?", choices=("list", "apply"), default="list")
    hooks.add_argument("--renew", action="store_true", help="write all of ours anew, after a change of password or secret")
    commands.add_parser("doctor", help="check settings, Slack, Azure DevOps, hooks and database, and say what to do")
    keys = commands.add_parser("keys", help="what sign-ins are encrypted under: make a new key, or encrypt all under the first")
    keys.add_argument("do", choices=("new", "rotate"))
    parked = commands.add_parser("parked", help="deliveries that were given up: list them, or put one back")
    parked.add_argument("--again", metavar="REFERENCE", help="put this one back into the inbox")
    audit = commands.add_parser("audit", help="the audit trail: check that nobody has changed it, or write it out as CSV")
    audits = audit.add_subparsers(dest="do", metavar="verify|export", required=True)
    verify = audits.add_parser("verify", help="check the chain of hashes, and say how many lines it has and its last hash")
    verify.add_argument("--expect", type=_hash, metavar="HASH", help="a last hash that was said earlier: fail unless it is still there")
    export = audits.add_parser("export", help="write the lines as CSV, oldest first")
    export.add_argument("--since", type=_day, metavar="DATE", help="from this day on, such as 2026-11-01 (UTC)")
    export.add_argument("file", nargs="?", type=Path, metavar="FILE", help="where to; standard output where none is named")
    return parser


def _hash(word: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", word):
        raise argparse.ArgumentTypeError(f"{word!r} is no hash: it has 64 hexadecimal digits")
    return word.lower()


def _day(word: str) -> datetime:
    try:
        return datetime.combine(date.fromisoformat(word), time(), UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word!r} is no date such as 2026-11-01") from None


def _run(settings: Settings) -> int:
    from bot.database import DatabaseProblem  # noqa: PLC0415 only what a command needs is imported

    try:
        with _database_url(settings.environment, share=False) as url:
            return asyncio.run(_serve(settings, url))
    except DatabaseProblem as problem:
        log.error("%s", problem)  # noqa: TRY400 the sentence says it all
        return 1


async def _serve(settings: Settings, url: str) -> int:
    """Run the bot until SIGTERM or SIGINT."""
    from aiohttp.web import AppRunner, TCPSite  # noqa: PLC0415

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    environment = settings.environment
    async with _callboard(settings, url) as app:
        runner = AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=5)
        await runner.setup()
        try:
            await TCPSite(runner, environment.CALLBOARD_HOST, environment.CALLBOARD_PORT).start()
            log.info("Callboard listens on %s", ", ".join(f"{address[0]}:{address[1]}" for address in runner.addresses))
            await stop.wait()
            log.info("Callboard stops")
        finally:
            await runner.cleanup()
    return 0


@asynccontextmanager
async def _callboard(settings: Settings, url: str) -> AsyncIterator[web.Application]:
    """The edges opened, and the bot on them."""
    import aiohttp  # noqa: PLC0415

    from bot import slack  # noqa: PLC0415
    from bot.app import Callboard  # noqa: PLC0415
    from bot.azure_devops import AzureDevOps  # noqa: PLC0415
    from bot.azure_ml import AzureML  # noqa: PLC0415
    from bot.credential import AZURE, AZURE_DEVOPS, Credential  # noqa: PLC0415
    from bot.database import Database  # noqa: PLC0415
    from bot.identity import identities  # noqa: PLC0415
    from handlers import router  # noqa: PLC0415

    environment, team, workspace = settings.environment, settings.team, settings.workspace
    credential = Credential()
    pipelines = AzureDevOps(
        team.organization,
        team.project,
        token=lambda: credential.token(AZURE_DEVOPS),
        cache=_cache(environment),
        environments={known.stage: name for name, known in team.environments.items()},
        releases=team.releases,
    )
    database = Database(url)
    await database.open()
    async with slack.session() as session, aiohttp.ClientSession(trust_env=True) as azure:
        models = AzureML(
            workspace.subscription,
            workspace.resource_group,
            workspace.name,
            token=lambda: credential.token(AZURE),
            session=azure,
            logs=environment.CALLBOARD_DATA,
        )
        callboard = Callboard(
            settings,
            router,
            database=database,
            web_client=slack.client(environment.SLACK_BOT_TOKEN.get_secret_value(), session),
            session=session,
            pipelines=pipelines,
            identities=lambda workspace: identities(settings, database, pipelines, workspace),
            models=models,
        )
        try:
            yield callboard.application()
        finally:
            await models.close()
            await pipelines.close()
            await database.close()


async def _hooks(settings: Settings, *, apply: bool, renew: bool) -> int:
    from bot import hooks  # noqa: PLC0415
    from bot.core.errors import OutsideError  # noqa: PLC0415
    from bot.doctor import azure_devops, receiver  # noqa: PLC0415

    async with azure_devops(settings, _cache(settings.environment)) as pipelines:
        try:
            if apply:
                lines = await hooks.apply(pipelines.hooks, settings.team, receiver(settings), renew=renew)
            else:
                lines = await hooks.show(pipelines.hooks, settings.team, receiver(settings))
        except OutsideError as error:
            _say(f"Azure DevOps: {error}")
            return 1
    _say(*lines)
    return 0


async def _doctor(settings: Settings) -> int:
    from bot.doctor import examine  # noqa: PLC0415

    with _database_url(settings.environment, share=True) as url:
        findings = await examine(settings, url, _cache(settings.environment))
    _say(*(f"{'fine ' if finding.fine else 'WRONG'}  {finding.what}: {finding.said}" for finding in findings))
    return 0 if all(finding.fine for finding in findings) else 1


def _new_key() -> int:
    from cryptography.fernet import Fernet  # noqa: PLC0415

    _say(Fernet.generate_key().decode())
    return 0


async def _keys(settings: Settings) -> int:
    from bot.database import Database  # noqa: PLC0415
    from bot.identity import Keys, rotate  # noqa: PLC0415

    if settings.environment.CALLBOARD_KEYS is None:
        _say("CALLBOARD_KEYS is not set: there is nothing to rotate.")
        return 1
    with _database_url(settings.environment, share=True) as url:
        database = Database(url)
        await database.open()
        try:
            done, lost = await rotate(database, Keys(settings.environment.CALLBOARD_KEYS.get_secret_value()))
        finally:
            await database.close()
    _say(f"{done} sign-ins are under the first key now.")
    if lost:
        _say(f"{lost} cannot be read under any key: those people sign in again.")
    return 0


async def _parked(settings: Settings, again: str | None) -> int:
    from bot.database import Database  # noqa: PLC0415
    from bot.inbox import again as put_back  # noqa: PLC0415
    from bot.inbox import parked  # noqa: PLC0415

    with _database_url(settings.environment, share=True) as url:
        database = Database(url)
        await database.open()
        try:
            if again is not None:
                found = await put_back(database, again)
                _say("Put back; the bot takes it up within seconds." if found else f"Nothing is parked under {again}.")
                return 0 if found else 1
            given_up = await parked(database)
        finally:
            await database.close()
    _say(*(f"{one.reference}  {one.parked:%Y-%m-%d %H:%M}  {one.kind}  {one.lane}  {one.problem}" for one in given_up))
    return 0


def _audit_verify(settings: Settings, expect: str | None) -> int:
    from bot import trail  # noqa: PLC0415
    from bot.core.audit import GENESIS, Break  # noqa: PLC0415
    from bot.database import DatabaseProblem  # noqa: PLC0415

    try:
        with _database_url(settings.environment, share=True) as url:
            checked = trail.verify(url, expect or GENESIS)
    except DatabaseProblem as problem:
        print(problem, file=sys.stderr)
        return 2
    _say(str(checked))
    if isinstance(checked, Break):
        return 1
    if not checked.contains:
        _say(f"But no line has the hash {expect}: the lines up to it were cut off or written anew.")
        return 1
    return 0


def _audit_export(settings: Settings, since: datetime | None, file: Path | None) -> int:
    from bot import trail  # noqa: PLC0415
    from bot.database import DatabaseProblem  # noqa: PLC0415

    try:
        with _database_url(settings.environment, share=True) as url:
            if file is None:
                trail.export(url, sys.stdout, since)
            else:
                with file.open("w", encoding="utf-8", newline="") as out:
                    trail.export(url, out, since)
    except (DatabaseProblem, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


@contextmanager
def _database_url(environment: EnvironmentVariables, *, share: bool) -> Iterator[str]:
    """The database that was named, or one of our own for as long as we need it."""
    from bot.database import serve  # noqa: PLC0415

    if environment.DATABASE_URL is not None:
        yield environment.DATABASE_URL.get_secret_value()
    else:
        with serve(environment.CALLBOARD_DATA, share=share) as url:
            yield url


def _cache(environment: EnvironmentVariables) -> Path:
    """Where the azure-devops SDK keeps its routes."""
    return environment.CALLBOARD_DATA / "azure-devops-cache"


def _dotenv() -> dict[str, str]:
    path = Path(".env")
    return dotenv(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _say(*lines: str) -> None:
    for line in lines:
        print(line)


if __name__ == "__main__":
    sys.exit(main())
