"""A share by length and depth as an HTML table a column; its files are drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ropewalk.eval.report import formats
from ropewalk.eval.report.figures.columns import (
    ColumnStyle,
    column_styles,
    column_title,
    short_title,
    shown_columns,
)
from ropewalk.eval.report.figures.style import COLOURS, Drawing, Kwargs, Rows, styled_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIN_N = 20
"""Samples from which a cell has a colour."""
IN_A_ROW = 4
HEAT = (0x1E / 255, 0x54 / 255, 0x8E / 255)  # --heat of the page
FULL, MIDDLE = 0.79, 0.68
"""Shares from which white text is read better than black, and in dark colours black than white."""


@dataclass(frozen=True)
class Grid:
    """The cells of one column. A cell that was not run is not in `cells`."""

    across: list[Any]
    down: list[Any]
    cells: Mapping[tuple[Any, Any], Mapping[str, Any]]
    n: str

    @property
    def is_named(self) -> bool:
        """Whether the rows have names, which need room."""
        return any(isinstance(value, str) for value in self.down)


def heat_maps(
    rows: Mapping[str, Rows],
    legend: str,
    value: str = "accuracy",
    across: str = "length",
    down: str = "depth",
    down_label: str = "depth",
) -> Drawing | None:
    """`rows` by column: `across`, `down`, n, `value` (0 to 1 or null), low, high. None without any.

    `down` is a share, 0 at the start of the text, an index, or a name.
    """
    grids = {
        name: _grid(
            [r for r in rows.get(name, ()) if across in r and down in r], value, across, down
        )
        for name in shown_columns(rows)
    }
    if not any(grid.cells for grid in grids.values()):
        return None
    styles = column_styles(grids)
    template = formats.template("ropewalk.eval.report.figures", "heatmap.html.j2")
    inline = template.render(
        grids=grids,
        styles=styles,
        title=column_title,
        axis_text=axis_text,
        legend=legend,
        down_label=down_label,
        limits={"full": FULL, "middle": MIDDLE, "n": MIN_N},
    )
    drawn = {name: grid for name, grid in grids.items() if grid.cells}
    return Drawing(inline, partial(_figure, drawn, styles, across, down_label, legend))


def _figure(
    grids: Mapping[str, Grid],
    styles: Mapping[str, ColumnStyle],
    across: str,
    down: str,
    legend: str,
) -> Figure:
    columns = min(len(grids), IN_A_ROW)
    down_panels = -(-len(grids) // columns)
    height = 1.0 + down_panels * (0.9 + 0.32 * max(len(grid.down) for grid in grids.values()))
    width = columns * (1.2 + 0.55 * max(len(grid.across) for grid in grids.values()))
    with styled_figure(max(width, 4.5), height) as figure:
        panels = list(figure.subplots(down_panels, columns, squeeze=False).flat)
        for axes, (name, grid) in zip(panels, grids.items(), strict=False):
            _draw(axes, grid)
            axes.set_title(short_title(name), weight="bold", color=styles[name].colour)
            axes.set_xlabel(across)
            axes.set_ylabel(down)
        for axes in panels[len(grids) :]:
            axes.set_visible(False)
        figure.supxlabel(legend, size=9, color=COLOURS["muted"])
        return figure


def _grid(rows: Rows, value: str, across: str, down: str) -> Grid:
    tries = sorted({row["n"] for row in rows if row.get("n") is not None})
    return Grid(
        across=_ordered(row[across] for row in rows),
        down=_ordered(row[down] for row in rows),
        cells={(row[across], row[down]): _cell(row, value) for row in rows},
        n=" to ".join(f"{n:,}" for n in sorted({*tries[:1], *tries[-1:]})),
    )


def _ordered(values: Iterable[Any]) -> list[Any]:
    """Numbers by size, names as they come."""
    distinct = list(dict.fromkeys(values))
    return distinct if any(isinstance(value, str) for value in distinct) else sorted(distinct)


def _cell(row: Mapping[str, Any], value: str) -> dict[str, Any]:
    share, n = row.get(value), row.get("n")
    return {
        "share": share,
        "text": formats.fixed(share, 2) if share is not None else "n/m",
        "note": _note(row, share),
        "coloured": share is not None and n is not None and n >= MIN_N,
    }


def _note(row: Mapping[str, Any], share: float | None) -> str:
    if share is None:
        return f"not measurable: {formats.as_text(row.get('reason'))}"
    interval = f"{formats.fixed(row.get('low'), 2)} to {formats.fixed(row.get('high'), 2)}"
    return f"{interval}, n = {formats.integer(row.get('n'))}"


def axis_text(value: object) -> str:
    """A depth as percent, a length or an index with separators."""
    return formats.percent(value, 0) if isinstance(value, float) else formats.as_text(value)


def _draw(axes: Axes, grid: Grid) -> None:
    """Cells as in the table: no colour below MIN_N samples, nothing where nothing was run."""
    from matplotlib.patches import Rectangle

    for x, column in enumerate(grid.across):
        for y, row in enumerate(grid.down):
            if cell := grid.cells.get((column, row)):
                alpha = cell["share"] if cell["coloured"] else 0
                patch: Kwargs = {"facecolor": (*HEAT, alpha), "edgecolor": COLOURS["line"]}
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, linewidth=0.6, **patch))
                ink = COLOURS["paper"] if alpha > FULL else COLOURS["ink"]
                axes.text(x, y, cell["text"], ha="center", va="center", size=8, color=ink)
    axes.set(xlim=(-0.5, len(grid.across) - 0.5), ylim=(len(grid.down) - 0.5, -0.5))
    axes.set_xticks(range(len(grid.across)), [axis_text(value) for value in grid.across])
    axes.set_yticks(range(len(grid.down)), [axis_text(value) for value in grid.down])
    axes.grid(visible=False)
    axes.tick_params(length=0, labelsize=8)
