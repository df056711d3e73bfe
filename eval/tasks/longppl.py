"""LongPPL (arXiv 2410.23771): perplexity of the tokens that one model needs long context for.

The evaluator is one column: where its loss with all text is much below its loss with a short
context, the token is a key token. The set is chosen once and used for every column.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.eval_models import judged_column, reference_column
from ropewalk.eval.measure.loss_rows import Row, mean_row, not_measurable, perplexity_row
from ropewalk.eval.report import formats
from ropewalk.eval.report.sentences import list_by_model, sentence
from ropewalk.eval.requests import Text
from ropewalk.eval.tasks.task import (
    EvalSuite,
    Measured,
    ModelRows,
    Rows,
    Sample,
    Task,
    window_samples,
)

PROTOCOL = "longppl"
SHORT_CONTEXT = 4096


class LongPpl(Task):
    """No verdict: a set that one of the judged models chose decides nothing."""

    name = "longppl"
    title = "LongPPL"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        """The windows, and for the evaluator its passes with short context.

        Raises: ConfigError for an evaluator whose window is shorter than the text.
        """
        windows = window_samples(suite)[: suite.config.longppl.windows]
        if reason_against(suite):
            return windows
        return [*windows, *_short_samples(suite, windows)]

    def rows(self, measured: Measured) -> Rows:
        """One row: the mean over the key tokens of all windows."""
        suite, settings = measured.suite, measured.suite.config.longppl
        facts = {"length": suite.length, "unit": "document", "protocol": PROTOCOL}
        if reason := reason_against(suite):
            return [not_measurable("longppl", reason, **facts)]
        facts |= {"evaluator": evaluator(suite), "short_context": short_context(suite)}
        facts |= {"block": block(suite)}
        keys = key_masks(measured.by_column[evaluator(suite)])
        key_tokens = sum(int(mask.sum()) for mask in keys)
        if key_tokens < settings.min_key_tokens:
            reason = (
                f"{evaluator(suite)} finds {key_tokens} key tokens; eval.longppl.min_key_tokens "
                f"asks for {settings.min_key_tokens}; raise eval.longppl.windows or eval.windows"
            )
            return [not_measurable("longppl", reason, key_tokens=key_tokens, **facts)]
        return [{**_row(measured, keys), **facts}]

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        values = list_by_model(rows, lambda part: _value(part[0]))
        row = next((part[0] for part in rows.values() if "evaluator" in part[0]), None)
        if not values or row is None:
            return None
        text = f"on {row['key_tokens']:,} key tokens the perplexity is {values}"
        bias = f"{row['evaluator']} chose them, which favours it"
        return sentence([text, bias])


def _value(row: dict[str, Any]) -> str | None:
    value = row.get("longppl")
    return None if value is None else formats.perplexity(value)


def evaluator(suite: EvalSuite) -> str:
    """The column that chooses: as set, or the judged one of this tokenizer's."""
    settings, columns = suite.config, [*suite.columns]
    reference = reference_column(settings.reference, columns)
    judged = judged_column(settings.judged, columns, reference) or columns[-1]
    return settings.longppl.evaluator or judged


def short_context(suite: EvalSuite) -> int:
    """Fewest tokens before a target; the first as many tokens of a window are no targets."""
    return suite.config.longppl.short_context or min(SHORT_CONTEXT, suite.base_window)


def block(suite: EvalSuite) -> int:
    return suite.config.longppl.block or max(1, short_context(suite) // 4)


def reason_against(suite: EvalSuite) -> str | None:
    """Why nothing is measured. Raises: ConfigError for a set evaluator that cannot choose."""
    if not suite.columns:
        return "the columns are not known"
    name, asked = evaluator(suite), suite.config.longppl.evaluator
    if name not in suite.columns:
        return f"the evaluator {name} is not among the columns of this tokenizer"
    window = suite.columns[name].window
    if window < suite.length:
        text = f"its window of {window:,} tokens must hold the text of {suite.length:,}"
        if asked:
            raise ConfigError(
                f"eval.longppl.evaluator is {name}; {text}; choose another column or lower "
                "eval.length"
            )
        return f"the evaluator is {name}; {text}"
    if suite.length <= short_context(suite):
        return (
            f"the text of {suite.length:,} tokens is not longer than the short context of "
            f"{short_context(suite):,}"
        )
    return None


def _short_samples(suite: EvalSuite, windows: Sequence[Sample]) -> Iterator[Sample]:
    """Blocks of targets behind a short context; together they are a window's later tokens."""
    context, size = short_context(suite), block(suite)
    for number, window in enumerate(windows):
        assert isinstance(window.request, Text)
        for start in range(0, suite.length - context, size):
            ids = window.request.ids[start : start + context + size]
            name = f"longppl/{context}/{number:03}/{start:06}"
            facts = {"short_context": context, "window": number, "start": start}
            yield Sample(name, window.unit, Text(ids, context), facts, (evaluator(suite),))


def key_masks(measured: Measured) -> list[np.ndarray]:
    """Of each window of the evaluator's: which tokens from `short_context` on are key tokens."""
    suite, settings = measured.suite, measured.suite.config.longppl
    full: list[np.ndarray] = []
    short: dict[int, list[np.ndarray]] = {}
    for sample, result in zip(measured.samples, measured.results, strict=True):
        losses = np.asarray(result, np.float64)
        if "start" in sample.facts:
            short.setdefault(sample.facts["window"], []).append(losses)
        else:
            full.append(losses[short_context(suite) - 1 :])
    pairs = [(np.concatenate(short[number]), part) for number, part in enumerate(full)]
    return [(a - b > settings.gain) & (b < settings.loss) for a, b in pairs]


def _row(measured: Measured, keys: Sequence[np.ndarray]) -> Row:
    first = short_context(measured.suite)
    windows = [n for n, sample in enumerate(measured.samples) if "start" not in sample.facts]

    def on_keys(results: Sequence[Any]) -> list[np.ndarray]:
        losses = [np.asarray(results[number], np.float64)[first - 1 :] for number in windows]
        return [part[mask] for part, mask in zip(losses, keys, strict=True)]

    base = measured.reference_column
    units = [measured.samples[number].unit for number in windows]
    of_base = on_keys(base.results) if base is not None else None
    row = mean_row(units, on_keys(measured.results), of_base, measured.suite.seed)
    places = [(np.flatnonzero(mask) + first).tolist() for mask in keys]
    chosen = sum(map(len, places))
    return {
        **perplexity_row(row, "longppl"),
        "key_tokens": chosen,
        "key_share": chosen / sum(mask.size for mask in keys),
        "key_set": hashlib.sha256(repr(places).encode()).hexdigest()[:16],
        "keys": places,
    }
