"""Loss inside the base's window and past it, each beside the base's on the same tokens."""

from collections.abc import Sequence

import numpy as np

from ropewalk.eval.measure import statistics
from ropewalk.eval.measure.statistics import PAIRED, Estimate
from ropewalk.eval.report.sentences import difference_text, list_by_model, sentence
from ropewalk.eval.tasks.task import (
    Comparison,
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

    def verdicts(self, comparison: Comparison) -> list[Verdict]:
        past = self._past_window(comparison) if comparison.is_past_window else []
        inside = comparison.judged_rows[0]
        name, bar = "Inside the original window", inside["tolerance"]
        rule = f"{comparison.judged} against {comparison.reference}: at most {bar:+g}"
        change = difference(inside)
        return [*past, Verdict(name, change, bar, rule, "document", "nats", question=5)]

    def _past_window(self, comparison: Comparison) -> list[Verdict]:
        """Of the reference, and of the rescaled table alone."""
        reference = comparison.reference
        past = {model: part[1] for model, part in comparison.rows.items()}
        value, low, high = (past[reference][key] for key in RISE)
        rise = Estimate(value, low, high, past[reference]["n"])
        rule = "loss past the window over inside it: above +1 shows that extension is needed"
        name = f"{'Base' if reference == 'base' else reference} past its window"
        verdicts = [Verdict(name, rise, 1.0, rule, "document", "nats", better="above")]
        if PAIRED[0] in past.get("rescaled", {}):
            name, change = "Rescaled only, past the window", difference(past["rescaled"])
            rule = f"against {reference} at the same positions: below 0"
            verdicts.append(Verdict(name, change, 0.0, rule, "document", "nats"))
        return verdicts

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        """Each column's difference to the reference inside the window."""
        if not (values := list_by_model(rows, lambda part: difference_text(part[0]))):
            return None
        end = next(part[0]["to"] for part in rows.values() if difference_text(part[0]))
        text = f"inside the window of {end:,} tokens the loss differs from the reference's by"
        return sentence([f"{text} {values} nats"])


def _spans(suite: EvalSuite) -> list[tuple[int, int]]:
    window, length = min(suite.base_window, suite.length), suite.length
    return [(0, window), (window, length)] if length > window else [(0, window)]


def _parts(losses: np.ndarray, window: int) -> list[np.ndarray]:
    """Losses inside the window and past it: (N, window - 1) and (N, S - window)."""
    return [losses[:, : window - 1], losses[:, window - 1 :]]
