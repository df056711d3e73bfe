"""Perplexity of the first L tokens of held-out windows, by L."""

from collections.abc import Sequence

from ropewalk.eval.measure import statistics
from ropewalk.eval.report import formats
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


class Perplexity(Task):
    """No verdict: loss by position judges the same losses."""

    name = "perplexity"
    title = "Perplexity by length"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        return window_samples(suite)

    def rows(self, measured: Measured) -> Rows:
        return statistics.perplexities(measured.losses, measured.suite.contexts)

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        """The longest length, and the base's window where it was measured."""
        lengths = sorted({int(length) for values in rows.values() for length in values})
        clauses = []
        for length in lengths:
            if length in (lengths[-1], window):
                values = {model: by_length.get(str(length)) for model, by_length in rows.items()}
                text = list_by_model(values, formats.perplexity)
                clauses.append(f"over {length:,} tokens the perplexity is {text}")
        return sentence(clauses)
