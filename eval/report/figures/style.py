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
    "s0": "#3d6b93",
    "s1": "#8aa9c0",
    "s2": "#a58d5f",
    "s3": "#7b8f6a",
    "s4": "#94748f",
    "s5": "#b9b2a3",
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
Kwargs = dict[str, Any]
Curves = Mapping[str, tuple[np.ndarray, Rows]]  # model -> x of each point, its row


def styled() -> AbstractContextManager[None]:
    """The page's style over matplotlib's defaults: a user's matplotlibrc changes no byte."""
    return matplotlib.style.context(STYLE, after_reset=True)


def column(rows: Rows, key: str) -> np.ndarray:
    """One value a row; what is missing is a gap (nan)."""
    return np.array([math.nan if row.get(key) is None else row[key] for row in rows], dtype=float)


def to_svg(figure: Figure, prefix: str, label: str) -> str:
    """Inline SVG: ids carry `prefix`, colours are CSS variables, no date, no namespace, no global <style>."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
    )
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
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}".replace("e-0", "e-")))


def ticks(most: int, integer: bool = False) -> MaxNLocator:
    return MaxNLocator(most, integer=integer, steps=[1, 2, 2.5, 5, 10])


def token_axis(axes: Axes, low: float, high: float, label: str) -> None:
    """Logarithmic, marked at powers of two."""
    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    powers = [
        2**k for k in range(max(math.ceil(math.log2(low)), 0), math.floor(math.log2(high)) + 1)
    ]
    axes.xaxis.set_major_locator(FixedLocator(powers))
    axes.xaxis.set_minor_locator(NullLocator())
    thousands(axes.xaxis)
    axes.set_xlabel(label)


def _shade_window(axes: Axes, window: float | None) -> None:
    """What the base was trained on."""
    low, high = axes.get_xlim()
    if window and window > low:
        axes.axvspan(low, min(window, high), color=COLOURS["shade"], zorder=0, linewidth=0)
        axes.axvline(window, color=COLOURS["base"], linewidth=1, linestyle=(0, (3, 3)), zorder=1)


def _label_window(axes: Axes, window: float | None) -> None:
    low, high = axes.get_xlim()
    if window and low < window <= high:
        above: Kwargs = {"transform": axes.get_xaxis_transform(), "va": "bottom", "size": 9}
        text, side = f"base's window: {window:,} tokens", "right"
        if window < math.sqrt(low * high):
            text, side = f"← {text}", "left"
        axes.text(window, 1.015, text, ha=side, color=COLOURS["base"], **above)


def _spread(heights: Mapping[str, float], gap: float) -> dict[str, float]:
    """Label heights, moved up so that neighbours are at least `gap` apart."""
    placed: dict[str, float] = {}
    floor = -math.inf
    for name in sorted(heights, key=heights.__getitem__):
        floor = placed[name] = max(heights[name], floor + gap)
    return placed


def _name_lines(axes: Axes, curves: Curves) -> None:
    """Each line's name at its right end, in its colour; a line that ends outside the panel gets none."""
    low, high = axes.get_ylim()
    ends = {name: column(rows, "nll")[-1] for name, (_, rows) in curves.items()}
    heights = {name: (end - low) / (high - low) for name, end in ends.items() if low <= end <= high}
    beside: Kwargs = {
        "xycoords": "axes fraction",
        "xytext": (8, 0),
        "textcoords": "offset points",
        "va": "center",
    }
    for name, height in _spread(heights, 0.08).items():
        axes.annotate(
            name, (1, height), color=COLOURS[name], weight="bold", annotation_clip=False, **beside
        )


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
    """All on one scale; and, where one model flattens the others, closer around these."""
    whole = _bounds(curves)
    for left_out in ({"base"}, {"base", "rescaled"}):
        rest = {name: curve for name, curve in curves.items() if name not in left_out}
        low, high = _bounds(rest) if rest else whole
        if high - low < 0.5 * (whole[1] - whole[0]):
            return [whole, (low, high)]
    return [whole]


