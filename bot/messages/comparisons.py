"""The comparison of champion and candidates, and what a deployed endpoint answered."""

from __future__ import annotations

from typing import Any, TypeVar

from bot.core.models import (
    Change,
    Comparison,
    Contender,
    Metric,
    Row,
    SmokeTest,
    Turn,
    Verdict,
    best,
    ranked,
    rows,
    shown,
    signed,
)
from bot.core.redaction import redact
from bot.core.runs import Run, called
from bot.messages.kit import Block, Message, code, context, escape, header, inline, link, place, preformatted, rich, section, short
from bot.messages.limits import fit

T = TypeVar("T")

MOST = 16  # candidates in a table of at most 20 columns
MARKS = {Turn.BETTER: ("white_check_mark", "✅"), Turn.WORSE: ("small_red_triangle_down", "🔻"), Turn.SAME: ("heavy_minus_sign", "➖")}
VERDICTS = {Verdict.PASS: ("✅", "PASS"), Verdict.KEPT: ("🏆", "KEPT"), Verdict.FAIL: ("❌", "FAIL")}
OUTCOME = {
    Verdict.PASS: "the challenger goes on to QA",
    Verdict.KEPT: "the champion stays; nothing is registered and nobody is asked",
    Verdict.FAIL: "no candidate is fit; the run stops here",
}


def comparison_card(comparison: Comparison, run: Run) -> Message:
    """The verdict and the rule that decided, then a row for each metric."""
    mark, word = VERDICTS[comparison.verdict]
    candidates = ranked(comparison)
    top = [
        header(f"{mark} {word}: {comparison.model}, {called(run)}"),
        section(f"*{escape(short(comparison.rule, 600))}*\n{_sentence(comparison)}"),
    ]
    end = [context(*_small_print(comparison, candidates))]
    table = rows(comparison, candidates[:MOST])
    text = f"{mark} {word}: {escape(short(comparison.model, 100))}. {escape(short(comparison.rule, 600))} {_in_words(table)}".rstrip()
    if comparison.champion is None and not candidates:
        return fit(Message(text, blocks=[*top, *end]))
    return fit(
        Message(
            text,
            blocks=[*top, _table(comparison, candidates[:MOST], table), *end],
            plain=[*top, preformatted(_aligned(comparison, candidates[:MOST], table)), *end],
        )
    )


def unreadable_card(sentence: str, run: Run) -> Message:
    """The evaluation is there and cannot be read: people decide by the run itself."""
    text = f"⚠️ The evaluation of {escape(called(run))} cannot be shown. {escape(sentence)}"
    return fit(Message(text, blocks=[section(text), context(link(run.url, f"{called(run, first=True)} in Azure DevOps"))]))


def smoke_card(model: str, smoke: SmokeTest, run: Run) -> Message:
    """What the endpoint of an environment answered after it was deployed."""
    verdict = "answers as the model does" if smoke.passed else "failed its smoke test"
    text = f"{'✅' if smoke.passed else '❌'} {escape(place(short(smoke.environment, 60)))} ({escape(short(model, 100))}) {verdict}."
    detail = escape(short(redact(smoke.detail), 500)) or smoke_words(smoke)
    return fit(
        Message(
            text,
            blocks=[
                section(f"*{text}*\n{detail}"),
                context(
                    link(smoke.endpoint, f"Endpoint on {smoke.target.upper()}"),
                    f"Image {code(smoke.digest[:19])}" if smoke.digest else "",
                    link(run.url, f"{called(run, first=True)} in Azure DevOps"),
                ),
            ],
        )
    )


def smoke_words(smoke: SmokeTest) -> str:
    """The smoke test in a few words."""
    return f"{smoke.checked} predictions checked, {smoke.latency_ms:.0f} ms each" if smoke.passed else "Not passed"


def changes(comparison: Comparison) -> list[str]:
    """A line for each metric in mrkdwn: what the champion has, what the best candidate has, and which way that is."""
    candidate = best(comparison)
    return [] if candidate is None else [_line(row) for row in rows(comparison, (candidate,))]


def metric_lines(metrics: tuple[Metric, ...], contender: Contender, champion: Contender | None) -> list[str]:
    """The same for a single model against the champion."""
    versus = Comparison("", Verdict.PASS, "", metrics, "", champion, (contender,), None)
    return [_line(row) for row in rows(versus, (contender,))]


