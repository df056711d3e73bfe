"""A value by depth, length or any other key: a line a column, its interval, a panel a group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ropewalk.eval.report import formats
from ropewalk.eval.report.figures.columns import column_styles, legend, short_title
from ropewalk.eval.report.figures.heatmap import MIN_N
from ropewalk.eval.report.figures.style import (
    COLOURS,
    Drawing,
    Kwargs,
    Rows,
    column,
    is_narrow,
    styled_figure,
    ticks,
    to_svg,
    token_axis,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IN_A_ROW = 2  # panels beside one another


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What is drawn: keys of the rows, and words."""

    x: str
    value: str
    x_label: str
    y_label: str
    prefix: str
    """Of the ids in the SVG: the name of the task."""
    description: str
    panels: str | None = None
    """Key of the rows whose values have a panel each, such as length."""
    panel_title: str = "{}"
    tokens: bool = False
    """Whether x counts tokens, on a logarithmic axis."""
    limits: tuple[float, float] | None = None
    """Of y, such as 0 and 1 for a share."""
    level: float | None = None
    """A value that is drawn as a line across, such as chance or zero."""


def depth_curves(
    value: str, x_label: str, prefix: str, description: str, level: float | None = None
) -> Curves:
    """Shares of right answers by depth, a panel a length."""
    return Curves(
        x="depth",
        value=value,
        x_label=x_label,
        y_label="answers right",
        prefix=prefix,
        description=description,
        panels="length",
        panel_title="{} tokens",
        limits=(0, 1),
        level=level,
    )


def curve_figure(rows: Mapping[str, Rows], curves: Curves) -> Drawing | None:
    """Rows by column, with `value`, low, high and n. None without any value to draw.

    A null value is no point; a point of fewer than 20 samples is hollow.
    """
    points = {
        name: [row for row in part if row.get(curves.x) is not None and _is_number(row, curves)]
        for name, part in rows.items()
    }
    groups = _groups(points, curves.panels)
    if not groups:
        return None
    across = min(len(groups), 1 if is_narrow() else IN_A_ROW)
    down = -(-len(groups) // across)
    with styled_figure(9, 0.9 + 2.8 * down) as figure:
        grid: Kwargs = {"squeeze": False, "sharey": True}
        panels = list(figure.subplots(down, across, **grid).flat)
        for axes, group in zip(panels, groups, strict=False):
            _draw(axes, {name: _of(part, curves, group) for name, part in points.items()}, curves)
            if curves.panels:
                axes.set_title(curves.panel_title.format(formats.as_text(group)))
        for axes in panels[len(groups) :]:
            axes.set_visible(False)
        legend(figure, figure.axes)
        return to_svg(figure, curves.prefix, curves.description)


def _is_number(row: Mapping[str, Any], curves: Curves) -> bool:
    value = row.get(curves.value)
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _groups(points: Mapping[str, Rows], key: str | None) -> list[Any]:
    if key is None:
        return [None] if any(points.values()) else []
    return sorted({row[key] for part in points.values() for row in part if key in row})


def _of(rows: Rows, curves: Curves, group: object) -> Rows:
    part = [row for row in rows if curves.panels is None or row.get(curves.panels) == group]
    return sorted(part, key=lambda row: row[curves.x])


def _draw(axes: Axes, rows: Mapping[str, Rows], curves: Curves) -> None:
    xs = [row[curves.x] for part in rows.values() for row in part]
    if curves.tokens:
        token_axis(axes, min(xs) / 1.12, max(xs) * 1.12, curves.x_label)
    axes.set_xlabel(curves.x_label)
    axes.set_ylabel(curves.y_label)
    axes.yaxis.set_major_locator(ticks(6))
    if curves.limits:
        margin = 0.04 * (curves.limits[1] - curves.limits[0])
        axes.set_ylim(curves.limits[0] - margin, curves.limits[1] + margin)
    if curves.level is not None:
        axes.axhline(curves.level, color=COLOURS["muted"], linewidth=1, linestyle=(0, (3, 3)))
    for number, (name, style) in enumerate(column_styles(rows).items()):
        if rows[name]:
            x = column(rows[name], curves.x)
            if not curves.tokens and len(rows) > 1:  # intervals beside one another
                step = np.ptp(xs) / 80
                x = x + step * (number - (len(rows) - 1) / 2)
            _draw_line(axes, x, rows[name], curves.value, style.line, style.marker, name)


def _draw_line(
    axes: Axes, x: np.ndarray, rows: Rows, key: str, line: Kwargs, marker: Kwargs, name: str
) -> None:
    y, low, high = (column(rows, part) for part in (key, "low", "high"))
    axes.vlines(x, low, high, color=line["color"], linewidth=1.1, alpha=0.6)
    axes.plot(x, y, label=short_title(name), **line, **marker)
    few = column(rows, "n") < MIN_N
    hollow: Kwargs = {"color": COLOURS["paper"], "markeredgecolor": line["color"], "zorder": 4}
    axes.plot(x[few], y[few], linestyle="", marker=marker["marker"], **hollow)
