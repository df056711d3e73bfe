"""The report's line figures as inline SVG: no pyplot, no global state, the page's own colours.

Every colour drawn here stands for a CSS variable of report.html.j2, so one drawing serves light and dark.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

MODELS = ("base", "rescaled", "extended")
COLOURS = {
    "ink": "#1c2127",
    "muted": "#5c6772",
    "line": "#dfe2e5",
    "shade": "#f1f2ef",
    "paper": "#fdfdfb",
    "base": "#5b6b7d",
    "rescaled": "#b0680c",
    "extended": "#0b7a75",
}
MARKERS = {"base": "s", "rescaled": "^", "extended": "o"}  # told apart in black and white too
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ropewalk",
    "text.parse_math": False,  # a `$` in a name is a dollar sign
    "font.size": 10,
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.edgecolor": COLOURS["line"],
    "axes.titlecolor": COLOURS["ink"],
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.7,
    "xtick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.color": COLOURS["line"],
    "ytick.labelcolor": COLOURS["muted"],
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
Rows = Sequence[Mapping[str, Any]]


def styled() -> AbstractContextManager[None]:
    """The page's style over matplotlib's defaults: a user's matplotlibrc changes no byte."""
    return matplotlib.style.context(STYLE, after_reset=True)


def column(rows: Rows, key: str) -> np.ndarray:
    """One value a row; what is missing is a gap (nan)."""
    return np.array([math.nan if row.get(key) is None else row[key] for row in rows], dtype=float)


def to_svg(figure: Figure, prefix: str, label: str) -> str:
    """Inline SVG: ids carry `prefix`, colours are CSS variables, no date, no namespace, no global <style>."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawing = buffer.getvalue()
    drawing = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", drawing, flags=re.S)
    view_box = re.search(r'viewBox="([^"]+)"', drawing)
    body = drawing[drawing.index(">", drawing.index("<svg")) + 1 :]
    body = re.sub(r'\bid="', f'id="{prefix}-', body.replace("xlink:href", "href"))
    body = re.sub(r'href="#|url\(#', lambda found: found[0] + prefix + "-", body)
    for name, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{name})")
    box = view_box[1] if view_box else ""
    return f'<svg viewBox="{box}" role="img" aria-label="{label}">{body}'.replace("\n", " ").strip()


def thousands(axis: Any) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def token_axis(axes: Axes, low: float, high: float, label: str) -> None:
    """Logarithmic, marked at powers of two."""
    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    powers = [2**k for k in range(max(math.ceil(math.log2(low)), 0), math.floor(math.log2(high)) + 1)]
    axes.xaxis.set_major_locator(FixedLocator(powers))
    axes.xaxis.set_minor_locator(NullLocator())
    thousands(axes.xaxis)
    axes.set_xlabel(label)


def _mark_window(axes: Axes, window: float | None) -> None:
    """Shade what the base was trained on, and say so."""
    low, high = axes.get_xlim()
    if not window or window <= low:
        return
    axes.axvspan(low, min(window, high), color=COLOURS["shade"], zorder=0, linewidth=0)
    axes.axvline(window, color=COLOURS["base"], linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    text = f"base's window: {window:,} tokens"
    above = axes.get_xaxis_transform()
    axes.text(window, 1.015, text, transform=above, ha="right", va="bottom", size=9, color=COLOURS["base"])


def _spread(heights: Mapping[str, float], gap: float) -> dict[str, float]:
    """Label heights, moved up so that neighbours are at least `gap` apart."""
    placed: dict[str, float] = {}
    floor = -math.inf
    for name in sorted(heights, key=heights.__getitem__):
        floor = placed[name] = max(heights[name], floor + gap)
    return placed


def _name_lines(axes: Axes, curves: Mapping[str, tuple[np.ndarray, Rows]]) -> None:
    """Each line's name at its right end, in its colour; a line that ends outside the panel gets none."""
    low, high = axes.get_ylim()
    ends = {name: column(rows, "nll")[-1] for name, (_, rows) in curves.items()}
    heights = {name: (end - low) / (high - low) for name, end in ends.items() if low <= end <= high}
    for name, height in _spread(heights, 0.2 / axes.get_figure().get_figheight()).items():
        at = {"xy": (1, height), "xycoords": "axes fraction", "xytext": (8, 0), "textcoords": "offset points"}
        axes.annotate(name, **at, va="center", color=COLOURS[name], weight="bold", annotation_clip=False)


def _draw_curves(axes: Axes, curves: Mapping[str, tuple[np.ndarray, Rows]]) -> None:
    for name, (x, rows) in curves.items():
        axes.fill_between(x, column(rows, "low"), column(rows, "high"), color=COLOURS[name], alpha=0.18, linewidth=0)
        shape = {"marker": MARKERS[name], "markeredgecolor": COLOURS["paper"], "markeredgewidth": 0.6}
        axes.plot(x, column(rows, "nll"), color=COLOURS[name], **shape)


