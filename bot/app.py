"""Everything put together: doors, inbox, router, board. Deliveries become typed calls of handlers here, and errors become words."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

import aiohttp
import psycopg
import structlog
from aiohttp import web
from psycopg_pool import PoolTimeout
from slack_sdk.web.async_client import AsyncWebClient

from bot import interactions
from bot.board import Pace, SlackBoard, backoff
from bot.core import events
from bot.core.approvals import Allowed, Denied
from bot.core.audit import Entry
from bot.core.errors import Gone, NotNow, OutsideError, Refused, SignInNeeded, Uncertain
from bot.core.events import Event
from bot.core.references import Ref
from bot.core.team import Team
from bot.database import Database
from bot.doors import CLICK, COMMAND, HOOK, LARGEST, VISIT, HookDoor, SlackDoor, Socket
from bot.hooks import PATH
from bot.identity import EntraIdentities, Linked
from bot.inbox import SWEEP, TIDY, Delivery, Done, Inbox, Later, Outcome, Parked, Tick, count_parked, recall
from bot.interactions import Origin
from bot.logs import reference
from bot.messages.kit import Message, Modal, Reply
from bot.messages.private import note
from bot.messages.signin import sign_in_card
from bot.ports import Bot, Identities, Models, Pipelines, Whisper
from bot.routing import Click, OnEvent, Request, Router, Submission, Timer, Usage, Visit
from bot.settings import Settings
from bot.signin import SignInPages
from bot.slack import Slack
from bot.store import SqlStore

log = logging.getLogger(__name__)
T = TypeVar("T")

PEOPLE_WAIT = 4  # attempts at what a person asked for, until they are told that it is not possible now
EVENTS_WAIT = 40  # about five hours: an outage is not an event's fault
REST = 1.0  # seconds: Azure DevOps tells one change of a run in several events, and the board shows one state in three seconds
BUGS_WAIT = 5  # attempts at an event that our own code fails on
RESUMES = timedelta(minutes=10)  # so long after it was asked for, something goes on by itself once its person has signed in
FOREIGN = "This belongs to another workspace: only its own members can do anything here."
RESUMED = ":again:"  # between the key of what somebody asked for and that of the sign-in after which it goes on
AGAIN = "You are signed in. What you asked for has been too long ago to go on by itself: please do it again."
PRESS_AGAIN = "You are signed in. Press the button again."
STALE_BUTTON = "This button is no longer in use. Look for a newer message, or give the command again."


@dataclass(frozen=True, slots=True)
class Crash:
    """Our own code failed; the log has the reason under the reference."""

    reference: str
    problem: str


async def attempt(what: str, run: Awaitable[T]) -> T | Crash:
    """The result; for an error that nobody expected a reference to the log. What is expected, and a database that is away, passes."""
    try:
        return await run
    except (OutsideError, Usage, psycopg.OperationalError, PoolTimeout):
        raise
    except Exception as error:  # the one place where a bug becomes words
        number = reference()
        log.exception("%s failed, reference %s", what, number)
        return Crash(number, f"{what} failed with {type(error).__name__}.")


class Screen(Protocol):
    """What people are answered on."""

    async def whisper(self, to: Whisper, message: Message) -> None:
        """Tell one person something, best effort."""
        ...

    async def fill_modal(self, id: str, modal: Modal, origin: Mapping[str, str]) -> None:
        """Replace what an open dialog shows. Raises Gone where the person has closed it."""
        ...


class SignIn(Protocol):
    """How people come to act under their own names."""

    async def renew(self, person: str) -> bool:
        """Replace a token of theirs that was refused; False where they have none. Raises SignInNeeded, Refused, NotNow."""
        ...

    async def link(self, person: str, delivery: str) -> str:
        """The address where a person signs in, so that the delivery of this key goes on afterwards. Raises Refused, NotNow."""
        ...


class NoSignIn:
    """Where nobody signs in, nothing asks anybody to."""

    async def renew(self, _: str) -> bool:
        """There is no token."""
        return False

    async def link(self, _: str, __: str) -> str:
        """There is no address."""
        raise Refused("Nobody signs in here.")


class Work:
    """Works off deliveries: JSON becomes an event, click, request or submission; the router names the function; its reply is delivered.

    `workspace` gives the id of the only Slack team whose members are served; until it is known, everybody waits.
    """

    def __init__(self, bot: Bot, screen: Screen, router: Router, sign_in: SignIn, workspace: Callable[[], str]) -> None:
        self._bot = bot
        self._screen = screen
        self._router = router
        self._signin = sign_in
        self._workspace = workspace

    async def __call__(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        """One outcome for each delivery."""
        with structlog.contextvars.bound_contextvars(delivery=deliveries[-1].key):
            if deliveries[0].kind == HOOK:
                return await self._events(deliveries)
            if not self._workspace():
                return [Later(backoff(one.attempts), "Slack has not said yet which workspace this is.") for one in deliveries]
            return [await (self._visit(one) if one.kind == VISIT else self._person(one)) for one in deliveries]

    async def tick(self, timer: Timer) -> None:
        """Run a timer's function; the next tick is the next attempt."""
        with structlog.contextvars.bound_contextvars(delivery=f"tick:{timer.name}"):
            try:
                await attempt(timer.name, timer.run(self._bot))
            except OutsideError as error:
                log.warning("%s waits for its next turn: %s", timer.name, error)

    # Events

    async def _events(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        """Many events of one run or release become one call, with the newest of them."""
        read = [_read(delivery) for delivery in deliveries]
        newest: dict[tuple[OnEvent, Ref], tuple[Event, int]] = {}
        for delivery, event in zip(deliveries, read, strict=True):
            if not isinstance(event, (Done, Parked)) and (run := self._router.events.get(type(event))):
                newest.pop((run, event.ref), None)
                newest[run, event.ref] = (event, delivery.attempts)
        outcomes: dict[tuple[OnEvent, Ref], Outcome] = {}
        for (run, ref), (event, attempts) in newest.items():
            outcomes[run, ref] = await self._event(run, event, attempts)
        return [
            event
            if isinstance(event, (Done, Parked))
            else outcomes.get((self._router.events.get(type(event), _no_event), event.ref), Done())
            for event in read
        ]

    async def _event(self, run: OnEvent, event: Event, attempts: int) -> Outcome:
        what = f"{run.__module__}.{run.__name__}"
        try:
            result = await attempt(what, run(self._bot, event))
        except (NotNow, Uncertain) as error:
            if attempts >= EVENTS_WAIT:
                return _parked(what, str(error))
            after = error.after if isinstance(error, NotNow) else None
            return Later(after or backoff(attempts), str(error))
        except OutsideError as error:
            log.warning("%s: %s", what, error)
            return Done()
        if isinstance(result, Crash):
            return Parked(result.reference, result.problem) if attempts + 1 >= BUGS_WAIT else Later(backoff(attempts), result.problem)
        return Done()

    # People

    async def _person(self, delivery: Delivery) -> Outcome:
        body, view = interactions.recalled(delivery.payload)
        origin, what, call = self._call(delivery.kind, body)
        origin = replace(origin, view=view, resumed=RESUMED in delivery.key)
        if self._foreign(origin):
            call.close()
            return await self._end(origin, what, Refused(FOREIGN))
        try:
            reply = await self._answer(origin.person, delivery, call)
        except SignInNeeded as error:
            return await self._sign_in(origin, delivery, error)
        except NotNow as error:
            if delivery.attempts + 1 < PEOPLE_WAIT:
                return Later(min(error.after or backoff(delivery.attempts), 30.0), str(error))
            return await self._end(origin, what, NotNow(f"{error} Please try again later."))
        except (Gone, Refused, Uncertain, Usage) as error:
            outcome = await self._end(origin, what, error)
            await self._renew_home(origin, delivery.key)
            return outcome
        if isinstance(reply, Crash):
            await self._say(
                origin, note(f"Something went wrong in Callboard. Its owners find the reason in its log, under {reply.reference}.")
            )
            return Parked(reply.reference, reply.problem)
        await self._deliver(origin, reply)
        if not isinstance(reply, Modal):
            await self._renew_home(origin, delivery.key)
        return Done()

    def _foreign(self, origin: Origin) -> bool:
        """Whether the person belongs to another workspace than the only one that is served."""
        return origin.team not in {"", self._workspace()}

    async def _answer(self, person: str, delivery: Delivery, call: Awaitable[Reply]) -> Reply | Crash:
        """The handler's reply; where Azure DevOps refuses the person's token, once more with another one. Raises what it raises."""
        what = f"{delivery.kind} {delivery.key}"
        try:
            return await attempt(what, call)
        except SignInNeeded:
            if not await self._signin.renew(person):
                raise
        body, _ = interactions.recalled(delivery.payload)
        return await attempt(what, self._call(delivery.kind, body)[2])

    async def _end(self, origin: Origin, what: str, error: Exception) -> Outcome:
        """Say what stood in the way, on record."""
        await self._bot.store.record(Entry(origin.person, what, "slack", Denied(str(error))))
        await self._say(origin, note(str(error)))
        return Done()

    async def _sign_in(self, origin: Origin, delivery: Delivery, error: SignInNeeded) -> Outcome:
        """Ask the person to sign in, for their eyes only; what they wanted goes on afterwards."""
        try:
            address = await self._signin.link(origin.person, delivery.key)
        except OutsideError as trouble:
            await self._say(origin, note(f"{error} But that cannot be done at present: {trouble}"))
            return Done()
        await self._say(origin, sign_in_card(str(error), address))
        return Done()

    async def resume(self, delivery: Delivery) -> None:
        """Tell a person who has signed in that what they asked for does not go on by itself."""
        body, _ = interactions.recalled(delivery.payload)
        origin, _, call = self._call(delivery.kind, body)
        call.close()
        await self._say(origin, note(AGAIN))

    def _call(self, kind: str, body: interactions.Body) -> tuple[Origin, str, Coroutine[Any, Any, Reply]]:
        """Who asks, for what, and the call of the function that answers."""
        match kind:
            case str() if kind == COMMAND:
                request = interactions.command(body, self._bot.team.prefix)
                return interactions.command_origin(body), f"/{request.command}", self._command(request)
            case str() if kind == CLICK:
                click = interactions.click(body)
                return interactions.click_origin(body), f"press {click.action}"[:60], self._click(click)
            case _:
                submission = interactions.submission(body)
                return interactions.submission_origin(body), f"send {submission.callback}"[:60], self._submission(submission)

    async def _command(self, request: Request) -> Reply:
        await self._bot.store.record(Entry(request.person, "command", f"/{request.command} {' '.join(request.words)}"[:300], Allowed()))
        command = self._router.commands.get(request.command) or self._router.commands.get("help")
        if command is None:
            raise Usage(f"There is no command {request.command}.")
        try:
            return await command.run(self._bot, request)
        except Usage as error:
            raise Usage(f"{error} Usage: /{command.name} {command.usage}".rstrip()) from None

    async def _click(self, click: Click) -> Reply:
        button = self._router.buttons.get(click.action)
        return await button.run(self._bot, click) if button else note(STALE_BUTTON)

    async def _submission(self, submission: Submission) -> Reply:
        form = self._router.forms.get(submission.callback)
        return await form.run(self._bot, submission) if form else note(STALE_BUTTON)

    async def _deliver(self, origin: Origin, reply: Reply) -> None:
        """Show the reply to the person: a dialog in the one that was opened for it, a message in private."""
        if isinstance(reply, Modal):
            if not (origin.view and await self._fill(origin, reply)):
                sentence = PRESS_AGAIN if origin.resumed else "Slack did not show the dialog. Please try again."
                await self._say(replace(origin, view=None), note(sentence))
        elif reply is not None:
            await self._say(origin, reply, replaces=origin.ephemeral)
        elif origin.view:
            await self._say(origin, note("Done."))

    async def _say(self, origin: Origin, message: Message, *, replaces: bool = False) -> None:
        """In the dialog that waits for an answer, else in private."""
        if origin.view:
            blocks = message.blocks or note(message.text).blocks
            if await self._fill(origin, Modal("Callboard", blocks)):
                return
        await self._screen.whisper(Whisper(origin.person, origin.channel, origin.url, replaces), message)

    async def _fill(self, origin: Origin, modal: Modal) -> bool:
        try:
            await self._screen.fill_modal(origin.view or "", modal, origin.kept())
        except Gone:
            log.info("A dialog was closed before its answer came")
            return not origin.resumed  # they closed it to sign in, and not to be left alone
        except OutsideError as error:
            log.warning("A dialog could not be filled: %s", error)
            return False
        return True

    # The app's own page

    async def _visit(self, delivery: Delivery) -> Outcome:
        """Show somebody the page they look at. There is nobody to be told of errors: what they see says how old it is."""
        body, _ = interactions.recalled(delivery.payload)
        visit = interactions.visit(body)
        if visit is None or self._foreign(interactions.visit_origin(body)):
            return Done()
        try:
            crash = await self._publish(visit)
        except (NotNow, Uncertain) as error:
            if delivery.attempts + 1 < PEOPLE_WAIT:
                return Later(backoff(delivery.attempts), str(error))
            log.warning("The page of %s is left as it is: %s", visit.person, error)
        except OutsideError as error:
            log.warning("The page of %s is left as it is: %s", visit.person, error)
        else:
            return Parked(crash.reference, crash.problem) if crash else Done()
        return Done()

    async def _renew_home(self, origin: Origin, key: str) -> None:
        """After something was done on the page it shows what came of it; best effort, the next visit tries again."""
        if origin.at_home:
            try:
                await self._publish(Visit(key, origin.person))
            except OutsideError as error:
                log.warning("The page of %s is left as it is: %s", origin.person, error)

    async def _publish(self, visit: Visit) -> Crash | None:
        make = self._router.at_home
        if make is None:
            return None
        home = await attempt("The app's own page", make(self._bot, visit))
        if isinstance(home, Crash):
            return home
        await self._bot.chat.publish(visit.person, home)
        return None


class Callboard:
    """One replica of the bot: a database, a Slack, a router, and the edges to Azure."""

    def __init__(
        self,
        settings: Settings,
        router: Router,
        *,
        database: Database,
        web_client: AsyncWebClient,
        session: aiohttp.ClientSession,
        pipelines: Pipelines,
        identities: Callable[[Callable[[], str]], Identities],
        models: Models,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        pace: Pace | None = None,
    ) -> None:
        environment, team = settings.environment, settings.team
        self._database = database
        self.slack = Slack(web_client, session, groups(team))
        self.board = SlackBoard(database, self.slack, now, pace=pace)
        self._workspace = ""
        self._named = "Slack"
        store = SqlStore(database, workspace=lambda: self._workspace)
        known = identities(lambda: self._workspace)
        self.bot = Bot(team, pipelines, known, models, self.slack, self.board, store, now)
        self._entra = entra = known if isinstance(known, EntraIdentities) else None
        self._work = work = Work(self.bot, self.slack, router, entra or NoSignIn(), lambda: self._workspace)
        secure = environment.CALLBOARD_URL.startswith("https:")
        self._signin = (
            SignInPages(entra, self.slack, store, linked=self._linked, workspace=lambda: self._named, secure=secure) if entra else None
        )
        self.inbox = Inbox(
            database,
            work,
            together=frozenset({HOOK}),
            rest=lambda lane: REST if events.rests(lane) else 0.0,
            ticks=(
                Tick("board", SWEEP, self.board.sweep),
                Tick("tidy-board", TIDY, self.board.tidy),
                Tick("tidy-store", TIDY, store.tidy),
                *([Tick("tidy-signin", TIDY, entra.tidy)] if entra else []),
                *(Tick(timer.name, timer.cron, _ticking(work, timer)) for timer in router.timers.values()),
            ),
        )
        self._hooks = HookDoor(self.inbox, environment.HOOKS_USERNAME, environment.HOOKS_PASSWORD, environment.HOOKS_SECRET)
        door = SlackDoor(self.inbox, self.slack, web_client, router, team, secret=environment.SLACK_SIGNING_SECRET)
        self._door = door
        self._socket = Socket(door, environment.SLACK_APP_TOKEN) if environment.SLACK_APP_TOKEN else None
        self._waiting_for = ["the inbox", "Slack"] + (["Socket Mode"] if self._socket else [])
        self._connecting: asyncio.Task[None] | None = None

    def application(self) -> web.Application:
        """The HTTP side; it starts and stops everything else with itself."""
        app = web.Application(client_max_size=LARGEST)
        app.router.add_post(PATH, self._hooks.take)
        app.router.add_post("/slack/events", self._door.take)
        app.router.add_get("/healthz", _alive)
        app.router.add_get("/readyz", self._ready)
        if self._signin is not None:
            self._signin.add_to(app)
        app.cleanup_ctx.append(self._living)
        return app

    async def start(self) -> None:
        """Take deliveries, show what waits, and connect to Slack in the background: hooks are kept even while Slack is away."""
        await self.board.start()
        await self.inbox.start()
        self._waiting_for.remove("the inbox")
        self._connecting = asyncio.create_task(self._connect(), name="connect to Slack")

    async def stop(self) -> None:
        """Take nothing more, finish what is under way, leave the rest where it will be found."""
        if self._connecting is not None:
            self._connecting.cancel()
            with suppress(asyncio.CancelledError):
                await self._connecting
        if self._socket is not None:
            await self._socket.close()
        await self.inbox.stop()
        await self.board.stop()
        if self._entra is not None:
            self._entra.close()

    async def _living(self, _: web.Application) -> AsyncIterator[None]:
        await self.start()
        yield
        await self.stop()

    async def _connect(self) -> None:
        tries = 0
        while True:
            try:
                me = await self.slack.who_am_i()
            except OutsideError as error:
                tries += 1
                log.warning("Slack does not let us in: %s", error)
                await asyncio.sleep(backoff(min(tries, 5)))
            else:
                self._workspace, self._named = str(me.get("team_id") or ""), str(me.get("team") or "Slack")
                log.info("Callboard is %s in Slack's workspace %s", me.get("user"), me.get("team"))
                break
        self._waiting_for.remove("Slack")
        if self._socket is not None:
            await self._socket.connect()
            self._waiting_for.remove("Socket Mode")

    async def _linked(self, linked: Linked) -> None:
        """Somebody has signed in: what they were about to do goes on, once, if it is not too old."""
        waited = await recall(self._database, linked.delivery)
        if waited is None:
            return
        if datetime.now(UTC) - waited.received < RESUMES:
            fresh = Delivery(f"{waited.key}{RESUMED}{linked.id[:16]}", waited.lane, waited.kind, waited.payload, datetime.now(UTC))
            await self.inbox.keep(fresh)
        else:
            await self._work.resume(waited)

    async def _ready(self, _: web.Request) -> web.Response:
        """Whether we can do our work, and what we wait for; deliveries that were given up are counted."""
        waiting = list(self._waiting_for)
        parked = 0
        try:
            parked = await count_parked(self._database)
        except (psycopg.OperationalError, PoolTimeout):
            waiting.append("the database")
        return web.json_response({"ready": not waiting, "waiting_for": waiting, "parked": parked}, status=503 if waiting else 200)


def groups(team: Team) -> frozenset[str]:
    """The Slack user groups that the team's file names."""
    return frozenset(name for name in team.named() if name.startswith("S") and "@" not in name)


async def _alive(_: web.Request) -> web.Response:
    """That the process answers at all."""
    return web.Response(text="ok")


async def _no_event(_: Bot, __: Event) -> None:
    """Stands for events that no feature wants."""


def _ticking(work: Work, timer: Timer) -> Callable[[], Awaitable[None]]:
    async def tick() -> None:
        await work.tick(timer)

    return tick


def _read(delivery: Delivery) -> Event | Done | Parked:
    """The event in a delivery that was kept earlier, maybe by an older release."""
    try:
        event = events.parse(json_of(delivery.payload))
    except events.Malformed as error:
        return _parked(delivery.key, str(error))
    return Done() if isinstance(event, events.Ignored) else event


def json_of(payload: bytes) -> object:
    """The JSON in a payload; None where it is none."""
    try:
        loaded: object = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return loaded


def _parked(what: str, problem: str) -> Parked:
    number = reference()
    log.error("%s is given up, reference %s: %s", what, number, problem)
    return Parked(number, problem)
