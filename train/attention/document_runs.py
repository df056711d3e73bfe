"""Which documents share a call of a kernel whose grid is (longest / 128) x documents x heads.

flash-attn 2, torch's copy of it and the backward pass of flash-attn 3 launch a block for every 128
tokens of the longest document, for each document and head: beside one document of 100,000 tokens,
1,000 short ones are 3.1 million blocks of 4 heads, of which 7,000 have work. So documents that
follow each other in a row are one call (a run), long ones and short ones in calls of their own
where that saves more than a call costs. Runs are slices: no token is copied or reordered.

The grid's documents are its y or z (csrc/flash_attn/src/flash_fwd_launch_template.h,
hopper/flash_bwd_launch_template.h), of which CUDA allows 65,535.
"""

from functools import lru_cache

import numpy as np

from ropewalk.train.attention.borders import DocumentBorders, Ends, document_lengths

BLOCK = 128
MAX_DOCUMENTS = 65_535
CALL_COST = 2**18
"""Blocks without work that a further call must save. At some 3 ns a block they take 0.8 ms, more
than the launches of a call and the last blocks that run alone at its end."""


@lru_cache(maxsize=16)
def document_runs(ends: Ends, heads: int) -> tuple[range, ...]:
    """The documents of each call, in order; all in one where that costs no more.

    `ends`: of the keys. Cached: once a step and not once a layer.
    """
    blocks = -(-np.array(document_lengths(ends)) // BLOCK) * heads
    candidates = (_first_documents(blocks, limit) for limit in sorted({*_limits(blocks)}))
    firsts = min(candidates, key=lambda firsts: _cost(blocks, firsts))
    lasts = [*firsts[1:].tolist(), len(blocks)]
    return tuple(
        range(n, min(n + MAX_DOCUMENTS, last))
        for first, last in zip(firsts.tolist(), lasts, strict=True)
        for n in range(first, last, MAX_DOCUMENTS)
    )


def _limits(blocks: np.ndarray) -> list[int]:
    """Sizes at which long documents begin: powers of two, and the largest (none is long)."""
    largest = int(blocks.max())
    return [2**n for n in range(largest.bit_length()) if 2**n < largest] + [largest]


def _first_documents(blocks: np.ndarray, limit: int) -> np.ndarray:
    """Where runs begin if long documents, of more than `limit` blocks, are apart from others."""
    return np.r_[0, np.flatnonzero(np.diff(blocks > limit)) + 1]


def _cost(blocks: np.ndarray, firsts: np.ndarray) -> int:
    """Blocks that are launched, and the calls."""
    documents = np.diff(np.r_[firsts, len(blocks)])
    launched = documents * np.maximum.reduceat(blocks, firsts)
    return int(launched.sum()) + CALL_COST * len(firsts)


def borders_of_run(borders: DocumentBorders, run: range) -> DocumentBorders:
    """The borders of a call's documents, counted from its first token. No wait for the device."""
    ends = _ends_of_run(borders["document_ends"], run)
    first_token = borders["document_ends"][run.start]
    return {
        "cu_seqlens": borders["cu_seqlens"][run.start : run.stop + 1] - first_token,
        "document_ends": ends,
        "max_seqlen": max(document_lengths(ends)),
    }


@lru_cache(maxsize=64)
def _ends_of_run(ends: Ends, run: range) -> Ends:
    return tuple(end - ends[run.start] for end in ends[run.start : run.stop + 1])
