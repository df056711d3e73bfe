"""Attention sinks (gpt-oss, arXiv 2508.10925): a learned logit of each head in the softmax.

A sink takes a share of the softmax and has no value. Any softmax attention computes it exactly
with one more key, whose value is 0 and whose logit is the sink's. Each head is widened by a
dimension that holds the sink in queries, 1 / scale in the sink's key and 0 in all other keys; by
eight dimensions, because kernels need head sizes that are multiples of eight.

    S tokens   H query heads   K key/value heads   D head size   W = D + 8
"""

import torch
import torch.nn.functional as F

EXTRA_DIMS = 8


def widen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, s_aux: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Widen the heads and make the sink's key.

    query (1, H, S, D), key and value (1, K, S, D), s_aux (H,) -> query (1, H, S, W), key and value
    (1, K, S, W), the sink's key (W,). In bf16 the sink's logit is rounded once more where 1 / scale
    is no power of two.
    """
    logit = s_aux.to(query.dtype).view(1, -1, 1, 1).expand(1, -1, query.shape[2], 1)
    query = torch.cat([query, F.pad(logit, (0, EXTRA_DIMS - 1))], dim=3)
    sink = query.new_zeros(query.shape[3])
    sink[-EXTRA_DIMS] = 1 / scale
    return query, F.pad(key, (0, EXTRA_DIMS)), F.pad(value, (0, EXTRA_DIMS)), sink


def prepend_sink(
    key: torch.Tensor, value: torch.Tensor, sink: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put the sink's key and its value before the others.

    key and value (N, K, T, W), sink (W,) -> key and value (N, K, T + 1, W).
    """
    sink_key = sink.expand(*key.shape[:2], 1, -1)
    return torch.cat([sink_key, key], dim=2), F.pad(value, (0, 0, 1, 0))
