"""Loss of the same target tokens under ever longer context: what longer context is worth."""

from collections.abc import Sequence

from ropewalk.eval.measure import statistics
from ropewalk.eval.measure.statistics import PAIRED
from ropewalk.eval.report.figures.columns import in_order
from ropewalk.eval.report.figures.loss import loss_figure
from ropewalk.eval.report.figures.style import column
from ropewalk.eval.report.formats import signed
from ropewalk.eval.requests import Text
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


class ContextGain(Task):
    name = "context_gain"
    title = "The same targets, longer context"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        """The windows at full length, and their last tokens under each shorter context."""
        samples = window_samples(suite)
        for context in suite.contexts[:-1]:
            texts = zip(suite.windows, suite.last_tokens(context), strict=True)
            for number, (window, ids) in enumerate(texts):
                request, facts = Text(ids, context - suite.targets), {"length": context}
                samples.append(
                    Sample(f"context/{context}/{number:03}", window.origin, request, facts)
                )
        return samples

    def rows(self, measured: Measured) -> Rows:
        """Losses of each window's last `targets` tokens, (N, targets), for each context length."""
        suite = measured.suite
        by_context = {
            context: measured.select(length=context).losses[:, -suite.targets :]
            for context in suite.contexts
        }
        rows = statistics.gains(by_context, suite.draws)
        return [{**row, "protocol": "last_tokens"} for row in rows]

    def verdicts(self, comparison: Comparison) -> list[Verdict]:
        if not comparison.is_past_window:
            return []
        longest = comparison.judged_rows[-1]
        contexts = f"{longest['context']:,} tokens of context against {comparison.window:,}"
        rule = f"loss with {contexts}: interval below 0"
        name, unit = "Same tokens, longer context", longest["unit"]
        return [Verdict(name, difference(longest), 0.0, rule, unit, "nats", question=1)]

    def figure(self, rows: ModelRows, window: int | None) -> str | None:
        if not rows:
            return None
        curves = {model: (column(points, "context"), points) for model, points in rows.items()}
        ends = [float(x[k]) for x, _ in curves.values() for k in (0, -1)]
        return loss_figure(
            curves,
            window,
            (min(ends) / 1.12, max(ends) * 1.04),
            prefix="gain",
            x_label="context (tokens)",
            description="Loss of the same targets under growing context, with intervals",
        )

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        """The longest context against the reference: the paired difference, and if it shows."""
        model = "extended" if "extended" in rows else next(reversed(in_order(rows)), None)
        reference = reference_context(rows, window)
        if model is None or not reference:
            return None
        longest = max(rows[model], key=lambda row: row["context"])
        if any(longest.get(key) is None for key in PAIRED) or longest["context"] == reference:
            return None
        change, low, high = (longest[key] for key in PAIRED)
        return (
            f"Given {longest['context']:,} tokens of context instead of {reference:,}, the "
            f"{model} model's loss on the same targets changes by {signed(change)} nats "
            f"({signed(low)} to {signed(high)}): {_direction(low, high)}."
        )


def _direction(low: float, high: float) -> str:
    if high < 0:
        return "lower"
    return "higher" if low > 0 else "not shown to differ (the interval holds zero)"


def reference_context(rows: ModelRows, window: int | None) -> int | None:
    """The context that differences are taken to: where the difference and its interval are zero."""
    points = [row for model in rows.values() for row in model]
    zero = (row["context"] for row in points if all(row.get(key) == 0 for key in PAIRED))
    return next(zero, window)
