"""The bot put together: what is kept and answered at the doors, and how errors become words. Database and Slack are real (a local one)."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from aiohttp import encode_basic_auth, web
from slack_sdk.web.async_client import AsyncWebClient

import handlers
from bot.app import (
    AGAIN,
    BUGS_WAIT,
    EVENTS_WAIT,
    FOREIGN,
    PEOPLE_WAIT,
    PRESS_AGAIN,
    RESUMED,
    STALE_BUTTON,
    Callboard,
    NoSignIn,
    Work,
    groups,
)
from bot.core.approvals import Answer, Denied
from bot.core.errors import Gone, NotNow, OutsideError, Refused, SignInNeeded, Uncertain
from bot.core.events import Event, ReleaseMoved, RunMoved, StageMoved
from bot.core.team import Team
from bot.database import Database
from bot.doors import CLICK, COMMAND, HOOK, LARGEST, NOT_NOW, SUBMISSION, VISIT
from bot.inbox import Delivery, Done, Later, Outcome, Parked, parked
from bot.interactions import evidence
from bot.messages.kit import Home, Message, Modal, Reply
from bot.ports import Bot, Whisper
from bot.routing import Click, Request, Router, Submission, Usage, Visit
from bot.settings import EnvironmentVariables, Settings, Workspace
from bot.slack import TIMEOUT
from sandbox.names import ADA, GRACE
from sandbox.names import TEAM as TEAM_ID
from sandbox.processes import free_port
from sandbox.slack.delivery import sign
from sandbox.slack.person import Person
from sandbox.slack.server import Slack
from tests.artifacts import delivered, smoke
from tests.examples import CHANNEL, NOW, PENDING, TEAM, V3, WAITING
from tests.fakes import FakeSignIn, World
from tests.sandboxes import proxy, sandbox, the, trust

SECRET = {"X-Callboard-Secret": "h" * 32}
GOOD = {"Authorization": encode_basic_auth("azure-devops", "p" * 32), **SECRET}


def settings(**changes: str) -> Settings:
    """The settings of a bot in a test."""
    environment = {
        "SLACK_BOT_TOKEN": "xoxb-" + "1" * 20,
        "SLACK_SIGNING_SECRET": "s" * 32,
        "HOOKS_USERNAME": "azure-devops",
        "HOOKS_PASSWORD": "p" * 32,
        "HOOKS_SECRET": SECRET["X-Callboard-Secret"],
        "CALLBOARD_URL": "https://callboard.contoso.example",
    }
    return Settings(
        EnvironmentVariables.model_validate(environment | changes), TEAM, Workspace("subscription", "ml", "ml-delivery", "westeurope")
    )


def run_moved(run_id: int = 480, notification: int = 1, kind: str = "ms.vss-pipelines.run-state-changed-event") -> dict[str, Any]:
    """A service hook as Azure DevOps sends it."""
    return {
        "subscriptionId": "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a9001",
        "notificationId": notification,
        "id": "6c0f5c3e-51f4-4a9b-9a5e-3f6f1f0a9002",
        "eventType": kind,
        "resource": {"runId": run_id, "run": {"id": run_id}},
    }


BUTTONS = {
    "type": "actions",
    "elements": [
        {"type": "button", "action_id": "ask", "text": {"type": "plain_text", "text": "Approve"}, "value": "480"},
        {"type": "button", "action_id": "start", "text": {"type": "plain_text", "text": "Start"}, "value": "480"},
    ],
}


@dataclass
class Feature:
    """A feature that notes what it is called with. `errors` are raised, one per call; `replies` are answered, one per call."""

    calls: list[object] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    mishaps: list[Exception] = field(default_factory=list)  # raised by the page, one per visit

    @property
    def router(self) -> Router:
        """What it answers to."""
        router = Router()

        @router.on(RunMoved, StageMoved, ReleaseMoved)
        async def moved(_: Bot, event: Event) -> None:
            self._called(event)

        @router.command("retrain", "[model]", opens=lambda request: None if request.words else "Train a model")
        async def retrain(_: Bot, request: Request) -> Reply:
            """Train."""
            return self._called(request)

        @router.command("help")
        async def show_help(_: Bot, request: Request) -> Reply:
            """Say what you can say."""
            return self._called(request)

        @router.click("start")
        async def start(_: Bot, click: Click) -> Reply:
            return self._called(click)

        @router.click("ask", opens="Approve")
        async def ask(_: Bot, click: Click) -> Reply:
            return self._called(click)

        def check(_: Team, submission: Submission) -> Mapping[str, str]:
            return {} if submission.values["reason"] != "no" else {"reason": "Say more."}

        @router.submit("approve", check=check)
        async def approve(_: Bot, submission: Submission) -> Reply:
            return self._called(submission)

        @router.home
        async def home(_: Bot, visit: Visit) -> Home:
            self.visits.append(visit)
            if self.mishaps:
                raise self.mishaps.pop(0)
            return Home([BUTTONS])

        return router

    async def until(self, count: int = 1) -> None:
        """Return once it has been called so often."""
        async with asyncio.timeout(30):
            while len(self.calls) < count:  # noqa: ASYNC110 a handler tells nobody
                await asyncio.sleep(0.005)

    def _called(self, what: object) -> Reply:
        self.calls.append(what)
        if self.errors:
            raise self.errors.pop(0)
        return self.replies.pop(0) if self.replies else Message("fine")


@dataclass
class House:
    """A running bot, and a client at its door."""

    callboard: Callboard
    feature: Feature
    url: str
    session: aiohttp.ClientSession

    async def hook(self, body: object, headers: Mapping[str, str] = GOOD) -> int:
        """The status of the answer to a service hook."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(f"{self.url}/hooks/azure-devops", data=io.BytesIO(data), headers=headers) as answer:
            return answer.status

    async def ready(self) -> tuple[int, dict[str, Any]]:
        """What the bot says about itself."""
        async with self.session.get(f"{self.url}/readyz") as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def serving(
    database: Database,
    web_client: AsyncWebClient,
    shared: aiohttp.ClientSession,
    port: int,
    told: Settings | None = None,
    *,
    router: Router | None = None,
    around: World | None = None,
) -> AsyncIterator[House]:
    """The bot with a feature of the test's, or with those of `router`, listening on the port."""
    feature, around = Feature(), around or World()
    callboard = Callboard(
        told or settings(),
        router or feature.router,
        database=database,
        web_client=web_client,
        session=shared,
        pipelines=around.pipelines,
        identities=lambda _: around.identities,
        models=around.models,
    )
    runner = web.AppRunner(callboard.application(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with aiohttp.ClientSession() as session:
            yield House(callboard, feature, f"http://127.0.0.1:{port}", session)
    finally:
        await runner.cleanup()


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    """A bot that cannot reach Slack: port 9 is where nobody is."""
    async with aiohttp.ClientSession() as shared:
        client = AsyncWebClient("xoxb-1", base_url="http://127.0.0.1:9/api/", session=shared, retry_handlers=[])
        async with serving(database, client, shared, free_port()) as served:
            yield served


# Service hooks


async def test_a_hook_is_kept_answered_and_worked_off(house: House) -> None:
    status = await house.hook(run_moved())
    await house.feature.until()

    assert status == 200
    assert house.feature.calls == [RunMoved(480)]


async def test_a_hook_that_comes_twice_is_worked_off_once(house: House) -> None:
    statuses = [await house.hook(run_moved()), await house.hook(run_moved()), await house.hook(run_moved(481, 2))]
    await house.feature.until(2)

    assert statuses == [200, 200, 200]
    assert sorted(map(str, house.feature.calls)) == [str(RunMoved(480)), str(RunMoved(481))]


@pytest.mark.parametrize(
    "headers",
    [
        SECRET,
        SECRET | {"Authorization": encode_basic_auth("azure-devops", "wrong")},
        SECRET | {"Authorization": encode_basic_auth("somebody", "p" * 32)},
        SECRET | {"Authorization": GOOD["Authorization"].replace("Basic", "Bearer")},
        {"Authorization": GOOD["Authorization"]},
        GOOD | {"X-Callboard-Secret": "wrong"},
        GOOD | {"X-Callboard-Secret": "é"},
    ],
)
async def test_a_forged_hook_is_refused_and_not_kept(house: House, database: Database, headers: Mapping[str, str]) -> None:
    status = await house.hook(run_moved(), headers)

    async with database.pool.connection() as connection:
        row = await (await connection.execute("select count(*) from delivery")).fetchone()
    assert (status, row) == (401, (0,))


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe not json",
        b"[" * 100_000,
        b"{}",
        b"null",
        {"eventType": "ms.vss-pipelines.run-state-changed-event", "resource": None},
        run_moved(run_id=0),
    ],
)
async def test_a_hook_in_an_unknown_shape_is_kept_said_loudly_and_answered_2xx(
    house: House, database: Database, body: object, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        statuses = [await house.hook(body), await house.hook(body)]

    given_up = await parked(database)
    said = [record.getMessage() for record in caplog.records if "reference" in record.getMessage()]
    assert statuses == [200, 200]
    assert len(given_up) == 1
    assert [given_up[0].reference in sentence for sentence in said] == [True]
    assert (await house.ready())[1]["parked"] == 1


async def test_a_kind_of_hook_nobody_asked_for_is_kept_and_left_alone(house: House, database: Database) -> None:
    status = await house.hook(run_moved(kind="git.push"))

    async with database.pool.connection() as connection:
        rows = await (await connection.execute("select done is not null, parked from delivery")).fetchall()
    assert (status, rows) == (200, [(True, None)])


async def test_a_hook_that_is_too_large_is_refused(house: House) -> None:
    assert await house.hook(b"[" + b" " * LARGEST + b"]") == 413


async def test_a_hook_that_cannot_be_kept_is_asked_for_again(house: House) -> None:
    await house.callboard.inbox.stop()

    assert await house.hook(run_moved()) == 503


async def test_the_bot_lives_and_says_what_it_waits_for(house: House) -> None:
    async with house.session.get(f"{house.url}/healthz") as answer:
        alive = answer.status

    assert alive == 200
    assert await house.ready() == (503, {"ready": False, "waiting_for": ["Slack"], "parked": 0})


# Deliveries become calls, errors become words


@dataclass
class FakeScreen:
    """What people were told, and what dialogs show. `errors` are raised by the next dialogs."""

    told: list[tuple[Whisper, str]] = field(default_factory=list)
    dialogs: dict[str, Modal] = field(default_factory=dict)
    errors: list[OutsideError] = field(default_factory=list)

    async def whisper(self, to: Whisper, message: Message) -> None:
        self.told.append((to, message.text))

    async def fill_modal(self, id: str, modal: Modal, _: Mapping[str, str]) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.dialogs[id] = modal


@dataclass
class Desk:
    """The worker with a feature of the test's, and a screen."""

    feature: Feature = field(default_factory=Feature)
    screen: FakeScreen = field(default_factory=FakeScreen)
    world: World = field(default_factory=World)
    signin: FakeSignIn = field(default_factory=FakeSignIn)
    workspace: str = TEAM_ID

    async def gets(self, *deliveries: Delivery) -> list[Outcome]:
        """The outcomes of deliveries worked off together."""
        return list(await self.work(deliveries))

    @property
    def work(self) -> Work:
        """The worker."""
        return Work(self.world.bot, self.screen, self.feature.router, self.signin, lambda: self.workspace)


def hook_delivery(run_id: int = 480, number: int = 1, *, attempts: int = 0, body: object = None) -> Delivery:
    """A kept service hook."""
    payload = json.dumps(body or run_moved(run_id, number)).encode()
    return Delivery(f"hook:{number}", f"run:{run_id}", HOOK, payload, NOW + timedelta(seconds=number), attempts)


def asked(
    text: str = "diabetes",
    *,
    view: str | None = None,
    attempts: int = 0,
    command: str = "/retrain",
    team: str = TEAM_ID,
    key: str = "command:1.1",
) -> Delivery:
    """A kept slash command of Ada's."""
    body = {
        "command": command,
        "text": text,
        "user_id": ADA.slack,
        "team_id": team,
        "channel_id": CHANNEL,
        "response_url": "https://hooks.slack.com/commands/1",
        "trigger_id": "1.1",
    }
    return Delivery(key, f"person:{ADA.slack}", COMMAND, evidence(body, view), NOW, attempts)


def clicked(action: str = "start", *, ephemeral: bool = False, view: str | None = None, team: str = TEAM_ID) -> Delivery:
    """A kept click of Ada's, in the channel of our workspace."""
    body = {
        "team": {"id": TEAM_ID},
        "user": {"id": ADA.slack, "team_id": team},
        "channel": {"id": CHANNEL},
        "container": {"message_ts": "1.000001", "is_ephemeral": ephemeral},
        "actions": [{"action_id": action, "value": "480"}],
        "response_url": "https://hooks.slack.com/actions/1",
        "trigger_id": "2.2",
    }
    return Delivery("click:2.2", f"person:{ADA.slack}", CLICK, evidence(body, view), NOW)


def visited(*, tab: str = "home", team: str = "T0CONTOSO", attempts: int = 0) -> Delivery:
    """A kept visit of Ada's to the app's own page."""
    event = {"type": "app_home_opened", "user": ADA.slack, "tab": tab, "channel": "D0ADA0001"}
    body = {"type": "event_callback", "event_id": "Ev1", "team_id": team, "event": event}
    return Delivery("visit:Ev1", f"person:{ADA.slack}", VISIT, evidence(body, None), NOW, attempts)


def clicked_at_home(action: str = "start", *, view: str | None = None) -> Delivery:
    """A kept click of Ada's on the app's own page."""
    body = {
        "user": {"id": ADA.slack},
        "container": {"type": "view", "view_id": "V9"},
        "view": {"id": "V9", "type": "home", "blocks": [BUTTONS]},
        "actions": [{"action_id": action, "value": "480"}],
        "trigger_id": "3.3",
    }
    return Delivery("click:3.3", f"person:{ADA.slack}", CLICK, evidence(body, view), NOW)


def sent(callback: str = "approve") -> Delivery:
    """A kept submission of Ada's."""
    view = {
        "id": "V1",
        "hash": "h1",
        "callback_id": callback,
        "private_metadata": json.dumps({"state": {"run": "480"}, "origin": {"channel": CHANNEL}}),
        "state": {"values": {"reason": {"text": {"type": "plain_text_input", "value": "Fits"}}}},
    }
    return Delivery("submission:V1:h1", f"person:{ADA.slack}", SUBMISSION, evidence({"user": {"id": ADA.slack}, "view": view}, None), NOW)


BY_URL = Whisper(ADA.slack, CHANNEL, "https://hooks.slack.com/commands/1")


@pytest.fixture
def desk() -> Desk:
    """A worker with nothing to do."""
    return Desk()


async def test_many_events_of_a_run_are_one_call_with_the_newest(desk: Desk) -> None:
    stage = run_moved(480, 3, "ms.vss-pipelines.stage-state-changed-event")
    stage["resource"]["stage"] = {"name": "train", "attempt": 1}

    outcomes = await desk.gets(hook_delivery(480, 1), hook_delivery(480, 2), hook_delivery(480, 3, body=stage))

    assert outcomes == [Done()] * 3
    assert desk.feature.calls == [StageMoved(480, "train", 1)]


async def test_a_release_is_another_thing_than_the_run_of_the_same_number(desk: Desk) -> None:
    release = {"eventType": "ms.vss-release.release-created-event", "resource": {"release": {"id": 480}}}

    await desk.gets(hook_delivery(480, 1), hook_delivery(480, 2, body=release), hook_delivery(480, 3, body=release))

    assert desk.feature.calls == [RunMoved(480), ReleaseMoved(480)]


async def test_an_event_that_no_feature_wants_is_done(desk: Desk) -> None:
    approval = run_moved(kind="ms.vss-pipelinechecks-events.approval-pending")
    approval["resource"]["approvalId"] = "a1"

    assert await desk.gets(hook_delivery(body=approval), hook_delivery(body=run_moved(kind="git.push"))) == [Done(), Done()]


async def test_an_event_in_a_shape_that_is_no_longer_known_is_parked_alone(desk: Desk) -> None:
    first, second = await desk.gets(hook_delivery(body=run_moved(run_id=0)), hook_delivery())

    assert isinstance(first, Parked)
    assert second == Done()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (NotNow("Busy.", after=20), Later(20, "Busy.")),
        (NotNow("Busy."), Later(1.0, "Busy.")),
        (Uncertain("Lost."), Later(1.0, "Lost.")),
        (Gone("Run 480 does not exist."), Done()),
        (Refused("No."), Done()),
    ],
)
async def test_what_an_events_error_comes_to(desk: Desk, error: Exception, outcome: Outcome) -> None:
    desk.feature.errors = [error]

    assert await desk.gets(hook_delivery()) == [outcome]


