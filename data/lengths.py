"""Documents by their length, as arrays. Pure."""

from itertools import pairwise
from typing import Any

import numpy as np

from ropewalk.conf.errors import DataError
from ropewalk.conf.mixing import Range, Rules

EDGES = tuple(1 << n for n in range(10, 21, 2))  # 1K, 4K, ... 1M tokens


def within(lengths: np.ndarray, span: Range) -> np.ndarray:
    """(documents,) bool: whose length lies in the range."""
    return (lengths >= span.low) & (lengths < span.high)


def outside(name: str, lengths: np.ndarray, train: np.ndarray, span: Range) -> np.ndarray:
    """(documents,) bool: the training documents that a source's `min_len` and `max_len` leave out. Raises: DataError if all are."""
    found = train & ~within(lengths, span)
    if train.any() and found.sum() == train.sum():
        low, high = lengths[train].min(), lengths[train].max()
        key, value = ("min_len", span.low) if low < span.low else ("max_len", int(span.high) - 1)
        raise DataError(
            f"data.sources.{name}.{key} is {value}; a source must keep a document, and all {int(train.sum())} training documents of "
            f"{name} are left out (they have {low} to {high} tokens); change min_len or max_len, or leave the source out"
        )
    return found


def rates(lengths: np.ndarray, rules: Rules) -> np.ndarray | float:
    """(documents,) expected repeats in a round; 1 where no range says another, and one number where none is set."""
    if not rules:
        return 1.0
    found = np.ones(len(lengths))
    for span, number, _ in rules:
        found[within(lengths, span)] = number
    return found


def histogram(lengths: np.ndarray, stored: np.ndarray, train: np.ndarray, index: np.ndarray, kept: np.ndarray) -> Any:
    """Before and after the mixture, by length: training documents and their tokens; how often they were taken, and the tokens of that.

    `lengths` (documents,) decide the row, `stored` (documents,) are their tokens, `train` (documents,) bool; `index` and `kept`
    (takings,) are document and tokens of each taking. Rows without a training document are left out.
    """
    row = np.searchsorted(EDGES, lengths, side="right")
    columns = {
        "documents": _sums(row[train]),
        "tokens": _sums(row[train], stored[train]),
        "takings": _sums(row[index]),
        "taken": _sums(row[index], kept),
    }
    told = [{name: int(column[at]) for name, column in columns.items()} for at in range(len(EDGES) + 1)]
    return {label: numbers for label, numbers in zip(_labels(), told, strict=True) if numbers["documents"]}


def _sums(row: np.ndarray, tokens: np.ndarray | None = None) -> np.ndarray:
    return np.bincount(row, weights=tokens, minlength=len(EDGES) + 1)


def _labels() -> list[str]:
    names = [f"{edge >> 10}K" if edge < 1 << 20 else f"{edge >> 20}M" for edge in EDGES]
    return [f"<{names[0]}", *("-".join(pair) for pair in pairwise(names)), f">={names[-1]}"]
