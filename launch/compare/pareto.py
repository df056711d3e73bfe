"""What a longer window is worth, what it costs on short text, and what the training took."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ropewalk.conf.errors import ConfigError
from ropewalk.eval.measure.statistics import Estimate
from ropewalk.launch.compare import measures, pairs
from ropewalk.launch.compare.groups import Group
from ropewalk.launch.compare.reading import Model
from ropewalk.launch.runs import training
from ropewalk.train.results import METRICS_FILE


@dataclass(frozen=True)
class Point:
    """One model."""

    model: str
    gain: Estimate | None
    """Nats that its longest context saves on the windows' last tokens, beside the reference of its
    own evaluation given the base's window."""
    cost: Estimate | None
    """Nats that it loses on short documents, or inside the window, beside the same reference."""
    hours: float | None
    """Seconds of the steps x ranks, in hours; None of a model without a training here."""
    is_dominated: bool = False

    @property
    def criteria(self) -> tuple[float | None, float | None, float | None]:
        """The lower, the better."""
        gain = None if self.gain is None else -self.gain.value
        return gain, None if self.cost is None else self.cost.value, self.hours


def points(groups: Sequence[Group]) -> list[Point]:
    """A point a model. A configuration is dominated where another is as good by each criterion and
    better by one, in the means over their seeds: by the values, whatever their intervals."""
    made = [[_point(model) for model in group.models] for group in groups]
    beaten = dominated([_means(part) for part in made])
    return [
        replace(point, is_dominated=is_dominated)
        for part, is_dominated in zip(made, beaten, strict=True)
        for point in part
    ]


def _point(model: Model) -> Point:
    return Point(model.name, gain(model), cost(model), hours(model))


def _means(part: Sequence[Point]) -> tuple[float | None, ...]:
    """Of each criterion over the seeds; None where one lacks it."""
    columns = zip(*(point.criteria for point in part), strict=True)
    return tuple(
        None if None in column else sum(v for v in column if v is not None) / len(column)
        for column in columns
    )


def dominated(rows: Sequence[tuple[float | None, ...]]) -> list[bool]:
    """Whether another row is no higher anywhere and lower somewhere; a row that lacks a value
    neither dominates nor is dominated."""
    complete = [row for row in rows if None not in row]
    return [None not in row and any(_dominates(other, row) for other in complete) for row in rows]


def _dominates(a: tuple[float | None, ...], b: tuple[float | None, ...]) -> bool:
    sides = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    return all(x <= y for x, y in sides) and any(x < y for x, y in sides)


def gain(model: Model) -> Estimate | None:
    values = measures.gain_over_reference(model)
    return None if values is None else pairs.estimate(values, model.results["seed"], False)


def cost(model: Model) -> Estimate | None:
    for measure in (measures.short_text, measures.inside_window):
        own, theirs = measure(model), measure(model.reference)
        if own is not None and theirs is not None:
            return pairs.difference(own, theirs, model.results["seed"], False).estimate
    return None


def hours(model: Model) -> float | None:
    """Of all phases, with the steps that a resumed training repeated.

    Raises: ConfigError for a line of metrics.jsonl that cannot be read.
    """
    if not model.is_trained:
        return None
    seconds = [_rank_seconds(f / "train" / METRICS_FILE) for f in training.phase_folders(model.run)]
    return sum(seconds) / 3600 if any(seconds) else None


def _rank_seconds(path: Path) -> float:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    try:
        return sum(_seconds(json.loads(line)) for line in lines if line.strip())
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"RUN is {path.parent.parent}; each line of its {path.name} must be as the training "
            f"wrote it ({error}); restore the file"
        ) from None


def _seconds(line: dict[str, Any]) -> float:
    """Of all ranks in one step; none of an event."""
    seconds, each = line.get("step_time_s", 0.0), line.get("tokens_per_s_per_rank")
    return float(seconds) * (round(line["tokens_per_s"] / each) if each else 1)


def hours_label(models: Sequence[Model]) -> str:
    """GPU-hours, or what else the hours of these runs are."""
    on_gpus = [bool(model.record.get("machine", {}).get("gpus")) for model in models]
    if all(on_gpus):
        return "GPU-hours"
    return "device-hours" if any(on_gpus) else "CPU rank-hours"
