"""docs/recipes.md: its tables, from table.json and the cards, between marks in the page."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ropewalk.launch.recipes.bases import card_of
from ropewalk.launch.recipes.listing import billions, memory, window

FILE = Path(__file__).parents[2] / "docs" / "recipes.md"


def write(rows: Mapping[str, Any]) -> None:
    FILE.write_text(filled(FILE.read_text("utf-8"), rows), "utf-8")


def filled(text: str, rows: Mapping[str, Any]) -> str:
    """The page with both tables made anew."""
    for mark, lines in (("recipes", _recipes(rows)), ("plans", _plans(rows))):
        table = "\n".join(lines)
        before, _, rest = text.partition(f"<!-- {mark} -->")
        _, _, after = rest.partition(f"<!-- end {mark} -->")
        text = f"{before}<!-- {mark} -->\n{table}\n<!-- end {mark} -->{after}"
    return text


def _recipes(rows: Mapping[str, Any]) -> Iterator[str]:
    yield "| recipe | what | base | window | method | tokens | phases | licence of the base |"
    yield "|--|--|--|--|--|--|--|--|"
    for name, row in rows.items():
        card = card_of(name)
        cells = [name, card.title, row["base"], window(row), row["method"]]
        cells += [billions(row["tokens"]), str(row["phases"]), row["licence"]]
        yield f"| {' | '.join(cells)} |"


def _plans(rows: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "| recipe, phase | planned on | memory of a GPU | host GiB | s a step | GPU-hours | "
        "the authors' GPUs | GPU-hours |"
    )
    yield "|--|--|--|--|--|--|--|--|"
    for name, row in rows.items():
        authors = card_of(name).authors
        theirs = (authors.hardware or "not published", _hours(authors.gpu_hours, authors.note))
        for number, phase in enumerate(row["plan"]):
            beside = theirs if not number else ("", "")
            yield f"| {' | '.join((*_phase(name, row, phase), *beside))} |"


def _phase(name: str, row: Mapping[str, Any], phase: Mapping[str, Any]) -> tuple[str, ...]:
    title = phase["phase"].partition("(")[2].rstrip(")")
    step, hours = phase["step_s"], phase["gpu_hours"]
    return (
        f"{name}, {title}" if title else name,
        f"{phase['gpus']} x {row['hardware']}",
        memory(phase),
        str(phase["host_gib"] or ""),
        f"{step['low']:g} to {step['high']:g}",
        f"{hours['low']:,.0f} to {hours['high']:,.0f}",
    )


def _hours(hours: float | None, note: str | None) -> str:
    parts = [] if hours is None else [f"{hours:,.0f}"]
    return "; ".join([*parts, *filter(None, [note])]) or "not published"
