"""Perplexity as Position Interpolation reports it (arXiv 2306.15595, section 3.2).

Windows slide by 256 tokens, after Press et al. 2022, and the new tokens of each count. What stands
before a window is not in the paper: it is laid out as by the YaRN repository's script, which was
validated against the paper's figures by its authors.
"""

from collections.abc import Iterator, Sequence

from ropewalk.eval.measure.loss_rows import not_measurable
from ropewalk.eval.report.figures.perplexity import perplexity_figure
from ropewalk.eval.tasks.sliding_windows import (
    SlidingLayout,
    default_stride,
    new_token_row,
    window_reading,
)
from ropewalk.eval.tasks.task import EvalSuite, Measured, ModelRows, Rows, Sample, Verdict
from ropewalk.eval.tasks.texts import long_documents, prepended, too_short

PROTOCOL = "pi_compat"


class PiCompat:
    name = "pi_compat"
    title = "Perplexity as in PI"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        return list(_samples(suite))

    def rows(self, measured: Measured) -> Rows:
        """A row a window, of the same tokens."""
        suite = measured.suite
        facts = {"unit": "document", "protocol": PROTOCOL, "prepended": prepended(suite)}
        if not measured.samples:
            reason = too_short(suite, min_tokens(suite), "eval.pi_compat.min_tokens")
            return [not_measurable("perplexity", reason, window=w, **facts) for w in windows(suite)]
        rows = [new_token_row(measured.select(window=window)) for window in windows(suite)]
        return [row | facts for row in rows]

    def verdicts(self, rows: ModelRows, window: int, length: int) -> list[Verdict]:
        """None: the rows are for comparison with the paper."""
        return []

    def figure(self, rows: ModelRows, window: int | None) -> str | None:
        words = "Loss under sliding windows as in PI, by their size"
        return perplexity_figure(rows, window, self.name, "window", words)

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        return window_reading(rows)


def windows(suite: EvalSuite) -> list[int]:
    return suite.config.pi_compat.windows or sorted({suite.contexts[0], suite.length})


def min_tokens(suite: EvalSuite) -> int:
    return suite.config.pi_compat.min_tokens or max(windows(suite)) // 2


def _samples(suite: EvalSuite) -> Iterator[Sample]:
    settings = suite.config.pi_compat
    documents = long_documents(suite, min_tokens(suite), settings.documents)
    most = settings.max_tokens or suite.length
    for window in windows(suite):
        stride = settings.stride or default_stride(window)
        yield from SlidingLayout("pi_compat", window, stride, most, suite.bos).samples(documents)
