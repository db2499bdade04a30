"""From what happened to the feature's function: the only thing between the edge and `handlers`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bot.core.events import Event
from bot.core.team import Team
from bot.messages.kit import Home, Reply
from bot.ports import Bot


@dataclass(frozen=True, slots=True)
class Click:
    """A button pressed by a person; `value` is what we put on it and proves nothing. `id` is the same however often Slack delivers it."""

    id: str
    person: str
    channel: str
    action: str
    value: str
    ts: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A slash command: `words` are what follows its name, split at white space."""

    id: str
    person: str
    channel: str
    command: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Submission:
    """A modal sent off: `values` by block_id, `state` as it was put into the modal."""

    id: str
    person: str
    channel: str
    callback: str
    values: Mapping[str, str]
    state: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody looks at the app's own page, or has just done something there."""

    id: str
    person: str


class Usage(Exception):
    """The words of a command do not fit it; the message says what is wrong, the edge adds the usage line."""


OnEvent = Callable[[Bot, Event], Awaitable[None]]
OnClick = Callable[[Bot, Click], Awaitable[Reply]]
OnRequest = Callable[[Bot, Request], Awaitable[Reply]]
OnSubmission = Callable[[Bot, Submission], Awaitable[Reply]]
OnHome = Callable[[Bot, Visit], Awaitable[Home]]
OnTick = Callable[[Bot], Awaitable[None]]
Check = Callable[[Team, Submission], Mapping[str, str]]

H = TypeVar("H", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Command:
    """A slash command: its words in `usage`, what it does in the function's docstring."""

    name: str
    usage: str
    run: OnRequest
    opens: Callable[[Request], str | None]

    @property
    def help(self) -> str:
        """The first line of the function's docstring."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Button:
    """A button: where `opens` is set, a modal of that title opens at once and the function's Modal fills it."""

    action: str
    run: OnClick
    opens: str | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """A modal's submission: `check` is pure and answers at once with errors by block_id."""

    callback: str
    run: OnSubmission
    check: Check


@dataclass(frozen=True, slots=True)
class Timer:
    """A function that runs again and again, on one replica at a time; `cron` as procrastinate's periodic tasks take it."""

    name: str
    cron: str
    run: OnTick


def _never(_: Request) -> str | None:
    return None


def _fine(_: Team, __: Submission) -> Mapping[str, str]:
    return {}


@dataclass
class Router:
    """A feature's table of what it answers to; routers of features add up to the bot's."""

    events: dict[type[Any], OnEvent] = field(default_factory=dict)
    commands: dict[str, Command] = field(default_factory=dict)
    buttons: dict[str, Button] = field(default_factory=dict)
    forms: dict[str, Form] = field(default_factory=dict)
    timers: dict[str, Timer] = field(default_factory=dict)
    at_home: OnHome | None = None

    def on(self, *kinds: type[Any]) -> Callable[[H], H]:
        """The function takes events of these kinds; many of one run may be given as one, the newest."""

        def register(function: H) -> H:
            for kind in kinds:
                self._add(self.events, kind, function)
            return function

        return register

    def command(self, name: str, usage: str = "", opens: Callable[[Request], str | None] = _never) -> Callable[[H], H]:
        """The function answers `/name` and `/<prefix> name`; `opens` gives the title of a modal to open at once, or None."""

        def register(function: H) -> H:
            self._add(self.commands, name, Command(name, usage, function, opens))
            return function

        return register

    def click(self, action: str, opens: str | None = None) -> Callable[[H], H]:
        """The function answers a button with this action_id."""

        def register(function: H) -> H:
            self._add(self.buttons, action, Button(action, function, opens))
            return function

        return register

    def submit(self, callback: str, check: Check = _fine) -> Callable[[H], H]:
        """The function takes a modal with this callback."""

        def register(function: H) -> H:
            self._add(self.forms, callback, Form(callback, function, check))
            return function

        return register

    def every(self, cron: str) -> Callable[[H], H]:
        """The function runs on this schedule (five or, with seconds, six fields)."""

        def register(function: H) -> H:
            name = f"{function.__module__}.{function.__name__}"
            self._add(self.timers, name, Timer(name, cron, function))
            return function

        return register

    def home(self, function: H) -> H:
        """The function makes the app's own page for whoever looks at it; there is one."""
        if self.at_home is not None:
            raise ValueError("The app's own page is taken twice.")
        self.at_home = function
        return function

    def include(self, *routers: Router) -> Router:
        """Take over everything the others answer to."""
        for router in routers:
            for mine, theirs in (
                (self.events, router.events),
                (self.commands, router.commands),
                (self.buttons, router.buttons),
                (self.forms, router.forms),
                (self.timers, router.timers),
            ):
                for key, value in theirs.items():
                    self._add(mine, key, value)
            if router.at_home is not None:
                self.home(router.at_home)
        return self

    @staticmethod
    def _add(table: dict[Any, Any], key: Any, value: Any) -> None:
        if key in table:
            raise ValueError(f"{key!r} is taken twice.")
        table[key] = value
