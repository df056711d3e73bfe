"""The page of a comparison: one file, in the look of a run's report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ropewalk.conf.artifacts.records import write_text
from ropewalk.eval.report import formats
from ropewalk.eval.report.figures.columns import column_styles, page_columns
from ropewalk.eval.report.figures.style import narrow_figures
from ropewalk.eval.tasks.position import LossByPosition
from ropewalk.launch.compare import tables
from ropewalk.launch.compare.comparison import Cell, Comparison
from ropewalk.launch.compare.facts import Fact, shown

PAGE = "index.html"


def write(folder: Path, comparison: Comparison, facts: Sequence[Fact]) -> Path:
    """Write the page; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PAGE
    write_text(path, render(comparison, facts))
    return path


def render(comparison: Comparison, facts: Sequence[Fact]) -> str:
    """The page, equal bytes for equal results."""
    names = [model.name for model in comparison.models]
    with page_columns(names):
        wide = figures(comparison)
        with narrow_figures():
            narrow = figures(comparison)
        styles = column_styles(names)
    cells: dict[str, list[Cell]] = {}
    for cell in comparison.cells:
        cells.setdefault(cell.measure.name, []).append(cell)
    template = formats.template("ropewalk.launch.compare", "compare.html.j2")
    return template.render(
        comparison=comparison,
        cells=cells,
        verdicts={model.name: tables.verdicts(model) for model in comparison.models},
        facts=facts,
        figures={name: Markup(drawing) for name, drawing in wide.items()},
        narrow={name: Markup(drawing) for name, drawing in narrow.items()},
        styles=styles,
        number=_number,
        shown=shown,
    )


def _number(cell: Cell, value: float, signed: bool = True) -> str:
    return tables.number(cell, value, signed).replace("-", "\u2212")


def figures(comparison: Comparison) -> dict[str, str]:
    """Drawings by name, without those that have nothing to show."""
    rows: Mapping[str, Any] = {
        model.name: part
        for model in comparison.models
        if (part := model.rows.get("nll_by_position"))
    }
    window = comparison.baseline.results["base_window"]
    drawn = {"position": LossByPosition().figure(rows, window)}
    return {name: drawing for name, drawing in drawn.items() if drawing}
