"""The board: one living message per channel and subject, shown in Slack at the pace Slack allows, posted once.

`show` keeps the wish (a row whose `wanted` is ahead of `shown`) and returns; a lane per card brings Slack to the newest wish. Slack has
no idempotency key, so a post is healed instead: its intent is kept first and its key travels in the message's metadata; after a lost answer
or a restart the key is looked for, after a grace in which a slow post may still arrive. All the rest are updates, which may be repeated.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Protocol

from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from bot.core.errors import Gone, NotNow, OutsideError, Refused, Uncertain
from bot.database import Database
from bot.lanes import Lanes
from bot.messages.kit import Block, Message
from bot.ports import File

log = logging.getLogger(__name__)

CARDS_AT_ONCE = 16
PATIENCE = 60  # refusals of one wish, ten minutes apart in the end, until the board gives up on it
MOST_BLOCKS = 50
LOOK_BACK = timedelta(minutes=1)  # before the intent: Slack's clock is not ours
KEEP_DAYS = 180


class BlocksRefused(Refused):
    """Slack did not take the blocks."""


class Unchangeable(Gone):
    """The message is there no longer, or may be edited no longer."""


class Wall(Protocol):
    """What the board needs of Slack. Each call is made once; raises the errors of `bot.core.errors` and the two above."""

    async def post(self, channel: str, text: str, blocks: Sequence[Block], *, key: str, thread: str | None) -> str:
        """Post a message that carries the key; gives its ts. Uncertain where it may have been posted."""
        ...

    async def update(self, channel: str, ts: str, text: str, blocks: Sequence[Block]) -> None:
        """Replace a message's content."""
        ...

    async def find(self, channel: str, key: str, *, since: datetime, thread: str | None) -> str | None:
        """The ts of the message that carries the key, if it was posted since then."""
        ...

    async def permalink(self, channel: str, ts: str) -> str:
        """The address of a message."""
        ...

    async def upload(self, name: str, content: bytes) -> str:
        """Give Slack a file that nobody sees yet; gives its id."""
        ...

    async def share(self, file: str, title: str, *, channel: str, thread: str) -> None:
        """Show an uploaded file in a thread. Uncertain where it may have been shown."""
        ...

    async def shared(self, file: str, *, channel: str, thread: str) -> bool:
        """Whether the thread shows the file."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast Slack may be asked. https://docs.slack.dev/apis/web-api/rate-limits"""

    between_updates: float = 3.0  # seconds, of one message
    grace: float = 14.0  # seconds in which a post may arrive late: the HTTP time-out and a margin
    posts: float = 1.0  # a second, of one channel
    posts_at_once: int = 4
    updates: float = 0.9  # a second, of the workspace
    updates_at_once: int = 20


@dataclass(slots=True)
class Bucket:
    """Tokens that come back at `rate` a second; in this process only, for Slack itself tells replicas apart no better than by 429."""

    rate: float
    size: int
    level: float = 0.0
    at: float | None = None

    def wait(self, now: float) -> float:
        """0.0 and a token taken, or the seconds until there is one."""
        self.level = self.size if self.at is None else min(self.size, self.level + (now - self.at) * self.rate)
        self.at = max(now, self.at or now)
        if self.level >= 1:
            self.level -= 1
            return 0.0
        return (1 - self.level) / self.rate

    def hold(self, now: float, seconds: float) -> None:
        """Slack has asked for a pause."""
        self.level = -seconds * self.rate
        self.at = now


class Step(Enum):
    """What brings a card nearer to its wish."""

    LOOK_UP = auto()
    POST = auto()
    UPDATE = auto()


@dataclass(frozen=True, slots=True)
class Card:
    """What the board knows about one message. `thread` is the ts of the message it stands under."""

    id: int
    channel: str
    subject: str
    message: Message
    wanted: int = 1
    shown: int = 0
    ts: str | None = None
    under: str | None = None
    thread: str | None = None
    intent: datetime | None = None
    generation: int = 0
    replaces: str = ""
    plain: bool = False
    called: datetime | None = None
    due: datetime | None = None
    attempts: int = 0

    @property
    def key(self) -> str:
        """What the posted message is found by."""
        return f"{self.channel}/{self.subject}/{self.generation}"


