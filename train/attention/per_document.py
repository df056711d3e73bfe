"""Each document alone through torch's SDPA: the kernel of the CPU, and of any GPU.

S tokens   H query heads   K key/value heads   D head size of queries and keys   E head size of values
"""

from collections import defaultdict
from typing import Any

import torch
import torch.nn.functional as F

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.handled import check
from ropewalk.train.attention.layout import Ends, lengths


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
    """Documents of one length in one call. query (1, H, S, D), key (1, K, S, D), value (1, K, S, E) -> (1, S, H, E)."""
    ends = document_ends or (0, query.shape[2])
    check(module, query, key, ends, dropout, words)
    if sliding_window:
        raise ConfigError(
            f"sliding_window is {sliding_window}; windowed layers are not handled yet; choose another model"
        )
    if s_aux is not None:
        raise ConfigError("model.path has attention sinks; they are not handled yet; choose another model")
    return _by_length(query, key, value, lengths(ends), scaling).transpose(1, 2), None


def _by_length(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sizes: tuple[int, ...], scaling: float | None
) -> torch.Tensor:
    """One SDPA call for the documents of each length. (1, H, S, E)."""
    groups: dict[int, list[int]] = defaultdict(list)
    for number, size in enumerate(sizes):
        groups[size].append(number)
    # split, not slices: the gradient of a slice is a whole (1, H, S, D) of zeros for each document
    taken = [x.split(sizes, dim=2) for x in (query, key, value)]
    parts: list[Any] = [None] * len(sizes)
    for numbers in groups.values():
        q, k, v = (torch.cat([x[n] for n in numbers]) for x in taken)
        out = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
        )
        for number, part in zip(numbers, out.split(1), strict=True):
            parts[number] = part
    return torch.cat(parts, dim=2)
