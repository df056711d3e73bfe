"""The mixture, on the document table alone: which documents of a source the plan takes, how often, and how much. Pure."""

from dataclasses import dataclass

import numpy as np

from ropewalk.conf.errors import DataError
from ropewalk.data import draw


@dataclass(frozen=True)
class Share:
    """What the mixture takes of one source: whole documents, the last one cut to the budget. An array has an entry a taking."""

    index: np.ndarray  # (takings,) int64: the document in the source
    taken: np.ndarray  # (takings,) int64: its first tokens, marks among them
    epoch: np.ndarray  # (takings,) int64: how often it was taken before
    key: np.ndarray  # (takings,) uint64: the document's key, which decides its place in the mixture
    epochs: float  # tokens taken over tokens there are

    @property
    def tokens(self) -> int:
        return int(self.taken.sum())


def choose(
    name: str, lengths: np.ndarray, usable: np.ndarray, keys: np.ndarray, budget: int | None, seed: int
) -> Share:
    """Documents of one source in an order hashed from `(seed, name, epoch, key)`, repeated until `budget` tokens.

    Without a budget: each usable document once. Raises: DataError when nothing is usable.
    """
    indices = np.flatnonzero(usable)
    total = int(lengths[indices].sum())
    if total == 0:
        raise DataError(f"data.sources.{name} has no tokens to train on; it must hold at least one document; add some")
    left, epoch, found = total if budget is None else budget, 0, []
    while left > 0:
        order = indices[np.lexsort((indices, draw.ranks(seed, name, keys[indices], epoch)))]
        ends = np.cumsum(lengths[order])
        order = order[: int(np.searchsorted(ends, left)) + 1]
        taken = lengths[order].astype(np.int64)
        taken[-1] -= max(int(taken.sum()) - left, 0)
        found.append((order, taken, np.full(len(order), epoch, dtype=np.int64)))
        left, epoch = left - int(taken.sum()), epoch + 1
    index, taken, times = (np.concatenate(part) for part in zip(*found, strict=True))
    return Share(index, taken, times, keys[index], int(taken.sum()) / total)


def budgets(
    weights: dict[str, float | None], available: dict[str, int | None], tokens: int | None
) -> dict[str, int | None]:
    """Tokens each source gives. `available` is None for a synthetic source, which gives whatever is asked.

    With weights and no total, the total is what the first source to run out allows; without weights, all there is.
    """
    if all(w is None for w in weights.values()):
        if tokens is None:
            return dict.fromkeys(weights)
        sizes = {name: float(size or 0) for name, size in available.items()}
    else:
        sizes = {name: float(w or 0) for name, w in weights.items()}
    total_weight = sum(sizes.values()) or 1.0
    if tokens is None:
        limits = [a * total_weight / sizes[n] for n, a in available.items() if a is not None and sizes[n] > 0]
        tokens = int(min(limits)) if limits else 0
    return {name: round(tokens * size / total_weight) for name, size in sizes.items()}
