"""Sliding windows without an (S x S) mask: exact banded causal attention in blocks.

Where a document is longer than its window of w keys, its first w tokens are causal attention as it is. The others are cut into
blocks of c = w / 2 queries; each sees the w + c keys that end with its last, under one (c, w + c) mask for all.

S tokens   H query heads   K key/value heads   G = H / K   D head size   N blocks of c queries
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F

from ropewalk.train.attention import sinks
from ropewalk.train.attention.borders import Ends, document_lengths

Segments = Sequence[torch.Tensor]
"""(1, heads, tokens of the part, D) each."""


@dataclass(frozen=True)
class Segmentation:
    """Where the sequence is cut: into documents, and those that are longer than the window once more, after it."""

    sizes: tuple[int, ...]
    plain: tuple[tuple[int, ...], ...]
    """Numbers of the parts that see nothing before them, those of one length together."""
    rests: tuple[int, ...]
    """Numbers of the parts that go on after their document's first window, which is the part before."""


@lru_cache(maxsize=16)
def segmentation(ends: Ends, window: int | None) -> Segmentation:
    """Derived once a step, not once a layer."""
    sizes: list[int] = []
    groups, rests = defaultdict(list), []
    for length in document_lengths(ends):
        first = length if window is None else min(length, window)
        groups[first].append(len(sizes))
        sizes.append(first)
        if first < length:
            rests.append(len(sizes))
            sizes.append(length - first)
    return Segmentation(tuple(sizes), tuple(map(tuple, groups.values())), tuple(rests))


def block_size(window: int) -> int:
    """Queries of a block. Half a window: 1.5 times the band's own work, and a mask of 1.5 block x window."""
    return -(-window // 2)


@lru_cache(maxsize=4)
def block_mask(window: int, group: int, sink: bool, device: torch.device) -> torch.Tensor:
    """What the rows of a block see: (G * c, w + c) bool, with one more column before the others for a sink."""
    block = block_size(window)
    with torch.inference_mode(False):
        row, column = (torch.arange(n, device=device) for n in (block, window + block))
        # the block's query i stands at w + i of its keys, and sees the w of them that end with it
        far = window + row[:, None] - column[None, :]
        seen = (far >= 0) & (far < window)
        return F.pad(seen, (int(sink), 0), value=True).repeat(group, 1)


def banded_attention(
    taken: tuple[Segments, ...],
    rests: tuple[int, ...],
    window: int,
    scale: float,
    sink: torch.Tensor | None,
) -> list[torch.Tensor]:
    """What the `rests` give: (1, H, their tokens, D) each, all blocks of all documents in one SDPA call."""
    query, key, value = taken
    block = block_size(window)
    group = query[0].shape[1] // key[0].shape[1]
    counts = [-(-query[n].shape[2] // block) for n in rests]
    q = torch.cat(
        [_folded(query[n], count, block, group) for n, count in zip(rests, counts, strict=True)]
    )
    k, v = (
        torch.cat(
            [_reach(x[n - 1], x[n], count, block) for n, count in zip(rests, counts, strict=True)]
        )
        for x in (key, value)
    )
    if sink is not None:
        k, v = sinks.prepend_sink(k, v, sink)
    seen = block_mask(window, group, sink is not None, q.device)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
    return [
        _unfolded(x, group, query[n].shape[2])
        for x, n in zip(out.split(counts), rests, strict=True)
    ]


def _folded(x: torch.Tensor, count: int, block: int, group: int) -> torch.Tensor:
    """(1, H, T, D) -> (N, K, G * c, D). Heads that share a key are rows of one: with a mask, GPUs have no fast kernel that shares."""
    x = F.pad(x, (0, 0, 0, count * block - x.shape[2]))
    x = x[0].unflatten(1, (count, block)).unflatten(0, (-1, group))  # (K, G, N, c, D)
    return x.permute(2, 0, 1, 3, 4).flatten(2, 3)


def _reach(first: torch.Tensor, rest: torch.Tensor, count: int, block: int) -> torch.Tensor:
    """What each block sees, (1, K, w, D) and (1, K, T, D) -> (N, K, w + c, D)."""
    x = F.pad(torch.cat([first, rest], dim=2), (0, 0, 0, count * block - rest.shape[2]))
    return (
        x[0].unfold(1, first.shape[2] + block, block).permute(1, 0, 3, 2)
    )  # from (K, N, D, w + c)


def _unfolded(x: torch.Tensor, group: int, size: int) -> torch.Tensor:
    """(N, K, G * c, D) -> (1, H, T, D)."""
    x = x.unflatten(2, (group, -1)).permute(1, 2, 0, 3, 4)  # (K, G, N, c, D)
    return x.flatten(2, 3).flatten(0, 1)[None, :, :size]
