"""Documents by their length, as arrays. Pure."""

import numpy as np

from ropewalk.conf.data_mixture import Range, Rules
from ropewalk.conf.errors import DataError


def within(lengths: np.ndarray, span: Range) -> np.ndarray:
    """(documents,) bool: which lengths lie in the range."""
    return (lengths >= span.low) & (lengths < span.high)


def outside(name: str, lengths: np.ndarray, train: np.ndarray, span: Range) -> np.ndarray:
    """(documents,) bool: the training documents that `min_len` and `max_len` exclude.

    Raises: DataError when they exclude every training document.
    """
    excluded = train & ~within(lengths, span)
    if train.any() and excluded.sum() == train.sum():
        low, high = lengths[train].min(), lengths[train].max()
        key, value = ("min_len", span.low) if low < span.low else ("max_len", int(span.high) - 1)
        raise DataError(
            f"data.sources.{name}.{key} is {value}; a source must keep a document, and all "
            f"{int(train.sum())} training documents of {name} are left out (they have {low} to "
            f"{high} tokens); change min_len or max_len, or leave the source out"
        )
    return excluded


def rates(lengths: np.ndarray, rules: Rules) -> np.ndarray | float:
    """(documents,) expected repeats in a round, 1 outside all ranges; a single 1.0 without rules."""
    if not rules:
        return 1.0
    repeats = np.ones(len(lengths))
    for span, number, _ in rules:
        repeats[within(lengths, span)] = number
    return repeats
