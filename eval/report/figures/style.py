"""Style of all figures and their output as inline SVG; no pyplot, no global state.

Every colour stands for a CSS variable of report.html.j2, so one drawing serves light and dark.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator


MODELS = ("base", "rescaled", "extended")
MODEL_TITLES = {"base": "base", "rescaled": "rescaled only", "extended": "extended"}
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
SHADES = ("s0", "s2", "s3", "s4", "s1", "s5")  # of curves, neighbours far apart
MARKERS = {"base": "s", "rescaled": "^", "extended": "o"}  # distinct in black and white too
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
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
Rows = Sequence[Mapping[str, Any]]
Kwargs = dict[str, Any]


@contextmanager
def styled_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure in the page's style over matplotlib's defaults; draw and save it inside the block.

    A user's matplotlibrc has no effect. Width and height in inches.
    """
    # here, so that a stage that draws nothing does not wait for matplotlib
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(STYLE, after_reset=True):
        yield Figure(figsize=(width, height), layout="constrained")


def column(rows: Rows, key: str) -> np.ndarray:
    """One value a row; nan where the key is missing."""
    return np.array([math.nan if row.get(key) is None else row[key] for row in rows], dtype=float)


def to_svg(figure: Figure, prefix: str, label: str) -> str:
    """Inline SVG without date or <style>; ids carry `prefix`, colours are CSS variables."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=NO_METADATA)
    drawing = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>", "", buffer.getvalue(), flags=re.S
    )
    tag, body = drawing[drawing.index("<svg") :].split(">", 1)
    view_box = tag.split('viewBox="')[1].split('"')[0]
    body = re.sub(r'\bid="', f'id="{prefix}-', body.replace("xlink:href", "href"))
    body = re.sub(r'href="#|url\(#', lambda match: match[0] + prefix + "-", body)
    for name, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{name})")
    svg = f'<svg viewBox="{view_box}" role="img" aria-label="{label}">{body}'
    return svg.replace("\n", " ").strip()


def thousands(*axes: Axis) -> None:
    """Tick labels with thousands separators."""
    for axis in axes:
        axis.set_major_formatter(lambda value, _: f"{value:,.10g}".replace("e-0", "e-"))


def ticks(max_bins: int, integer: bool = False) -> MaxNLocator:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(max_bins, integer=integer, steps=[1, 2, 2.5, 5, 10])


def token_axis(axes: Axes, low: float, high: float, label: str) -> None:
    """A logarithmic x axis with ticks at powers of two."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log", base=2)
    axes.set(xlim=(low, high), xlabel=label)
    first, last = max(math.ceil(math.log2(low)), 0), math.floor(math.log2(high))
    axes.xaxis.set_major_locator(FixedLocator([2**k for k in range(first, last + 1)]))
    axes.xaxis.set_minor_locator(NullLocator())
    thousands(axes.xaxis)
