"""The rope plan's effect on each rotary dimension: table rows, a sentence, figures."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from ropewalk.eval.report.figures.style import COLOURS, Kwargs, styled, thousands, to_svg

TOLERANCE = 0.005  # a share this close to 0 or 1 counts as 0 or 1


def dimensions(rope: Mapping[str, Any]) -> list[dict[str, float | None]]:
    """Of each pair of dimensions: wavelengths (tokens), rotations in the window, interpolation."""
    new_inv_freq = rope.get("inv_freq") or []
    old_inv_freq = (rope.get("base") or {}).get("inv_freq") or []
    if len(old_inv_freq) != len(new_inv_freq):
        old_inv_freq = [None] * len(new_inv_freq)
    window, factor = rope.get("original_max_position_embeddings"), rope.get("factor")
    return [
        _dimension(i, old, new, window, factor)
        for i, (old, new) in enumerate(zip(old_inv_freq, new_inv_freq, strict=True))
    ]


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


def reading(rows: Sequence[Mapping[str, Any]]) -> str | None:
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


def wavelengths(rope: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Wavelength of each dimension before and after, both windows as lines. None without any."""
    if not rows:
        return None
    with styled():
        figure = Figure(figsize=(9, 3.9), layout="constrained")
        axes = figure.subplots()
        axes.set_yscale("log")
        _draw_wavelengths(axes, rows)
        _draw_window(axes, "original window", rope.get("original_max_position_embeddings"))
        _draw_window(axes, "new window", rope.get("max_position_embeddings"))
        axes.yaxis.set_major_locator(LogLocator(10, numticks=12))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        thousands(axes.yaxis)
        axes.set_ylabel("wavelength (tokens)")
        axes.set_xlabel("frequency index (pair of dimensions)")
        return to_svg(figure, "rope", "Wavelength of each frequency before and after the rescaling")


def _draw_wavelengths(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Both curves with their names at the end; one name where both end in one point."""
    last = rows[-1]
    same_end = last["before"] and math.isclose(last["before"], last["after"] or 0)
    names = {
        "after": "" if same_end else "after",
        "before": "before, after" if same_end else "before",
    }
    style: Kwargs = {"markersize": 4, "markeredgecolor": COLOURS["paper"], "markeredgewidth": 0.5}
    note: Kwargs = {
        "xytext": (8, 0),
        "textcoords": "offset points",
        "va": "center",
        "weight": "bold",
    }
    for key, colour, marker in (("after", "rescaled", "^"), ("before", "base", "s")):
        points = [(row["index"], row[key]) for row in rows if row[key]]
        if points:
            axes.plot(*zip(*points, strict=True), color=COLOURS[colour], marker=marker, **style)
            axes.annotate(
                names[key], points[-1], color=COLOURS[colour], annotation_clip=False, **note
            )


def _draw_window(axes: Axes, name: str, tokens: float | None) -> None:
    if tokens:
        axes.axhline(tokens, color=COLOURS["muted"], linewidth=1, linestyle=(0, (3, 3)))
        style: Kwargs = {"xytext": (0, 3), "textcoords": "offset points", "size": 9}
        axes.annotate(f"{name}: {tokens:,} tokens", (0, tokens), color=COLOURS["muted"], **style)


def draw(plans: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a picture of wavelengths and share interpolated, of one plan or several of one base."""
    with styled():
        figure = Figure(figsize=(11, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        first = dimensions(plans[0])
        left.set_yscale("log")
        left.plot(
            [r["index"] for r in first],
            [r["before"] for r in first],
            color=COLOURS["base"],
            label="before",
        )
        for number, plan in enumerate(plans):
            rows, colour = dimensions(plan), f"C{number}"
            name = f"{plan['method']} x{plan['factor']:g}"
            left.plot(
                [r["index"] for r in rows],
                [r["after"] for r in rows],
                color=colour,
                marker=".",
                label=name,
            )
            shares = [math.nan if r["share"] is None else 100 * r["share"] for r in rows]
            right.plot([r["index"] for r in rows], shares, color=colour, marker=".", label=name)
        for name, key in (
            ("original window", "original_max_position_embeddings"),
            ("new window", "max_position_embeddings"),
        ):
            _draw_window(left, name, plans[0].get(key))
        thousands(left.yaxis)
        for axes, label in ((left, "wavelength (tokens)"), (right, "interpolated (%)")):
            axes.set_xlabel("frequency index (pair of dimensions)")
            axes.set_ylabel(label)
            axes.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})
