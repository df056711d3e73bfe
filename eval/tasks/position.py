"""Loss by position in held-out windows: whether the model stays good beyond the base's window."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from ropewalk.eval.measure import statistics
from ropewalk.eval.report.figures.loss import Curves, loss_figure
from ropewalk.eval.report.figures.style import column
from ropewalk.eval.report.sentences import list_by_model, sentence
from ropewalk.eval.tasks.task import (
    EvalSuite,
    Measured,
    ModelRows,
    Rows,
    Sample,
    Verdict,
    verdict,
    window_samples,
)

BINS = 16


class LossByPosition:
    name = "nll_by_position"
    title = "Loss by position"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        return window_samples(suite)

    def rows(self, measured: Measured) -> Rows:
        suite = measured.suite
        return statistics.by_position(measured.losses, suite.draws, max(1, suite.length // BINS))

    def verdicts(self, rows: ModelRows, window: int, length: int) -> list[Verdict]:
        inside = {model: statistics.mean_nll(bins, 0, window) for model, bins in rows.items()}
        beyond = {model: statistics.mean_nll(bins, window, length) for model, bins in rows.items()}
        checks = _difference(
            ("Base past its window", beyond["base"], inside["base"]),
            lambda rise: (f"{rise:+.2f} nats", rise > 1),
            "loss past the window over inside it: above +1 shows that extension is needed",
        )
        checks += _difference(
            ("Rescaled only, past the window", beyond.get("rescaled"), beyond["base"]),
            lambda change: (f"{change:+.2f} nats", change < 0),
            "against the base at the same positions: below 0",
        )
        checks += _difference(
            ("Inside the original window", inside["extended"], inside["base"]),
            lambda change: (f"{change:+.3f} nats", change <= 0.05),
            "extended against base: at most +0.05",
        )
        return checks

    def figure(self, rows: ModelRows, window: int | None) -> str | None:
        """Mean loss of each bin as a step over the bin: nothing is drawn between bins."""
        if not rows:
            return None
        left = min(bins[0]["to"] for bins in rows.values()) / 2
        right = max(bins[-1]["to"] for bins in rows.values())
        curves: Curves = {}
        for model, bins in rows.items():
            edges = np.stack([column(bins, "from"), column(bins, "to")], axis=1).ravel()
            curves[model] = (np.maximum(edges, left), [row for row in bins for _ in range(2)])
        return loss_figure(
            curves,
            window,
            (left, right),
            prefix="position",
            x_label="position (tokens before the target; the first bin begins at 0)",
            description="Loss by position for each model, with intervals",
            mark_every=2,
        )

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        if not window:
            return None
        beyond = list_by_model(rows, lambda bins: _mean_text(bins, window, math.inf))
        inside = list_by_model(rows, lambda bins: _mean_text(bins, 0, window))
        text = f"beyond the base's window of {window:,} tokens the mean loss is {beyond}"
        clauses = {text: beyond, f"inside that window it is {inside}": inside}
        return sentence(clause for clause, values in clauses.items() if values)


def _difference(
    losses: tuple[str, float | None, float | None],
    judge: Callable[[float], tuple[str, bool]],
    rule: str,
) -> list[Verdict]:
    """One verdict on loss minus reference of `losses` (name, loss, reference).

    None where one is missing: with bins wider than the window no bin lies inside it.
    """
    name, loss, reference = losses
    if loss is None or reference is None:
        return []
    text, holds = judge(loss - reference)
    return [verdict(name, loss - reference, text, holds, rule)]


def _mean_text(bins: Rows, low: float, high: float) -> str | None:
    mean = statistics.mean_nll(bins, low, high)
    return None if mean is None else f"{mean:.3f}"
