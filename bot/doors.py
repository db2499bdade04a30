"""The ways in: Azure DevOps' service hooks, and Slack over HTTP or Socket Mode. They verify, keep and answer; the work is done after."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
from aiohttp import web
from pydantic import SecretStr
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.app.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.context.ack.async_ack import AsyncAck
from slack_bolt.response import BoltResponse
from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bot import hooks, interactions
from bot.core import events
from bot.core.errors import OutsideError
from bot.core.team import Team
from bot.inbox import Closed, Delivery, Done, Inbox, Outcome, Parked
from bot.logs import reference
from bot.messages.kit import Modal
from bot.messages.private import note
from bot.ports import Whisper
from bot.routing import Router
from bot.slack import Slack, loading

log = logging.getLogger(__name__)

HOOK, COMMAND, CLICK, SUBMISSION, VISIT = "hook", "command", "click", "submission", "visit"
LARGEST = 1024 * 1024  # bytes of a request
REPLAYS = 600.0  # seconds: twice the age at which Slack's signatures expire
MOST_REPLAYS = 10_000
SIGNATURE = re.compile(r"v0=[0-9a-f]{64}")
NOT_NOW = "Callboard cannot take this at the moment, and nothing was done. Please try again in a minute."


class HookDoor:
    """`POST /hooks/azure-devops`.

    Azure DevOps signs nothing: a delivery carries basic authentication and a secret header, and is only ever a hint to go and look.
    A status other than 2xx, 401, 413 or 503 would put the subscription on probation, in which its events are lost.
    https://learn.microsoft.com/azure/devops/service-hooks/troubleshoot
    """

    def __init__(self, inbox: Inbox, username: str, password: SecretStr, secret: SecretStr) -> None:
        self._inbox = inbox
        self._basic = base64.b64encode(f"{username}:{password.get_secret_value()}".encode())
        self._secret = secret.get_secret_value().encode()

    async def take(self, request: web.Request) -> web.Response:
        """Keep a delivery, then answer."""
        if not self._is_ours(request.headers):
            return web.json_response({"error": "The credentials are wrong."}, status=401, headers={"WWW-Authenticate": "Basic"})
        body = await request.read()  # aiohttp answers 413 beyond LARGEST
        delivery, outcome = hook(body, request.headers, datetime.now(UTC))
        try:
            new = await self._inbox.keep(delivery, outcome)
        except Closed as error:
            return web.json_response({"error": str(error)}, status=503, headers={"Retry-After": "5"})
        if new and isinstance(outcome, Parked):
            log.error("A service hook is in a shape we do not know and was parked, reference %s: %s", outcome.reference, outcome.problem)
        return web.json_response({"kept": True})

    def _is_ours(self, headers: Mapping[str, str]) -> bool:
        scheme, _, credentials = headers.get("Authorization", "").partition(" ")
        basic = hmac.compare_digest(credentials.strip().encode(errors="replace"), self._basic)
        secret = hmac.compare_digest(headers.get(hooks.HEADER, "").encode(errors="replace"), self._secret)
        return basic and secret and scheme.lower() == "basic"


def hook(body: bytes, headers: Mapping[str, str], received: datetime) -> tuple[Delivery, Outcome | None]:
    """A delivery for the inbox, with its outcome where there is nothing to be done for it."""
    payload: object = None
    outcome: Outcome | None = None
    lane = "hooks"
    try:
        payload = json.loads(body)
        match events.parse(payload):
            case events.Ignored():
                outcome = Done()
            case event:
                lane = events.lane(event)
    except (ValueError, RecursionError):
        outcome = Parked(reference(), "This is no JSON.")
    except events.Malformed as error:
        outcome = Parked(reference(), str(error))
    key = events.key(payload, headers) or f"sha256:{hashlib.sha256(body).hexdigest()}"
    return Delivery(f"{HOOK}:{key}", lane, HOOK, body, received), outcome


@dataclass
class Replays:
    """Answers to signed requests: Slack's signature is good for five minutes, and Bolt would take the same request again and again."""

    known: OrderedDict[str, tuple[float, BoltResponse]] = field(default_factory=OrderedDict)

    def answer(self, request: str, now: float) -> BoltResponse | None:
        """What was answered to the same request before."""
        while self.known and (next(iter(self.known.values()))[0] < now or len(self.known) > MOST_REPLAYS):
            self.known.popitem(last=False)
        known = self.known.get(request)
        return BoltResponse(status=known[1].status, body=known[1].body, headers=dict(known[1].headers)) if known else None

    def remember(self, request: str, answer: BoltResponse, now: float) -> None:
        """Bolt has verified the signature and taken the request."""
        self.known[request] = (now + REPLAYS, BoltResponse(status=answer.status, body=answer.body, headers=dict(answer.headers)))


