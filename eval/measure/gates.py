"""Three answers to a question about an interval: pass, fail, or undecided. Pure.

A gate passes when its whole interval lies on the good side of the tolerance, and fails when all
of it lies on the other: noninferiority, where the value is a loss. Else it is undecided, and says
the n that would decide. Gates that decide together are tested at once (Holm 1979).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ropewalk.eval.measure import student
from ropewalk.eval.measure.statistics import MIN_UNITS, Estimate

Answer = Literal["pass", "fail", "undecided"]
LEVEL = 0.05
MOST_UNITS = 10_000_000
"""No sample has more: a value that close to its tolerance is on it."""
FORMATS = {"nats": "{:+.3f} nats", "points": "{:+.1f} points", "share": "{:.0%}"}


@dataclass(frozen=True)
class Verdict:
    """A measured value beside its tolerance."""

    name: str
    estimate: Estimate
    """The value and its 95% interval."""
    tolerance: float
    rule: str
    """In words."""
    unit: str
    """What `estimate.n` counts: document, haystack, question."""
    measure: Literal["nats", "points", "share"]
    question: int | None = None
    """Of the five questions, 1 to 5; None for a statement about the base or the method."""
    better: Literal["below", "above"] = "below"
    """The side of the tolerance that passes."""

    @property
    def steps(self) -> float:
        """From the value to the tolerance, above 0 on the good side: in units of Student's t, as
        the interval's half on that side gives them."""
        value, low, high, n = self.estimate
        assert low is not None and high is not None
        distance = self.tolerance - value
        half = high - value if distance > 0 else value - low
        if distance == 0:
            return 0.0
        scale = student.half_width(n - 1) / half if half > 0 else math.inf
        return distance * scale * (1 if self.better == "below" else -1)

    @property
    def p(self) -> float:
        """Two-sided p of the value lying on the tolerance; 1 for a sample that cannot decide."""
        if self.estimate.n < MIN_UNITS or self.estimate.low is None:
            return 1.0
        return student.two_sided_p(self.steps, self.estimate.n - 1)

    def answer(self, factor: float = 1.0) -> Answer:
        """`factor`: what p is multiplied by where several are tested."""
        if self.p * factor >= LEVEL:
            return "undecided"
        return "pass" if self.steps > 0 else "fail"

    def needed_n(self, factor: float = 1.0) -> int | None:
        """The fewest units that decide if value and spread stay; None where none would."""
        value, low, _, n = self.estimate
        if low is None or n < 2:
            return MIN_UNITS
        if not self.steps:
            return None

        def decides(units: int) -> bool:
            steps = self.steps * math.sqrt(units / n)
            return student.two_sided_p(steps, units - 1) * factor < LEVEL

        few, many = MIN_UNITS - 1, MIN_UNITS
        while not decides(many):
            few, many = many, 2 * many
            if many > MOST_UNITS:
                return None
        while many - few > 1:
            middle = (few + many) // 2
            few, many = (few, middle) if decides(middle) else (middle, many)
        return many

    @property
    def text(self) -> str:
        """`+0.003 nats [-0.010, +0.016]`."""
        shown, (value, low, high, _) = FORMATS[self.measure], self.estimate
        if low is None or high is None:
            return f"{shown.format(value)} [no interval]"
        number, _, word = shown.partition(" ")
        return f"{shown.format(value)} [{number.format(low)}, {number.format(high)}]"


def holm(p: Sequence[float]) -> list[float]:
    """What each p is multiplied by in Holm's step-down test: len(p) for the least, then fewer.

    A later one's product is raised to that of an earlier one, so that order is kept.
    """
    order, factors, largest = sorted(range(len(p)), key=lambda k: p[k]), [1.0] * len(p), 0.0
    for rank, k in enumerate(order):
        largest = max(largest, p[k] * (len(p) - rank))
        factors[k] = largest / p[k] if p[k] > 0 else float(len(p) - rank)
    return factors


def judge(verdicts: Sequence[Verdict], deciding: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of `gates` in results.json. `deciding`: the questions whose gates decide the exit code;
    these are tested together."""
    together = [k for k, verdict in enumerate(verdicts) if verdict.question in deciding]
    factors = dict(zip(together, holm([verdicts[k].p for k in together]), strict=True))
    return [row(verdict, factors.get(k)) for k, verdict in enumerate(verdicts)]


def row(verdict: Verdict, factor: float | None) -> dict[str, Any]:
    """`factor`: Holm's, of a gate that decides; None for one that is only reported."""
    answer = verdict.answer(factor or 1.0)
    return {
        "name": verdict.name,
        "question": verdict.question,
        "verdict": answer,
        "value": verdict.estimate.value,
        "low": verdict.estimate.low,
        "high": verdict.estimate.high,
        "tolerance": verdict.tolerance,
        "n": verdict.estimate.n,
        "unit": verdict.unit,
        "needed_n": verdict.needed_n(factor or 1.0) if answer == "undecided" else None,
        "rule": verdict.rule,
        "p": verdict.p,
        "adjusted": None if factor is None else min(1.0, verdict.p * factor),
        "decides": factor is not None,
        "text": verdict.text,
    }
