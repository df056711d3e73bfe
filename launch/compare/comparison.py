"""Every measure of every model beside the baseline's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ropewalk.conf.errors import ConfigError
from ropewalk.eval.measure import gates
from ropewalk.eval.measure.gates import Verdict
from ropewalk.eval.measure.statistics import Estimate
from ropewalk.launch.compare import pairs
from ropewalk.launch.compare.measures import Measure, Values, measures
from ropewalk.launch.compare.pairs import Difference
from ropewalk.launch.compare.reading import Model

Answer = Literal["better", "worse", "undecided"]
WORDS: dict[str, Answer] = {"pass": "better", "fail": "worse", "undecided": "undecided"}


@dataclass(frozen=True)
class Cell:
    """One measure of one model."""

    measure: Measure
    model: str
    value: Estimate
    baseline: str = ""
    """The model that it is compared with; empty for the baseline itself."""
    difference: Difference | None = None
    reason: str = ""
    """Why there is no difference."""
    p: float | None = None
    adjusted: float | None = None
    """p by Holm's test over all differences of the comparison."""
    answer: Answer | None = None
    """By the adjusted p, at 5%."""


@dataclass(frozen=True)
class Comparison:
    """All models beside the baseline."""

    models: Sequence[Model]
    baseline: Model
    cells: Sequence[Cell]
    """By measure, then by model; without those that were not measured."""

    @property
    def tests(self) -> int:
        """Differences that are tested together."""
        return sum(cell.adjusted is not None for cell in self.cells)

    def of(self, measure: str) -> dict[str, Cell]:
        """The cells of a measure by model."""
        return {cell.model: cell for cell in self.cells if cell.measure.name == measure}


def compare(models: Sequence[Model], baseline: str = "") -> Comparison:
    """`baseline`: a model's name; empty: the first one. Raises: ConfigError."""
    named = {model.name: model for model in models}
    if baseline and baseline not in named:
        raise ConfigError(
            f"--baseline is {baseline}; it must be one of the compared models, {', '.join(named)}; "
            "choose one of them"
        )
    against = named[baseline] if baseline else models[0]
    cells = [cell for measure in measures() for cell in _cells(measure, models, against)]
    return Comparison(models, against, _judged(cells))


def _cells(measure: Measure, models: Sequence[Model], baseline: Model) -> list[Cell]:
    values = {model.name: measure.of(model) for model in models}
    return [
        _cell(measure, model, part, baseline, values[baseline.name])
        for model in models
        if (part := values[model.name]) is not None
    ]


def _cell(
    measure: Measure, model: Model, own: Values, baseline: Model, theirs: Values | None
) -> Cell:
    is_share, seed = measure.unit == "share", baseline.results["seed"]
    cell = Cell(measure, model.name, pairs.estimate(own, seed, is_share))
    if model is baseline:
        return cell
    cell = replace(cell, baseline=baseline.name)
    if theirs is None:
        return replace(cell, reason=f"{baseline.name} was not measured")
    if reason := _no_difference(measure, model, own, baseline, theirs):
        return replace(cell, reason=reason)
    change = pairs.difference(own, theirs, seed, is_share)
    return replace(cell, difference=change, p=_verdict(measure, change.estimate).p)


def _no_difference(
    measure: Measure, model: Model, own: Values, baseline: Model, theirs: Values
) -> str:
    """Why two values cannot be compared; empty where they can."""
    if own.protocol != theirs.protocol:
        return f"another protocol: {own.protocol} against {theirs.protocol}"
    if measure.unit == "nats" and model.facts["tokenizer"] != baseline.facts["tokenizer"]:
        return "another tokenizer: nats are per token"
    return ""


def _verdict(measure: Measure, change: Estimate) -> Verdict:
    side: Literal["below", "above"] = "below" if measure.better == "lower" else "above"
    return Verdict(measure.title, change, 0.0, "", "unit", "nats", better=side)


def _judged(cells: Sequence[Cell]) -> list[Cell]:
    """With p by Holm's test over all of them, and the answer."""
    tested = [number for number, cell in enumerate(cells) if cell.p is not None]
    factors = gates.holm([p for cell in cells if (p := cell.p) is not None])
    by_number = dict(zip(tested, factors, strict=True))
    return [
        _answered(cell, by_number[number]) if number in by_number else cell
        for number, cell in enumerate(cells)
    ]


def _answered(cell: Cell, factor: float) -> Cell:
    assert cell.difference is not None and cell.p is not None
    answer = WORDS[_verdict(cell.measure, cell.difference.estimate).answer(factor)]
    return replace(cell, adjusted=min(1.0, cell.p * factor), answer=answer)
