"""`python -m bot doctor`: looks at everything the bot depends on, and says what to do about what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from bot import hooks, trail
from bot.core.audit import Break
from bot.core.errors import OutsideError
from bot.database import Database, DatabaseProblem
from bot.hooks import Receiver
from bot.inbox import parked
from bot.settings import Settings

if TYPE_CHECKING:
    from bot.azure_devops import AzureDevOps

SCOPES = frozenset(
    {"channels:history", "chat:write", "commands", "files:write", "im:write", "usergroups:read", "users:read", "users:read.email"}
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; where it is not `fine`, `said` is what to do."""

    what: str
    fine: bool
    said: str


def receiver(settings: Settings) -> Receiver:
    """What Azure DevOps shall deliver to."""
    environment = settings.environment
    return Receiver(
        environment.CALLBOARD_URL,
        environment.HOOKS_USERNAME,
        environment.HOOKS_PASSWORD.get_secret_value(),
        environment.HOOKS_SECRET.get_secret_value(),
    )


@asynccontextmanager
async def azure_devops(settings: Settings, cache: Path) -> AsyncIterator[AzureDevOps]:
    """Azure DevOps as the bot sees it."""
    from bot.azure_devops import AzureDevOps  # noqa: PLC0415 the SDK takes its time
    from bot.credential import AZURE_DEVOPS, Credential  # noqa: PLC0415

    credential = Credential()
    team = settings.team
    opened = AzureDevOps(team.organization, team.project, token=lambda: credential.token(AZURE_DEVOPS), cache=cache)
    try:
        yield opened
    finally:
        await opened.close()


async def examine(settings: Settings, url: str, cache: Path) -> tuple[Finding, ...]:
    """Everything, one after the other; what cannot be looked at is a finding, too."""
    findings = [Finding("settings", True, f"{len(settings.team.models)} models, {len(settings.team.environments)} environments")]
    findings.append(await _looked("database", lambda: _database(url)))
    findings.append(await _looked("audit trail", lambda: audit_trail(url)))
    findings.append(await _looked("Slack", lambda: _slack(settings)))
    findings.append(await _looked("sign-in", lambda: sign_in(settings)))
    async with azure_devops(settings, cache) as pipelines:
        findings.append(await _looked("Azure DevOps", lambda: _runs(settings, pipelines)))
        findings.append(await _looked("service hooks", lambda: _hooks(settings, pipelines)))
    return tuple(findings)


async def _looked(what: str, look: Callable[[], Awaitable[tuple[bool, str]]]) -> Finding:
    try:
        fine, said = await look()
    except (OutsideError, DatabaseProblem) as error:
        return Finding(what, False, str(error))
    return Finding(what, fine, said)


async def _database(url: str) -> tuple[bool, str]:
    database = Database(url)
    await database.open()
    try:
        given_up = await parked(database)
    finally:
        await database.close()
    if given_up:
        return False, f"{len(given_up)} deliveries were given up. `python -m bot parked` lists them."
    return True, "it answers, and its schema is today's"


async def audit_trail(url: str) -> tuple[bool, str]:
    """Whether the audit trail is as it was written. Raises DatabaseProblem."""
    checked = await asyncio.to_thread(trail.verify, url)
    if isinstance(checked, Break):
        return False, f"{checked} Find out who had access to the database; what came before that line can still be trusted."
    return True, str(checked)


async def sign_in(settings: Settings) -> tuple[bool, str]:
    """Whether people can sign in with the app registration. Raises NotNow, Refused."""
    from bot.identity import CALLBACK, look  # noqa: PLC0415 msal takes its time

    if settings.entra is None:
        return True, 'nobody signs in: with [azure_devops] act_as = "service" Azure DevOps records Callboard, and not the people who decide'
    wrong = await look(settings.entra)
    if wrong is not None:
        return False, f"{wrong} .env.example says how ENTRA_CLIENT_ID and ENTRA_CLIENT_SECRET come about."
    return True, f"Entra takes the app registration; its redirect URI has to be {settings.environment.CALLBOARD_URL.rstrip('/')}{CALLBACK}"


async def _slack(settings: Settings) -> tuple[bool, str]:
    from bot.slack import Slack, client, session  # noqa: PLC0415 the SDK takes its time

    async with session() as shared:
        me = await Slack(client(settings.environment.SLACK_BOT_TOKEN.get_secret_value(), shared), shared).who_am_i()
    missing = SCOPES - {scope.strip() for scope in str(me["scopes"]).split(",")}
    if missing:
        return False, f"the app lacks the scopes {', '.join(sorted(missing))}. Add them in its settings and install it again."
    return True, f"we are {me.get('user')} in {me.get('team')}"


async def _runs(settings: Settings, pipelines: AzureDevOps) -> tuple[bool, str]:
    since = datetime.now(UTC) - timedelta(days=1)
    seen = [await pipelines.recent(pipeline, since) for pipeline in sorted({model.pipeline_id for model in settings.team.models.values()})]
    released = [await pipelines.recent_releases(definition, since) for definition in settings.team.releases]
    releases = f" and {sum(map(len, released))} releases" if released else ""
    return True, f"{sum(map(len, seen))} runs{releases} since yesterday"


async def _hooks(settings: Settings, pipelines: AzureDevOps) -> tuple[bool, str]:
    lines = await hooks.show(pipelines.hooks, settings.team, receiver(settings))
    wrong = [line for line in lines if not line.startswith(("fine", "alone"))]
    if wrong:
        return False, f"{len(wrong)} subscriptions are not as they should be. `python -m bot hooks` lists them, `hooks apply` mends them."
    return True, "every subscription is there and on"
