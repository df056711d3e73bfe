"""Perplexity as the YaRN repository's eval/perplexity.py computes it (arXiv 2309.00071).

Its truncated mode reads one window a document and length: BOS where the tokenizer names one, then
the text up to the length. Its sliding mode reads windows 256 tokens apart. Both average the means
of the windows, so that a short document, and a first window, count as much as 256 new tokens.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ropewalk.eval.measure.loss_rows import Row, mean_row, not_measurable, perplexity_row
from ropewalk.eval.report.figures.perplexity import perplexity_figure
from ropewalk.eval.report.formats import perplexity
from ropewalk.eval.report.sentences import list_by_model, sentence
from ropewalk.eval.requests import Text
from ropewalk.eval.tasks.sliding_windows import SlidingLayout, default_stride
from ropewalk.eval.tasks.task import EvalSuite, Measured, ModelRows, Rows, Sample, Task
from ropewalk.eval.tasks.texts import (
    bits_per_byte,
    long_documents,
    losses_of,
    prepended,
    target_bytes,
    target_ids,
    too_short,
)

PROTOCOLS = {"truncated": "yarn_compat", "sliding": "yarn_compat_sliding"}
"""The truncated mode reads one window a document and length."""


class YarnCompat(Task):
    """No verdict: the rows are for comparison with the paper."""

    name = "yarn_compat"
    title = "Perplexity as in YaRN"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        return [*_truncated_samples(suite), *_sliding_samples(suite)]

    def rows(self, measured: Measured) -> Rows:
        """A row a length of the truncated mode, then a row a window of the sliding mode."""
        return [*_truncated_rows(measured), *_sliding_rows(measured)]

    def figure(self, rows: ModelRows, window: int | None) -> str | None:
        """The truncated mode."""
        points = {name: _of_mode(part, "truncated") for name, part in rows.items()}
        words = "Loss of the first tokens of long documents as in YaRN, by their number"
        return perplexity_figure(points, window, self.name, "length", words)

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        """The longest length of the truncated mode."""
        longest = {name: _of_mode(part, "truncated")[-1] for name, part in rows.items()}
        text = list_by_model(longest, _perplexity_text)
        length = next((row["length"] for row in longest.values()), 0)
        return sentence([f"over {length:,} tokens the perplexity is {text}"] if text else [])


def _perplexity_text(row: Row) -> str | None:
    value = row["perplexity"]
    return None if value is None else perplexity(value)


def _of_mode(rows: Rows, mode: str) -> Rows:
    return [row for row in rows if row["mode"] == mode]


def lengths(suite: EvalSuite) -> list[int]:
    """Of the truncated mode, tokens with BOS."""
    settings, longest = suite.config.yarn_compat, suite.length
    if settings.lengths:
        return sorted(settings.lengths)
    points = settings.points
    if points is None:
        return suite.contexts
    return sorted({max(2, longest * turn // points) for turn in range(1, points + 1)})


def _min_tokens(suite: EvalSuite) -> int:
    """Of the truncated mode's documents: they fill its longest length."""
    fills = max(lengths(suite)) - (suite.bos is not None)
    return suite.config.yarn_compat.min_tokens or fills


def _truncated_samples(suite: EvalSuite) -> Iterator[Sample]:
    """One pass a document gives the losses of all lengths, because no token sees a later one; a
    column whose rotary table depends on the length is asked each length."""
    by_length = tuple(name for name, facts in suite.columns.items() if facts.table_by_length)
    others = tuple(name for name in suite.columns if name not in by_length) if by_length else ()
    documents = long_documents(suite, _min_tokens(suite), suite.config.yarn_compat.documents)
    for number, document in enumerate(documents):
        if others or not by_length:
            yield _truncated_sample(suite, document.ids, number, document.origin, None, others)
        for length in lengths(suite) if by_length else ():
            origin = document.origin
            yield _truncated_sample(suite, document.ids, number, origin, length, by_length)


def _truncated_sample(
    suite: EvalSuite,
    text: np.ndarray,
    number: int,
    unit: str,
    length: int | None,
    columns: tuple[str, ...],
) -> Sample:
    """`length`: None for the longest, from whose losses those of all lengths are taken."""
    bos = np.array([] if suite.bos is None else [suite.bos], np.int64)
    tokens = max(lengths(suite)) if length is None else length
    ids = np.concatenate([bos, text[: tokens - len(bos)].astype(np.int64)])
    name = f"yarn_compat/truncated/{length or 'all'}/{number:03}"
    facts = {"mode": "truncated", "length": length, "document": number}
    return Sample(name, unit, Text(ids), facts, columns)


