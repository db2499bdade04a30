"""The audit trail as people read it: who did what, about what, when, and whether they were allowed to."""

from __future__ import annotations

from collections.abc import Sequence

from bot.core.audit import About, Recorded, Scope
from bot.messages.kit import Message, actions, button, channel_link, code, context, escape, mention, section, short, when
from bot.messages.limits import fit

LINES = 20


def audit_list(about: About, lines: Sequence[Recorded], *, handed: int = 0) -> Message:
    """The newest lines, and a button that gives all of them as CSV; `handed` is how many it has given."""
    if not lines:
        return fit(Message(f"The audit trail has nothing about {_named(about)}."))
    shown = lines[:LINES]
    title = f"Audit trail of {_named(about)}"
    given = f"📄 A CSV of {handed:,} line{'' if handed == 1 else 's'} is in your direct messages with Callboard." if handed else ""
    cut = f"The newest {LINES} are shown; the CSV has the rest, too." if len(lines) > LINES else ""
    return fit(
        Message(
            f"{title}; the newest: {_line(shown[0])}",
            blocks=[
                section(f"*{title}*"),
                *(section(_line(line)) for line in shown),
                context(given, cut, "Only you see this."),
                actions("audit", button("audit_csv", "CSV", str(about))),
            ],
        )
    )


def _named(about: About) -> str:
    match about.scope:
        case Scope.PERSON:
            return mention(about.name)
        case Scope.CHANNEL:
            return f"the models of {channel_link(about.name)}"
        case _:
            return f"{about.scope.value} {code(short(about.name, 60))}"


def _line(line: Recorded) -> str:
    who = mention(line.person) if line.person else "Callboard"
    account = f" ({escape(short(line.username, 60))})" if line.username else ""
    what = f"{escape(short(line.action, 60))} {code(short(line.subject, 100))}"
    model = f" of {escape(short(line.model, 40))}" if line.model else ""
    state = "allowed" if line.allowed else f"refused: {escape(short(line.reason, 200))}"
    why = f" · “{escape(short(line.why, 200))}”" if line.why else ""
    return f"{'✅' if line.allowed else '🔒'} {when(line.at)} · {who}{account} · {what}{model} · {state}{why}"