class SlackDoor:
    """Slash commands, clicks, dialogs and visits: checked, kept and acknowledged within Slack's three seconds.

    The listeners are few and do little: a dialog is opened at once (its trigger is good for three seconds), a form is checked.
    """

    def __init__(self, inbox: Inbox, slack: Slack, web_client: AsyncWebClient, router: Router, team: Team, *, secret: SecretStr) -> None:
        self._inbox = inbox
        self._slack = slack
        self._router = router
        self._team = team
        self._replays = Replays()

        async def authorize() -> AuthorizeResult:
            return AuthorizeResult(enterprise_id=None, team_id=None, bot_token=web_client.token)

        self.bolt = AsyncApp(
            name="callboard",
            logger=_bolts_logger(),
            client=web_client,
            authorize=authorize,  # fixed: Bolt's own would ask auth.test, once for each of the first requests
            signing_secret=secret.get_secret_value(),
            process_before_response=True,
        )
        anything = re.compile("")
        self.bolt.command(anything)(self._command)
        self.bolt.action(anything)(self._click)
        self.bolt.view(anything)(self._submission)
        self.bolt.event("app_home_opened")(self._visit)
        self.bolt.event(anything)(_nothing)
        self.bolt.error(_failed)

    async def take(self, request: web.Request) -> web.Response:
        """One request of Slack's over HTTP."""
        if not request.headers.get("X-Slack-Request-Timestamp", "0").isdecimal():
            return web.Response(status=401)  # Bolt would answer 500
        try:
            await request.text()
        except UnicodeDecodeError:
            return web.Response(status=400)
        signature, now = request.headers.get("X-Slack-Signature", ""), time.monotonic()
        body = await request.read()
        same = f"{signature}:{request.headers.get('X-Slack-Request-Timestamp')}:{hashlib.sha256(body).hexdigest()}"
        answer = self._replays.answer(same, now)
        if answer is None:
            answer = await self.bolt.async_dispatch(await to_bolt_request(request))
            # A health check of Slack's (ssl_check) is answered unverified.
            if answer.status == 200 and SIGNATURE.fullmatch(signature) and b"ssl_check" not in body:
                self._replays.remember(same, answer, now)
        return await to_aiohttp_response(answer)

    async def _command(self, ack: AsyncAck, body: dict[str, Any]) -> None:
        request = interactions.command(body, self._team.prefix)
        origin = interactions.command_origin(body)
        known = self._router.commands.get(request.command)
        view = await self._open(body, known.opens(request) if known else None, origin)
        if await self._keep(COMMAND, request.id, request.person, interactions.evidence(body, view)):
            await ack()
        else:
            await ack(NOT_NOW)

    async def _click(self, ack: AsyncAck, body: dict[str, Any]) -> None:
        if interactions.is_link(body):
            await ack()
            return
        click, origin = interactions.click(body), interactions.click_origin(body)
        known = self._router.buttons.get(click.action)
        view = await self._open(body, known.opens if known else None, origin)
        kept = await self._keep(CLICK, click.id, click.person, interactions.evidence(body, view))
        await ack()
        if not kept:
            await self._slack.whisper(Whisper(origin.person, origin.channel, origin.url), note(NOT_NOW))

    async def _submission(self, ack: AsyncAck, body: dict[str, Any]) -> None:
        submission = interactions.submission(body)
        known = self._router.forms.get(submission.callback)
        wrong = dict(known.check(self._team, submission)) if known else {}
        if not wrong and not await self._keep(SUBMISSION, submission.id, submission.person, interactions.evidence(body, None)):
            wrong = dict.fromkeys([next(iter(submission.values), "")], NOT_NOW)
        if wrong:
            await ack(response_action="errors", errors=wrong)
        else:
            await ack()

    async def _visit(self, body: dict[str, Any]) -> BoltResponse | None:
        """Bolt acknowledges what was kept; what was not is sent again by Slack."""
        visit = interactions.visit(body)
        kept = visit is None or await self._keep(VISIT, visit.id, visit.person, interactions.evidence(body, None))
        return None if kept else BoltResponse(status=503)

    async def _open(self, body: Mapping[str, Any], title: str | None, origin: interactions.Origin) -> str | None:
        """Open a dialog that says to wait; the worker fills it. Without one the worker says so."""
        if title is None:
            return None
        try:
            return await self._slack.open_modal(str(body.get("trigger_id", "")), loading(title), origin.kept())
        except OutsideError as error:
            log.warning("A dialog could not be opened: %s", error)
            return None

    async def _keep(self, kind: str, key: str, person: str, payload: bytes) -> bool:
        try:
            await self._inbox.keep(Delivery(key, f"person:{person}", kind, payload, datetime.now(UTC)))
        except Closed as error:
            log.warning("A %s could not be kept: %s", kind, error)
            view = json.loads(payload)["view"]
            if view:
                await self._sorry(view)
            return False
        return True

    async def _sorry(self, view: str) -> None:
        try:
            await self._slack.fill_modal(view, Modal("Not now", note(NOT_NOW).blocks), {})
        except OutsideError as error:
            log.warning("A dialog was left waiting: %s", error)


