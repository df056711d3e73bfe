"""Each document alone through torch's SDPA: the kernel of the CPU, and of any GPU.

S tokens   H query heads   K key/value heads
D head size of queries and keys   E head size of values
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ropewalk.train.attention import sinks
from ropewalk.train.attention.borders import (
    DocumentBorders,
    Ends,
    validate_borders,
    validate_call,
)
from ropewalk.train.attention.prefix import attend_after_prefix
from ropewalk.train.attention.sliding_window import Segmentation, banded_attention, segmentation


def sdpa(
    module: nn.Module | None,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    document_ends: Ends | None = None,
    max_seqlen: int | None = None,
    key_borders: DocumentBorders | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Documents of one length in one call; a window in blocks; sinks as one more key.

    query (1, H, S, D), key (1, K, S, D), value (1, K, S, E), s_aux (H,) -> (1, S, H, E).
    `sliding_window` w: a query sees w keys, the last of which is its own. Memory grows as S; a
    window adds its mask of 0.75 w^2 H / K. `key_borders`: keys and values are more tokens, the last
    of which are the document's queries. Raises: ConfigError, ValueError.
    """
    ends = document_ends or (0, query.shape[2])
    validate_call(module, query, key, ends, dropout, kwargs, key_borders)
    if cu_seqlens is not None:  # SDPA does not read it: checked where no other kernel runs
        validate_borders(query, cu_seqlens, document_ends, max_seqlen)
    head_dim, value_dim = query.shape[3], value.shape[3]
    scale = head_dim**-0.5 if scaling is None else scaling
    if value_dim < head_dim:
        # decoupled heads (DeepSeek) have narrower values; SDPA's fast kernels need one head size
        value = F.pad(value, (0, head_dim - value_dim))
    sink = None
    if s_aux is not None:
        query, key, value, sink = sinks.widen(query, key, value, s_aux, scale)
    if key_borders is None:
        cut = segmentation(ends, sliding_window)
        output = _attend_segments(query, key, value, cut, sliding_window, scale, sink)
    else:
        borders = ends, key_borders["document_ends"]
        output = attend_after_prefix(query, key, value, borders, sliding_window, scale, sink)
    # some architectures view it without a copy, as they may with transformers' own kernels
    return output[..., :value_dim].transpose(1, 2).contiguous(), None


def _attend_segments(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cut: Segmentation,
    window: int | None,
    scale: float,
    sink: torch.Tensor | None,
) -> torch.Tensor:
    """query (1, H, S, D), key and value (1, K, S, D), sink (D,) -> (1, H, S, D)."""
    # split, not slices: the gradient of a slice is a (1, H, S, D) of zeros for each document
    queries, keys, values = (x.split(cut.sizes, dim=2) for x in (query, key, value))
    outputs: dict[int, torch.Tensor] = {}
    for group in cut.prefix_groups:
        q, k, v = (torch.cat([x[n] for n in group]) for x in (queries, keys, values))
        outputs |= zip(group, _causal(q, k, v, scale, sink).split(1), strict=True)
    if window is not None and cut.remainders:
        banded = banded_attention((queries, keys, values), cut.remainders, window, scale, sink)
        outputs |= zip(cut.remainders, banded, strict=True)
    return torch.cat([outputs[n] for n in range(len(cut.sizes))], dim=2)


def _causal(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, sink: torch.Tensor | None
) -> torch.Tensor:
    """Documents of one length. q (N, H, T, D), k and v (N, K, T, D), sink (D,) -> (N, H, T, D)."""
    gqa = q.shape[1] != k.shape[1]
    if sink is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=gqa)
    # the sink's key comes first, so a query whose output is dropped is put first as well: the
    # causal diagonal stays the same
    k, v = sinks.prepend_sink(k, v, sink)
    q = F.pad(q, (0, 0, 1, 0))
    output = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=gqa)
    return output[:, :, 1:]
