"""Thin calls of kernels that take document borders: flash-attn 2, 3, 4 and torch's `varlen_attn`.

    S tokens   U tokens of keys   H query heads   K key/value heads
    D head size of queries and keys   E head size of values

Their window counts the tokens before the query itself, so transformers' `sliding_window` w becomes
(w - 1, 0). Every argument but queries, keys and values goes by name: positions differ between
versions (flash-attn 4 put `qv` before the borders in 4.0.0b9).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.borders import (
    DocumentBorders,
    Ends,
    validate_borders,
    validate_call,
)
from ropewalk.train.attention.document_runs import borders_of_run, document_runs

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
        torch.Tensor | None,
    ],
    Output,
]
"""(q (S, H, D), k (U, K, D), v (U, K, E), borders of q, borders of k, scale, window, sinks (H,))
-> (S, H, E), or a tuple that begins with it. A document's queries are its last ones: flash-attn
from 2.1 on and torch align a causal mask, and a window, to the bottom right."""


@dataclass(frozen=True)
class VarlenKernel:
    """A kernel of transformers' attention signature around one that takes document borders."""

    name: str
    call: VarlenCall
    takes_sinks: bool = False
    grid_of_longest: bool = True
    """Whether each document is given as many blocks as the longest one."""
    narrow_values: tuple[int, int] | None = None
    """Sizes of query and value heads that it takes as they are; other values are padded."""

    def __call__(
        self,
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
        """query (1, H, S, D), key (1, K, S, D), value (1, K, S, E), s_aux (H,) -> (1, S, H, E).

        With `key_borders` keys and values are U tokens. Raises: ConfigError, ValueError.
        """
        seq_len, head_dim, value_dim = query.shape[2], query.shape[3], value.shape[3]
        if document_ends is None and cu_seqlens is None and max_seqlen is None:
            document_ends, max_seqlen = (0, seq_len), seq_len
            cu_seqlens = _one_document(seq_len, query.device)
        borders = validate_borders(query, cu_seqlens, document_ends, max_seqlen)
        ends = borders["document_ends"]
        validate_call(module, query, key, ends, dropout, kwargs, key_borders)
        self._refuse_fp32_and_sinks(query, s_aux)
        if value_dim < head_dim and self._pads_values(query, key, value):
            value = F.pad(value, (0, head_dim - value_dim))
        q, k, v = (x.transpose(1, 2).squeeze(0) for x in (query, key, value))
        scale = head_dim**-0.5 if scaling is None else scaling
        call = partial(self._call, scale=scale, window=sliding_window, sinks=s_aux)
        output = self._by_runs(call, (q, k, v), borders, key_borders or borders)
        return output[..., :value_dim].unsqueeze(0), None

    def _by_runs(
        self,
        call: Callable[..., torch.Tensor],
        inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        queries: DocumentBorders,
        keys: DocumentBorders,
    ) -> torch.Tensor:
        """(S, H, E) of one call, or of one for each run of documents."""
        heads = inputs[0].shape[1]
        runs = document_runs(keys["document_ends"], heads) if self.grid_of_longest else ()
        if len(runs) < 2:
            return call(*inputs, queries, keys)
        borders = [tuple(borders_of_run(x, run) for x in (queries, keys, keys)) for run in runs]
        # split, not slices: the gradient of a slice is as large as all of them
        parts = (
            x.split([of_run[n]["document_ends"][-1] for of_run in borders])
            for n, x in enumerate(inputs)
        )
        return torch.cat(
            [call(*x, *of_run[:2]) for *x, of_run in zip(*parts, borders, strict=True)]
        )

    def _call(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        queries: DocumentBorders,
        keys: DocumentBorders,
        scale: float,
        window: int | None,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        output = self.call(q, k, v, queries, keys, scale, window, sinks)
        return output[0] if isinstance(output, tuple) else output

    def _pads_values(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
        """Decoupled heads (DeepSeek) have narrower values; most kernels need one head size."""
        sizes = (query.shape[3], value.shape[3])
        return sizes != self.narrow_values or query.shape[1] != key.shape[1]

    def _refuse_fp32_and_sinks(self, query: torch.Tensor, s_aux: torch.Tensor | None) -> None:
        if query.dtype not in (torch.float16, torch.bfloat16):
            dtype = str(query.dtype).removeprefix("torch.")
            raise ConfigError(
                f"train.attention.kernel is {self.name}; its kernel takes bf16 or fp16, not "
                f"{dtype}; set train.precision=bf16 or train.attention.kernel=sdpa"
            )
        if s_aux is not None and not self.takes_sinks:
            raise ConfigError(
                f"train.attention.kernel is {self.name}; its kernel gives the model's attention "
                "sinks no gradient; set train.attention.kernel=sdpa"
            )


@lru_cache(maxsize=4)
def _one_document(seq_len: int, device: torch.device) -> torch.Tensor:
    """(2,) int32. Cached: a copy to the device would wait for it."""
    with torch.inference_mode(False):
        return torch.tensor([0, seq_len], dtype=torch.int32, device=device)


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
    sinks: torch.Tensor | None,
) -> Output:
    output: Output = import_module(package).flash_attn_varlen_func(
        q,
        k,
        v,
        cu_seqlens_q=queries["cu_seqlens"],
        cu_seqlens_k=keys["cu_seqlens"],
        max_seqlen_q=queries["max_seqlen"],
        max_seqlen_k=keys["max_seqlen"],
        softmax_scale=scale,
        causal=True,
        window_size=no_window if window is None else (window - 1, 0),
        # train.deterministic asks for a fixed order of sums; varlen_attn reads it itself
        deterministic=torch.are_deterministic_algorithms_enabled(),
        **({} if sinks is None else {"learnable_sink": sinks}),
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
    sinks: torch.Tensor | None,
) -> Output:
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn(
        q,
        k,
        v,
        cu_seq_q=queries["cu_seqlens"],
        cu_seq_k=keys["cu_seqlens"],
        max_q=queries["max_seqlen"],
        max_k=keys["max_seqlen"],
        scale=scale,
        # there is no argument `causal`: a right reach of 0 makes it causal
        window_size=(-1, 0) if window is None else (window - 1, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )


flash = VarlenKernel("flash", partial(_flash_attn, "flash_attn", (-1, -1)))
"""flash-attn 2."""
flash3 = VarlenKernel("flash3", partial(_flash_attn, "flash_attn_interface", (-1, -1)))
"""flash-attn 3 (Hopper)."""
flash4 = VarlenKernel(
    "flash4",
    partial(_flash_attn, "flash_attn.cute", (None, None)),
    takes_sinks=True,
    grid_of_longest=False,
    narrow_values=(192, 128),
)
"""flash-attn 4 (CuTe, Hopper and Blackwell)."""
varlen = VarlenKernel("varlen", _torch_varlen)
"""torch's own `torch.nn.attention.varlen.varlen_attn`."""
