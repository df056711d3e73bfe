"""The attention work of a plan's sequences, and how long data-parallel groups wait for one another because of it. Pure.

Work is the sum of the squares of what attends within itself: a piece under the document mask, else the whole sequence.
"""

from typing import Any

import numpy as np

from ropewalk.data.tally import Pieces

LINEAR, SQUARE = (
    16e9,
    262_144,
)  # FLOPs a token, and a token squared, of an 8B Llama: 2 x 8e9; 4 x 32 layers x 4096 / 2 (causal)
GROUPS, BATCH = 8, 64  # what the ledger predicts for: data-parallel groups, sequences of a global batch


def of_sequences(pieces: Pieces, seq_len: int, document_mask: bool) -> np.ndarray:
    """(S,) float64, tokens squared. Padding is a document of its own, as the reader lays it."""
    count = len(pieces.offsets) - 1
    if not document_mask:
        return np.full(count, float(seq_len) ** 2)
    length = pieces.length.astype(np.float64)
    squares = np.bincount(pieces.sequence, length**2, count)
    return squares + (seq_len - np.bincount(pieces.sequence, length, count)) ** 2


def spread(work: np.ndarray, seq_len: int) -> dict[str, Any]:
    """How unequal: mean (tokens squared, and of a sequence that is one document), coefficient of variation, most over mean, and
    sequences by tenths of a sequence that is one document."""
    if not len(work):
        return {}
    share, mean = work / float(seq_len) ** 2, float(work.mean())
    tenths = np.bincount(np.clip(np.ceil(share * 10).astype(int) - 1, 0, 9), minlength=10)
    return {
        "mean": mean,
        "share_of_full": round(float(share.mean()), 6),
        "variation": round(float(work.std()) / mean, 6),
        "most_over_mean": round(float(work.max()) / mean, 6),
        "sequences": {f"{10 * k}-{10 * k + 10}%": int(count) for k, count in enumerate(tenths)},
    }


def idle(work: np.ndarray, seq_len: int, groups: int, batch: int, balanced: bool) -> float:
    """Share of the groups' time spent waiting when each does one sequence a micro-step and all wait for the slowest.

    `work` (S,) in the order of training, of which whole batches count; `balanced`: the sequences of a global batch are sorted
    by work and dealt in turn, which changes no gradient. The costs are an 8B Llama's.
    """
    cost = (LINEAR * seq_len + SQUARE * work)[: len(work) // batch * batch].reshape(-1, batch)
    steps = (np.sort(cost, axis=1) if balanced else cost).reshape(-1, groups)
    return 1 - float(steps.sum()) / float(steps.max(axis=1).sum() * groups)


def predicted_idle(work: np.ndarray, seq_len: int) -> dict[str, Any]:
    """Idle share of 8 groups, a batch of 64 sequences or what the plan has, in the plan's order (which a hash shuffled) and balanced."""
    batch = min(BATCH, len(work) // GROUPS * GROUPS)
    if not batch:
        return {}
    shares = {key: idle(work, seq_len, GROUPS, batch, key == "balanced") for key in ("in_order", "balanced")}
    return {"dp_size": GROUPS, "batch": batch, **{key: round(share, 6) for key, share in shares.items()}}
