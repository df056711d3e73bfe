"""The rope plan's effect on each rotary dimension: table rows, a sentence, figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropewalk.eval.report.figures.style import (
    COLOURS,
    Kwargs,
    Rows,
    column,
    styled_figure,
    thousands,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


TOLERANCE = 0.005  # a share this close to 0 or 1 counts as 0 or 1
INDEX = "frequency index (pair of dimensions)"


def dimensions(rope: Mapping[str, Any]) -> list[dict[str, float | None]]:
    """Of each pair of dimensions: wavelengths (tokens), rotations in the window, interpolation."""
    new_inv_freq = rope.get("inv_freq") or []
    old_inv_freq = (rope.get("base") or {}).get("inv_freq") or []
    if len(old_inv_freq) != len(new_inv_freq):
        old_inv_freq = [None] * len(new_inv_freq)
    window, factor = rope.get("original_max_position_embeddings"), rope.get("factor")
    pairs = zip(old_inv_freq, new_inv_freq, strict=True)
    return [_dimension(i, old, new, window, factor) for i, (old, new) in enumerate(pairs)]


def _dimension(
    index: int, old: float | None, new: float, window: float | None, factor: float | None
) -> dict[str, float | None]:
    scaled = old is not None and factor is not None and factor > 1
    return {
        "index": index,
        "before": 2 * math.pi / old if old else None,
        "after": 2 * math.pi / new if new else None,
        "rotations": window * old / (2 * math.pi) if window and old else None,
        "share": (1 - new / old) / (1 - 1 / factor) if scaled and old and factor else None,
    }


def reading(rows: Rows) -> str | None:
    """How many dimensions are kept, blended, interpolated, and the longest wavelength."""
    shares = [row["share"] for row in rows if row["share"] is not None]
    if not shares:
        return None
    unchanged = sum(abs(share) < TOLERANCE for share in shares)
    full = sum(abs(share - 1) < TOLERANCE for share in shares)
    old, new = max(row["before"] for row in rows), max(row["after"] for row in rows)
    return (
        f"Of {len(shares)} frequencies {unchanged} are kept, {full} are interpolated by the full "
        f"factor and {len(shares) - unchanged - full} lie in between; the longest wavelength goes "
        f"from {old:,.0f} to {new:,.0f} tokens."
    )


def wavelengths(rope: Mapping[str, Any], rows: Rows) -> str | None:
    """Wavelength of each dimension before and after, both windows as lines. None without any."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    if not rows:
        return None
    with styled_figure(9, 3.9) as figure:
        axes = figure.subplots()
        axes.set_yscale("log")
        _draw_wavelengths(axes, rows)
        _draw_windows(axes, rope)
        axes.yaxis.set_major_locator(LogLocator(10, numticks=12))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        thousands(axes.yaxis)
        axes.set(xlabel=INDEX, ylabel="wavelength (tokens)")
        return to_svg(figure, "rope", "Wavelength of each frequency before and after the rescaling")


def _draw_wavelengths(axes: Axes, rows: Rows) -> None:
    """Both curves with their names at the end; one name where both end in one point."""
    last = rows[-1]
    same_end = last["before"] and math.isclose(last["before"], last["after"] or 0)
    new_name, old_name = ("", "before, after") if same_end else ("after", "before")
    style: Kwargs = {"markersize": 4, "markeredgecolor": COLOURS["paper"], "markeredgewidth": 0.5}
    note: Kwargs = {"textcoords": "offset points", "va": "center", "annotation_clip": False}
    curves = (("after", new_name, "rescaled", "^"), ("before", old_name, "base", "s"))
    for key, name, model, marker in curves:
        points = [(row["index"], row[key]) for row in rows if row[key]]
        if points:
            colour = COLOURS[model]
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, **style)
            axes.annotate(name, points[-1], (8, 0), color=colour, weight="bold", **note)


def _draw_windows(axes: Axes, rope: Mapping[str, Any]) -> None:
    """The original and the new window as horizontal lines; equal ones are one."""
    colour = COLOURS["muted"]
    style: Kwargs = {"xytext": (0, 3), "textcoords": "offset points", "size": 9, "color": colour}
    original, new = (rope.get(f"{key}max_position_embeddings") for key in ("original_", ""))
    windows = (
        {"window": new} if original == new else {"original window": original, "new window": new}
    )
    for name, tokens in windows.items():
        if tokens:
            axes.axhline(tokens, color=colour, linewidth=1, linestyle=(0, (3, 3)))
            axes.annotate(f"{name}: {tokens:,} tokens", (0, tokens), **style)


def draw(plans: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a picture of wavelengths and share interpolated, of one plan or several of one base."""
    with styled_figure(11, 4.4) as figure:
        left, right = figure.subplots(1, 2)
        rows = dimensions(plans[0])
        index = column(rows, "index")
        left.set_yscale("log")
        left.plot(index, column(rows, "before"), color=COLOURS["base"], label="before")
        for number, plan in enumerate(plans):
            rows, name = dimensions(plan), f"{plan['method']} x{plan['factor']:g}"
            style: Kwargs = {"color": f"C{number}", "marker": ".", "label": name}
            left.plot(index, column(rows, "after"), **style)
            right.plot(index, 100 * column(rows, "share"), **style)
        _draw_windows(left, plans[0])
        thousands(left.yaxis)
        for axes, label in ((left, "wavelength (tokens)"), (right, "interpolated (%)")):
            axes.set(xlabel=INDEX, ylabel=label)
            axes.legend(fontsize=10)
        figure.savefig(path, metadata={"Date": None})