class Socket:
    """Socket Mode: the same Bolt application, over connections that we open."""

    def __init__(self, door: SlackDoor, token: SecretStr) -> None:
        self._handler = AsyncSocketModeHandler(door.bolt, token.get_secret_value(), logger=_bolts_logger(), proxy=door.bolt.client.proxy)

    async def connect(self) -> None:
        """Connect, however long it takes; from then on the SDK connects again by itself."""
        wait = 1.0
        while True:
            try:
                await self._handler.connect_async()  # type: ignore[no-untyped-call]  # the SDK's
            except (SlackClientError, aiohttp.ClientError, TimeoutError) as error:
                log.warning("Socket Mode could not connect: %s", type(error).__name__)
                await asyncio.sleep(wait)
                wait = min(wait * 2, 30.0)
            else:
                return

    async def close(self) -> None:
        """Hang up."""
        await self._handler.close_async()  # type: ignore[no-untyped-call]  # the SDK's


async def _nothing(ack: AsyncAck) -> None:
    """Events nobody asked for."""
    await ack()


async def _failed(error: Exception, body: dict[str, Any]) -> BoltResponse:
    """A listener failed: our bug. A command is answered in words, everything else by Slack's own."""
    number = reference()
    log.error("A request of Slack's failed, reference %s", number, exc_info=error)
    sentence = f"Something went wrong in Callboard, and nothing was done. Its owners find the reason under {number}."
    return BoltResponse(status=200, body=sentence) if body.get("command") else BoltResponse(status=500, body="")


def _bolts_logger() -> logging.Logger:
    """Bolt logs signatures and bodies of what it refuses, and bodies of what nobody listens to."""
    logger = logging.getLogger("slack_bolt")
    logger.setLevel(logging.ERROR)
    return logger
