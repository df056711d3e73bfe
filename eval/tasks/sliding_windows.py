"""Windows that slide over held-out documents, for the tasks that differ in what they average."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.eval_language import PiCompatConfig, SlidingConfig
from ropewalk.data.dataset import Window
from ropewalk.eval.measure.loss_rows import Row, mean_row, not_measurable, perplexity_row
from ropewalk.eval.report.figures.perplexity import perplexity_figure
from ropewalk.eval.report.formats import perplexity
from ropewalk.eval.report.sentences import list_by_model, sentence
from ropewalk.eval.requests import Text
from ropewalk.eval.tasks.task import EvalSuite, Measured, ModelRows, Rows, Sample, Task
from ropewalk.eval.tasks.texts import (
    base_losses_of,
    bits_per_byte,
    long_documents,
    losses_of,
    target_bytes,
    target_ids,
    too_short,
)


@dataclass(frozen=True)
class Span:
    """A window over a text: its tokens `[begin, end)`, of which the last `new` count."""

    begin: int
    end: int
    new: int


def sliding_spans(tokens: int, window: int, stride: int) -> Iterator[Span]:
    """Windows over a text of `tokens` tokens, `stride` apart; the last one ends with the text.

    All tokens of the first window count, and of a later one those after the window before it. A
    text that is shorter than the window is one window.
    """
    counted = 0
    for begin in range(0, tokens, stride):
        end = min(begin + window, tokens)
        yield Span(begin, end, end - counted)
        counted = end
        if end == tokens:
            return


@dataclass(frozen=True)
class SlidingLayout:
    """How windows lie over a document."""

    task: str
    """Key of the task's settings, for messages and the samples' names."""
    window: int
    """Tokens, with `begin`."""
    stride: int
    most: int
    """Tokens that are read of a document."""
    begin: int | Sequence[int] | None
    """Id that stands before each window; None: nothing."""

    def samples(self, documents: Sequence[Window]) -> Iterator[Sample]:
        """Raises: ConfigError when tokens between two windows would be skipped."""
        begin = np.array([] if self.begin is None else self.begin, np.int64).reshape(-1)
        if self.stride > self.window - len(begin):
            raise ConfigError(
                f"eval.{self.task}.stride is {self.stride}; it must be below the window of "
                f"{self.window} tokens, or tokens between two windows are skipped; lower it, or "
                f"set eval.{self.task}.windows"
            )
        facts = {"window": self.window, "stride": self.stride}
        for number, document in enumerate(documents):
            text = document.ids[: self.most].astype(np.int64)
            spans = sliding_spans(len(text), self.window - len(begin), self.stride)
            for turn, span in enumerate(spans):
                request = _window(np.concatenate([begin, text[span.begin : span.end]]), span.new)
                name = f"{self.task}/{self.window}/{number:03}/{turn:04}"
                yield Sample(name, document.origin, request, {**facts, "document": number})


def _window(ids: np.ndarray, new: int) -> Text:
    """The last `new` tokens count; the very first has no loss."""
    return Text(ids, max(len(ids) - new, 1))


def default_stride(window: int) -> int:
    """YaRN's and PI's 256; a quarter of a window below 1,024, where 256 leaves little context."""
    return min(256, max(1, window // 4))


class SlidingTask(Task):
    """Perplexity under windows that slide over documents; a subclass says how they lie.

    No verdict: the rows are for comparison with other programs.
    """

    description: str
    """Of the figure."""
    length_key: str
    """The setting that asks for long documents, below `eval.NAME`."""

    @abstractmethod
    def settings(self, suite: EvalSuite) -> SlidingConfig | PiCompatConfig:
        """Those of the task."""

    @abstractmethod
    def min_tokens(self, suite: EvalSuite) -> int:
        """Fewest tokens of a document that is read."""

    @abstractmethod
    def layout(self, suite: EvalSuite, window: int) -> SlidingLayout:
        """Of the windows of `window` tokens."""

    def windows(self, suite: EvalSuite) -> list[int]:
        return self.settings(suite).windows or sorted({suite.contexts[0], suite.length})

    def facts(self, suite: EvalSuite) -> Row:
        """What all rows say."""
        return {"unit": "document", "protocol": self.name}

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        """Raises: ConfigError when tokens between two windows would be skipped."""
        documents = long_documents(suite, self.min_tokens(suite), self.settings(suite).documents)
        layouts = [self.layout(suite, window) for window in self.windows(suite)]
        return [sample for layout in layouts for sample in layout.samples(documents)]

    def rows(self, measured: Measured) -> Rows:
        """A row a window, of the same tokens."""
        suite = measured.suite
        windows, facts = self.windows(suite), self.facts(suite)
        if measured.samples:
            return [_row(measured.select(window=window)) | facts for window in windows]
        reason = too_short(suite, self.min_tokens(suite), f"eval.{self.name}.{self.length_key}")
        return [not_measurable("perplexity", reason, window=w, **facts) for w in windows]

    def figure(self, rows: ModelRows, window: int | None) -> str | None:
        return perplexity_figure(rows, window, self.name, "window", self.description)

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        """The perplexity under each window, where it was measured."""
        windows = sorted({row["window"] for part in rows.values() for row in part})
        clauses = []
        for size in windows:
            text = list_by_model(rows, partial(_perplexity, size))
            if text:
                clauses.append(f"under windows of {size:,} tokens the perplexity is {text}")
        return sentence(clauses)


def _row(measured: Measured) -> Row:
    """Perplexity of the samples of one window: every token of the documents counts once."""
    suite, losses = measured.suite, losses_of(measured)
    units = [sample.unit for sample in measured.samples]
    facts = measured.samples[0].facts
    return {
        **{key: facts[key] for key in ("window", "stride")},
        **perplexity_row(mean_row(units, losses, base_losses_of(measured), suite.seed)),
        "tokens": sum(map(len, losses)),
        "bits_per_byte": _bits_per_byte(measured, losses),
    }


def _bits_per_byte(measured: Measured, losses: Sequence[np.ndarray]) -> float | None:
    """The new tokens of a document's windows are its text."""
    texts: dict[int, list[np.ndarray]] = {}
    for sample in measured.samples:
        texts.setdefault(sample.facts["document"], []).append(target_ids(sample))
    counts = [target_bytes(measured.suite, np.concatenate(part)) for part in texts.values()]
    by_document: dict[int, list[np.ndarray]] = {}
    for sample, part in zip(measured.samples, losses, strict=True):
        by_document.setdefault(sample.facts["document"], []).append(part)
    return bits_per_byte([np.concatenate(part) for part in by_document.values()], counts)


def _perplexity(window: int, rows: Rows) -> str | None:
    values = (row.get("perplexity") for row in rows if row["window"] == window)
    return next((perplexity(value) for value in values if value is not None), None)
