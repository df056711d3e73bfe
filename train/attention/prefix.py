"""Queries that see keys before them, for SDPA: a rank's part of a sequence, a call with a cache.

torch's `is_causal` aligns its mask to the top left, flash-attn's to the bottom right: a document's
queries are the last of its keys. Here the mask is built for blocks of queries, of the keys that
they see and no others. On a CPU, without a gradient and a window, no mask is built: the keys before
the queries, which all of them see, and the queries' own are attended to apart, and joined by the
logarithms of their sums; torch would turn a mask of bools into one of floats in every layer.

    T queries   U keys   H query heads   K key/value heads   G = H / K   D head size
    c queries of a block
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from ropewalk.train.attention import sinks
from ropewalk.train.attention.borders import Ends, document_lengths

BLOCK = 512
"""Queries of a block at most: the mask of 128K keys takes 64 MiB for each head that shares one."""


def attend_after_prefix(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: tuple[Ends, Ends],
    window: int | None,
    scale: float,
    sink: torch.Tensor | None,
) -> torch.Tensor:
    """query (1, H, T, D), key and value (1, K, U, D), sink (D,) -> (1, H, T, D).

    `ends`: of the queries and of the keys of each document.
    """
    lengths = tuple(document_lengths(borders) for borders in ends)
    queries = query.split(lengths[0], dim=2)
    keys, values = (x.split(lengths[1], dim=2) for x in (key, value))
    outputs = [
        output
        for q, k, v in zip(queries, keys, values, strict=True)
        for output in (
            _two_parts(q, k, v, scale, sink)
            if window is None and _gives_sums(q)
            else _blocks(q, k, v, window, scale, sink)
        )
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


def _gives_sums(query: torch.Tensor) -> bool:
    """Whether torch has a kernel that returns the sums, too. They have no gradient."""
    return query.device.type == "cpu" and not torch.is_grad_enabled()


def attend_with_sums(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, causal: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output (1, H, T, D) and logarithms of the sums (1, H, T), on a CPU without a gradient.

    All of the same number of heads and head size.
    """
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    output, sums = attend(query, key, value, is_causal=causal, scale=scale)
    return output, sums


def joined(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> torch.Tensor:
    """Attention over two sets of keys from that over each: outputs (..., D), log-sums (...)."""
    share = (second[1] - first[1]).sigmoid()[..., None]
    return torch.lerp(first[0], second[0], share.to(first[0].dtype))


def _two_parts(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    sink: torch.Tensor | None,
) -> Iterator[torch.Tensor]:
    """The output (1, H, T, D) of one document: softmax over the keys before it and over its own."""
    group, offset = query.shape[1] // key.shape[1], key.shape[2] - query.shape[2]
    before = key[:, :, :offset], value[:, :, :offset]
    if sink is not None:
        before = sinks.prepend_sink(*before, sink)
    heads = query[0].unflatten(0, (-1, group))  # (K, G, T, D)
    k, v = (x[:, :, offset:].expand(group, -1, -1, -1) for x in (key, value))  # not copied
    over_own = attend_with_sums(heads.transpose(0, 1), k, v, scale, causal=True)
    output, sums = (x.transpose(0, 1) for x in over_own)
    if before[0].shape[2]:
        rows = heads.flatten(1, 2)[None]  # heads that share a key
        over_before = attend_with_sums(rows, *before, scale)
        first = [x[0].unflatten(1, (group, -1)) for x in over_before]
        output = joined(first, (output, sums))
    yield output.flatten(0, 1)[None]


def _blocks(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    window: int | None,
    scale: float,
    sink: torch.Tensor | None,
) -> Iterator[torch.Tensor]:
    """Outputs (1, H, c, D) of one document, block after block."""
    group = query.shape[1] // key.shape[1]
    offset = key.shape[2] - query.shape[2]
    for n, q in enumerate(query.split(BLOCK, dim=2)):
        first = offset + n * BLOCK  # the key of the block's first query
        last = first + q.shape[2]
        low = 0 if window is None else max(0, first - window + 1)
        k, v = (x[:, :, low:last] for x in (key, value))
        mask = _visible(first - low, q.shape[2], window, q.device)
        if sink is not None:
            k, v = sinks.prepend_sink(k, v, sink)
            mask = F.pad(mask, (1, 0), value=True)
        # heads that share a key become rows of one: with a mask, GPUs have no fast kernel for them
        rows = q.unflatten(1, (-1, group)).flatten(2, 3)
        mask = mask.repeat(group, 1)
        output = F.scaled_dot_product_attention(rows, k, v, attn_mask=mask, scale=scale)
        yield output.unflatten(2, (group, -1)).flatten(1, 2)


def _visible(first: int, count: int, window: int | None, device: torch.device) -> torch.Tensor:
    """The keys that each of `count` queries sees: (c, first + c) bool. Query i is key first + i."""
    row = torch.arange(first, first + count, device=device)
    distance = row[:, None] - torch.arange(first + count, device=device)
    visible = distance >= 0
    return visible if window is None else visible & (distance < window)