def next_step(card: Card, now: datetime, pace: Pace) -> Step | float | None:
    """What to do for a card now: a step, seconds to wait, or nothing."""
    if card.shown >= card.wanted:
        return None
    if card.due is not None and card.due > now:
        return (card.due - now).total_seconds()
    if card.ts is not None:
        rest = timedelta(seconds=pace.between_updates) - (now - card.called) if card.called else timedelta()
        return rest.total_seconds() if rest > timedelta() else Step.UPDATE
    if card.under is not None and card.thread is None:
        return None  # the parent's post pokes it
    if card.intent is not None:
        rest = card.intent + timedelta(seconds=pace.grace) - now
        return rest.total_seconds() if rest > timedelta() else Step.LOOK_UP
    return Step.POST


def content(card: Card) -> tuple[str, Sequence[Block]]:
    """The text and blocks to show: plain ones where Slack refused the others, with a link to the message this one replaces."""
    text, blocks = card.message.text, card.message.plain if card.plain else card.message.blocks
    if not card.replaces:
        return text, blocks
    note = f"This goes on from <{card.replaces}|an earlier message>."
    if not blocks or len(blocks) >= MOST_BLOCKS:
        return f"{text}\n{note}", blocks
    return text, (*blocks, {"type": "context", "elements": [{"type": "mrkdwn", "text": note}]})


def backoff(attempts: int) -> float:
    """Seconds until the next attempt: 2, 4, 8, ... and at most ten minutes."""
    return float(min(2 ** min(attempts, 10), 600))


@dataclass(frozen=True, slots=True)
class _Attachment:
    id: int
    channel: str
    title: str
    name: str
    content: bytes
    file: str | None
    intent: datetime | None
    thread: str | None
    due: datetime
    attempts: int


def _silent(point: str) -> None:
    """Nothing happens between two steps, except in tests."""


@dataclass
class _Pacing:
    pace: Pace
    posts: dict[str, Bucket] = field(default_factory=dict)
    updates: Bucket = field(init=False)

    def __post_init__(self) -> None:
        self.updates = Bucket(self.pace.updates, self.pace.updates_at_once)

    def of(self, channel: str) -> Bucket:
        """The posts of one channel."""
        return self.posts.setdefault(channel, Bucket(self.pace.posts, self.pace.posts_at_once))


