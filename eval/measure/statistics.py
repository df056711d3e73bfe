"""Means with intervals. Pure numpy; documents, not tokens, are what is resampled."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

DRAWS = 1000


def resamples(documents: Sequence[str], seed: int) -> np.ndarray:
    """How often each window counts in each bootstrap draw: (DRAWS, N). Whole documents are drawn with replacement."""
    names = sorted(set(documents))
    member = np.array([names.index(d) for d in documents])
    rng = np.random.Generator(np.random.Philox(key=[seed, 0]))
    counts = rng.multinomial(len(names), [1 / len(names)] * len(names), size=DRAWS)
    return np.asarray(counts[:, member], dtype=np.float64)


def mean_with_interval(nll: np.ndarray, draws: np.ndarray) -> tuple[float, float, float]:
    """Token-weighted mean of (N, tokens) and its 95% bootstrap interval over documents."""
    per_window = nll.mean(axis=1)  # windows have equally many tokens
    used = draws[draws.sum(axis=1) > 0]
    means = used @ per_window / used.sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(nll.mean()), float(low), float(high)


def by_position(nll: np.ndarray, draws: np.ndarray, width: int) -> list[dict[str, Any]]:
    """Bins of `width` positions. `nll` (N, S-1): column j is the loss of position j + 1."""
    length = nll.shape[1] + 1
    bins = []
    for start in range(0, length, width):
        end = min(start + width, length)
        part = nll[:, max(start - 1, 0) : end - 1]
        if part.shape[1]:
            mean, low, high = mean_with_interval(part, draws)
            bins.append(
                {
                    "from": start,
                    "to": end,
                    "nll": mean,
                    "tokens": part.size,
                    "low": low,
                    "high": high,
                }
            )
    return bins


def perplexities(nll: np.ndarray, lengths: Sequence[int]) -> dict[str, float]:
    """Perplexity of the first `length` tokens of every window, from one pass: a causal model sees no more."""
    return {str(length): math.exp(float(nll[:, : length - 1].mean())) for length in lengths}


def gains(by_context: dict[int, np.ndarray], draws: np.ndarray) -> list[dict[str, Any]]:
    """The same target tokens under each context length, with the paired difference to the shortest."""
    first = min(by_context)
    rows = []
    for context in sorted(by_context):
        mean, low, high = mean_with_interval(by_context[context], draws)
        change = mean_with_interval(by_context[context] - by_context[first], draws)
        rows.append(
            {
                "context": context,
                "nll": mean,
                "tokens": by_context[context].size,
                "low": low,
                "high": high,
                **dict(
                    zip(("difference", "difference_low", "difference_high"), change, strict=True)
                ),
            }
        )
    return rows


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95% interval of a proportion (Wilson 1927)."""
    z = 1.959964
    centre, spread = hits + z * z / 2, z * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return max(0.0, (centre - spread) / (n + z * z)), min(1.0, (centre + spread) / (n + z * z))


def doublings(first: int, last: int) -> list[int]:
    """`first`, twice that, ... and `last`."""
    found = [first]
    while found[-1] * 2 < last:
        found.append(found[-1] * 2)
    return found if last <= first else [*found, last]
