"""Thin calls of kernels that take document borders: flash-attn 2, 3, 4 and torch's `varlen_attn`.

    S tokens   U tokens of keys   H query heads   K key/value heads
    D head size of queries and keys   E head size of values

Their window counts the tokens before the query itself, so transformers' `sliding_window` w becomes
(w - 1, 0).
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.borders import DocumentBorders, Ends, validate_call

Output = torch.Tensor | tuple[torch.Tensor, ...]
VarlenCall = Callable[
    [
        torch.Tensor,
        torch.Tensor,
        torch.Tensor,
        DocumentBorders,
        DocumentBorders,
        float,
        int | None,
    ],
    Output,
]
"""(q (S, H, D), k (U, K, D), v (U, K, D), borders of q, borders of k, scale, window) -> (S, H, D),
or a tuple that begins with it. A document's queries are its last ones: flash-attn from 2.1 on and
torch align a causal mask, and a window, to the bottom right."""


def _attend(
    name: str,
    call: VarlenCall,
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
    """query (1, H, S, D), key (1, K, S, D), value (1, K, S, E) -> (1, S, H, E).

    With `key_borders` keys and values are U tokens. Raises: ConfigError, ValueError.
    """
    seq_len, head_dim, value_dim = query.shape[2], query.shape[3], value.shape[3]
    ends = document_ends or (0, seq_len)
    validate_call(module, query, key, ends, dropout, kwargs, key_borders)
    _refuse_fp32_and_sinks(name, query, s_aux)
    if cu_seqlens is None or max_seqlen is None:
        cu_seqlens = torch.tensor([0, seq_len], dtype=torch.int32, device=query.device)
        max_seqlen = seq_len
    if value_dim < head_dim:
        # decoupled heads (DeepSeek) have narrower values; the kernels need one head size
        value = F.pad(value, (0, head_dim - value_dim))
    q, k, v = (x.transpose(1, 2).squeeze(0) for x in (query, key, value))
    scale = head_dim**-0.5 if scaling is None else scaling
    borders: DocumentBorders = {
        "cu_seqlens": cu_seqlens,
        "document_ends": ends,
        "max_seqlen": max_seqlen,
    }
    output = call(q, k, v, borders, key_borders or borders, scale, sliding_window)
    if isinstance(output, tuple):
        output = output[0]
    return output[..., :value_dim].unsqueeze(0), None


def _refuse_fp32_and_sinks(name: str, query: torch.Tensor, s_aux: torch.Tensor | None) -> None:
    if query.dtype not in (torch.float16, torch.bfloat16):
        dtype = str(query.dtype).removeprefix("torch.")
        raise ConfigError(
            f"train.attention.kernel is {name}; its kernel takes bf16 or fp16, not {dtype}; "
            "set train.precision=bf16 or train.attention.kernel=sdpa"
        )
    if s_aux is not None:
        raise ConfigError(
            f"train.attention.kernel is {name}; its kernel gives the model's attention sinks no "
            "gradient; set train.attention.kernel=sdpa"
        )


def _flash_attn(
    package: str,
    no_window: tuple[int | None, int | None],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    queries: DocumentBorders,
    keys: DocumentBorders,
    scale: float,
    window: int | None,
) -> Output:
    output: Output = import_module(package).flash_attn_varlen_func(
        q,
        k,
        v,
        queries["cu_seqlens"],
        keys["cu_seqlens"],
        # by name from here on: the positions differ between the versions
        max_seqlen_q=queries["max_seqlen"],
        max_seqlen_k=keys["max_seqlen"],
        softmax_scale=scale,
        causal=True,
        window_size=no_window if window is None else (window - 1, 0),
        # train.deterministic asks for a fixed order of sums; varlen_attn reads it itself
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    return output


def _torch_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    queries: DocumentBorders,
    keys: DocumentBorders,
    scale: float,
    window: int | None,
) -> Output:
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn(
        q,
        k,
        v,
        queries["cu_seqlens"],
        keys["cu_seqlens"],
        queries["max_seqlen"],
        keys["max_seqlen"],
        scale=scale,
        # there is no argument `causal`: a right reach of 0 makes it causal
        window_size=(-1, 0) if window is None else (window - 1, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )


flash = partial(_attend, "flash", partial(_flash_attn, "flash_attn", (-1, -1)))
"""flash-attn 2."""
flash3 = partial(_attend, "flash3", partial(_flash_attn, "flash_attn_interface", (-1, -1)))
"""flash-attn 3 (Hopper)."""
flash4 = partial(_attend, "flash4", partial(_flash_attn, "flash_attn.cute", (None, None)))
"""flash-attn 4 (CuTe, Hopper and Blackwell)."""
varlen = partial(_attend, "varlen", _torch_varlen)
"""torch's own `torch.nn.attention.varlen.varlen_attn`."""
