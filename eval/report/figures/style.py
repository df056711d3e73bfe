"""Style of all figures and their output as inline SVG; no pyplot, no global state.

Every colour stands for a CSS variable of report.html.j2, so one drawing serves light and dark.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator


MODELS = ("base", "rescaled", "extended")
"""The columns of a run. Others have the names that the settings give them."""
MODEL_TITLES = {"base": "base", "rescaled": "rescaled only", "extended": "extended"}
COLOURS = {
    "ink": "#1c2127",
    "muted": "#5c6772",
    "line": "#dfe2e5",
    "shade": "#f1f2ef",
    "paper": "#fdfdfb",
    "base": "#5b6b7d",
    "rescaled": "#9c5a06",
    "extended": "#0b7a75",
    "c3": "#7a3e9d",
    "c4": "#b02a5b",
    "c5": "#3558b8",
    "c6": "#536c17",
    "c7": "#7c4a2d",
    "s0": "#3d6b93",
    "s1": "#8aa9c0",
    "s2": "#a58d5f",
    "s3": "#7b8f6a",
    "s4": "#94748f",
    "s5": "#b9b2a3",
}
SHADES = ("s0", "s2", "s3", "s4", "s1", "s5")  # of curves, neighbours far apart
SLOTS = ("base", "rescaled", "extended", "c3", "c4", "c5", "c6", "c7")
"""Colours of the columns, by the names of their CSS variables."""
MARKERS = dict(zip(SLOTS, "s^oDvPX*", strict=True))  # distinct in black and white too
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
PNG_DPI = 160
Rows = Sequence[Mapping[str, Any]]
Kwargs = dict[str, Any]


class Drawing(str):
    """SVG or HTML for the page, and the figure that its files are written from."""

    figure: Callable[[], Figure]

    def __new__(cls, inline: str, figure: Callable[[], Figure]) -> Drawing:
        drawing = super().__new__(cls, inline)
        drawing.figure = figure
        return drawing

    def files(self) -> dict[str, bytes]:
        """Content by suffix, `svg` and `png`, in the light colours; equal bytes each time."""
        import matplotlib.style
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figure, png = self.figure(), io.BytesIO()
        figure.set_facecolor(COLOURS["paper"])
        with matplotlib.style.context(STYLE, after_reset=True):
            svg = _svg(figure).encode()
            figure.set_dpi(PNG_DPI)
            FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
        return {"svg": svg, "png": png.getvalue()}


def _svg(figure: Figure) -> str:
    """The figure as an SVG document; its layout then stays as it is.

    `savefig` draws each figure twice, and lays it out each time: half of a report's time.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata=NO_METADATA)
    figure.set_layout_engine("none")
    return buffer.getvalue()


NARROW = 4.7  # inches: text of 10 points is read on a phone
_narrow: ContextVar[bool] = ContextVar("figures of a phone", default=False)


def is_narrow() -> bool:
    return _narrow.get()


@contextmanager
def narrow_figures() -> Iterator[None]:
    """Inside the block figures are drawn for a phone: no wider than NARROW, ids of their own."""
    token = _narrow.set(True)
    try:
        yield
    finally:
        _narrow.reset(token)


@contextmanager
def styled_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure in the page's style over matplotlib's defaults; draw and save it inside the block.

    A user's matplotlibrc has no effect. Width and height in inches.
    """
    # here, so that a stage that draws nothing does not wait for matplotlib
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(STYLE, after_reset=True):
        width = min(width, NARROW) if is_narrow() else width
        yield Figure(figsize=(width, height), layout="constrained")


def column(rows: Rows, key: str) -> np.ndarray:
    """One value a row; nan where the key is missing."""
    return np.array([math.nan if row.get(key) is None else row[key] for row in rows], dtype=float)


def to_svg(figure: Figure, prefix: str, label: str) -> Drawing:
    """Inline SVG without date or <style>; ids carry `prefix`, colours are CSS variables."""
    prefix += "-narrow" if is_narrow() else ""
    drawing = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", _svg(figure), flags=re.S)
    tag, body = drawing[drawing.index("<svg") :].split(">", 1)
    view_box = tag.split('viewBox="')[1].split('"')[0]
    body = re.sub(r'\bid="', f'id="{prefix}-', body.replace("xlink:href", "href"))
    body = re.sub(r'href="#|url\(#', lambda match: match[0] + prefix + "-", body)
    for name, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{name})")
    svg = f'<svg viewBox="{view_box}" role="img" aria-label="{escape(label)}">{body}'
    return Drawing(svg.replace("\n", " ").strip(), lambda: figure)


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
