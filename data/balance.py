"""Balance: the sequences of a global batch dealt to data-parallel groups by the attention's work, so that none waits long. Pure.

The loss is a sum over the whole batch, so the gradient is the same: only who computes what, and the order of summation, change.
"""

from collections.abc import Sequence

import numpy as np

LLAMA_8B = (16e9, 262144.0)  # FLOPs a token outside attention, and in attention a token squared


def work(lengths: np.ndarray, offsets: np.ndarray, seq_len: int, document_mask: bool = True) -> np.ndarray:
    """Sum of squared documents of each sequence, (sequences,) int64: what attention costs, up to a factor.

    `lengths` (pieces,), those of sequence n from `offsets[n]` to `offsets[n + 1]`. Padding is a document too; without a mask the
    sequence is one.
    """
    if not document_mask:
        return np.full(len(offsets) - 1, seq_len * seq_len, dtype=np.int64)
    sizes = lengths.astype(np.int64)
    filled, squares = (np.diff(np.append(0, np.cumsum(x))[offsets]) for x in (sizes, sizes * sizes))
    return squares + (seq_len - filled) ** 2


def deal(works: Sequence[int] | np.ndarray, groups: int) -> np.ndarray:
    """Places in the batch that each group computes in turn: (groups, batch / groups).

    The heaviest come first, one a group, so that all are near equal in each round; the next round goes back the other way, so that
    no group has the most each time. Equal ones keep their order.
    """
    rounds = np.argsort(-np.asarray(works, dtype=np.int64), kind="stable").reshape(-1, groups)
    rounds[1::2] = rounds[1::2, ::-1]
    return rounds.T


def in_turn(count: int, groups: int) -> np.ndarray:
    """`deal` without a look at the work: (groups, count / groups)."""
    return np.arange(count).reshape(-1, groups).T


def idle_share(works: np.ndarray, batch: int, groups: int, seq_len: int, *, balanced: bool) -> float:
    """Share of all groups' time spent waiting for the slowest of a round, over the whole global batches that `works` (sequences,)
    has in the order they are read; 0.0 when there is none. Costs are those of an 8B Llama, micro-batches of one sequence."""
    token, square = LLAMA_8B
    most = mean = 0.0
    for at in range(0, len(works) - batch + 1, batch):
        part = works[at : at + batch]
        cost = token * seq_len + square * part[deal(part, groups) if balanced else in_turn(batch, groups)]
        most, mean = most + float(cost.max(axis=0).sum()), mean + float(cost.mean(axis=0).sum())
    return 1 - mean / most if most else 0.0


def idle_facts(works: np.ndarray, batch: int, groups: int, seq_len: int) -> dict[str, float | int]:
    """For the ledger: predicted idle shares of `groups` data-parallel groups, `works` in the order the plan is read.

    `batch`: sequences of a global batch; one that does not divide by the groups is rounded up to where it does.
    """
    batch = -(-batch // groups) * groups
    works = (
        np.resize(works, max(len(works), batch)) if len(works) else works
    )  # a plan shorter than a batch is read again
    in_order, dealt = (round(idle_share(works, batch, groups, seq_len, balanced=b), 4) for b in (False, True))
    spread = round(float(works.std() / works.mean()), 4) if len(works) else 0.0
    return {"dp_size": groups, "batch": batch, "spread": spread, "in_order": in_order, "balanced": dealt}
