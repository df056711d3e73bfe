"""Kernels that take borders themselves, called thinly: flash-attn 2, 3 and 4, and torch's own `varlen_attn`.

S tokens   H query heads   K key/value heads   D head size of queries and keys   E head size of values

Their window counts the tokens before the query's own, so transformers' `sliding_window` w is (w - 1, 0).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.borders import Ends
from ropewalk.train.attention.support import validate_call

Call = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int, float, int | None], Any
]
"""(q (S, H, D), k (S, K, D), v (S, K, D), cu_seqlens (documents + 1,) int32, max_seqlen, scale, window) -> (S, H, D)"""


def flash(
    module: Any, query: Any, key: Any, value: Any, attention_mask: None, **words: Any
) -> tuple[Any, None]:
    """flash-attn 2: `flash_attn.flash_attn_varlen_func`. Shapes as `sdpa`."""
    return _kernel("flash", _flash2, module, query, key, value, **words)


def flash3(
    module: Any, query: Any, key: Any, value: Any, attention_mask: None, **words: Any
) -> tuple[Any, None]:
    """flash-attn 3 (Hopper): `flash_attn_interface.flash_attn_varlen_func`. Shapes as `sdpa`."""
    return _kernel("flash3", _flash3, module, query, key, value, **words)


def flash4(
    module: Any, query: Any, key: Any, value: Any, attention_mask: None, **words: Any
) -> tuple[Any, None]:
    """flash-attn 4 (CuTe, Hopper and Blackwell): `flash_attn.cute.flash_attn_varlen_func`. Shapes as `sdpa`."""
    return _kernel("flash4", _flash4, module, query, key, value, **words)


def varlen(
    module: Any, query: Any, key: Any, value: Any, attention_mask: None, **words: Any
) -> tuple[Any, None]:
    """torch's `torch.nn.attention.varlen.varlen_attn`. Shapes as `sdpa`."""
    return _kernel("varlen", _torch_varlen, module, query, key, value, **words)


def _kernel(
    name: str,
    call: Call,
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    document_ends: Ends | None = None,
    max_seqlen: int | None = None,
    **words: Any,
) -> tuple[torch.Tensor, None]:
    """query (1, H, S, D), key (1, K, S, D), value (1, K, S, E) -> (1, S, H, E). Raises: ConfigError, ValueError."""
    size, wide = query.shape[2], query.shape[3]
    validate_call(module, query, key, document_ends or (0, size), dropout, words)
    _check_flash(name, query, s_aux)
    if cu_seqlens is None or max_seqlen is None:
        cu_seqlens, max_seqlen = (
            torch.tensor([0, size], dtype=torch.int32, device=query.device),
            size,
        )
    own = value.shape[3]
    # decoupled heads (DeepSeek) have narrower values; the kernels want one head size
    value = F.pad(value, (0, wide - own)) if own < wide else value
    q, k, v = (x.transpose(1, 2).squeeze(0) for x in (query, key, value))
    out = call(
        q, k, v, cu_seqlens, max_seqlen, wide**-0.5 if scaling is None else scaling, sliding_window
    )
    out = out[0] if isinstance(out, tuple) else out
    return out[..., :own].unsqueeze(0), None


def _check_flash(name: str, query: torch.Tensor, s_aux: torch.Tensor | None) -> None:
    if query.dtype not in (torch.float16, torch.bfloat16):
        raise ConfigError(
            f"train.attention is {name}; its kernel takes bf16 or fp16, not {str(query.dtype).removeprefix('torch.')}; "
            "set train.precision=bf16 or train.attention=sdpa"
        )
    if s_aux is not None:
        raise ConfigError(
            f"train.attention is {name}; its kernel gives the model's attention sinks no gradient; set train.attention=sdpa"
        )


def _window(window: int | None) -> tuple[int, int]:
    return (-1, -1) if window is None else (window - 1, 0)


def _fixed() -> bool:
    """Whether the backward pass must sum in one order (`train.deterministic`); torch's own kernel asks by itself."""
    return torch.are_deterministic_algorithms_enabled()


def _flash2(
    q: Any, k: Any, v: Any, cu: torch.Tensor, longest: int, scale: float, window: int | None
) -> Any:
    from flash_attn import flash_attn_varlen_func

    # dropout_p is the eighth place: named, for it lies elsewhere in the other versions
    return flash_attn_varlen_func(
        q,
        k,
        v,
        cu,
        cu,
        longest,
        longest,
        dropout_p=0.0,
        softmax_scale=scale,
        causal=True,
        window_size=_window(window),
        deterministic=_fixed(),
    )


def _flash3(
    q: Any, k: Any, v: Any, cu: torch.Tensor, longest: int, scale: float, window: int | None
) -> Any:
    from flash_attn_interface import flash_attn_varlen_func

    return flash_attn_varlen_func(
        q,
        k,
        v,
        cu,
        cu,
        longest,
        longest,
        softmax_scale=scale,
        causal=True,
        window_size=_window(window),
        deterministic=_fixed(),
    )


def _flash4(
    q: Any, k: Any, v: Any, cu: torch.Tensor, longest: int, scale: float, window: int | None
) -> Any:
    from flash_attn.cute import flash_attn_varlen_func

    # no window is (None, None) here, and what is after the maxima has other places than in 2 and 3
    reach = (None, None) if window is None else (window - 1, 0)
    return flash_attn_varlen_func(
        q,
        k,
        v,
        cu,
        cu,
        max_seqlen_q=longest,
        max_seqlen_k=longest,
        softmax_scale=scale,
        causal=True,
        window_size=reach,
        deterministic=_fixed(),
    )


def _torch_varlen(
    q: Any, k: Any, v: Any, cu: torch.Tensor, longest: int, scale: float, window: int | None
) -> Any:
    from torch.nn.attention.varlen import varlen_attn

    # there is no `causal`: (-1, 0) says it
    reach = (-1, 0) if window is None else (window - 1, 0)
    shared = q.shape[1] != k.shape[1]
    return varlen_attn(
        q, k, v, cu, cu, longest, longest, scale=scale, window_size=reach, enable_gqa=shared
    )
