"""Loss curves with intervals, one line a model; a second panel closer where one model flattens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ropewalk.eval.report.figures.style import (
    COLOURS,
    Kwargs,
    Rows,
    column,
    styled_figure,
    ticks,
    to_svg,
    token_axis,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Curves = dict[str, tuple[np.ndarray, Rows]]  # model -> x of each point, its row


def loss_figure(
    curves: Curves,
    window: float | None,
    span: tuple[float, float],
    *,
    prefix: str,
    x_label: str,
    description: str,
    markers: Mapping[str, str] | None = None,
) -> str:
    """Inline SVG of loss (nats) over tokens. `window`: the base's, shaded. `span`: x limits."""
    views = _views(curves)
    with styled_figure(9, 3.9 + 2.7 * (len(views) - 1)) as figure:
        grid: Kwargs = {"sharex": True, "squeeze": False, "height_ratios": [1.2, 1.0][: len(views)]}
        panels = figure.subplots(len(views), 1, **grid)[:, 0]
        for axes, view in zip(panels, views, strict=True):
            token_axis(axes, *span, x_label if axes is panels[-1] else "")
            axes.set(ylim=view, ylabel="nats per token")
            axes.yaxis.set_major_locator(ticks(6))
            _draw(axes, curves, markers or {})
            _name_lines(axes, curves)
            _shade_window(axes, window)
        _label_window(panels[0], window)
        for axes in panels[1:]:
            axes.set_title("the same, closer", color=COLOURS["muted"], size=9)
        return to_svg(figure, prefix, description)


def _shade_window(axes: Axes, window: float | None) -> None:
    """Shade the context lengths that the base was trained on."""
    low, high = axes.get_xlim()
    if window and window > low:
        axes.axvspan(low, min(window, high), color=COLOURS["shade"], zorder=0, linewidth=0)
        axes.axvline(window, color=COLOURS["base"], linewidth=1, linestyle=(0, (3, 3)), zorder=1)


def _label_window(axes: Axes, window: float | None) -> None:
    low, high = axes.get_xlim()
    if window and low < window <= high:
        style: Kwargs = {"transform": axes.get_xaxis_transform(), "va": "bottom", "size": 9}
        text, side = f"base's window: {window:,} tokens", "right"
        if window < math.sqrt(low * high):
            text, side = f"← {text}", "left"
        axes.text(window, 1.015, text, ha=side, color=COLOURS["base"], **style)


def _spread(heights: Mapping[str, float], gap: float) -> dict[str, float]:
    """Label heights, moved up until neighbours are at least `gap` apart."""
    spread: dict[str, float] = {}
    floor = -math.inf
    for name in sorted(heights, key=heights.__getitem__):
        floor = spread[name] = max(heights[name], floor + gap)
    return spread


def _name_lines(axes: Axes, curves: Curves) -> None:
    """Write each line's name at its right end; a line that ends outside the panel gets none."""
    low, high = axes.get_ylim()
    ends = {name: column(rows, "nll")[-1] for name, (_, rows) in curves.items()}
    heights = {name: (end - low) / (high - low) for name, end in ends.items() if low <= end <= high}
    style: Kwargs = {"va": "center", "weight": "bold", "annotation_clip": False}
    style |= {"xycoords": "axes fraction", "textcoords": "offset points"}
    for name, height in _spread(heights, 0.08).items():
        axes.annotate(name, (1, height), (8, 0), color=COLOURS[name], **style)


def _draw(axes: Axes, curves: Curves, markers: Mapping[str, str]) -> None:
    for name, (x, rows) in curves.items():
        low, high = column(rows, "low"), column(rows, "high")
        axes.fill_between(x, low, high, color=COLOURS[name], alpha=0.18, linewidth=0)
        edge: Kwargs = {"markeredgecolor": COLOURS["paper"], "markeredgewidth": 0.6}
        axes.plot(x, column(rows, "nll"), color=COLOURS[name], marker=markers.get(name, ""), **edge)


def _bounds(curves: Curves) -> tuple[float, float]:
    """Lowest and highest loss, intervals included, with a margin."""
    keys = ("nll", "low", "high")
    values = np.concatenate([column(rows, key) for _, rows in curves.values() for key in keys])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.1
    return low - margin, high + margin


def _views(curves: Curves) -> list[tuple[float, float]]:
    """y limits of each panel: all curves, and closer ones where a model flattens the others."""
    full = _bounds(curves)
    for excluded in ({"base"}, {"base", "rescaled"}):
        others = {name: curve for name, curve in curves.items() if name not in excluded}
        low, high = _bounds(others) if others else full
        if high - low < 0.5 * (full[1] - full[0]):
            return [full, (low, high)]
    return [full]
