"""Activation checkpointing with attention's output kept, beside all of a layer computed again.

Paired: the same training of one document a sequence, in the same run, in turns. The memory that it
takes is held against arithmetic by tests/train/memory/test_kept_attention.py, which counts tensors:
resident memory depends more on the order of frees than on these few.
"""

from typing import Any

import common

TOKENS = 8192
KEPT, AGAIN = "attention kept", "attention computed again"


def kept_attention(quick: bool) -> list[dict[str, Any]]:
    """Seconds a step of one document; the losses are equal to the bit."""
    length = TOKENS // 8 if quick else TOKENS
    rounds, count = (1, 2) if quick else (3, 3)
    size = {"length": length, "count": count, "checkpointing": True, "single_document": True}
    runs = common.alternate(
        rounds,
        {
            side: lambda keep=keep: common.child("sides:ours", memory__keep_attention=keep, **size)
            for side, keep in ((KEPT, True), (AGAIN, False))
        },
    )
    if runs[KEPT][0]["losses"] != runs[AGAIN][0]["losses"]:
        raise RuntimeError(f"kept attention changes the losses: {runs}")
    seconds = {side: [common.median(run["seconds"]) for run in runs[side]] for side in runs}
    ratios = [a / b for a, b in zip(seconds[KEPT], seconds[AGAIN], strict=True)]
    return [
        common.result(
            f"kept_attention_{length}",
            common.median(seconds[KEPT]),
            "s a step",
            peer=AGAIN,
            peer_value=common.median(seconds[AGAIN]),
            bar="ratio <= 0.92",
            ratio_of_rounds=common.spread(ratios),
            rounds=rounds,
            steps_a_round=count,
        )
    ]
