"""Whatever the outside world may put into a text, and whether it got into Slack unescaped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from bot.messages.kit import Home, Message, Modal

EVIL = (
    "<!channel>",
    "<@U0EVIL001>",
    "<https://evil.example|click>",
    "<!subteam^S0EVIL00>",
    "&amp;",
    "`",
    "*bold*",
    "\u202e",
    "\x00",
    "\ud800",
    "\n",
)
hostile = st.one_of(
    st.sampled_from(EVIL),
    st.text(max_size=30),
    st.builds(lambda word, times: word * times, st.sampled_from([*EVIL, "x", "lorem ", "&", "<"]), st.integers(0, 900)),
)
hostile_url = st.one_of(
    st.sampled_from(
        [
            "",
            "javascript:alert(1)",
            "https://a.example/x|y",
            "https://a.example/>x",
            "https://dev.azure.com/contoso/x?a=1&b=2",
            "ftp://a.example",
            "https://" + "a" * 4000,
        ]
    ),
    st.text(max_size=20),
)


def markup(thing: Message | Modal | Home) -> Iterator[str]:
    """Every text of a message that Slack reads as markup."""
    if isinstance(thing, Message):
        yield thing.text
        yield from _inside(list(thing.plain))
    yield from _inside(list(thing.blocks))


def _inside(part: Any) -> Iterator[str]:
    match part:
        case {"type": "mrkdwn", "text": str(text)}:
            yield text
        case dict():
            for value in part.values():
                yield from _inside(value)
        case list() | tuple():
            for value in part:
                yield from _inside(value)
        case _:
            return


def unescaped(thing: Message | Modal | Home) -> list[str]:
    """Markup of the outside world that would have an effect."""
    return [text for text in markup(thing) for evil in EVIL[:4] if evil[:-1] in text or evil[:10] in text]