async def test_a_bug_in_an_events_handler_is_tried_again_and_then_parked(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.feature.errors = [KeyError("x"), KeyError("x")]

    first, last = [(await desk.gets(hook_delivery(attempts=attempts)))[0] for attempts in (0, BUGS_WAIT - 1)]

    assert isinstance(first, Later)
    assert isinstance(last, Parked)
    assert last.reference in caplog.text


async def test_an_outage_of_hours_parks_an_event(desk: Desk) -> None:
    desk.feature.errors = [NotNow("Busy.")]

    (outcome,) = await desk.gets(hook_delivery(attempts=EVENTS_WAIT))

    assert isinstance(outcome, Parked)


async def test_a_command_is_answered_in_private(desk: Desk) -> None:
    outcome = await desk.gets(asked())

    assert outcome == [Done()]
    assert desk.feature.calls == [Request("command:1.1", ADA.slack, CHANNEL, "retrain", ("diabetes",))]
    assert desk.screen.told == [(BY_URL, "fine")]


async def test_a_command_may_be_given_under_the_prefix(desk: Desk) -> None:
    await desk.gets(asked("retrain diabetes", command="/mlops"))

    assert desk.feature.calls == [Request("command:1.1", ADA.slack, CHANNEL, "retrain", ("diabetes",))]


@pytest.mark.parametrize(("command", "text"), [("/mlops", ""), ("/mlops", "dance"), ("/dance", "")])
async def test_the_prefix_alone_and_unknown_words_get_help(desk: Desk, command: str, text: str) -> None:
    router_calls = desk.feature.calls

    await desk.gets(asked(text, command=command))

    assert len(router_calls) == 1
    assert desk.screen.told == [(BY_URL, "fine")]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Usage("There is no model <x>."), "There is no model &lt;x&gt;. Usage: /retrain [model]"),
        (Gone("Run 480 does not exist."), "Run 480 does not exist."),
        (Refused("The branch is protected."), "The branch is protected."),
        (Uncertain("The answer was lost."), "The answer was lost."),
    ],
)
async def test_expected_errors_are_told_in_words(desk: Desk, error: Exception, said: str) -> None:
    desk.feature.errors = [error]

    outcome = await desk.gets(asked())

    assert outcome == [Done()]
    assert desk.screen.told == [(BY_URL, said)]


