"""How unequal the attention work of the sequences is, and the predicted waiting. Pure.

Work is the sum of squared lengths of the spans that attend to themselves, in proportion to what the
kernel computes: with the document mask a span is a piece or the padding, without it the sequence.
The loss is a sum over the global batch, so a deal does not change the gradient, only which group
computes which sequence, and the order of summation.
"""

from typing import Any

import numpy as np

from ropewalk.data.loading.loader import deal, round_robin

# FLOPs a token, and in attention a token squared: 2 x 8e9; 4 x 32 layers x 4096 / 2 (causal)
LLAMA_8B = (16e9, 262144.0)
BATCHES = 4096  # that are computed at a time
DP_SIZE, BATCH = 8, 64  # of the prediction: data-parallel groups, sequences a batch


def idle_share(works: np.ndarray, seq_len: int, dp_size: int, batch: int, balanced: bool) -> float:
    """Share of all groups' time spent waiting for the slowest of a round; 0.0 without a full batch.

    `works` (sequences,) are in training order, each micro-batch is one sequence, the costs are
    those of an 8B Llama.
    """
    per_token, per_square = LLAMA_8B
    slowest = mean = 0.0
    for first in range(0, len(works) - batch + 1, BATCHES * batch):
        part = works[first : first + BATCHES * batch]
        part = part[: len(part) // batch * batch].reshape(-1, batch)
        order = deal(part, dp_size) if balanced else round_robin(batch, dp_size)[None]
        rounds = np.take_along_axis(part[:, None], order, axis=-1)
        cost = per_token * seq_len + per_square * rounds
        slowest = _added(slowest, cost.max(axis=1).sum(axis=1))
        mean = _added(mean, cost.mean(axis=1).sum(axis=1))
    return 1 - mean / slowest if slowest else 0.0


def _added(total: float, numbers: np.ndarray) -> float:
    """`total` and all numbers one after the other, for any number of parts the same sum."""
    return float(np.cumsum(np.append(total, numbers))[-1])


def predicted_idle(works: np.ndarray, seq_len: int) -> dict[str, Any]:
    """Idle share of 8 groups and batches of up to 64 sequences, in plan order and balanced.

    Empty for a plan with fewer sequences than groups.
    """
    batch = min(BATCH, len(works) // DP_SIZE * DP_SIZE)
    if not batch:
        return {}
    in_order, balanced = (
        round(idle_share(works, seq_len, DP_SIZE, batch, flag), 6) for flag in (False, True)
    )
    return {"dp_size": DP_SIZE, "batch": batch, "in_order": in_order, "balanced": balanced}


def work_statistics(works: np.ndarray, seq_len: int) -> dict[str, Any]:
    """Mean work, its coefficient of variation, maximum over mean, and a histogram.

    `mean` is in tokens squared; `share_of_full` and the histogram are relative to a sequence of one
    document.
    """
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
