"""Document-masked causal attention, one interface for CPU and GPU; no (S x S) mask is ever built.

Registered with transformers as `ropewalk`. The borders of documents come as `cu_seqlens`, computed once a step:
a tensor for the kernel and a tuple for the loop, so that no layer waits for the device.

    B batch (always 1: micro-batches are laid end to end)   S tokens   H query heads   K key/value heads   D head size
"""

import importlib.util
from collections import defaultdict
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface

from ropewalk.conf.errors import ConfigError

SDPA, FLASH = "ropewalk_sdpa", "ropewalk_flash"


def register(kernel: str) -> str:
    """Register and name the kernel for `auto`, `flash` or `sdpa`. Raises: ConfigError when flash-attn is asked for and absent."""
    name = _choose(kernel)
    AttentionInterface.register(name, {SDPA: sdpa, FLASH: flash}[name])
    AttentionMaskInterface.register(name, no_mask)
    return name


def _choose(kernel: str) -> str:
    there = importlib.util.find_spec("flash_attn") is not None and torch.cuda.is_available()
    if kernel == "flash" and not there:
        raise ConfigError(
            "train.attention is flash; it needs a CUDA device and flash-attn; pip install 'ropewalk[flash]' or train.attention=sdpa"
        )
    return FLASH if kernel != "sdpa" and there else SDPA


def no_mask(*args: Any, **kwargs: Any) -> None:
    """In place of a mask: the borders say it all."""
    return None


def borders(cu_seqlens: torch.Tensor) -> dict[str, Any]:
    """What a forward call takes of a step's borders. Shape of `cu_seqlens`: (documents + 1,) int32."""
    ends = tuple(cu_seqlens.tolist())
    longest = max(b - a for a, b in zip(ends, ends[1:], strict=False))
    return {"cu_seqlens": cu_seqlens, "document_ends": ends, "max_seqlen": longest}


def sdpa(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    document_ends: tuple[int, ...] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Each document alone through torch's SDPA; documents of one length in one call.

    query (1, H, S, D), key and value (1, K, S, D) -> (1, S, H, D). `document_ends`: 0, each border, S.
    """
    _only_training(query, dropout, kwargs)
    ends = document_ends or (0, query.shape[2])
    shared = query.shape[1] != key.shape[1]
    if len(ends) == 2:
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=shared)
        return out.transpose(1, 2), None
    spans = list(zip(ends, ends[1:], strict=False))
    out = _by_length(query, key, value, spans, scaling, shared)
    return out.transpose(1, 2), None


def _by_length(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    spans: list[tuple[int, int]],
    scaling: float | None,
    shared: bool,
) -> torch.Tensor:
    """One SDPA call for the documents of each length. (1, H, S, D)."""
    groups: dict[int, list[int]] = defaultdict(list)
    for number, (start, end) in enumerate(spans):
        groups[end - start].append(number)
    parts: list[Any] = [None] * len(spans)
    for numbers in groups.values():
        q, k, v = (torch.cat([x[:, :, spans[n][0] : spans[n][1]] for n in numbers]) for x in (query, key, value))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=shared)
        for number, part in zip(numbers, out.split(1), strict=True):
            parts[number] = part
    return torch.cat(parts, dim=2)


def flash(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seqlens: torch.Tensor | None = None,
    max_seqlen: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """flash-attn 2 varlen on the same borders. Shapes as `sdpa`; fp16 or bf16 only."""
    from flash_attn import flash_attn_varlen_func

    _only_training(query, dropout, kwargs)
    q, k, v = (x.transpose(1, 2).squeeze(0) for x in (query, key, value))  # (S, heads, D)
    if cu_seqlens is None or max_seqlen is None:
        max_seqlen = q.shape[0]
        cu_seqlens = torch.tensor([0, max_seqlen], dtype=torch.int32, device=q.device)
    out = flash_attn_varlen_func(
        q,
        k,
        v,
        cu_seqlens_q=cu_seqlens,
        cu_seqlens_k=cu_seqlens,
        max_seqlen_q=max_seqlen,
        max_seqlen_k=max_seqlen,
        softmax_scale=scaling,
        causal=True,
    )
    return out.unsqueeze(0), None


def _only_training(query: torch.Tensor, dropout: float, kwargs: dict[str, Any]) -> None:
    """What would be ignored in silence is refused."""
    if query.shape[0] != 1:
        raise ValueError(f"batch is {query.shape[0]}; rows are laid end to end, so it must be 1; join the rows")
    if dropout:
        raise ConfigError(
            f"attention_dropout is {dropout}; it must be 0 for a reproducible extension; set it to 0 in the model's config"
        )
    if kwargs.get("sliding_window"):
        raise ConfigError(
            f"sliding_window is {kwargs['sliding_window']}; windowed layers are not handled yet; choose another model"
        )
