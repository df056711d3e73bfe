"""Perplexity of windows that slide over held-out documents, begun as training documents are."""

from collections.abc import Iterator, Sequence

from ropewalk.eval.measure.loss_rows import not_measurable
from ropewalk.eval.report.figures.perplexity import perplexity_figure
from ropewalk.eval.tasks.sliding_windows import SlidingLayout, new_token_row, window_reading
from ropewalk.eval.tasks.task import EvalSuite, Measured, ModelRows, Rows, Sample, Verdict
from ropewalk.eval.tasks.texts import long_documents, too_short

PROTOCOL = "sliding"


class SlidingPerplexity:
    name = "sliding"
    title = "Sliding window"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        return list(_samples(suite))

    def rows(self, measured: Measured) -> Rows:
        """A row a window, of the same tokens."""
        suite = measured.suite
        facts = {"unit": "document", "protocol": PROTOCOL}
        if not measured.samples:
            reason = too_short(suite, _text_tokens(suite), "eval.sliding.windows")
            return [not_measurable("perplexity", reason, window=w, **facts) for w in windows(suite)]
        rows = [new_token_row(measured.select(window=window)) for window in windows(suite)]
        return [row | facts for row in rows]

    def verdicts(self, rows: ModelRows, window: int, length: int) -> list[Verdict]:
        """None: the rows are for comparison with other programs."""
        return []

    def figure(self, rows: ModelRows, window: int | None) -> str | None:
        words = "Loss under sliding windows, by their size"
        return perplexity_figure(rows, window, self.name, "window", words)

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        return window_reading(rows)


def windows(suite: EvalSuite) -> list[int]:
    return suite.config.sliding.windows or sorted({suite.contexts[0], suite.length})


def _text_tokens(suite: EvalSuite) -> int:
    """Text that fills the longest window."""
    return max(windows(suite)) - suite.boundary_tokens.before


def _samples(suite: EvalSuite) -> Iterator[Sample]:
    settings, begin = suite.config.sliding, suite.boundary_tokens.begin
    documents = long_documents(suite, _text_tokens(suite), settings.documents)
    most = settings.max_tokens or max(windows(suite))
    for window in windows(suite):
        stride = settings.stride or max(1, window // 2)
        yield from SlidingLayout("sliding", window, stride, most, begin).samples(documents)
