"""Loss by position in held-out windows: whether the model stays good beyond the base's window."""

import math
from collections.abc import Sequence

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
    Task,
    window_samples,
)

BINS = 16


class LossByPosition(Task):
    """No verdict: `window_loss` judges the same losses, inside and past the window."""

    name = "nll_by_position"
    title = "Loss by position"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        return window_samples(suite)

    def rows(self, measured: Measured) -> Rows:
        suite, base = measured.suite, measured.of_base
        theirs = None if base is None else base.losses
        width = max(1, suite.length // BINS)
        bins = statistics.by_position(measured.losses, suite.draws, width, theirs)
        return [{**row, "protocol": "position_bins"} for row in bins]

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


def _mean_text(bins: Rows, low: float, high: float) -> str | None:
    mean = statistics.mean_nll(bins, low, high)
    return None if mean is None else f"{mean:.3f}"
