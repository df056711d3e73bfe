"""Each document alone through torch's SDPA: the kernel of the CPU, and of any GPU.

S tokens   H query heads   K key/value heads   D head size of queries and keys   E head size of values
"""

from typing import Any

import torch
import torch.nn.functional as F

from ropewalk.train.attention import sinks
from ropewalk.train.attention import sliding_window as attention_sliding_window
from ropewalk.train.attention.borders import Ends
from ropewalk.train.attention.support import validate_call


def sdpa(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    document_ends: Ends | None = None,
    **words: Any,
) -> tuple[torch.Tensor, None]:
    """Documents of one length in one call; a window in blocks; sinks as one more key.

    query (1, H, S, D), key (1, K, S, D), value (1, K, S, E), s_aux (H,) -> (1, S, H, E). `sliding_window` w: a query sees w keys, the
    last of them its own. Memory grows as S, with a window by its mask of 0.75 w^2 H / K more. Raises: ConfigError, ValueError.
    """
    ends = document_ends or (0, query.shape[2])
    validate_call(module, query, key, ends, dropout, words)
    wide, own = query.shape[3], value.shape[3]
    scale = wide**-0.5 if scaling is None else scaling
    # SDPA has fast kernels for one head size only: decoupled heads (DeepSeek) have narrower values
    value = F.pad(value, (0, wide - own)) if own < wide else value
    sink = None
    if s_aux is not None:
        query, key, value, sink = sinks.widen(query, key, value, s_aux, scale)
    out = _documents(
        query,
        key,
        value,
        attention_sliding_window.segmentation(ends, sliding_window),
        sliding_window,
        scale,
        sink,
    )
    return out[..., :own].transpose(1, 2), None


def _documents(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cuts: attention_sliding_window.Segmentation,
    window: int | None,
    scale: float,
    sink: torch.Tensor | None,
) -> torch.Tensor:
    """(1, H, S, E)"""
    # split, not slices: the gradient of a slice is a whole (1, H, S, D) of zeros for each document
    taken = tuple(x.split(cuts.sizes, dim=2) for x in (query, key, value))
    parts: dict[int, torch.Tensor] = {}
    for numbers in cuts.plain:
        q, k, v = (torch.cat([x[n] for n in numbers]) for x in taken)
        parts |= zip(numbers, _causal(q, k, v, scale, sink).split(1), strict=True)
    if window is not None and cuts.rests:
        parts |= zip(
            cuts.rests,
            attention_sliding_window.banded_attention(taken, cuts.rests, window, scale, sink),
            strict=True,
        )
    return torch.cat([parts[n] for n in range(len(cuts.sizes))], dim=2)


def _causal(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, sink: torch.Tensor | None
) -> torch.Tensor:
    """Documents of one length. q (N, H, T, D), k and v (N, K, T, D) -> (N, H, T, D)."""
    shared = q.shape[1] != k.shape[1]
    if sink is None:
        return F.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scale, enable_gqa=shared
        )
    # a query that is thrown away stands before the others as the sink's key does, so that causal is the same diagonal
    k, v = sinks.prepend_sink(k, v, sink)
    q = F.pad(q, (0, 0, 1, 0))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=shared)[
        :, :, 1:
    ]
