"""The board on a real PostgreSQL and a Slack that can lose answers: posted once, newest wish last, at Slack's pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from bot.board import BlocksRefused, Bucket, Card, Pace, SlackBoard, Step, Unchangeable, backoff, content, next_step
from bot.core.errors import Gone, NotNow, OutsideError, Refused, Uncertain
from bot.database import Database
from bot.messages.kit import Block, Message
from bot.ports import Board, File
from tests.database import Cluster
from tests.examples import CHANNEL, NOW

CHART = File("candidates.png", "Candidates", b"PNG")
PACE = Pace()
FAST = replace(PACE, between_updates=0.0, posts_at_once=1000, updates_at_once=1000)


@dataclass
class Clock:
    """A clock that stands still until a test moves it."""

    at: datetime = NOW

    def __call__(self) -> datetime:
        return self.at

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.at += timedelta(seconds=seconds)


@dataclass
class Shown:
    """One message in the fake channel."""

    text: str
    blocks: tuple[Block, ...]
    key: str
    thread: str | None
    posted: datetime


@dataclass
class FakeWall:
    """Slack for the board. `errors` are raised instead of a call by its name, `lost` after it was carried out."""

    clock: Clock
    messages: dict[tuple[str, str], Shown] = field(default_factory=dict)
    files: dict[str, tuple[str, str] | None] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    errors: dict[str, list[OutsideError]] = field(default_factory=dict)
    lost: dict[str, list[OutsideError]] = field(default_factory=dict)
    refuses: Callable[[Sequence[Block]], bool] = lambda _: False
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answers.set()

    async def post(self, channel: str, text: str, blocks: Sequence[Block], *, key: str, thread: str | None) -> str:
        self._called("post")
        await self.answers.wait()
        self._check(blocks)
        ts = f"{self.clock().timestamp():.0f}.{len(self.messages):06d}"
        self.messages[channel, ts] = Shown(text, tuple(blocks), key, thread, self.clock())
        self._lost("post")
        return ts

    async def update(self, channel: str, ts: str, text: str, blocks: Sequence[Block]) -> None:
        self._called("update")
        self._check(blocks)
        if (channel, ts) not in self.messages:
            raise Unchangeable("Slack answered message_not_found.")
        self.messages[channel, ts] = replace(self.messages[channel, ts], text=text, blocks=tuple(blocks))
        self._lost("update")

    async def find(self, channel: str, key: str, *, since: datetime, thread: str | None) -> str | None:
        self._called("find")
        for (where, ts), shown in self.messages.items():
            if where == channel and shown.key == key and shown.thread == thread and shown.posted >= since:
                return ts
        return None

    async def permalink(self, channel: str, ts: str) -> str:
        if (channel, ts) not in self.messages:
            raise Unchangeable("Slack answered message_not_found.")
        return f"https://contoso.slack.com/archives/{channel}/p{ts.replace('.', '')}"

    async def upload(self, name: str, content: bytes) -> str:
        self._called("upload")
        file = f"F{len(self.files)}"
        self.files[file] = None
        return file

    async def share(self, file: str, title: str, *, channel: str, thread: str) -> None:
        self._called("share")
        self.files[file] = (channel, thread)
        self._lost("share")

    async def shared(self, file: str, *, channel: str, thread: str) -> bool:
        self._called("shared")
        return self.files.get(file) == (channel, thread)

    @property
    def texts(self) -> list[str]:
        """What the channel shows, oldest first."""
        return [shown.text for shown in self.messages.values()]

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.errors.get(name):
            raise self.errors[name].pop(0)

    def _lost(self, name: str) -> None:
        if self.lost.get(name):
            raise self.lost[name].pop(0)

    def _check(self, blocks: Sequence[Block]) -> None:
        if self.refuses(blocks):
            raise BlocksRefused("Slack answered invalid_blocks.")


class EndError(Exception):
    """The process ends here."""


@dataclass
class Scene:
    """A clock, a wall and a database, and boards that come and go on them."""

    database: Database
    clock: Clock = field(default_factory=Clock)
    pace: Pace = FAST

    def __post_init__(self) -> None:
        self.wall = FakeWall(self.clock)

    @asynccontextmanager
    async def board(self, *, ends_at: str = "") -> AsyncIterator[SlackBoard]:
        """A board, as a process that ends when it comes to the point `ends_at`, or with the block."""

        def at(point: str) -> None:
            if point == ends_at:
                raise EndError(point)

        board = SlackBoard(self.database, self.wall, self.clock, pace=self.pace, at=at)
        await board.start()
        try:
            yield board
        finally:
            await board.stop()

    async def until(self, seen: Callable[[], bool]) -> None:
        """Return once the wall shows it."""
        async with asyncio.timeout(30):
            while not seen():  # noqa: ASYNC110 the wall has no event to wait for
                await asyncio.sleep(0.005)

    async def done(self, board: SlackBoard) -> None:
        """Return once Slack shows every wish, time passing as it must."""
        async with asyncio.timeout(30):
            while await self._behind():
                self.clock.forward(1)
                await board.sweep()
                await asyncio.sleep(0.005)

    async def _behind(self) -> bool:
        async with self.database.pool.connection() as connection:
            asked = await connection.execute(
                "select exists(select from card where shown < wanted) or exists(select from attachment where not shown)"
            )
            row = await asked.fetchone()
        return bool(row and row[0])

    async def problem(self, subject: str) -> str | None:
        """What the board says about a subject."""
        async with self.database.pool.connection() as connection:
            row = await (await connection.execute("select problem from card where subject = %s", (subject,))).fetchone()
        return row[0] if row else None


@pytest.fixture
def scene(database: Database) -> Scene:
    """An empty channel."""
    return Scene(database)


def message(text: str, plain: str = "") -> Message:
    """A message with one block that says the same as its text."""
    blocks = [{"type": "plan", "title": text}]
    return Message(text, blocks, [{"type": "section", "text": {"type": "mrkdwn", "text": plain}}] if plain else [])


async def test_a_wish_is_posted_and_then_updated_in_place(scene: Scene) -> None:
    async with scene.board() as board:
        await board.show(CHANNEL, "run 480", message("running"))
        await scene.done(board)
        await board.show(CHANNEL, "run 480", message("succeeded"))
        await scene.done(board)
        where = await board.where(CHANNEL, "run 480")

    assert scene.wall.texts == ["succeeded"]
    assert scene.wall.calls == ["post", "update"]
    assert (CHANNEL, where) in scene.wall.messages


async def test_what_was_read_earlier_never_replaces_what_was_read_later(scene: Scene) -> None:
    async with scene.board() as board:
        slow, quick = await board.reading(), await board.reading()
        await board.show(CHANNEL, "run 480", message("running"), reading=quick)
        await board.show(CHANNEL, "run 480", message("failed"), reading=slow)
        await scene.done(board)

    assert scene.wall.texts == ["running"]


async def test_an_unchanged_wish_is_newer_all_the_same(scene: Scene) -> None:
    async with scene.board() as board:
        first, slow, last = await board.reading(), await board.reading(), await board.reading()
        await board.show(CHANNEL, "run 480", message("running"), reading=first)
        await board.show(CHANNEL, "run 480", message("running"), reading=last)
        await board.show(CHANNEL, "run 480", message("failed"), reading=slow)
        await scene.done(board)

    assert scene.wall.texts == ["running"]


async def test_an_unchanged_wish_costs_no_call(scene: Scene) -> None:
    async with scene.board() as board:
        await board.show(CHANNEL, "run 480", message("running"))
        await scene.done(board)

        await board.show(CHANNEL, "run 480", message("running"))
        await scene.done(board)

    assert scene.wall.calls == ["post"]


async def test_subjects_and_channels_are_apart(scene: Scene) -> None:
    async with scene.board() as board:
        await board.show(CHANNEL, "run 480", message("one"))
        await board.show(CHANNEL, "run 481", message("two"))
        await board.show("C0RANDOM0", "run 480", message("three"))
        await scene.done(board)

    assert sorted((channel, shown.text) for (channel, _), shown in scene.wall.messages.items()) == [
        ("C0MLDELIV", "one"),
        ("C0MLDELIV", "two"),
        ("C0RANDOM0", "three"),
    ]


async def test_many_changes_within_three_seconds_are_one_update_with_the_newest(scene: Scene) -> None:
    scene.pace = replace(FAST, between_updates=3.0)
    async with scene.board() as board:
        await board.show(CHANNEL, "run 480", message("stage 0"))
        await scene.until(lambda: scene.wall.texts == ["stage 0"])
        for number in range(1, 9):
            await board.show(CHANNEL, "run 480", message(f"stage {number}"))
            await board.sweep()
        before = list(scene.wall.calls)
        await scene.done(board)

    assert before == ["post"]
    assert scene.wall.calls == ["post", "update"]
    assert scene.wall.texts == ["stage 8"]


async def test_a_thread_waits_for_its_parent(scene: Scene) -> None:
    scene.wall.errors["post"] = [NotNow("Slack asks for a pause.", after=5)]
    async with scene.board() as board:
        await board.show(CHANNEL, "run 480", message("run"))
        await board.show(CHANNEL, "comparison of 480", message("table"), under="run 480")
        await scene.done(board)
        parent = await board.where(CHANNEL, "run 480")

    assert [(shown.text, shown.thread) for shown in scene.wall.messages.values()] == [("run", None), ("table", parent)]


async def test_nothing_hangs_under_what_was_never_shown(scene: Scene) -> None:
    async with scene.board() as board:
        with pytest.raises(LookupError):
            await board.show(CHANNEL, "comparison of 480", message("table"), under="run 480")
        with pytest.raises(LookupError):
            await board.attach(CHANNEL, "chart of 480", CHART, under="run 480")
        nowhere = await board.where(CHANNEL, "run 480")

    assert nowhere is None


async def test_where_slack_refuses_the_blocks_the_plain_ones_are_shown_from_then_on(scene: Scene) -> None:
    scene.wall.refuses = lambda blocks: any(block["type"] == "plan" for block in blocks)
    async with scene.board() as board:
        await board.show(CHANNEL, "run 480", message("running", plain="Train: running"))
        await scene.done(board)
        await board.show(CHANNEL, "run 480", message("done", plain="Train: done"))
        await scene.done(board)

    assert scene.wall.calls == ["post", "post", "update"]
    assert [block["text"]["text"] for shown in scene.wall.messages.values() for block in shown.blocks] == ["Train: done"]


async def test_where_slack_refuses_every_block_the_text_is_shown(scene: Scene) -> None:
    scene.wall.refuses = bool
    async with scene.board() as board:
        await board.show(CHANNEL, "run 480", message("running", plain="Train: running"))
        await scene.done(board)

    assert [(shown.text, shown.blocks) for shown in scene.wall.messages.values()] == [("running", ())]


@pytest.mark.parametrize("gone", [True, False])
async def test_what_may_be_edited_no_longer_is_posted_anew(scene: Scene, gone: bool) -> None:
    async with scene.board() as board:
        await board.show(CHANNEL, "run 480", message("running"))
        await scene.done(board)
        if gone:
            scene.wall.messages.clear()
        else:
            scene.wall.errors["update"] = [Unchangeable("Slack answered edit_window_closed.")]
        await board.show(CHANNEL, "run 480", message("done"))
        await scene.done(board)

    newest = list(scene.wall.messages.values())[-1]
    linked = any("an earlier message" in str(block) for block in newest.blocks)
    assert (newest.text, linked) == ("done", not gone)
    assert len(scene.wall.messages) == (1 if gone else 2)


async def test_a_pause_that_slack_asks_for_is_kept_and_nothing_is_lost(scene: Scene) -> None:
    scene.wall.errors["post"] = [NotNow("Slack asks for a pause.", after=30)]
    async with scene.board() as board:
        await board.show(CHANNEL, "run 480", message("running"))
        await scene.until(lambda: scene.wall.calls == ["post"])
        scene.clock.forward(29)
        await board.sweep()
        early = list(scene.wall.calls)
        await scene.done(board)

    assert early == ["post"]
    assert scene.wall.texts == ["running"]


async def test_a_refusal_is_tried_again_ever_more_rarely_and_a_new_wish_at_once(scene: Scene) -> None:
    scene.wall.errors["post"] = [Refused("Callboard is not a member of this channel."), Gone("Slack does not know this channel.")]
    async with scene.board() as board:
        await board.show(CHANNEL, "run 480", message("running"))
        await scene.until(lambda: scene.wall.calls == ["post"])
        await board.show(CHANNEL, "run 480", message("done"))
        await scene.done(board)
        problem = await scene.problem("run 480")

    assert scene.wall.texts == ["done"]
    assert problem is None


async def test_a_lost_answer_to_an_update_is_asked_again(scene: Scene) -> None:
    scene.wall.lost["update"] = [Uncertain("Slack's answer was lost.")]
    async with scene.board() as board:
        await board.show(CHANNEL, "run 480", message("running"))
        await scene.done(board)
        await board.show(CHANNEL, "run 480", message("done"))
        await scene.done(board)

    assert scene.wall.calls == ["post", "update", "update"]
    assert scene.wall.texts == ["done"]


async def test_a_post_whose_answer_was_lost_is_found_and_adopted(scene: Scene) -> None:
    scene.wall.lost["post"] = [Uncertain("Slack's answer was lost.")]
    async with scene.board() as board:
        await board.show(CHANNEL, "run 480", message("running"))
        await scene.done(board)

    assert scene.wall.texts == ["running"]
    assert scene.wall.calls == ["post", "find", "update"]


async def test_a_post_that_never_arrived_is_made_after_the_grace(scene: Scene) -> None:
    scene.wall.errors["post"] = [Uncertain("Slack's answer was lost.")]
    async with scene.board() as board:
        await board.show(CHANNEL, "run 480", message("running"))
        await scene.until(lambda: scene.wall.calls == ["post"])
        scene.clock.forward(PACE.grace - 1)
        await board.sweep()
        early = list(scene.wall.calls)
        await scene.done(board)

    assert early == ["post"]
    assert scene.wall.calls == ["post", "find", "post"]
    assert scene.wall.texts == ["running"]


async def test_where_the_look_up_is_refused_the_message_is_posted_all_the_same(scene: Scene) -> None:
    scene.wall.errors |= {"post": [Uncertain("Slack's answer was lost.")], "find": [NotNow("Busy.", after=1), Refused("missing_scope")]}
    async with scene.board() as board:
        await board.show(CHANNEL, "run 480", message("running"))
        await scene.done(board)

    assert scene.wall.texts == ["running"]


@pytest.mark.parametrize("point", ["intent kept", "posted", "ts kept"])
async def test_a_process_that_ends_while_posting_posts_neither_twice_nor_never(scene: Scene, point: str) -> None:
    async with scene.board(ends_at=point) as board:
        await board.show(CHANNEL, "run 480", message("running"))
        await scene.until(lambda: scene.wall.calls == ["post"] or point == "intent kept")
        await board.stop()

    async with scene.board() as board:
        await scene.done(board)
        await board.show(CHANNEL, "run 480", message("done"))
        await scene.done(board)

    assert scene.wall.texts == ["done"]


async def test_a_process_that_ends_right_after_the_wish_shows_it_after_its_restart(scene: Scene) -> None:
    async with scene.board(ends_at="wish kept") as board:
        with pytest.raises(EndError):
            await board.show(CHANNEL, "run 480", message("running"))

    async with scene.board() as board:
        await scene.done(board)

    assert scene.wall.texts == ["running"]


async def test_a_process_that_ends_while_updating_shows_the_final_state(scene: Scene) -> None:
    async with scene.board(ends_at="updated") as board:
        await board.show(CHANNEL, "run 480", message("running"))
        await scene.until(lambda: scene.wall.calls == ["post"])
        await board.show(CHANNEL, "run 480", message("done"))
        await scene.until(lambda: "update" in scene.wall.calls)
        await board.stop()

    async with scene.board() as board:
        await scene.done(board)

    assert scene.wall.texts == ["done"]


async def test_children_of_a_card_that_was_posted_before_the_end_are_shown(scene: Scene) -> None:
    scene.wall.answers.clear()
    async with scene.board(ends_at="ts kept") as board:
        await board.show(CHANNEL, "run 480", message("run"))
        await board.show(CHANNEL, "comparison of 480", message("table"), under="run 480")
        await board.attach(CHANNEL, "chart of 480", CHART, under="run 480")
        await scene.until(lambda: scene.wall.calls == ["post"])
        scene.wall.answers.set()
    assert scene.wall.calls == ["post"]

    async with scene.board() as board:
        await scene.done(board)

    assert scene.wall.texts == ["run", "table"]
    assert list(scene.wall.files.values()) == [(CHANNEL, next(iter(scene.wall.messages))[1])]


async def test_two_replicas_post_one_message(scene: Scene, postgres: Cluster) -> None:
    other = Database(scene.database.url)
    await other.open()
    async with scene.board() as one:
        two = SlackBoard(other, scene.wall, scene.clock, pace=FAST)
        await two.start()
        await asyncio.gather(*(board.show(CHANNEL, "run 480", message("running")) for board in (one, two) * 3))
        await scene.done(one)
        await two.stop()
    await other.close()

    assert scene.wall.calls == ["post"]


async def test_a_file_is_put_into_the_thread_once(scene: Scene) -> None:
    async with scene.board() as board:
        await board.show(CHANNEL, "run 480", message("run"))
        for _ in range(3):
            await board.attach(CHANNEL, "chart of 480", CHART, under="run 480")
        await scene.done(board)
        thread = await board.where(CHANNEL, "run 480")

    assert scene.wall.files == {"F0": (CHANNEL, thread)}


@pytest.mark.parametrize("point", ["uploaded", "share intended", "shared"])
async def test_a_process_that_ends_while_sharing_a_file_shares_it_once(scene: Scene, point: str) -> None:
    async with scene.board(ends_at=point) as board:
        await board.show(CHANNEL, "run 480", message("run"))
        await board.attach(CHANNEL, "chart of 480", CHART, under="run 480")
        await scene.until(lambda: "upload" in scene.wall.calls)

    async with scene.board() as board:
        await scene.done(board)

    assert len([place for place in scene.wall.files.values() if place]) == 1


@pytest.mark.parametrize(
    "errors",
    [
        {"upload": [NotNow("Busy.", after=1)]},
        {"share": [NotNow("Busy.", after=1)]},
        {"share": [Refused("Slack answered file_not_found.")]},
        {"share": [Uncertain("Slack's answer was lost.")]},
    ],
)
async def test_a_file_that_could_not_be_shared_is_shared_later(scene: Scene, errors: dict[str, list[OutsideError]]) -> None:
    scene.wall.errors |= errors
    async with scene.board() as board:
        await board.show(CHANNEL, "run 480", message("run"))
        await board.attach(CHANNEL, "chart of 480", CHART, under="run 480")
        await scene.done(board)

    assert len([place for place in scene.wall.files.values() if place]) == 1


async def test_a_file_whose_answer_was_lost_is_looked_for(scene: Scene) -> None:
    scene.wall.lost["share"] = [Uncertain("Slack's answer was lost.")]
    async with scene.board() as board:
        await board.show(CHANNEL, "run 480", message("run"))
        await board.attach(CHANNEL, "chart of 480", CHART, under="run 480")
        await scene.done(board)

    assert [call for call in scene.wall.calls if call != "post"] == ["upload", "share", "shared"]


async def test_what_nobody_touched_for_half_a_year_is_forgotten(scene: Scene) -> None:
    async with scene.board() as board:
        await board.show(CHANNEL, "run 480", message("run"))
        await scene.done(board)
        scene.clock.forward(181 * 24 * 3600)
        await board.show(CHANNEL, "run 481", message("run"))
        await scene.done(board)

        await board.tidy()

        kept = [await board.where(CHANNEL, subject) is not None for subject in ("run 480", "run 481")]
    assert kept == [False, True]


def test_the_board_is_what_handlers_expect() -> None:
    board: type[Board] = SlackBoard

    assert board is SlackBoard


CARD = Card(1, CHANNEL, "run 480", Message("running"))


@pytest.mark.parametrize(
    ("card", "step"),
    [
        (replace(CARD, shown=1), None),
        (CARD, Step.POST),
        (replace(CARD, due=NOW + timedelta(seconds=5)), 5.0),
        (replace(CARD, under="run 479"), None),
        (replace(CARD, under="run 479", thread="1.0"), Step.POST),
        (replace(CARD, intent=NOW - timedelta(seconds=4)), 10.0),
        (replace(CARD, intent=NOW - timedelta(seconds=14)), Step.LOOK_UP),
        (replace(CARD, ts="1.0"), Step.UPDATE),
        (replace(CARD, ts="1.0", called=NOW - timedelta(seconds=1)), 2.0),
        (replace(CARD, ts="1.0", called=NOW - timedelta(seconds=3)), Step.UPDATE),
    ],
)
def test_the_next_step_of_a_card(card: Card, step: Step | float | None) -> None:
    assert next_step(card, NOW, PACE) == step


def test_a_message_that_replaces_another_links_it() -> None:
    link = "https://contoso.slack.com/archives/C0MLDELIV/p1"
    full = Message("running", [{"type": "divider"}] * 50)

    text, blocks = content(replace(CARD, message=message("running"), replaces=link))
    crowded, same = content(replace(CARD, message=full, replaces=link))

    assert (text, blocks[-1]["type"]) == ("running", "context")
    assert (crowded.splitlines()[-1], len(same)) == (f"This goes on from <{link}|an earlier message>.", 50)


def test_a_bucket_lets_a_few_through_at_once_and_then_one_a_second() -> None:
    bucket = Bucket(rate=1.0, size=2)

    waits = [bucket.wait(now) for now in (0.0, 0.0, 0.0, 0.5, 1.0)]

    assert waits == [0.0, 0.0, 1.0, 0.5, 0.0]


def test_a_bucket_that_is_held_lets_nothing_through_until_the_pause_is_over() -> None:
    bucket = Bucket(rate=1.0, size=2)
    bucket.hold(0.0, 10.0)

    waits = [bucket.wait(now) for now in (0.0, 10.0, 11.0)]

    assert waits == [11.0, 1.0, 0.0]


def test_attempts_become_ever_rarer() -> None:
    assert [backoff(attempts) for attempts in (0, 1, 2, 5, 9, 10, 400)] == [1.0, 2.0, 4.0, 32.0, 512.0, 600.0, 600.0]
