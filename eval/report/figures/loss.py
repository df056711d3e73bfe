"""Loss curves with intervals, one line a model; a second panel closer where one model flattens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ropewalk.eval.report.figures.columns import column_styles, legend, short_title
from ropewalk.eval.report.figures.style import (
    COLOURS,
    Drawing,
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


MOST_NAMED, MOST_LETTERS = 4, 10
"""Curves, and letters of a name, up to which names stand at the curves' ends."""
Curves = dict[str, tuple[np.ndarray, Rows]]  # model -> x of each point, its row


def loss_figure(
    curves: Curves,
    window: float | None,
    span: tuple[float, float],
    *,
    prefix: str,
    x_label: str,
    description: str,
    mark_every: int = 1,
    as_perplexity: bool = False,
) -> Drawing:
    """Loss (nats) over tokens. `window`: the base's, shaded. `span`: x limits.

    `mark_every`: points from one marker to the next. `as_perplexity`: the scale is labelled with
    the exponentials of the losses.
    """
    views = _views(curves)
    names_at_ends = len(curves) <= MOST_NAMED and max(map(len, curves)) <= MOST_LETTERS
    with styled_figure(9, 3.9 + 2.7 * (len(views) - 1)) as figure:
        grid: Kwargs = {"sharex": True, "squeeze": False, "height_ratios": [1.2, 1.0][: len(views)]}
        panels = figure.subplots(len(views), 1, **grid)[:, 0]
        for axes, view in zip(panels, views, strict=True):
            token_axis(axes, *span, x_label if axes is panels[-1] else "")
            axes.set(ylim=view, ylabel="perplexity" if as_perplexity else "nats per token")
            axes.yaxis.set_major_locator(ticks(6))
            if as_perplexity:
                axes.yaxis.set_major_formatter(lambda loss, _: f"{math.exp(loss):,.3g}")
            _draw(axes, curves, mark_every)
            if names_at_ends:
                _name_lines(axes, curves)
            _shade_window(axes, window)
        _label_window(panels[0], window)
        for axes in panels[1:]:
            axes.set_title("the same, closer", color=COLOURS["muted"], size=9)
        if not names_at_ends:
            legend(figure, [panels[0]])
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
    styles = column_styles(curves)
    for name, height in _spread(heights, 0.08).items():
        axes.annotate(name, (1, height), (8, 0), color=styles[name].colour, **style)


def _draw(axes: Axes, curves: Curves, mark_every: int) -> None:
    for name, style in column_styles(curves).items():
        x, rows = curves[name]
        low, high = column(rows, "low"), column(rows, "high")
        axes.fill_between(x, low, high, color=style.colour, alpha=0.18, linewidth=0)
        label: Kwargs = {"label": short_title(name), "markevery": mark_every}
        axes.plot(x, column(rows, "nll"), **label, **style.line, **style.marker)


def _bounds(curves: Curves) -> tuple[float, float]:
    """Lowest and highest loss, intervals included, with a margin."""
    keys = ("nll", "low", "high")
    values = np.concatenate([column(rows, key) for _, rows in curves.values() for key in keys])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.1
    return low - margin, high + margin


def _views(curves: Curves) -> list[tuple[float, float]]:
    """y limits of each panel: all curves, and closer ones where some columns flatten the others."""
    full = _bounds(curves)
    highest = {name: _bounds({name: curve})[1] for name, curve in curves.items()}
    by_height = sorted(curves, key=highest.__getitem__)
    for kept in range(len(curves) - 1, 0, -1):
        low, high = _bounds({name: curves[name] for name in by_height[:kept]})
        if high - low < 0.5 * (full[1] - full[0]):
            return [full, (low, high)]
    return [full]
