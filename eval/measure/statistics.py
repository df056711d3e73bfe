"""Means with intervals. Pure numpy; the bootstrap resamples documents, not tokens.

N windows   S tokens of one
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ropewalk.data.proportion import wilson as wilson
from ropewalk.data.random_streams import Purpose, generator

DRAWS = 1000
PAIRED = ("difference", "difference_low", "difference_high")  # nll, low, high of a difference


def resamples(documents: Sequence[str], seed: int) -> np.ndarray:
    """Weight of each window in each bootstrap draw of documents with replacement: (DRAWS, N)."""
    names = sorted(set(documents))
    member = np.array([names.index(d) for d in documents])
    rng = generator(Purpose.BOOTSTRAP, seed)
    counts = rng.multinomial(len(names), [1 / len(names)] * len(names), size=DRAWS)
    return np.asarray(counts[:, member], dtype=np.float64)


def mean_with_interval(nll: np.ndarray, draws: np.ndarray) -> dict[str, float]:
    """Mean of (N, tokens), token-weighted, and its 95% bootstrap interval over documents.

    Keys: nll, low, high.
    """
    per_window = nll.mean(axis=1)  # windows have equally many tokens
    nonempty = draws[draws.sum(axis=1) > 0]
    low, high = np.quantile(nonempty @ per_window / nonempty.sum(axis=1), [0.025, 0.975])
    return {"nll": float(nll.mean()), "low": float(low), "high": float(high)}


def by_position(nll: np.ndarray, draws: np.ndarray, width: int) -> list[dict[str, Any]]:
    """Bins of `width` positions. `nll` (N, S-1): column j is the loss of position j + 1."""
    length, bins = nll.shape[1] + 1, []
    for start in range(0, length, width):
        end = min(start + width, length)
        part = nll[:, max(start - 1, 0) : end - 1]
        if part.shape[1]:
            bin_ = {"from": start, "to": end, "tokens": part.size}
            bins.append({**bin_, **mean_with_interval(part, draws)})
    return bins


def mean_nll(bins: Sequence[Mapping[str, Any]], low: float, high: float) -> float | None:
    """Token-weighted mean loss of the bins that lie inside [low, high]; None without one."""
    inside = [row for row in bins if row["from"] >= low and row["to"] <= high]
    tokens = sum(row["tokens"] for row in inside)
    return sum(row["nll"] * row["tokens"] for row in inside) / tokens if tokens else None


def perplexities(nll: np.ndarray, lengths: Sequence[int]) -> dict[str, float]:
    """Perplexity of the first `length` tokens of every window, by length.

    One pass over whole windows gives them all, because a causal model sees no later token.
    """
    return {str(length): math.exp(float(nll[:, : length - 1].mean())) for length in lengths}


def gains(by_context: dict[int, np.ndarray], draws: np.ndarray) -> list[dict[str, Any]]:
    """A row for each context length, with the paired difference to the shortest."""
    shortest = by_context[min(by_context)]
    rows = []
    for context, nll in sorted(by_context.items()):
        loss, change = (mean_with_interval(part, draws) for part in (nll, nll - shortest))
        difference = dict(zip(PAIRED, change.values(), strict=True))
        rows.append({"context": context, "tokens": nll.size, **loss, **difference})
    return rows


def doublings(first: int, last: int) -> list[int]:
    """`first`, twice `first`, ... up to and including `last`."""
    lengths = [first]
    while lengths[-1] * 2 < last:
        lengths.append(lengths[-1] * 2)
    return lengths if last <= first else [*lengths, last]
