"""The page of a comparison: one file, in the look of a run's report."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from ropewalk.conf.artifacts.records import write_text
from ropewalk.eval.report import formats
from ropewalk.eval.report.figures.columns import page_columns
from ropewalk.eval.report.figures.style import narrow_figures
from ropewalk.launch.compare import published, tables
from ropewalk.launch.compare.comparison import Cell, Comparison
from ropewalk.launch.compare.facts import Fact, shown
from ropewalk.launch.compare.figures import by_position, differences, pareto, styles_of
from ropewalk.launch.compare.groups import Spread
from ropewalk.launch.compare.pareto import hours_label

PAGE = "index.html"


def write(folder: Path, comparison: Comparison, facts: Sequence[Fact]) -> Path:
    """Write the page; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PAGE
    write_text(path, render(comparison, facts))
    return path


def render(comparison: Comparison, facts: Sequence[Fact]) -> str:
    """The page, equal bytes for equal results."""
    with page_columns([group.label for group in comparison.groups]):
        wide = figures(comparison)
        with narrow_figures():
            narrow = figures(comparison)
        styles = styles_of(comparison.groups)
    cells: dict[str, list[Cell]] = {}
    for cell in comparison.cells:
        cells.setdefault(cell.measure.name, []).append(cell)
    spreads: dict[str, list[Spread]] = {}
    for spread in comparison.spreads:
        spreads.setdefault(spread.measure.title, []).append(spread)
    template = formats.template("ropewalk.launch.compare", "compare.html.j2")
    return template.render(
        comparison=comparison,
        cells=cells,
        verdicts={model.name: tables.verdicts(model) for model in comparison.models},
        standing=_standing(comparison),
        colours={group.name: styles[group.models[0].name] for group in comparison.groups},
        facts=facts,
        spreads=spreads,
        figures={name: Markup(drawing) for name, drawing in wide.items()},
        narrow={name: Markup(drawing) for name, drawing in narrow.items()},
        styles=styles,
        number=_number,
        shown=shown,
        hours_label=hours_label(comparison.models),
        published=published.beside(comparison.models),
    )


def _standing(comparison: Comparison) -> dict[tuple[int, int, int], list[str]]:
    """The models without a failed gate, by how many are undecided, pass, and are there."""
    models: dict[tuple[int, int, int], list[str]] = {}
    for model in comparison.models:
        answers = [gate["verdict"] for gate in tables.verdicts(model)]
        if "fail" not in answers:
            counts = answers.count("undecided"), answers.count("pass"), len(answers)
            models.setdefault(counts, []).append(model.name)
    return models


def _number(cell: Cell | Spread, value: float, signed: bool = True) -> str:
    return tables.number(cell, value, signed).replace("-", "\u2212")


def figures(comparison: Comparison) -> dict[str, str]:
    """Drawings by name, without those that have nothing to show."""
    drawn = {"position": by_position(comparison), "pareto": pareto(comparison)}
    measured = dict.fromkeys(cell.measure.name for cell in comparison.cells)
    drawn |= {name: differences(comparison, name) for name in measured}
    return {name: drawing for name, drawing in drawn.items() if drawing}