def _truncated_rows(measured: Measured) -> Iterator[Row]:
    suite, facts = measured.suite, _facts(measured.suite, "truncated")
    counts = {s.id: target_bytes(suite, target_ids(s)) for s in measured.samples if _truncated(s)}
    base = measured.reference_column  # its passes are others where one table depends on length
    for length in lengths(suite):
        head, first = {"mode": "truncated", "length": length}, _first_losses(measured, length)
        if not first:
            reason = too_short(suite, _min_tokens(suite), "eval.yarn_compat.lengths")
            yield not_measurable("perplexity", reason, **head) | facts
            continue
        samples, losses = [sample for sample, _ in first], [part for _, part in first]
        of_base = None if base is None else [part for _, part in _first_losses(base, length)]
        row = _mean_of_windows(suite, samples, losses, of_base)
        in_bytes = bits_per_byte(losses, [counts[sample.id] for sample in samples])
        yield {**head, **row, "bits_per_byte": in_bytes, **facts}


def _facts(suite: EvalSuite, mode: str) -> Row:
    return {"unit": "document", "protocol": PROTOCOLS[mode], "prepended": prepended(suite)}


def _mean_of_windows(
    suite: EvalSuite,
    samples: Sequence[Sample],
    losses: Sequence[np.ndarray],
    base: Sequence[np.ndarray] | None,
) -> Row:
    """What the protocol averages: the mean of each window, however long."""
    units, of_base = [sample.unit for sample in samples], None if base is None else _means(base)
    row = perplexity_row(mean_row(units, _means(losses), of_base, suite.seed))
    return {**row, "windows": len(losses), "tokens": sum(map(len, losses))}


def _means(losses: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Of each window, (1,)."""
    return [part.mean(keepdims=True) for part in losses]


def _truncated(sample: Sample) -> bool:
    return bool(sample.facts["mode"] == "truncated")


def _first_losses(measured: Measured, length: int) -> list[tuple[Sample, np.ndarray]]:
    """Each document with the losses of its first `length` tokens."""
    return [
        (sample, losses[: length - 1])
        for sample, losses in zip(measured.samples, losses_of(measured), strict=True)
        if _truncated(sample) and sample.facts["length"] in (None, length)
    ]


def sliding_windows(suite: EvalSuite) -> list[int]:
    windows = suite.config.yarn_compat.windows
    return sorted({suite.contexts[0], suite.length}) if windows is None else windows


def _sliding_min_tokens(suite: EvalSuite) -> int:
    return suite.config.yarn_compat.sliding_min_tokens or max(sliding_windows(suite)) // 2


def _sliding_samples(suite: EvalSuite) -> Iterator[Sample]:
    settings = suite.config.yarn_compat
    for window in sliding_windows(suite):
        texts = long_documents(suite, _sliding_min_tokens(suite), settings.sliding_documents)
        stride, most = (
            settings.stride or default_stride(window),
            settings.max_tokens or suite.length,
        )
        layout = SlidingLayout("yarn_compat", window, stride, most, suite.bos)
        for sample in layout.samples(texts):
            facts = {**sample.facts, "mode": "sliding"}
            yield Sample(f"{sample.id}/sliding", sample.unit, sample.request, facts)


def _sliding_rows(measured: Measured) -> Iterator[Row]:
    suite, facts = measured.suite, _facts(measured.suite, "sliding")
    base = measured.reference_column
    for window in sliding_windows(suite):
        part = measured.select(mode="sliding", window=window)
        head = {"mode": "sliding", "window": window}
        if not part.samples:
            key = "eval.yarn_compat.sliding_min_tokens"
            reason = too_short(suite, _sliding_min_tokens(suite), key)
            yield not_measurable("perplexity", reason, **head) | facts
            continue
        of_base = None if base is None else losses_of(base.select(mode="sliding", window=window))
        row = _mean_of_windows(suite, part.samples, losses_of(part), of_base)
        yield {**head, "stride": part.samples[0].facts["stride"], **row, **facts}
