"""Reference attention: transformers' eager attention under transformers' own dense mask."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from transformers import masking_utils
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward as gpt_oss_eager
from transformers.models.llama.modeling_llama import eager_attention_forward as llama_eager

ENDS = (0, 15, 16, 40, 47, 54, 73)
"""Documents of 15, 1, 24, 7, 7 and 19 tokens."""


def cu_seqlens(ends: tuple[int, ...] = ENDS) -> torch.Tensor:
    return torch.tensor(ends, dtype=torch.int32)


def visible(ends: tuple[int, ...], window: int | None) -> torch.Tensor:
    """(S, S) bool: whether the query (row) sees the key (column)."""
    number = torch.repeat_interleave(torch.arange(len(ends) - 1), torch.diff(torch.tensor(ends)))[
        None
    ]
    rules = [
        masking_utils.causal_mask_function,
        masking_utils.packed_sequence_mask_function(number),
    ]
    if window is not None:
        rules.append(masking_utils.sliding_window_overlay(window))
    positions = torch.arange(ends[-1])
    return masking_utils.and_masks(*rules)(0, 0, positions[:, None], positions[None, :])


def eager(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    visible_mask: torch.Tensor,
    scaling: float,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """(1, S, H, E) in fp32.

    query (1, H, S, D), key (1, K, S, D), value (1, K, S, E), visible_mask (S, S) or (1, H, S, S).
    """
    q, k, v = (x.float() for x in (query, key, value))
    module: Any = SimpleNamespace(
        num_key_value_groups=q.shape[1] // k.shape[1], training=False, sinks=sinks
    )
    bias = torch.zeros(visible_mask.shape).masked_fill(~visible_mask, float("-inf"))
    forward = llama_eager if sinks is None else gpt_oss_eager
    return forward(
        module, q, k, v, bias.expand(1, 1, *bias.shape) if bias.dim() == 2 else bias, scaling
    )[0]


def heads(
    h: int,
    k: int,
    d: int,
    s: int = ENDS[-1],
    e: int | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random query (1, H, S, D), key (1, K, S, D) and value (1, K, S, E) with gradients."""
    torch.manual_seed(seed)
    query, key, value = (
        torch.randn(shape).to(dtype).requires_grad_()
        for shape in ((1, h, s, d), (1, k, s, d), (1, k, s, e or d))
    )
    return query, key, value


def gradients(
    output: torch.Tensor, leaves: Sequence[torch.Tensor], seed: int = 1
) -> tuple[torch.Tensor, ...]:
    """Gradients of a random weighting of `output`."""
    torch.manual_seed(seed)
    return torch.autograd.grad((output.float() * torch.randn(output.shape)).sum(), leaves)
