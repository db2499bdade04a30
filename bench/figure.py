"""A measured figure beside its floor, and the table of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Goal:
    """What we aim at; missing it fails nothing."""

    of: Literal["ratio", "value"]
    limit: float
    at_least: bool = False

    def met(self, figure: Figure) -> bool:
        """Whether the figure is there."""
        reached = figure.value if self.of == "value" else figure.ratio
        assert reached is not None, f"{figure.name} has no floor to be compared with"
        return reached >= self.limit if self.at_least else reached <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}{'×' if self.of == 'ratio' else ''}"


@dataclass(slots=True)
class Figure:
    """One figure: what each round measured of us and, at about the same time, of the floor. Both in `unit`."""

    name: str
    unit: str
    goal: Goal | None = None
    rounds: list[float] = field(default_factory=list)
    floors: list[float] = field(default_factory=list)

    @property
    def value(self) -> float:
        """The median round."""
        return median(self.rounds)

    @property
    def floor(self) -> float | None:
        """The median round of the floor."""
        return median(self.floors) if self.floors else None

    @property
    def ratio(self) -> float | None:
        """How many times its floor the figure is."""
        return self.value / self.floor if self.floor else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met, where there is one."""
        return self.goal.met(self) if self.goal else None

    def document(self) -> dict[str, Any]:
        """The figure as JSON."""
        return {
            "name": self.name,
            "unit": self.unit,
            "value": self.value,
            "floor": self.floor,
            "ratio": self.ratio,
            "goal": str(self.goal) if self.goal else None,
            "met": self.met,
            "rounds": self.rounds,
            "floors": self.floors,
        }


def table(figures: Iterable[Figure]) -> str:
    """A table that reads well in a terminal and in Markdown: medians, and from the lowest to the highest round."""
    rows = [("figure", "value", "floor", "ratio", "goal", "met"), *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _row(figure: Figure) -> tuple[str, ...]:
    return (
        f"{figure.name}, {figure.unit}",
        _spread(figure.rounds),
        _spread(figure.floors),
        f"{figure.ratio:.2f}×" if figure.ratio else "",
        str(figure.goal or ""),
        {True: "yes", False: "no", None: ""}[figure.met],
    )


def _spread(rounds: Sequence[float]) -> str:
    if not rounds:
        return ""
    return f"{_number(median(rounds))} ({_number(min(rounds))}–{_number(max(rounds))})"


def _number(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
