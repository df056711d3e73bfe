"""Sliding windows without an (S, S) mask: exact banded causal attention in blocks.

A document that is longer than its window of w keys is cut into two segments. Its first w tokens
(the prefix) are ordinary causal attention. The others (the remainder) are cut into blocks of
c = w / 2 queries; each block sees the w + c keys that end with its last query, all under one
(c, w + c) mask.

    S tokens   T tokens of a segment   H query heads   K key/value heads   G = H / K
    D head size   N blocks of c queries
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F

from ropewalk.train.attention import document_runs, sinks
from ropewalk.train.attention.borders import Ends, document_lengths

Segments = Sequence[torch.Tensor]
"""(1, heads, T, D) each."""


@dataclass(frozen=True)
class Segmentation:
    """How a sequence is cut: into documents, and documents longer than the window once more."""

    sizes: tuple[int, ...]
    prefix_groups: tuple[tuple[int, ...], ...]
    """Indices of the segments that see nothing before them, segments of one length together: a
    batch of SDPA, which CUDA's grid bounds."""
    remainders: tuple[int, ...]
    """Indices of the segments that continue the segment before them, their document's prefix."""


@lru_cache(maxsize=16)
def segmentation(ends: Ends, window: int | None) -> Segmentation:
    """Cached, so that it is computed once a step and not once a layer."""
    sizes: list[int] = []
    prefix_groups, remainders = defaultdict(list), []
    for length in document_lengths(ends):
        prefix = length if window is None else min(length, window)
        prefix_groups[prefix].append(len(sizes))
        sizes.append(prefix)
        if prefix < length:
            remainders.append(len(sizes))
            sizes.append(length - prefix)
    groups = (
        tuple(group[n : n + document_runs.MAX_DOCUMENTS])
        for group in prefix_groups.values()
        for n in range(0, len(group), document_runs.MAX_DOCUMENTS)
    )
    return Segmentation(tuple(sizes), tuple(groups), tuple(remainders))


def block_size(window: int) -> int:
    """Queries of a block. Half a window: 1.5 times the band's own work, and a small mask."""
    return -(-window // 2)


@lru_cache(maxsize=4)
def block_mask(window: int, group: int, has_sink: bool, device: torch.device) -> torch.Tensor:
    """The keys that each query of a block sees: (G * c, w + c) bool, a sink's column first."""
    block = block_size(window)
    with torch.inference_mode(False):
        row, column = (torch.arange(n, device=device) for n in (block, window + block))
        # query i of the block is key w + i of its keys, and sees the w keys that end there
        distance = window + row[:, None] - column[None, :]
        visible = (distance >= 0) & (distance < window)
        return F.pad(visible, (int(has_sink), 0), value=True).repeat(group, 1)


def banded_attention(
    segments: tuple[Segments, Segments, Segments],
    remainders: tuple[int, ...],
    window: int,
    scale: float,
    sink: torch.Tensor | None,
) -> list[torch.Tensor]:
    """Outputs (1, H, T, D) of the `remainders`: all blocks of all documents in one SDPA call.

    `segments`: queries (1, H, T, D), keys and values (1, K, T, D) of every segment. `sink` (D,).
    """
    query, key, value = segments
    block = block_size(window)
    group = query[0].shape[1] // key[0].shape[1]
    counts = [-(-query[n].shape[2] // block) for n in remainders]
    blocks = list(zip(remainders, counts, strict=True))
    q = torch.cat([_fold_blocks(query[n], count, block, group) for n, count in blocks])
    k, v = (
        torch.cat([_visible_to_blocks(x[n - 1], x[n], count, block) for n, count in blocks])
        for x in (key, value)
    )
    if sink is not None:
        k, v = sinks.prepend_sink(k, v, sink)
    mask = block_mask(window, group, sink is not None, q.device)
    output = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return [
        _unfold_blocks(x, group, query[n].shape[2])
        for x, n in zip(output.split(counts), remainders, strict=True)
    ]


def _fold_blocks(x: torch.Tensor, count: int, block: int, group: int) -> torch.Tensor:
    """(1, H, T, D) -> (N, K, G * c, D): heads that share a key become rows of one head.

    With a mask, GPUs have no fast kernel for shared keys.
    """
    x = F.pad(x, (0, 0, 0, count * block - x.shape[2]))
    x = x[0].unflatten(1, (count, block)).unflatten(0, (-1, group))  # (K, G, N, c, D)
    return x.permute(2, 0, 1, 3, 4).flatten(2, 3)


def _visible_to_blocks(
    prefix: torch.Tensor, remainder: torch.Tensor, count: int, block: int
) -> torch.Tensor:
    """Keys or values that each block sees: (1, K, w, D) and (1, K, T, D) -> (N, K, w + c, D)."""
    padding = count * block - remainder.shape[2]
    x = F.pad(torch.cat([prefix, remainder], dim=2), (0, 0, 0, padding))
    windows = x[0].unfold(1, prefix.shape[2] + block, block)  # (K, N, D, w + c)
    return windows.permute(1, 0, 3, 2)


def _unfold_blocks(x: torch.Tensor, group: int, size: int) -> torch.Tensor:
    """(N, K, G * c, D) -> (1, H, T, D)."""
    x = x.unflatten(2, (group, -1)).permute(1, 2, 0, 3, 4)  # (K, G, N, c, D)
    return x.flatten(2, 3).flatten(0, 1)[None, :, :size]
