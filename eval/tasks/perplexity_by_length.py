"""Perplexity of the first L tokens of held-out windows, with intervals and bits per byte."""

from collections.abc import Sequence

import numpy as np

from ropewalk.eval.measure.loss_rows import Row, mean_row, perplexity_row
from ropewalk.eval.report.figures.perplexity import perplexity_figure
from ropewalk.eval.tasks.task import (
    EvalSuite,
    Measured,
    ModelRows,
    Rows,
    Sample,
    Task,
    window_samples,
)
from ropewalk.eval.tasks.texts import (
    base_losses_of,
    bits_per_byte,
    losses_of,
    target_bytes,
    target_ids,
)

PROTOCOL = "first_tokens"


class PerplexityByLength(Task):
    """No verdict: loss by position judges the same losses."""

    name = "perplexity_by_length"
    title = "Perplexity by length, with intervals"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        return window_samples(suite)

    def rows(self, measured: Measured) -> Rows:
        base = base_losses_of(measured)
        counts = [target_bytes(measured.suite, target_ids(s)) for s in measured.samples]
        return [_row(measured, base, counts, length) for length in measured.suite.contexts]

    def figure(self, rows: ModelRows, window: int | None) -> str | None:
        words = "Loss over the first tokens of held-out windows, by their number"
        return perplexity_figure(rows, window, self.name, "length", words)


def _row(
    measured: Measured,
    base: Sequence[np.ndarray] | None,
    counts: Sequence[np.ndarray | None],
    length: int,
) -> Row:
    losses = [part[: length - 1] for part in losses_of(measured)]
    units = [sample.unit for sample in measured.samples]
    of_base = base and [part[: length - 1] for part in base]
    row = perplexity_row(mean_row(units, losses, of_base, measured.suite.seed))
    return {
        "length": length,
        **row,
        "tokens": sum(map(len, losses)),
        "bits_per_byte": bits_per_byte(losses, counts),
        "unit": "document",
        "protocol": PROTOCOL,
    }
