"""Dense functions with the signatures of flash-attn 2, 3, 4 and torch's varlen_attn.

They record their arguments. tests/train/attention/test_definitions.py holds their signatures
against the packages' own.
"""

import types
from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class Call:
    """The arguments that all kernels share. `window`: keys that a query sees, None for all."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    cu: torch.Tensor
    longest: int
    cu_keys: torch.Tensor
    scale: float
    window: int | None
    sinks: torch.Tensor | None = None


def dense(g: Call) -> torch.Tensor:
    """(S, H, D) in q's dtype, computed in fp32 document by document.

    As flash-attn documents it, the mask is aligned to the bottom right: the last query sees all.
    """
    parts = []
    lengths = (torch.diff(cu).tolist() for cu in (g.cu, g.cu_keys, g.cu_keys))
    rows = (x.float().split(n) for x, n in zip((g.q, g.k, g.v), lengths, strict=True))
    for q, k, v in zip(*rows, strict=True):
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        scores = torch.einsum("shd,thd->hst", q, k) * g.scale
        distance = torch.arange(len(k) - len(q), len(k))[:, None] - torch.arange(len(k))[None, :]
        hidden = (distance < 0) | (distance >= (g.window or len(k)))
        scores = scores.masked_fill(hidden, float("-inf"))
        if g.sinks is not None:
            sinks = g.sinks.float()[:, None, None].expand(-1, len(q), 1)
            scores = torch.cat([scores, sinks], dim=2)
        parts.append(torch.einsum("hst,thd->shd", scores.softmax(-1)[..., : len(k)], v))
    return torch.cat(parts).to(g.q.dtype)


class Calls:
    """The stand-ins, and the calls they received."""

    def __init__(self) -> None:
        self.recorded: list[Call] = []
        self.fixed: list[bool] = []  # the `deterministic` arguments

    def _answer(
        self, q: Any, k: Any, v: Any, cus: Any, longest: Any, scale: Any, causal: Any, reach: Any,
        sinks: torch.Tensor | None = None, narrow: tuple[int, int] | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Compute the call. Arguments that a real kernel refuses or misreads fail an assertion."""
        assert q.dim() == k.dim() == v.dim() == 3 and q.shape[2] == k.shape[2]
        assert v.shape[2] == q.shape[2] or (q.shape[2], v.shape[2]) == narrow
        assert q.dtype == k.dtype == v.dtype and q.dtype in (torch.float16, torch.bfloat16)
        assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
        assert q.shape[1] % k.shape[1] == 0 and k.shape[:2] == v.shape[:2]
        assert all(cu.dtype == torch.int32 and cu.dim() == 1 for cu in cus)
        for cu, most, x in zip(cus, longest, (q, k), strict=True):
            assert type(most) is int and most == int(torch.diff(cu).max())
            assert int(cu[0]) == 0 and int(cu[-1]) == len(x)
        assert bool((torch.diff(cus[1]) >= torch.diff(cus[0])).all())
        assert causal is True and type(scale) is float
        left, right = reach
        assert right == 0 or (left in (-1, None) and right in (-1, None))
        window = None if left in (-1, None) else left + 1
        assert sinks is None or (sinks.shape == (q.shape[1],) and sinks.is_floating_point())
        call = Call(q, k, v, cus[0], longest[0], cus[1], scale, window, sinks)
        self.recorded.append(call)
        return dense(call)

    def flash2(
        self, q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
        softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None,
        deterministic=False, return_attn_probs=False, block_table=None,
    ):  # fmt: skip
        self.fixed.append(deterministic)
        assert (
            dropout_p == 0.0
            and not softcap
            and not return_attn_probs
            and alibi_slopes is block_table is None
        )
        cus, longest = (cu_seqlens_q, cu_seqlens_k), (max_seqlen_q, max_seqlen_k)
        return self._answer(q, k, v, cus, longest, softmax_scale, causal, window_size)

    def flash3(
        self, q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, seqused_q=None,
        seqused_k=None, softmax_scale=None, causal=False, qv=None, q_descale=None, k_descale=None,
        v_descale=None, window_size=(-1, -1), attention_chunk=0, softcap=0.0, num_splits=1,
        pack_gqa=None, deterministic=False, sm_margin=0, return_attn_probs=False,
    ):  # fmt: skip
        self.fixed.append(deterministic)
        assert seqused_q is seqused_k is qv is None and not attention_chunk and not softcap
        cus, longest = (cu_seqlens_q, cu_seqlens_k), (max_seqlen_q, max_seqlen_k)
        return self._answer(q, k, v, cus, longest, softmax_scale, causal, window_size)

    def flash4(
        self, q, k, v, qv=None, cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=None,
        max_seqlen_k=None, min_seqlen_k=None, seqused_q=None, seqused_k=None,
        gather_kv_indices=None, page_table=None, softmax_scale=None, causal=False,
        window_size=(None, None), learnable_sink=None, softcap=0.0, num_splits=1, pack_gqa=None,
        deterministic=False, score_mod=None, score_mod_bwd=None, mask_mod=None,
        block_sparse_tensors=None, aux_tensors=None, aux_scalars=None, return_lse=False,
        scheduler_metadata=None, seqlen_k_per_split=None, disable_scheduler_metadata=False,
        gather_bwd_recompute_p=False, gather_bwd_token_chunk=None,
    ):  # fmt: skip
        self.fixed.append(deterministic)
        assert (
            qv is min_seqlen_k is gather_kv_indices is score_mod is mask_mod is page_table is None
        )
        assert (window_size[0] is None or window_size[0] >= 0) and not softcap
        cus, longest = (cu_seqlens_q, cu_seqlens_k), (max_seqlen_q, max_seqlen_k)
        return self._answer(
            q, k, v, cus, longest, softmax_scale, causal, window_size, learnable_sink, (192, 128)
        ), None  # with its log-sum-exp

    def varlen(
        self, query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None,
        window_size=(-1, -1), enable_gqa=False, seqused_k=None, block_table=None, num_splits=None,
    ):  # fmt: skip
        assert enable_gqa or query.shape[1] == key.shape[1]
        # the window alone means causal: (-1, 0), or (w, 0)
        causal = window_size[1] == 0
        return self._answer(
            query, key, value, (cu_seq_q, cu_seq_k), (max_q, max_k), scale, causal, window_size
        )

    def modules(self) -> dict[str, types.ModuleType]:
        """Modules by the names that the trainer imports."""
        flash2, flash3, flash4, varlen = (
            types.ModuleType(n)
            for n in (
                "flash_attn",
                "flash_attn_interface",
                "flash_attn.cute",
                "torch.nn.attention.varlen",
            )
        )
        flash2.__dict__.update(flash_attn_varlen_func=self.flash2, __path__=[], cute=flash4)
        flash3.__dict__.update(flash_attn_varlen_func=self.flash3)
        flash4.__dict__.update(flash_attn_varlen_func=self.flash4)
        varlen.__dict__.update(varlen_attn=self.varlen)
        return {m.__name__: m for m in (flash2, flash3, flash4, varlen)}
