"""Documents by their length, as arrays. Pure."""

import numpy as np

from ropewalk.conf.data_mixture import Range, Rules
from ropewalk.conf.errors import DataError


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
