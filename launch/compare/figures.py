"""Drawings of a comparison: differences as points with intervals, loss by position, and what a gain
costs. A configuration has one colour in all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ropewalk.eval.measure.statistics import Estimate
from ropewalk.eval.report.figures.columns import ColumnStyle, column_styles, legend, short_title
from ropewalk.eval.report.figures.style import (
    COLOURS,
    Kwargs,
    is_narrow,
    styled_figure,
    thousands,
    ticks,
    to_svg,
)
from ropewalk.eval.tasks.position import LossByPosition
from ropewalk.launch.compare.comparison import Cell, Comparison
from ropewalk.launch.compare.groups import Group
from ropewalk.launch.compare.pareto import Point, hours_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW, MARGIN = 0.32, 0.95
"""Inches of a row, and of what is around the rows of a panel."""


def styles_of(groups: Sequence[Group]) -> dict[str, ColumnStyle]:
    """By the name of the model."""
    styles = column_styles([group.label for group in groups])
    return {model.name: styles[group.label] for group in groups for model in group.models}


def differences(comparison: Comparison, measure: str) -> str | None:
    """A row a configuration, a point a seed. None without a difference."""
    cells = {name: c for name, c in comparison.of(measure).items() if c.difference}
    rows = [
        (group.label, [cells[m.name] for m in group.models if m.name in cells])
        for group in comparison.groups
    ]
    rows = [(label, part) for label, part in rows if part]
    if not rows:
        return None
    first, styles = rows[0][1][0], styles_of(comparison.groups)
    with styled_figure(9, ROW * len(rows) + MARGIN) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=COLOURS["muted"], linewidth=1, linestyle=(0, (3, 3)))
        for number, (_, part) in enumerate(rows):
            _draw_row(axes, number, part, styles[part[0].model])
        axes.set_yticks(range(len(rows)), [short_title(label) for label, _ in rows])
        unit = "nats per token" if first.measure.unit == "nats" else "points"
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=f"difference ({unit})")
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.xaxis.set_major_locator(ticks(5 if is_narrow() else 9))
        title = f"{first.measure.title}: differences from {comparison.baseline.name}"
        return to_svg(figure, f"difference-{measure}", f"{title}, with intervals")


def _draw_row(axes: Axes, number: int, cells: Sequence[Cell], style: ColumnStyle) -> None:
    """Seeds below one another; the mean of several as a stroke across."""
    scale = 100.0 if cells[0].measure.unit == "share" else 1.0
    values = []
    for place, cell in enumerate(cells):
        assert cell.difference is not None
        change = cell.difference.estimate
        y = number + (place - (len(cells) - 1) / 2) * 0.5 / len(cells)
        if change.low is not None and change.high is not None:
            span = scale * change.low, scale * change.high
            axes.hlines(y, *span, color=style.colour, linewidth=1.3, alpha=0.6)
        axes.plot([scale * change.value], [y], linestyle="", color=style.colour, **style.marker)
        values.append(scale * change.value)
    if len(values) > 1:
        mean = sum(values) / len(values)
        axes.vlines(mean, number - 0.38, number + 0.38, color=COLOURS["ink"], linewidth=1.3)


def by_position(comparison: Comparison) -> str | None:
    """A curve a configuration: of several seeds their mean, in a band that holds their intervals.

    None where no two models have it over the same positions.
    """
    rows: dict[str, Any] = {}
    for group in comparison.groups:
        parts = [part for model in group.models if (part := model.rows.get("nll_by_position"))]
        if parts and len({_bins(part) for part in parts}) == 1:
            rows[group.label] = [_joined(bins) for bins in zip(*parts, strict=True)]
    window = comparison.baseline.results["base_window"]
    return LossByPosition().figure(rows, window) if rows else None


def _bins(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[int, int], ...]:
    return tuple((row["from"], row["to"]) for row in rows)


def _joined(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One bin of several seeds."""
    ends = [[row[key] for row in rows if row.get(key) is not None] for key in ("low", "high")]
    mean = sum(row["nll"] for row in rows) / len(rows)
    low, high = min(ends[0], default=None), max(ends[1], default=None)
    return {**rows[0], "nll": mean, "low": low, "high": high}


def pareto(comparison: Comparison) -> str | None:
    """Gain against cost, and against hours where trainings have them. None without two points."""
    points = [p for p in comparison.points if p.gain is not None and p.cost is not None]
    if len(points) < 2:
        return None
    timed = [point for point in points if point.hours is not None]
    count = 2 if len(timed) > 1 else 1
    down = count if is_narrow() else 1
    with styled_figure(9, 3.6 * down) as figure:
        panels = list(figure.subplots(down, count // down, squeeze=False).flat)
        for label, style in column_styles([g.label for g in comparison.groups]).items():
            shape: Kwargs = {"linestyle": "", "color": style.colour, **style.marker}
            panels[0].plot([], [], label=short_title(label), **shape)
        for point in points:
            _draw_point(panels[0], point, point.cost, comparison.groups)
        panels[0].set_xlabel("cost on short text (nats per token)")
        for point in timed if count == 2 else ():
            hours = Estimate(point.hours or 0.0, None, None, 1)
            _draw_point(panels[1], point, hours, comparison.groups)
        if count == 2:
            panels[1].set_xlabel(hours_label(comparison.models))
        for axes in panels:
            axes.set_ylabel("gain from long text (nats)")
            axes.xaxis.set_major_locator(ticks(5))
            axes.yaxis.set_major_locator(ticks(5))
            thousands(axes.xaxis)
            axes.margins(0.1)
        legend(figure, panels[:1])
        return to_svg(figure, "pareto", "Gain from long text against its cost; dominated in grey")


def _draw_point(axes: Axes, point: Point, x: Estimate | None, groups: Sequence[Group]) -> None:
    assert x is not None and point.gain is not None
    style = styles_of(groups)[point.model]
    colour: Kwargs = {"color": COLOURS["s5"] if point.is_dominated else style.colour}
    for bar, at, estimate in (
        (axes.vlines, x.value, point.gain),
        (axes.hlines, point.gain.value, x),
    ):
        if estimate.low is not None and estimate.high is not None:
            bar(at, estimate.low, estimate.high, linewidth=1.1, alpha=0.6, **colour)
    axes.plot([x.value], [point.gain.value], linestyle="", **colour, **style.marker)