def _bounds(curves: Mapping[str, tuple[np.ndarray, Rows]]) -> tuple[float, float]:
    """Lowest and highest loss, intervals included, with a margin."""
    keys = ("nll", "low", "high")
    values = np.concatenate([column(rows, key) for _, rows in curves.values() for key in keys])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.06 * (high - low) or 0.1
    return low - margin, high + margin


def _loss_figure(
    curves: Mapping[str, tuple[np.ndarray, Rows]], window: float | None, span: tuple[float, float], words: dict[str, str]
) -> str:
    """All models on one scale; below it, where that flattens the extended one, a second panel around that."""
    views, best = [_bounds(curves)], {k: v for k, v in curves.items() if k == "extended"}
    if best and len(curves) > 1:
        low, high = _bounds(best)
        middle, half = (low + high) / 2, max(high - low, (views[0][1] - views[0][0]) / 8)
        if 2 * half < (views[0][1] - views[0][0]) / 2:
            views.append((middle - half, middle + half))
    with styled():
        figure = Figure(figsize=(9, 3.9 + 2.5 * (len(views) - 1)), layout="constrained")
        ratios = [1.35, 1.0][: len(views)]
        panels = figure.subplots(len(views), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
        for axes, view in zip(panels, views, strict=True):
            token_axis(axes, *span, words["x"] if axes is panels[-1] else "")
            axes.set_ylim(*view)
            axes.set_ylabel("nats per token")
            axes.yaxis.set_major_locator(MaxNLocator(6))
            _draw_curves(axes, curves)
            _name_lines(axes, curves)
        _mark_window(panels[0], window)
        for axes in panels[1:]:
            axes.axvspan(span[0], min(window or span[0], span[1]), color=COLOURS["shade"], zorder=0, linewidth=0)
            axes.set_title("the same, closer around the extended model", color=COLOURS["muted"], size=9)
        return to_svg(figure, words["prefix"], words["label"])


def loss_by_position(models: Mapping[str, Any], window: float | None) -> str | None:
    """Mean loss in each bin of positions, at the bin's centre. None without any."""
    found = {name: models[name].get("nll_by_position") for name in MODELS if models.get(name)}
    curves = {
        name: ((column(rows, "from") + column(rows, "to")) / 2, rows) for name, rows in found.items() if rows
    }
    if not curves:
        return None
    first = max(min(float(x[0]) for x, _ in curves.values()), 0.5)
    last = max(float(rows[-1]["to"]) for _, rows in curves.values())
    words = {"prefix": "position", "x": "position in the sequence (tokens before the target)"}
    words["label"] = "Loss by position for each model, with intervals"
    return _loss_figure(curves, window, (first / 1.12, last * 1.04), words)


def context_gain(models: Mapping[str, Any], window: float | None) -> str | None:
    """Loss of the same targets against the context they were given. None without any."""
    found = {name: models[name].get("context_gain") for name in MODELS if models.get(name)}
    curves = {name: (column(rows, "context"), rows) for name, rows in found.items() if rows}
    if not curves:
        return None
    ends = [float(x[k]) for x, _ in curves.values() for k in (0, -1)]
    words = {"prefix": "gain", "x": "context given (tokens)", "label": "Loss of the same targets under growing context"}
    return _loss_figure(curves, window, (min(ends) / 1.12, max(ends) * 1.04), words)


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Centred mean over `width` values, shorter at the ends; gaps are left out of it."""
    there, kernel = np.isfinite(values), np.ones(min(width, len(values)))
    total = np.convolve(np.where(there, values, 0.0), kernel, "same")
    count = np.convolve(there.astype(float), kernel, "same")
    return np.divide(total, count, out=np.full_like(total, math.nan), where=count > 0.5)


def training(metrics: Rows, width: int) -> str | None:
    """Loss, learning rate, gradient norm and tokens per second against the step. None without steps."""
    if not metrics:
        return None
    steps = column(metrics, "step")
    titles = {"loss": "loss (nats per token)", "lr": "learning rate", "grad_norm": "gradient norm", "tokens_per_s": "tokens per second"}
    with styled():
        figure = Figure(figsize=(9, 4.8), layout="constrained")
        for axes, (key, title) in zip(figure.subplots(2, 2).flat, titles.items(), strict=True):
            values = column(metrics, key)
            raw = {"linewidth": 0.8, "alpha": 0.45} if key != "lr" else {}
            axes.plot(steps, values, color=COLOURS["extended"], marker="o" if len(steps) < 3 else "", **raw)
            if key != "lr":
                axes.plot(steps, smooth(values, width), color=COLOURS["extended"])
            axes.set_title(title)
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            thousands(axes.xaxis)
            thousands(axes.yaxis)
        return to_svg(figure, "training", "Loss, learning rate, gradient norm and throughput by step")
