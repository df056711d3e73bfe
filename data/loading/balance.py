"""The attention's work, and what comes of it: sequences dealt to data-parallel groups so that none waits long, the waiting
predicted, and for the ledger how unequal the sequences are. Pure.

Work is the sum of the squares of what attends within itself, up to a factor what the kernel computes: a piece and the padding,
each a document of its own, under the mask; without it the whole sequence. The loss is a sum over the whole global batch, so a deal
leaves the gradient as it is: only who computes what, and the order of summation, change.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

# FLOPs a token, and in attention a token squared: 2 x 8e9; 4 x 32 layers x 4096 / 2 (causal)
LLAMA_8B = (16e9, 262144.0)
GROUPS, BATCH = (
    8,
    64,
)  # what the ledger predicts for: data-parallel groups, sequences of a global batch


def attention_work(
    lengths: np.ndarray, offsets: np.ndarray, seq_len: int, document_mask: bool = True
) -> np.ndarray:
    """(sequences,) int64, tokens squared. `lengths` (pieces,), those of sequence n from `offsets[n]` to `offsets[n + 1]`."""
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


def idle(works: np.ndarray, seq_len: int, groups: int, batch: int, balanced: bool) -> float:
    """Share of all groups' time spent waiting for the slowest of a round, each with a micro-batch of one sequence and an 8B Llama's
    costs, over the whole global batches that `works` (sequences,) has in the order of training; 0.0 when there is none."""
    token, square = LLAMA_8B
    most = mean = 0.0
    for at in range(0, len(works) - batch + 1, batch):
        part = works[at : at + batch]
        cost = (
            token * seq_len
            + square * part[deal(part, groups) if balanced else in_turn(batch, groups)]
        )
        most, mean = most + float(cost.max(axis=0).sum()), mean + float(cost.mean(axis=0).sum())
    return 1 - mean / most if most else 0.0


def predicted_idle(works: np.ndarray, seq_len: int) -> dict[str, Any]:
    """Idle share of 8 groups, a batch of 64 sequences or what the plan has, in the plan's order (which a hash shuffled) and
    balanced; nothing for a plan smaller than the groups."""
    batch = min(BATCH, len(works) // GROUPS * GROUPS)
    if not batch:
        return {}
    in_order, balanced = (
        round(idle(works, seq_len, GROUPS, batch, dealt), 6) for dealt in (False, True)
    )
    return {"dp_size": GROUPS, "batch": batch, "in_order": in_order, "balanced": balanced}


def spread(works: np.ndarray, seq_len: int) -> dict[str, Any]:
    """How unequal: mean (tokens squared, and of a sequence that is one document), coefficient of variation, most over mean, and
    sequences by tenths of a sequence that is one document."""
    if not len(works):
        return {}
    share, mean = works / float(seq_len) ** 2, float(works.mean())
    tenths = np.bincount(np.clip(np.ceil(share * 10).astype(int) - 1, 0, 9), minlength=10)
    return {
        "mean": mean,
        "share_of_full": round(float(share.mean()), 6),
        "variation": round(float(works.std()) / mean, 6),
        "most_over_mean": round(float(works.max()) / mean, 6),
        "sequences": {f"{10 * k}-{10 * k + 10}%": int(count) for k, count in enumerate(tenths)},
    }
