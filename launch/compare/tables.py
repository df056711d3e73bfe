"""A comparison as rows for `--json`, and as one table for a terminal."""

from collections.abc import Sequence
from typing import Any

from ropewalk.eval.measure.statistics import Estimate
from ropewalk.launch.compare.comparison import Cell, Comparison
from ropewalk.launch.compare.facts import Fact, shown
from ropewalk.launch.compare.groups import Spread
from ropewalk.launch.compare.pareto import hours_label
from ropewalk.launch.compare.reading import Model

Row = dict[str, Any]
MARKS = {"better": "better", "worse": "WORSE", "undecided": "undecided"}
MOST_FACTS = 20
"""Lines of what differs, on a terminal."""
MOST_NAMES = 3
"""Models of a value, on a terminal."""
HEAD = ("measure", "model", "value", "against", "difference", "95% interval", "n", "answer")


def rows(comparison: Comparison, facts: Sequence[Fact]) -> list[Row]:
    """A row a model."""
    return [_row(comparison, model, facts) for model in comparison.models]


def _row(comparison: Comparison, model: Model, facts: Sequence[Fact]) -> Row:
    cells = [cell for cell in comparison.cells if cell.model == model.name]
    gates = verdicts(model)
    group = next(group.name for group in comparison.groups if model in group.models)
    return {
        "name": model.name,
        "schema": 1,
        "run": model.run.resolve().name,
        "column": model.column,
        "configuration": group,
        "seed": model.seed,
        "baseline": comparison.baseline.name,
        "failed": [gate["name"] for gate in gates if gate["verdict"] == "fail"],
        "undecided": [gate["name"] for gate in gates if gate["verdict"] == "undecided"],
        "gates": len(gates),
        "measures": {cell.measure.name: _measured(cell) for cell in cells},
        "tests": comparison.tests,
        **_worth(comparison, model),
        "spreads": [_spread(part) for part in comparison.spreads if part.group == group],
        "differs": {
            fact.key: fact.values[model.name]
            for fact in facts
            if fact.matters and not fact.is_equal
        },
    }


def _worth(comparison: Comparison, model: Model) -> Row:
    """What the longer window is worth, costs, and took."""
    point = next(point for point in comparison.points if point.model == model.name)
    return {
        "long_gain": None if point.gain is None else _interval(point.gain),
        "short_cost": None if point.cost is None else _interval(point.cost),
        "hours": point.hours,
        "hours_are": hours_label(comparison.models),
        "dominated": point.is_dominated,
    }


def _spread(spread: Spread) -> Row:
    documents = spread.over_documents
    return {
        "measure": spread.measure.name,
        "against": spread.baseline,
        "by_seed": {str(seed): value for seed, value in spread.by_seed.items()},
        "over_documents": None if documents is None else _interval(documents),
        "over_seeds": _interval(spread.over_seeds),
    }


def verdicts(model: Model) -> list[Row]:
    """The gates of the model's own evaluation; none for a column that was not judged."""
    return list(model.results.get("gates") or []) if model.is_judged else []


def _measured(cell: Cell) -> Row:
    row: Row = {"title": cell.measure.title, "unit": cell.measure.unit}
    row |= {"better": cell.measure.better, **_interval(cell.value)}
    if not cell.baseline:
        return row
    if cell.difference is None:
        return row | {"difference": None, "reason": cell.reason}
    change = cell.difference
    row["difference"] = _interval(change.estimate) | {
        "against": cell.baseline,
        "paired": change.is_paired,
        "samples": change.samples,
        "left_out": change.left_out,
        "p": cell.p,
        "adjusted": cell.adjusted,
        "answer": cell.answer,
    }
    return row


def _interval(estimate: Estimate) -> Row:
    return estimate._asdict()


def as_text(comparison: Comparison, facts: Sequence[Fact]) -> str:
    """Failed verdicts first, then the table, then what differs."""
    lines = [f"not compared: {name}: {reason}" for name, reason in comparison.missing]
    lines += _failed(comparison.models)
    cells = [HEAD, *(_cells(cell) for cell in comparison.cells)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines += [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([*lines, *_notes(comparison), *_differing(facts)])


def _failed(models: Sequence[Model]) -> list[str]:
    return [
        f"FAIL  {model.name}: {gate['name']}: {gate['text']} ({gate['rule']})"
        for model in models
        for gate in verdicts(model)
        if gate["verdict"] == "fail"
    ]


def _cells(cell: Cell) -> tuple[str, ...]:
    head = (cell.measure.name, cell.model, number(cell, cell.value.value, signed=False))
    if not cell.baseline:
        return (*head, "", "baseline", "", f"{cell.value.n:,}", "")
    if cell.difference is None:
        return (*head, cell.baseline, "-", cell.reason, f"{cell.value.n:,}", "")
    change = cell.difference.estimate
    interval = "no interval"
    if change.low is not None and change.high is not None:
        interval = f"{number(cell, change.low)} to {number(cell, change.high)}"
    kind = "" if cell.difference.is_paired else " (unpaired)"
    answer = MARKS[cell.answer] if cell.answer else ""
    return (
        *head,
        cell.baseline,
        number(cell, change.value),
        f"{interval}{kind}",
        f"{change.n:,}",
        answer,
    )


def number(cell: Cell | Spread, value: float, signed: bool = True) -> str:
    """Nats with three digits, shares as percent; a difference with its sign."""
    sign = "+" if signed else ""
    if cell.measure.unit == "share":
        return f"{100 * value:{sign},.1f}%"
    return f"{value:{sign},.3f}"


def _notes(comparison: Comparison) -> list[str]:
    unpaired = [c for c in comparison.cells if c.difference and not c.difference.is_paired]
    left_out = sum(c.difference.left_out for c in comparison.cells if c.difference)
    lines = [
        f"{comparison.tests} differences from {comparison.baseline.name}, each with its own 95% "
        "interval; better and worse are decided at 5% for all together (Holm)."
    ]
    if unpaired:
        lines.append(f"{len(unpaired)} are unpaired: the models share no sample of that measure.")
    if left_out:
        lines.append(f"{left_out:,} samples have no partner and are left out of the differences.")
    return lines


def _differing(facts: Sequence[Fact]) -> list[str]:
    differing = [fact for fact in facts if fact.is_a_difference]
    equal = sum(fact.matters and fact.is_equal for fact in facts)
    lines = [f"equal in all: {equal} facts; different: {len(differing)}"]
    lines += [f"  {fact.key}: {_values(fact)}" for fact in differing[:MOST_FACTS]]
    if len(differing) > MOST_FACTS:
        lines.append(f"  and {len(differing) - MOST_FACTS} more, on the page")
    return lines


def _values(fact: Fact) -> str:
    """`pi (a, b, c), yarn (d, e and 4 more)`."""
    if len(fact.by_value) == len(fact.values) > MOST_NAMES:
        return "another in every model"
    return ", ".join(f"{shown(value)} ({_names(names)})" for value, names in fact.by_value.items())


def _names(names: Sequence[str]) -> str:
    rest = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")