async def test_what_is_not_possible_now_is_tried_again_and_then_told(desk: Desk) -> None:
    desk.feature.errors = [NotNow("Azure DevOps does not answer."), NotNow("Azure DevOps does not answer.")]

    first = await desk.gets(asked())
    before = list(desk.screen.told)
    last = await desk.gets(asked(attempts=PEOPLE_WAIT - 1))

    assert first == [Later(1.0, "Azure DevOps does not answer.")]
    assert (before, last) == ([], [Done()])
    assert desk.screen.told == [(BY_URL, "Azure DevOps does not answer. Please try again later.")]


async def test_a_bug_is_told_with_its_reference_and_nothing_else(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.feature.errors = [KeyError("secret detail")]

    (outcome,) = await desk.gets(asked())

    assert isinstance(outcome, Parked)
    ((_, said),) = desk.screen.told
    assert outcome.reference in said
    assert outcome.reference in caplog.text
    assert "secret detail" not in said + outcome.problem


async def test_a_dialog_that_waits_is_filled(desk: Desk) -> None:
    form = Modal("Train a model", [], "retrain")
    desk.feature.replies = [form]

    await desk.gets(asked("", view="V1"))

    assert desk.screen.dialogs == {"V1": form}
    assert desk.screen.told == []


async def test_a_dialog_that_waits_shows_a_refusal(desk: Desk) -> None:
    desk.feature.errors = [Refused("You may not.")]

    await desk.gets(asked("", view="V1"))

    assert "You may not." in str(desk.screen.dialogs["V1"].blocks)
    assert desk.screen.told == []


async def test_a_dialog_that_was_closed_is_left_alone(desk: Desk) -> None:
    desk.feature.replies = [Modal("Train a model", [], "retrain")]
    desk.screen.errors = [Gone("not_found")]

    assert await desk.gets(asked("", view="V1")) == [Done()]
    assert desk.screen.told == []


@pytest.mark.parametrize(("view", "errors"), [(None, []), ("V1", [Refused("Slack answered invalid_arguments.")] * 2)])
async def test_a_dialog_that_cannot_be_shown_is_told(desk: Desk, view: str | None, errors: list[OutsideError]) -> None:
    desk.feature.replies = [Modal("Train a model", [], "retrain")]
    desk.screen.errors = errors

    await desk.gets(asked("", view=view))

    assert [said for _, said in desk.screen.told] == ["Slack did not show the dialog. Please try again."]


async def test_no_reply_says_nothing_and_lets_no_dialog_wait(desk: Desk) -> None:
    desk.feature.replies = [None, None]

    await desk.gets(clicked())
    await desk.gets(clicked(view="V1"))

    assert desk.screen.told == []
    assert "Done." in str(desk.screen.dialogs["V1"].blocks)


async def test_a_click_is_answered_and_takes_the_place_of_a_private_message(desk: Desk) -> None:
    await desk.gets(clicked(ephemeral=True))
    await desk.gets(clicked())

    assert desk.feature.calls[0] == Click("click:2.2", ADA.slack, CHANNEL, "start", "480", "1.000001")
    assert [to.replaces for to, _ in desk.screen.told] == [True, False]


async def test_a_button_of_an_older_release_says_so(desk: Desk) -> None:
    await desk.gets(clicked("retired"))
    await desk.gets(sent("retired"))

    assert [said for _, said in desk.screen.told] == [STALE_BUTTON, STALE_BUTTON]


async def test_a_submission_is_answered_where_its_dialog_came_from(desk: Desk) -> None:
    await desk.gets(sent())

    assert desk.feature.calls == [Submission("submission:V1:h1", ADA.slack, CHANNEL, "approve", {"reason": "Fits"}, {"run": "480"})]
    assert desk.screen.told == [(Whisper(ADA.slack, CHANNEL), "fine")]


async def test_whoever_looks_at_the_page_is_shown_it(desk: Desk) -> None:
    outcome = await desk.gets(visited())

    assert outcome == [Done()]
    assert desk.feature.visits == [Visit("visit:Ev1", ADA.slack)]
    assert desk.world.chat.homes == {ADA.slack: Home([BUTTONS])}
    assert desk.screen.told == []


@pytest.mark.parametrize("delivery", [visited(tab="messages"), visited(team="T0PARTNER")])
async def test_another_tab_and_another_workspace_are_shown_nothing(desk: Desk, delivery: Delivery) -> None:
    assert await desk.gets(delivery) == [Done()]
    assert desk.feature.visits == []


async def test_without_a_page_nothing_is_shown(desk: Desk) -> None:
    work = Work(desk.world.bot, desk.screen, Router(), desk.signin, lambda: desk.workspace)

    assert await work([visited()]) == [Done()]
    assert desk.world.chat.homes == {}


@pytest.mark.parametrize(
    ("attempts", "error", "expected"),
    [
        (0, NotNow("Slack asks for a pause."), Later),
        (0, Uncertain("The answer was lost."), Later),
        (PEOPLE_WAIT - 1, NotNow("Slack asks for a pause."), Done),
        (0, Refused("The page is not enabled."), Done),
        (0, KeyError("oops"), Parked),
    ],
)
async def test_what_a_page_s_error_comes_to(desk: Desk, attempts: int, error: Exception, expected: type[Outcome]) -> None:
    desk.feature.mishaps = [error]

    (outcome,) = await desk.gets(visited(attempts=attempts))

    assert isinstance(outcome, expected)
    assert desk.screen.told == []


async def test_what_was_done_on_the_page_is_answered_in_person_and_the_page_is_shown_anew(desk: Desk) -> None:
    await desk.gets(clicked_at_home())

    assert desk.feature.calls == [Click("click:3.3", ADA.slack, "", "start", "480")]
    assert desk.screen.told == [(Whisper(ADA.slack, ""), "fine")]
    assert desk.feature.visits == [Visit("click:3.3", ADA.slack)]


async def test_a_refusal_shows_the_page_anew_and_a_dialog_leaves_it(desk: Desk) -> None:
    desk.feature.errors = [Gone("There is no such approval any more.")]
    await desk.gets(clicked_at_home())
    refused = len(desk.feature.visits)
    desk.feature.replies = [Modal("Approve", [], "approve")]
    await desk.gets(clicked_at_home("ask", view="V1"))

    assert (refused, len(desk.feature.visits)) == (1, 1)


async def test_a_page_that_cannot_be_shown_anew_undoes_nothing(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.feature.mishaps = [NotNow("Slack asks for a pause.")]

    assert await desk.gets(clicked_at_home()) == [Done()]
    assert "Slack asks for a pause." in caplog.text


def test_there_is_one_page() -> None:
    with pytest.raises(ValueError, match="own page is taken twice"):
        Router().include(Feature().router).home(Feature().router.at_home or pytest.fail("no page"))


# Who has to sign in


NEEDED = SignInNeeded("This is done under your own name.")
SIGN_IN = "🔑 This is done under your own name. Press Sign in in this message."


async def test_who_has_to_sign_in_is_asked_to_in_private_and_what_they_wanted_is_remembered(desk: Desk) -> None:
    desk.feature.errors = [NEEDED]

    outcome = await desk.gets(asked())

    assert outcome == [Done()]
    assert desk.screen.told == [(BY_URL, SIGN_IN)]
    assert desk.signin.links == [(ADA.slack, "command:1.1")]


async def test_who_has_a_dialog_open_is_asked_to_sign_in_there(desk: Desk) -> None:
    desk.feature.errors = [NEEDED]

    await desk.gets(clicked("ask", view="V1"))

    assert "https://login.microsoftonline.com/" in str(desk.screen.dialogs["V1"].blocks)
    assert desk.screen.told == []


async def test_where_nobody_can_sign_in_the_reason_is_told(desk: Desk) -> None:
    desk.feature.errors = [NEEDED]
    desk.signin.errors = [NotNow("Entra does not answer.")]

    await desk.gets(asked())

    assert [said for _, said in desk.screen.told] == [f"{NEEDED} But that cannot be done at present: Entra does not answer."]


async def test_a_token_that_was_refused_is_renewed_once_and_the_person_notices_nothing(desk: Desk) -> None:
    desk.signin.fresh = [True, True]
    desk.feature.errors = [NEEDED]

    await desk.gets(asked())
    desk.feature.errors = [NEEDED, NEEDED]
    await desk.gets(asked())

    assert [said for _, said in desk.screen.told] == ["fine", SIGN_IN]
    assert len(desk.feature.calls) == 4


async def test_in_the_service_mode_there_is_no_address_and_no_token() -> None:
    assert not await NoSignIn().renew(ADA.slack)
    with pytest.raises(Refused):
        await NoSignIn().link(ADA.slack, "command:1.1")


@pytest.mark.parametrize(
    ("reply", "said"),
    [(Modal("Approve", [], "approve"), PRESS_AGAIN), (Message("fine"), "fine"), (None, "Done.")],
    ids=["form", "note", "nothing"],
)
async def test_what_goes_on_after_its_dialog_was_closed_is_told_in_private(desk: Desk, reply: Reply, said: str) -> None:
    desk.feature.replies = [reply]
    desk.screen.errors = [Gone("not_found")]

    await desk.gets(asked("", view="V1", key=f"command:1.1{RESUMED}s1"))

    assert [text for _, text in desk.screen.told] == [said]


async def test_what_has_waited_too_long_is_not_done_but_told(desk: Desk) -> None:
    await desk.work.resume(clicked())

    assert desk.feature.calls == []
    assert [said for _, said in desk.screen.told] == [AGAIN]


@pytest.mark.parametrize("delivery", [asked(team="T0ELSEWHERE"), clicked(team="T0ELSEWHERE")], ids=["command", "click"])
async def test_people_of_another_workspace_are_refused_on_record(desk: Desk, delivery: Delivery) -> None:
    assert await desk.gets(delivery) == [Done()]

    assert desk.feature.calls == []
    assert [said for _, said in desk.screen.told] == [FOREIGN]
    assert [(entry.person, entry.decision) for entry in desk.world.store.audit] == [(ADA.slack, Denied(FOREIGN))]


async def test_until_it_is_known_whose_workspace_this_is_everybody_waits(desk: Desk) -> None:
    desk.workspace = ""

    (outcome,) = await desk.gets(asked())

    assert isinstance(outcome, Later)
    assert (desk.feature.calls, desk.screen.told) == ([], [])


async def test_a_timer_that_fails_is_logged_and_runs_again(caplog: pytest.LogCaptureFixture) -> None:
    router, errors = Router(), [KeyError("x"), NotNow("Busy."), None]

    @router.every("* * * * *")
    async def sweep(_: Bot) -> None:
        if error := errors.pop(0):
            raise error

    (timer,) = router.timers.values()
    work = Work(World().bot, FakeScreen(), router, NoSignIn(), lambda: TEAM_ID)
    for _ in range(3):
        await work.tick(timer)

    assert errors == []
    assert "Busy." in caplog.text


def test_user_groups_are_found_in_the_team() -> None:
    assert groups(TEAM) == {"S0MLTEAM", "S0RELEASE"}


# Slack, for real


@dataclass
class Place:
    """A bot in a local Slack, and Ada in front of it."""

    house: House
    slack: Slack

    @property
    def ada(self) -> Person:
        return Person(self.slack, ADA)

    @property
    def feature(self) -> Feature:
        return self.house.feature

    async def told(self, text: str) -> None:
        """Return once Ada has been told this."""
        await self.slack.wait_for(lambda: any(text in message["text"] for message in self.ada.sees()))


@asynccontextmanager
async def place(
    folder: Path, database: Database, told: Callable[[Slack], Settings], *, router: Router | None = None, around: World | None = None
) -> AsyncIterator[Place]:
    """A bot that reaches Slack through the sandbox's proxy."""
    port = free_port()
    async with sandbox(folder, Slack, bot_url=f"http://127.0.0.1:{port}") as world:
        slack = the(world, Slack)
        connector = aiohttp.TCPConnector(ssl=trust(world))
        async with aiohttp.ClientSession(connector=connector, proxy=proxy(world), timeout=TIMEOUT) as shared:
            client = AsyncWebClient(slack.bot_token, session=shared, proxy=proxy(world), ssl=trust(world), retry_handlers=[])
            async with serving(database, client, shared, port, told(slack), router=router, around=around) as house:
                async with asyncio.timeout(30):
                    while (await house.ready())[0] != 200:  # noqa: ASYNC110 as any probe does
                        await asyncio.sleep(0.01)
                yield Place(house, slack)


@pytest.fixture
async def town(tmp_path: Path, database: Database) -> AsyncIterator[Place]:
    """A bot that Slack reaches over HTTP."""
    async with place(tmp_path, database, lambda slack: settings(SLACK_SIGNING_SECRET=slack.signing_secret)) as opened:
        yield opened


@pytest.mark.world
async def test_a_person_is_answered_in_private(town: Place) -> None:
    at_once = await town.ada.types("/retrain diabetes")
    await town.told("fine")

    assert at_once is None
    assert [type(call) for call in town.feature.calls] == [Request]


@pytest.mark.world
async def test_a_command_that_slack_delivers_twice_is_done_once(town: Place) -> None:
    town.slack.world.faults.arm("slack.duplicate_delivery")

    await town.ada.types("/retrain diabetes")
    await town.told("fine")
    await town.ada.types("/mlops help")
    await town.feature.until(2)

    assert [call.command for call in town.feature.calls if isinstance(call, Request)] == ["retrain", "help"]


@pytest.mark.world
async def test_a_form_opens_at_once_complains_inside_and_is_answered(town: Place) -> None:
    reason = {
        "type": "input",
        "block_id": "reason",
        "label": {"type": "plain_text", "text": "Why?"},
        "element": {"type": "plain_text_input", "action_id": "text"},
    }
    town.feature.replies = [Modal("Train a model", [reason], "approve", "Train", state={"run": "480"}), Message("Training.")]

    await town.ada.types("/retrain")
    await town.slack.wait_for(lambda: (view := town.ada.modal()) and view["callback_id"] == "approve")
    wrong = await town.ada.fills(values={"reason": "no"})
    right = await town.ada.fills(values={"reason": "because"})
    await town.told("Training.")

    assert wrong.errors == {"reason": "Say more."}
    assert right.accepted
    submission = town.feature.calls[-1]
    assert isinstance(submission, Submission)
    assert (submission.values, submission.state, submission.channel) == ({"reason": "because"}, {"run": "480"}, CHANNEL)


@pytest.mark.world
async def test_a_button_is_answered_and_a_link_needs_no_answer(town: Place) -> None:
    def button(action: str, **more: str) -> dict[str, Any]:
        return {"type": "button", "action_id": action, "text": {"type": "plain_text", "text": action}, "value": "480", **more}

    actions = {"type": "actions", "elements": [button("start"), button("open_log", url="https://dev.azure.com/contoso")]}
    bot = town.house.callboard.bot
    await bot.board.show(CHANNEL, "run 480", Message("Run 480", [actions]))
    await town.slack.wait_for(town.ada.sees)
    ts = str(town.ada.sees()[0]["ts"])

    link = await town.ada.clicks(ts, "open_log")
    pressed = await town.ada.clicks(ts, "start")
    await town.told("fine")

    assert (link, pressed) == (None, None)
    assert [(call.action, call.value, call.ts) for call in town.feature.calls if isinstance(call, Click)] == [("start", "480", ts)]


@pytest.mark.world
async def test_the_page_is_shown_when_it_is_opened_and_after_what_is_done_there(town: Place) -> None:
    town.slack.world.faults.arm("slack.duplicate_delivery")
    reason = {
        "type": "input",
        "block_id": "reason",
        "label": {"type": "plain_text", "text": "Why?"},
        "element": {"type": "plain_text_input", "action_id": "text"},
    }
    town.feature.replies = [Modal("Approve", [reason], "approve", "Approve"), Message("Approved.")]

    await town.ada.opens_home()
    await town.slack.wait_for(lambda: town.slack.home(ADA.slack))
    await town.ada.clicks("home", "ask")
    await town.slack.wait_for(lambda: (view := town.ada.modal()) and view["callback_id"] == "approve")
    await town.ada.fills(values={"reason": "Fits"})
    direct = town.slack.workspace.direct(ADA.slack)["id"]
    await town.slack.wait_for(lambda: [message["text"] for message in town.slack.messages(direct)] == ["Approved."])
    await town.slack.wait_for(lambda: len(town.feature.visits) == 2)

    click, submission = town.feature.calls
    assert isinstance(click, Click)
    assert isinstance(submission, Submission)
    assert (click.channel, submission.channel) == ("", "")


@pytest.mark.world
async def test_what_waits_is_decided_on_from_the_page(tmp_path: Path, database: Database) -> None:
    around = World()
    around.pipelines.runs[480] = replace(WAITING, committer=None)
    around.pipelines.waiting[480] = (PENDING,)
    around.pipelines.artifacts[480, "delivery"] = delivered()
    around.pipelines.artifacts[480, "qa"] = {"qa.json": smoke("qa")}
    around.models.known["diabetes"] = (V3,)

    def told(slack: Slack) -> Settings:
        return settings(SLACK_SIGNING_SECRET=slack.signing_secret)

    async with place(tmp_path, database, told, router=handlers.router, around=around) as town:
        grace = Person(town.slack, GRACE)
        await grace.opens_home()
        before = await town.slack.wait_for(lambda: town.slack.home(GRACE.slack))
        await grace.clicks("home", "approve")
        await town.slack.wait_for(lambda: (view := grace.modal()) and view["callback_id"] == "approve")
        await grace.fills(values={"reason": "Fits the plan"})
        direct = town.slack.workspace.direct(GRACE.slack)["id"]
        said = await town.slack.wait_for(lambda: [message["text"] for message in town.slack.messages(direct)])
        await town.slack.wait_for(lambda: (home := town.slack.home(GRACE.slack)) and "Nothing waits for you." in str(home["blocks"]))

    assert "diabetes version 4" in str(before)
    assert said == ["Approved, and on record in Azure DevOps."]
    assert [answer for _, answer, _ in around.pipelines.decisions] == [Answer.APPROVE]


@pytest.mark.world
async def test_while_nothing_can_be_kept_a_visit_is_asked_for_again(town: Place) -> None:
    await town.house.callboard.inbox.stop()
    body = json.dumps({"type": "event_callback", "event_id": "Ev1", "event": {"type": "app_home_opened", "user": ADA.slack, "tab": "home"}})
    stamp = str(int(time.time()))
    signature = sign(town.slack.signing_secret, stamp, body.encode())
    headers = {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": signature, "Content-Type": "application/json"}

    async with town.house.session.post(f"{town.house.url}/slack/events", data=body, headers=headers) as answer:
        assert answer.status == 503


@pytest.mark.world
async def test_while_nothing_can_be_kept_a_person_is_told_so(town: Place) -> None:
    await town.house.callboard.inbox.stop()

    answer = await town.ada.types("/retrain diabetes")

    assert answer is not None
    assert answer["text"] == NOT_NOW


@pytest.mark.world
async def test_a_signed_request_is_taken_once_and_a_forged_one_never(town: Place) -> None:
    async def post(body: bytes, stamp: str, signature: str) -> int:
        headers = {
            "X-Slack-Request-Timestamp": stamp,
            "X-Slack-Signature": signature,
            "Content-Type": "application/x-www-form-urlencoded",
        }
        async with town.house.session.post(f"{town.house.url}/slack/events", data=body, headers=headers) as answer:
            return answer.status

    command = {"command": "/retrain", "text": "diabetes", "user_id": ADA.slack, "channel_id": CHANNEL}
    body, stamp = urlencode(command).encode(), str(int(time.time()))
    good = sign(town.slack.signing_secret, stamp, body)
    old = str(int(time.time()) - 400)

    statuses = [
        await post(body, stamp, good),
        await post(body, stamp, good),
        await post(body + b"&text=churn", stamp, good),
        await post(body, stamp, sign("wrong", stamp, body)),
        await post(body, old, sign(town.slack.signing_secret, old, body)),
        await post(body, "soon", good),
        await post(b"\xff", stamp, good),
    ]
    await town.feature.until()

    assert statuses == [200, 200, 401, 401, 401, 401, 400]
    assert len(town.feature.calls) == 1


@pytest.mark.world
async def test_over_socket_mode_everything_is_the_same(tmp_path: Path, database: Database) -> None:
    def told(slack: Slack) -> Settings:
        return settings(SLACK_SIGNING_SECRET=slack.signing_secret, SLACK_APP_TOKEN=slack.app_token)

    async with place(tmp_path, database, told) as town:
        await town.ada.types("/retrain diabetes")
        await town.told("fine")
        await town.ada.opens_home()
        await town.slack.wait_for(lambda: town.slack.home(ADA.slack))

        sockets = town.slack.delivery.sockets

    assert sockets == 1
    assert len(town.feature.calls) == 1
