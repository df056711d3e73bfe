"""Attention sinks (gpt-oss, arXiv 2508.10925): a learned logit of each head that takes its share of the softmax and gives nothing.

Exact through any softmax attention: one more key whose value is 0 and whose logit is the sink's. Heads are widened by a dimension
that holds the sink in queries, 1 / scale in that key and 0 in all others; by eight, for kernels like heads of whole eights.

S tokens   H query heads   K key/value heads   D head size   W = D + 8
"""

import torch
import torch.nn.functional as F

WIDER = 8


def widen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, s_aux: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """query (1, H, S, D), key and value (1, K, S, D), s_aux (H,) -> the three of head size W, and the key of the sink (W,).

    In bf16 the sink's logit is rounded once more where 1 / scale is no power of two.
    """
    logit = s_aux.to(query.dtype).view(1, -1, 1, 1).expand(1, -1, query.shape[2], 1)
    query = torch.cat([query, F.pad(logit, (0, WIDER - 1))], dim=3)
    sink = query.new_zeros(query.shape[3])
    sink[-WIDER] = 1 / scale
    return query, F.pad(key, (0, WIDER)), F.pad(value, (0, WIDER)), sink


def prepend_sink(
    key: torch.Tensor, value: torch.Tensor, sink: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sink's key and its value put before the others. key and value (N, K, T, W) -> (N, K, T + 1, W)."""
    row = sink.expand(*key.shape[:2], 1, -1)
    return torch.cat([row, key], dim=2), F.pad(value, (0, 0, 1, 0))