def _loss_figure(
    curves: Curves,
    window: float | None,
    span: tuple[float, float],
    words: Mapping[str, str],
    markers: Mapping[str, str],
) -> str:
    views = _views(curves)
    with styled():
        figure = Figure(figsize=(9, 3.9 + 2.7 * (len(views) - 1)), layout="constrained")
        grid: Kwargs = {"sharex": True, "squeeze": False, "height_ratios": [1.2, 1.0][: len(views)]}
        panels = figure.subplots(len(views), 1, **grid)[:, 0]
        for axes, view in zip(panels, views, strict=True):
            token_axis(axes, *span, words["x"] if axes is panels[-1] else "")
            axes.set_ylim(*view)
            axes.set_ylabel("nats per token")
            axes.yaxis.set_major_locator(ticks(6))
            _draw(axes, curves, markers)
            _name_lines(axes, curves)
            _shade_window(axes, window)
        _label_window(panels[0], window)
        for axes in panels[1:]:
            axes.set_title("the same, closer", color=COLOURS["muted"], size=9)
        return to_svg(figure, words["prefix"], words["label"])


def _measured(models: Mapping[str, Any], key: str) -> dict[str, Rows]:
    found = {name: (models.get(name) or {}).get(key) for name in MODELS}
    return {name: rows for name, rows in found.items() if rows}


def loss_by_position(models: Mapping[str, Any], window: float | None) -> str | None:
    """Mean loss of each bin of positions, as a step over the bin: nothing is drawn between bins. None without any."""
    measured = _measured(models, "nll_by_position")
    if not measured:
        return None
    left = min(rows[0]["to"] for rows in measured.values()) / 2
    right = max(rows[-1]["to"] for rows in measured.values())
    curves: dict[str, tuple[np.ndarray, Rows]] = {}
    for name, rows in measured.items():
        edges = np.stack([column(rows, "from"), column(rows, "to")], axis=1).ravel()
        curves[name] = (np.maximum(edges, left), [row for row in rows for _ in range(2)])
    words = {
        "prefix": "position",
        "x": "position in the sequence (tokens before the target; the first bin begins at 0)",
    }
    words["label"] = "Loss by position for each model, with intervals"
    return _loss_figure(curves, window, (left, right), words, {})


def context_gain(models: Mapping[str, Any], window: float | None) -> str | None:
    """Loss of the same targets against the context they were given. None without any."""
    measured = _measured(models, "context_gain")
    if not measured:
        return None
    curves = {name: (column(rows, "context"), rows) for name, rows in measured.items()}
    ends = [float(x[k]) for x, _ in curves.values() for k in (0, -1)]
    words = {"prefix": "gain", "x": "context given (tokens)"}
    words["label"] = "Loss of the same targets under growing context, with intervals"
    return _loss_figure(curves, window, (min(ends) / 1.12, max(ends) * 1.04), words, MARKERS)


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Centred mean over `width` values, shorter at the ends; gaps are left out of it."""
    there, kernel = np.isfinite(values), np.ones(min(width, len(values)))
    total = np.convolve(np.where(there, values, 0.0), kernel, "same")
    count = np.convolve(there.astype(float), kernel, "same")
    return np.divide(total, count, out=np.full_like(total, math.nan), where=count > 0.5)


TRAINING = {
    "loss": "loss (nats per token)",
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_s": "tokens per second",
}


def training(metrics: Rows, width: int) -> str | None:
    """Loss, learning rate, gradient norm and tokens per second by step. None without steps."""
    if not metrics:
        return None
    with styled():
        figure = Figure(figsize=(9, 5), layout="constrained")
        panels = figure.subplots(2, 2, sharex=True)
        for axes, (key, title) in zip(panels.flat, TRAINING.items(), strict=True):
            _draw_steps(
                axes, column(metrics, "step"), column(metrics, key), 1 if key == "lr" else width
            )
            axes.set_title(title)
        for axes in panels[1]:
            axes.set_xlabel("step")
        return to_svg(
            figure, "training", "Loss, learning rate, gradient norm and throughput by step"
        )


def _draw_steps(axes: Axes, steps: np.ndarray, values: np.ndarray, width: int) -> None:
    """Each value thin and, if `width` is above 1, their running mean over it."""
    thin: Kwargs = {"linewidth": 0.8, "alpha": 0.45} if width > 1 else {}
    axes.plot(
        steps, values, color=COLOURS["extended"], marker="o" if len(steps) < 3 else "", **thin
    )
    if width > 1:
        axes.plot(steps, smooth(values, width), color=COLOURS["extended"])
    axes.yaxis.set_major_locator(ticks(4))
    axes.xaxis.set_major_locator(ticks(6, integer=True))
    thousands(axes.xaxis)
    thousands(axes.yaxis)
