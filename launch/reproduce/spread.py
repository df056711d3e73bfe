"""How far runs that differ in the seed alone lie apart. Pure.

A further run of the same kind falls into mean +- t s sqrt(1 + 1/n) of n such runs with the stated
probability (the prediction interval for one more value of a normal distribution). Of m values that
are looked at together each gets 1 - 0.05 / m (Bonferroni).
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ropewalk.eval.measure import student

FEWEST = 3
"""Runs, that of the manifest included. Of two there is no telling how far a third may lie."""
LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """Of one value over n seeds, and where the run that is judged lies."""

    name: str
    n: int
    mean: float
    deviation: float
    half_width: float
    value: float

    @property
    def holds(self) -> bool:
        return abs(self.value - self.mean) <= self.half_width

    def __str__(self) -> str:
        side = "inside" if self.holds else "outside"
        return (
            f"{self.name} is {self.value:.6g}, {side} {self.mean:.6g} +- {self.half_width:.3g} "
            f"(standard deviation {self.deviation:.3g} over {self.n} seeds)"
        )

    def json(self) -> dict[str, Any]:
        return {**asdict(self), "inside": self.holds}


def spreads(runs: Sequence[Mapping[str, float]], judged: Mapping[str, float]) -> list[Spread]:
    """The spread of each value that all runs and the judged one have, over the `runs`."""
    names = [name for name in judged if all(name in run for run in runs)]
    level = 1 - (1 - LEVEL) / max(1, len(names))
    result = []
    for name in names:
        numbers, n = [run[name] for run in runs], len(runs)
        deviation = statistics.stdev(numbers)
        half = student.half_width(n - 1, level) * deviation * math.sqrt(1 + 1 / n)
        mean = statistics.fmean(numbers)
        result.append(Spread(name, n, mean, deviation, half, judged[name]))
    return result
