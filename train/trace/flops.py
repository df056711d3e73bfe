"""FLOPs of a trace, and what kernels allocate inside: by operation.

Matrix products are counted by torch's own formulas. Attention is counted by the documents, which a
fake tensor of borders does not hold.

    n tokens of a document   S tokens   H, K query and key/value heads   D head size
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch._ops import OpOverload
from torch.utils.flop_counter import flop_registry

from ropewalk.train.cost.flops import visible_pairs

BACKWARD_PRODUCTS = 2.5
"""A flash backward pass has five products for the two of the forward pass: it computes the scores
again (FlashAttention-2, arXiv 2307.08691, section 3.1)."""
BLOCK = 128
"""Rows by which a flash backward pass pads each document."""
FORWARD = "torch_attn::_varlen_attn"
BACKWARD = "torch_attn::_varlen_attn_backward"


class FlopCount:
    """Adds FLOPs to `counts`: `product_flops` of matrix products, `attention_flops`."""

    def __init__(self, documents: Sequence[int], counts: "Counter[Any]") -> None:
        self.documents, self.counts = documents, counts

    def add(self, func: OpOverload, args: Any, kwargs: Any, result: Any) -> None:
        name = func._schema.name
        if name in (FORWARD, BACKWARD):
            self.counts["attention_flops"] += self._attention(func, args, kwargs)
        elif name == "aten::_grouped_mm":
            self.counts["product_flops"] += _grouped_product(*args[:2])
        elif (formula := flop_registry.get(func.overloadpacket)) is not None:
            self.counts["product_flops"] += formula(*args, **kwargs, out_val=result)

    def _attention(self, func: OpOverload, args: Any, kwargs: Any) -> int:
        names = [argument.name for argument in func._schema.arguments]
        given = dict(zip(names, args, strict=False)) | kwargs
        query, value = given["query"], given["value"]
        reach = (given.get("window_size") or [-1, 0])[0]
        window = None if reach < 0 else reach + 1
        pairs = sum(visible_pairs(n, window) for n in self.documents)
        # a part of a sequence has equal work for equally many queries (sequence_parts.py)
        pairs = pairs * query.shape[0] // sum(self.documents)
        forward = 2 * query.shape[1] * (query.shape[2] + value.shape[2]) * pairs
        return forward if func._schema.name == FORWARD else round(BACKWARD_PRODUCTS * forward)


def _grouped_product(a: torch.Tensor, b: torch.Tensor) -> int:
    """(S, k) @ (G, k, n) or (k, S) @ (S, n): each row passes one of the groups."""
    return 2 * a.shape[0] * a.shape[1] * b.shape[-1]


def workspace(func: OpOverload, args: Any) -> list[int]:
    """Bytes of the tensors that a kernel allocates and frees inside, which no mode sees, in order.

    FlashAttention-2's backward pass sums the queries' gradient in fp32, (S + 128 n, H, D) and
    (H, S + 128 n) for n documents, and where heads share keys it has their gradients for each query
    head, (S, H, D) (csrc/flash_attn/flash_api.cpp, mha_varlen_bwd).
    """
    if func._schema.name != BACKWARD:
        return []
    query, key, value = args[1:4]
    tokens, heads, head_size = query.shape
    rows = tokens + BLOCK * (args[6].shape[0] - 1)
    sizes = [rows * heads * 4, rows * heads * head_size * 4]
    if heads != key.shape[1]:
        sizes += [tokens * heads * size * 2 for size in (key.shape[2], value.shape[2])]
    return sizes