class SlackBoard:
    """`bot.ports.Board` on PostgreSQL and Slack. `at` is told between steps, so that a test can end the world there."""

    def __init__(
        self, database: Database, wall: Wall, now: Callable[[], datetime], *, pace: Pace | None = None, at: Callable[[str], None] = _silent
    ) -> None:
        self._pool = database.pool
        self._wall = wall
        self._now = now
        self._pace = pace or Pace()
        self._pacing = _Pacing(self._pace)
        self._at = at
        self._cards = Lanes("card", database.locks, self._flush, at_once=CARDS_AT_ONCE)
        self._files = Lanes("file", database.locks, self._flush_file, at_once=CARDS_AT_ONCE)

    # What handlers ask for

    async def reading(self) -> int:
        """The next number of the database's own count: replicas share it, and no clock can turn it back."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute("select nextval('reading')")).fetchone()
        return int(row[0]) if row else 0

    async def show(self, channel: str, subject: str, message: Message, *, under: str | None = None, reading: int = 0) -> None:
        """Keep the wish that the channel shows this message for the subject; the newest wins, an unchanged one costs no call."""
        now = self._now()
        wish = {"text": message.text, "blocks": list(message.blocks), "plain": list(message.plain)}
        async with self._pool.connection() as connection:
            asked = await connection.execute(
                """
                with parent as (
                    select 1 where %(under)s::text is null
                        or exists (select from card where channel = %(channel)s and subject = %(under)s)
                ), kept as (
                    insert into card (channel, subject, under, message, reading, due, touched)
                    select %(channel)s, %(subject)s, %(under)s, %(message)s, %(reading)s, %(now)s, %(now)s from parent
                    on conflict (channel, subject) do update
                    set message = excluded.message, wanted = card.wanted + 1, due = excluded.due, touched = excluded.touched, attempts = 0,
                        reading = excluded.reading
                    where card.message <> excluded.message and card.reading <= excluded.reading
                    returning id
                )
                select (select count(*) from parent), (select id from kept)
                """,
                {"channel": channel, "subject": subject, "under": under, "message": Jsonb(wish), "now": now, "reading": reading},
            )
            row = await asked.fetchone()
            if reading and row and row[1] is None:  # unchanged, and so now: what was read before this may not come after it
                await connection.execute(
                    "update card set reading = %s where channel = %s and subject = %s and reading < %s",
                    (reading, channel, subject, reading),
                )
        parents, kept = row or (0, None)
        if not parents:
            raise LookupError(f"{under!r} has not been shown in {channel}.")
        if kept is not None:
            self._at("wish kept")
            self._cards.poke(str(kept))

    async def attach(self, channel: str, subject: str, file: File, *, under: str) -> None:
        """Keep the wish that the thread of `under` has this file, once per subject."""
        async with self._pool.connection() as connection:
            known = await connection.execute("select 1 from card where channel = %s and subject = %s", (channel, under))
            if await known.fetchone() is None:
                raise LookupError(f"{under!r} has not been shown in {channel}.")
            asked = await connection.execute(
                """
                insert into attachment (channel, subject, under, name, title, content, due) values (%s, %s, %s, %s, %s, %s, %s)
                on conflict (channel, subject) do nothing returning id
                """,
                (channel, subject, under, file.name, file.title, file.content, self._now()),
            )
            row = await asked.fetchone()
        if row is not None:
            self._files.poke(str(row[0]))

    async def where(self, channel: str, subject: str) -> str | None:
        """The ts of the message for the subject, once it has been posted."""
        async with self._pool.connection() as connection:
            asked = await connection.execute("select ts from card where channel = %s and subject = %s", (channel, subject))
            row = await asked.fetchone()
        return row[0] if row else None

    # Life

    async def start(self) -> None:
        """Begin to call Slack, with whatever waits."""
        self._cards.open()
        self._files.open()
        await self.sweep()

    async def stop(self, seconds: float = 10) -> None:
        """Let calls that are under way end; the rest is found again."""
        await self._cards.close(seconds)
        await self._files.close(seconds)

    async def sweep(self) -> None:
        """Poke whatever Slack does not show yet; the only thing looked at is what is wanted and what is shown."""
        now = self._now()
        async with self._pool.connection() as connection:
            behind = await connection.execute("select id from card where shown < wanted and due <= %s order by id", (now,))
            cards = [row[0] for row in await behind.fetchall()]
            behind = await connection.execute("select id from attachment where not shown and due <= %s order by id", (now,))
            files = [row[0] for row in await behind.fetchall()]
        for card in cards:
            self._cards.poke(str(card))
        for file in files:
            self._files.poke(str(file))

    async def tidy(self) -> None:
        """Forget messages nobody has touched for half a year."""
        async with self._pool.connection() as connection:
            old = self._now() - timedelta(days=KEEP_DAYS)
            await connection.execute(
                "delete from attachment a using card c where c.channel = a.channel and c.subject = a.under and c.touched < %s", (old,)
            )
            await connection.execute("delete from card where touched < %s", (old,))

    # Cards

    async def _flush(self, name: str) -> float | None:
        """The next step of one card; only one replica at a time is here for it."""
        card = await self._card(int(name))
        if card is None:
            return None
        match next_step(card, self._now(), self._pace):
            case Step.LOOK_UP:
                return await self._look_up(card)
            case Step.POST:
                return await self._post(card)
            case Step.UPDATE:
                return await self._update(card)
            case wait:
                return wait

    async def _post(self, card: Card) -> float:
        bucket = self._pacing.of(card.channel)
        if wait := bucket.wait(self._now().timestamp()):
            return wait
        await self._change(card, "intent = %s", self._now())
        self._at("intent kept")
        text, blocks = content(card)
        try:
            ts = await self._wall.post(card.channel, text, blocks, key=card.key, thread=card.thread)
        except Uncertain as error:
            log.warning("Card %s may have been posted: %s", card.subject, error)
            return self._pace.grace
        except BlocksRefused as error:
            await self._change(card, "intent = null")
            return await self._degrade(card, error)
        except OutsideError as error:
            await self._change(card, "intent = null")
            return await self._put_off(card, error, bucket)
        self._at("posted")
        await self._posted(card, ts, shown=card.wanted)
        return 0.0

    async def _look_up(self, card: Card) -> float:
        since = (card.intent or self._now()) - LOOK_BACK
        try:
            ts = await self._wall.find(card.channel, card.key, since=since, thread=card.thread)
        except NotNow as error:
            return await self._put_off(card, error, None)
        except OutsideError as error:
            log.error("Card %s cannot be looked up and may appear twice: %s", card.subject, error)  # noqa: TRY400 the sentence says it all
            ts = None
        if ts is None:
            await self._change(card, "intent = null")
            return 0.0
        log.info("Card %s had been posted before and is adopted", card.subject)
        await self._posted(card, ts, shown=card.shown)
        return 0.0

    async def _posted(self, card: Card, ts: str, *, shown: int) -> None:
        await self._change(card, "ts = %s, shown = %s, called = %s, intent = null, attempts = 0, problem = null", ts, shown, self._now())
        self._at("ts kept")
        async with self._pool.connection() as connection:
            place = (card.channel, card.subject)
            asked = await connection.execute("select id from card where channel = %s and under = %s and ts is null", place)
            cards = await asked.fetchall()
            asked = await connection.execute("select id from attachment where channel = %s and under = %s and not shown", place)
            files = await asked.fetchall()
        for (child,) in cards:
            self._cards.poke(str(child))
        for (file,) in files:
            self._files.poke(str(file))

    async def _update(self, card: Card) -> float:
        if card.ts is None:
            return 0.0
        bucket = self._pacing.updates
        if wait := bucket.wait(self._now().timestamp()):
            return wait
        text, blocks = content(card)
        try:
            await self._wall.update(card.channel, card.ts, text, blocks)
        except Unchangeable as error:
            log.info("Card %s is posted anew: %s", card.subject, error)
            link = await self._link(card.channel, card.ts)
            await self._change(card, "ts = null, intent = null, replaces = %s, generation = generation + 1", link)
            return 0.0
        except BlocksRefused as error:
            return await self._degrade(card, error)
        except OutsideError as error:
            return await self._put_off(card, error, bucket)
        self._at("updated")
        await self._change(card, "shown = %s, called = %s, attempts = 0, problem = null", card.wanted, self._now())
        return 0.0

    async def _link(self, channel: str, ts: str) -> str:
        try:
            return await self._wall.permalink(channel, ts)
        except OutsideError:
            return ""  # the message is gone

    async def _degrade(self, card: Card, error: OutsideError) -> float:
        """Show the plain form from now on; without one, the text alone."""
        if card.plain and card.message.plain:
            await self._change(card, "message = message || '{\"plain\": []}'")
        elif card.plain or not card.message.blocks:
            return await self._put_off(card, error, None)
        else:
            await self._change(card, "plain = true")
        log.warning("Card %s is shown in its plain form: %s", card.subject, error)
        return 0.0

    async def _put_off(self, card: Card, error: OutsideError, bucket: Bucket | None) -> float:
        """Try again later: when Slack says so, or ever more rarely where it refuses."""
        now = self._now()
        wait = backoff(card.attempts + 1)
        if isinstance(error, NotNow) and error.after is not None:
            wait = error.after
            if bucket is not None:
                bucket.hold(now.timestamp(), wait)
        refused = isinstance(error, (Refused, Gone))
        if refused and card.attempts + 1 >= PATIENCE:
            log.error("Card %s is given up: %s", card.subject, error)
            await self._change(card, "due = 'infinity', problem = %s", str(error))
            return 0.0
        log.log(logging.WARNING if refused else logging.INFO, "Card %s waits %.0f s: %s", card.subject, wait, error)
        attempts = card.attempts + 1
        await self._change(card, "due = %s, attempts = %s, problem = %s", now + timedelta(seconds=wait), attempts, str(error))
        return wait

    async def _card(self, id: int) -> Card | None:
        async with self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                """
                select c.id, c.channel, c.subject, c.message, c.wanted, c.shown, c.ts, c.under, p.ts as thread, c.intent, c.generation,
                    c.replaces, c.plain, c.called, nullif(c.due, 'infinity') as due, c.due = 'infinity' as given_up, c.attempts
                from card c left join card p on p.channel = c.channel and p.subject = c.under where c.id = %s
                """,
                (id,),
            )
            row = await cursor.fetchone()
        return _card(row) if row and not row["given_up"] else None

    async def _change(self, card: Card, assignments: str, *values: object) -> None:
        async with self._pool.connection() as connection:
            # The assignments are written in this module, never by anybody outside.
            await connection.execute(f"update card set {assignments} where id = %s".encode(), (*values, card.id))  # noqa: S608

    # Attachments

    async def _flush_file(self, name: str) -> float | None:
        """The next step of one attachment: upload, share, or look whether it has been shared."""
        attachment = await self._attachment(int(name))
        now = self._now()
        if attachment is None or attachment.thread is None:
            return None
        if attachment.due > now:
            return (attachment.due - now).total_seconds()
        try:
            return await self._advance(attachment, attachment.thread, now)
        except OutsideError as error:
            return await self._put_off_file(attachment, error)

    async def _advance(self, attachment: _Attachment, thread: str, now: datetime) -> float | None:
        if attachment.file is None:
            file = await self._wall.upload(attachment.name, attachment.content)
            self._at("uploaded")
            await self._change_file(attachment, "file = %s, intent = null", file)
            return 0.0
        if attachment.intent is not None:
            rest = (attachment.intent + timedelta(seconds=self._pace.grace) - now).total_seconds()
            if rest > 0:
                return rest
            if await self._wall.shared(attachment.file, channel=attachment.channel, thread=thread):
                await self._change_file(attachment, "shown = true, content = null")
                return None
        if wait := self._pacing.of(attachment.channel).wait(now.timestamp()):
            return wait
        await self._change_file(attachment, "intent = %s", now)
        self._at("share intended")
        try:
            await self._wall.share(attachment.file, attachment.title, channel=attachment.channel, thread=thread)
        except NotNow:
            await self._change_file(attachment, "intent = null")
            raise
        except (Refused, Gone):
            await self._change_file(attachment, "intent = null, file = null")  # from the beginning: Slack knows this file no longer
            raise
        self._at("shared")
        await self._change_file(attachment, "shown = true, content = null, problem = null")
        return None

    async def _put_off_file(self, attachment: _Attachment, error: OutsideError) -> float | None:
        attempts = attachment.attempts + 1
        wait = error.after if isinstance(error, NotNow) and error.after is not None else backoff(attempts)
        log.warning("Attachment %s waits %.0f s: %s", attachment.name, wait, error)
        if attempts >= PATIENCE:
            await self._change_file(attachment, "due = 'infinity', problem = %s", str(error))
            return None
        due = self._now() + timedelta(seconds=wait)
        await self._change_file(attachment, "due = %s, attempts = %s, problem = %s", due, attempts, str(error))
        return wait

    async def _attachment(self, id: int) -> _Attachment | None:
        async with self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                """
                select a.id, a.channel, a.title, a.name, a.content, a.file, a.intent, p.ts as thread, a.due, a.attempts
                from attachment a join card p on p.channel = a.channel and p.subject = a.under
                where a.id = %s and not a.shown and a.due <> 'infinity'
                """,
                (id,),
            )
            row = await cursor.fetchone()
        return _Attachment(**row) if row else None

    async def _change_file(self, attachment: _Attachment, assignments: str, *values: object) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(f"update attachment set {assignments} where id = %s".encode(), (*values, attachment.id))  # noqa: S608


def _card(row: DictRow) -> Card:
    fields = {name: value for name, value in row.items() if name not in {"message", "given_up"}}
    return replace(Card(row["id"], row["channel"], row["subject"], Message(**row["message"])), **fields)
