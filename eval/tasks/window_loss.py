"""Loss inside the base's window and past it, each beside the base's on the same tokens."""

from collections.abc import Sequence

import numpy as np

from ropewalk.eval.measure import statistics
from ropewalk.eval.measure.statistics import PAIRED, Estimate
from ropewalk.eval.report.formats import signed
from ropewalk.eval.tasks.task import (
    EvalSuite,
    Measured,
    ModelRows,
    Rows,
    Sample,
    Task,
    Verdict,
    difference,
    window_samples,
)

RISE = ("rise", "rise_low", "rise_high")
"""Loss past the window minus loss inside it, of the same documents."""


class WindowLoss(Task):
    name = "window_loss"
    title = "Loss inside and past the window"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        return window_samples(suite)

    def rows(self, measured: Measured) -> Rows:
        """A row for the positions inside the window; one for those past it, where there are any."""
        suite, base = measured.suite, measured.of_base
        parts = _parts(measured.losses, suite.base_window)
        rows = []
        for number, (part, span) in enumerate(zip(parts, _spans(suite), strict=False)):
            row = {"from": span[0], "to": span[1], "tokens": part.size, "unit": "document"}
            row |= {"n": suite.draws.n, **statistics.mean_with_interval(part, suite.draws)}
            if base is not None:
                theirs = _parts(base.losses, suite.base_window)[number]
                row |= statistics.paired(part, theirs, suite.draws)
            if number == 1:
                means = [each.mean(axis=1, keepdims=True) for each in parts]
                rise = statistics.paired(means[1], means[0], suite.draws)
                row |= dict(zip(RISE, rise.values(), strict=True))
            else:
                row["tolerance"] = suite.config.gates.inside_nats
            rows.append(row)
        return rows

    def verdicts(self, rows: ModelRows, window: int, length: int) -> list[Verdict]:
        past = {model: part[1] for model, part in rows.items()}
        value, low, high = (past["base"][key] for key in RISE)
        rise = Estimate(value, low, high, past["base"]["n"])
        rule = "loss past the window over inside it: above +1 shows that extension is needed"
        name = "Base past its window"
        verdicts = [Verdict(name, rise, 1.0, rule, "document", "nats", better="above")]
        if "rescaled" in past:
            name, change = "Rescaled only, past the window", difference(past["rescaled"])
            rule = "against the base at the same positions: below 0"
            verdicts.append(Verdict(name, change, 0.0, rule, "document", "nats"))
        inside = rows["extended"][0]
        name, bar = "Inside the original window", inside["tolerance"]
        rule = f"extended against base: at most {bar:+g}"
        change = difference(inside)
        return [*verdicts, Verdict(name, change, bar, rule, "document", "nats", question=5)]

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        """The extended model's difference to the base inside the window."""
        inside = (rows.get("extended") or [{}])[0]
        if any(inside.get(key) is None for key in PAIRED):
            return None
        change, low, high = (signed(inside[key]) for key in PAIRED)
        return (
            f"Inside the base's window of {inside['to']:,} tokens the extended model's loss "
            f"differs from the base's by {change} nats ({low} to {high})."
        )


def _spans(suite: EvalSuite) -> list[tuple[int, int]]:
    window, length = min(suite.base_window, suite.length), suite.length
    return [(0, window), (window, length)] if length > window else [(0, window)]


def _parts(losses: np.ndarray, window: int) -> list[np.ndarray]:
    """Losses inside the window and past it: (N, window - 1) and (N, S - window)."""
    return [losses[:, : window - 1], losses[:, window - 1 :]]