def _line(row: Row) -> str:
    label, value = escape(short(row.metric.label, 60)), escape(shown(row.metric, row.candidates[0]))
    if row.change is None:
        return f"{label}: {value}"
    before = escape(shown(row.metric, row.champion))
    return f"{MARKS[row.change.turn][1]} {label}: {before} → {value} ({signed(row.metric, row.change)}, {row.change.turn.value})"


def _sentence(comparison: Comparison) -> str:
    winner = f"Winner: {code(short(comparison.winner, 60))}; " if comparison.winner else ""
    outcome = OUTCOME[comparison.verdict]
    return f"{winner}{outcome}." if winner else f"{outcome[:1].upper()}{outcome[1:]}."


def _in_words(table: tuple[Row, ...]) -> str:
    """The changes for the fallback text, each with its direction."""
    said = [
        f"{escape(short(row.metric.label, 60))} {escape(shown(row.metric, row.champion))} → "
        f"{escape(shown(row.metric, row.candidates[0]))} ({row.change.turn.value})"
        for row in table
        if row.change is not None
    ]
    return f"{'; '.join(said)}." if said else ""


def _small_print(comparison: Comparison, candidates: tuple[Contender, ...]) -> list[str]:
    more = len(candidates) - MOST
    return [
        f"Scored on {comparison.rows} rows nobody trained on" if comparison.rows else "",
        f"{more} more candidates are in the run's evaluation" if more > 0 else "",
    ]


def _table(comparison: Comparison, candidates: tuple[Contender, ...], table: tuple[Row, ...]) -> Block:
    """The native table: metric, champion, the best candidate and its change against the champion, then the other candidates."""
    titles = _titles(comparison, candidates)
    width = len(titles)
    lines: list[list[Block]] = [[_text(title) for title in titles]]
    for row in table:
        cells: list[Block] = [_text(row.metric.label)]
        if comparison.champion is not None:
            cells.append(_number(row.metric, row.champion, bold=comparison.verdict is Verdict.KEPT))
        values = [
            _number(row.metric, value, bold=candidate.name == comparison.winner)
            for candidate, value in zip(candidates, row.candidates, strict=True)
        ]
        lines.append([*cells, *_with_change(comparison, values, _change(row.metric, row.change))])
    return {"type": "table", "column_settings": [{"is_wrapped": True}, *({"align": "right"} for _ in range(width - 1))], "rows": lines}


def _titles(comparison: Comparison, candidates: tuple[Contender, ...]) -> list[str]:
    champion = comparison.champion
    titles = ["Metric"]
    if champion is not None:
        titles.append(short(f"Champion v{champion.version}" if champion.version else "Champion", 40))
    names = [f"{'✅ ' if candidate.name == comparison.winner else ''}{short(candidate.name, 40) or '–'}" for candidate in candidates]
    return [*titles, *_with_change(comparison, names, "Change")]


def _with_change(comparison: Comparison, candidates: list[T], change: T) -> list[T]:
    """The candidates' cells with the change beside the best one, where no narrow screen cuts it off; without a champion there is none."""
    return [*candidates[:1], change, *candidates[1:]] if comparison.champion is not None and candidates else candidates


def _text(text: str) -> Block:
    return {"type": "raw_text", "text": short(text, 80) or "–"}


def _number(metric: Metric, value: float | None, *, bold: bool) -> Block:
    if value is None:
        return _text(shown(metric, value))
    if bold:
        return rich(inline(shown(metric, value), bold=True))
    return {"type": "raw_number", "value": value, "text": shown(metric, value)}


def _change(metric: Metric, change: Change | None) -> Block:
    if change is None:
        return _text("–")
    emoji: dict[str, Any] = {"type": "emoji", "name": MARKS[change.turn][0]}
    return rich(emoji, inline(f" {signed(metric, change)}"))


def _aligned(comparison: Comparison, candidates: tuple[Contender, ...], table: tuple[Row, ...]) -> list[str]:
    """The table in a fixed width, for where Slack refuses the native one."""
    lines = [_titles(comparison, candidates)]
    for row in table:
        cells = [short(row.metric.label, 40)]
        if comparison.champion is not None:
            cells.append(shown(row.metric, row.champion))
        change = f"{signed(row.metric, row.change)} {row.change.turn.value}" if row.change else "–"
        lines.append([*cells, *_with_change(comparison, [shown(row.metric, value) for value in row.candidates], change)])
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    ]
