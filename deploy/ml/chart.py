"""The picture of an evaluation: one panel per metric, one bar per contender, the champion and the winner marked."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from deploy.ml.config import Metric, Model
from deploy.ml.gate import Contender

INK, FAINT, GRID = "#1d2433", "#697386", "#e6e9ef"
CHAMPION, WINNER, OTHER = "#8a6fd1", "#1f9d6b", "#b8c0cc"
DPI = 160


def draw(model: Model, champion: Contender | None, candidates: Sequence[Contender], winner: str | None) -> bytes:
    """A PNG, about 1400 pixels wide, best contender on top."""
    import matplotlib  # noqa: PLC0415

    matplotlib.use("Agg")
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415

    decides = next(metric for metric in model.metrics if metric.name == model.gate.decides)
    contenders = order(decides, ([champion] if champion else []) + list(candidates))
    figure = Figure(
        figsize=(9, 1.5 + 0.5 * len(contenders)), dpi=DPI, facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12)
    )
    figure.suptitle(f"{model.name}: contenders on the hold-out rows", x=0.012, ha="left", fontsize=13, fontweight="bold", color=INK)
    panels = figure.subplots(1, len(model.metrics), sharey=True, squeeze=False)[0]
    for panel, metric in zip(panels, model.metrics, strict=True):
        _panel(panel, metric, contenders, champion, winner, limit=model.gate.limits.get(metric.name), decides=metric is decides)
    labels = [_label(one, champion, winner) for one in contenders]
    panels[0].set_yticks(range(len(contenders)), labels, fontsize=10, color=INK)
    for text, one in zip(panels[0].get_yticklabels(), contenders, strict=True):
        text.set_fontweight("bold" if one is champion or one.name == winner else "normal")
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def order(decides: Metric, contenders: Sequence[Contender]) -> list[Contender]:
    """Best first; whoever could not be scored comes last."""

    def rank(one: Contender) -> tuple[bool, float]:
        value = one.metrics.get(decides.name)
        return value is None, 0.0 if value is None else value * (1 if decides.direction == "lower" else -1)

    return sorted(contenders, key=rank)


def _panel(
    panel: Any,
    metric: Metric,
    contenders: Sequence[Contender],
    champion: Contender | None,
    winner: str | None,
    *,
    limit: float | None,
    decides: bool,
) -> None:
    values = [one.metrics.get(metric.name) for one in contenders]
    colours = [CHAMPION if one is champion else WINNER if one.name == winner else OTHER for one in contenders]
    panel.barh(range(len(contenders)), [value or 0.0 for value in values], color=colours, height=0.58, zorder=2)
    for row, value in enumerate(values):
        text = "not scored" if value is None else f"{value:.{metric.digits}f}"
        panel.annotate(text, (max(value or 0.0, 0.0), row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9, color=INK)
    if limit is not None:
        panel.axvline(limit, color="#c8453b", linewidth=1.2, linestyle=(0, (4, 3)), zorder=3)
    better = "lower is better" if metric.direction == "lower" else "higher is better"
    panel.set_title(metric.label + (" (decides)" if decides else ""), loc="left", fontsize=10, fontweight="bold", color=INK, pad=16)
    better += "" if limit is None else f"; the limit is {limit:g}"
    panel.text(0, 1.02, better, transform=panel.transAxes, fontsize=8, color=FAINT, va="bottom")
    panel.margins(x=0.22)
    panel.invert_yaxis() if decides else None
    panel.grid(axis="x", color=GRID, zorder=0)
    panel.tick_params(axis="x", labelsize=8, colors=FAINT, length=0)
    panel.tick_params(axis="y", length=0)
    for side in panel.spines.values():
        side.set_visible(False)


def _label(one: Contender, champion: Contender | None, winner: str | None) -> str:
    if one is champion:
        return f"★ champion v{one.version}\n{one.algorithm}"
    return f"{one.name}\nwinner" if one.name == winner else one.name
