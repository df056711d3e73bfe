"""Every measure of every model beside the baseline's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ropewalk.conf.errors import ConfigError
from ropewalk.eval.measure import gates
from ropewalk.eval.measure.gates import Verdict
from ropewalk.eval.measure.statistics import Estimate
from ropewalk.launch.compare import pairs
from ropewalk.launch.compare.groups import Group, Spread, groups_of, partner, spreads
from ropewalk.launch.compare.measures import Measure, Values, measures
from ropewalk.launch.compare.pairs import Difference
from ropewalk.launch.compare.pareto import Point, points
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
    groups: Sequence[Group]
    """By configuration."""
    spreads: Sequence[Spread]
    points: Sequence[Point]
    missing: Sequence[tuple[str, str]] = ()
    """Runs of a sweep without results, each with the reason."""

    @property
    def tests(self) -> int:
        """Differences that are tested together."""
        return sum(cell.adjusted is not None for cell in self.cells)

    def of(self, measure: str) -> dict[str, Cell]:
        """The cells of a measure by model."""
        return {cell.model: cell for cell in self.cells if cell.measure.name == measure}


def compare(
    models: Sequence[Model], baseline: str = "", missing: Sequence[tuple[str, str]] = ()
) -> Comparison:
    """`baseline`: a model's name; empty: the first one. Raises: ConfigError."""
    against, groups = _baseline(models, baseline), groups_of(models)
    values = {measure: _values(measure, models) for measure in measures()}
    cells = [
        _cell(measure, model, by_model, partner(model, groups, against), against)
        for measure, by_model in values.items()
        for model in models
        if model.name in by_model
    ]
    over_seeds = spreads(groups, against, values)
    judged, worth = _judged(cells), points(groups)
    return Comparison(models, against, judged, groups, over_seeds, worth, missing)


def _baseline(models: Sequence[Model], name: str) -> Model:
    """The model of that name, or the trained one of the run of that name. Raises: ConfigError."""
    named = [model for model in models if model.name == name]
    named += [m for m in models if m.is_trained and m.run.resolve().name == name]
    if name and not named:
        raise ConfigError(
            f"--baseline is {name}; it must be one of the compared models, "
            f"{', '.join(model.name for model in models)}; choose one of them"
        )
    return named[0] if name else models[0]


def _values(measure: Measure, models: Sequence[Model]) -> dict[str, Values]:
    values = {model.name: measure.of(model) for model in models}
    return {name: part for name, part in values.items() if part is not None}


def _cell(
    measure: Measure,
    model: Model,
    values: Mapping[str, Values],
    other: Model,
    baseline: Model,
) -> Cell:
    """`other`: the model that this one is compared with."""
    is_share, seed, own = measure.unit == "share", baseline.results["seed"], values[model.name]
    cell = Cell(measure, model.name, pairs.estimate(own, seed, is_share))
    if model is baseline:
        return cell
    cell, theirs = replace(cell, baseline=other.name), values.get(other.name)
    if theirs is None:
        return replace(cell, reason=f"{other.name} was not measured")
    if reason := _no_difference(measure, model, own, other, theirs):
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
