"""Ulysses: the ranks that share a sequence exchange it for heads around the attention (arXiv 2309.14509, section 3.2).

Outside the attention a rank holds S / P tokens with all heads, inside it all S tokens with H / P heads: two all-to-alls, DeepSpeed's.
The documents' borders are those of the whole line on every rank, so the kernel inside is the one that runs alone.

    B batch (1)   P ranks of a sequence   S tokens of it   s = S / P   H query heads   K key/value heads   D head size
"""

import math
from typing import Any

import torch
from deepspeed.runtime.sequence_parallel.ulysses_sp import UlyssesSPAttentionHF
from transformers import PreTrainedConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.backend import KernelFunction, KernelWrapper
from ropewalk.train.zero.mesh import Mesh, process_groups


def heads(config: PreTrainedConfig) -> tuple[int, int]:
    """H and K of a model's text layers."""
    text = config.get_text_config()
    count = text.num_attention_heads
    return count, getattr(text, "num_key_value_heads", None) or count


def refuse_unfit_heads(
    config: PreTrainedConfig, sp_size: int, world_size: int | None = None
) -> None:
    """Each rank must have as many query heads as the others; key/value heads are repeated where they are too few.

    Raises: ConfigError with the sizes that work.
    """
    count, _ = heads(config)
    if count % sp_size == 0:
        return
    fit = [n for n in range(1, count + 1) if count % n == 0]
    now = [n for n in fit if world_size is not None and world_size % n == 0]
    ranks = f" (with {world_size} rank(s): {_listed(now)})" if now else ""
    raise ConfigError(
        f"train.sp_size is {sp_size}; it must divide the {count} attention heads of {config.model_type}; "
        f"set one of {_listed(fit)}{ranks}"
    )


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def kernel_wrapper(config: PreTrainedConfig, mesh: Mesh) -> KernelWrapper | None:
    """What puts the exchange around an attention kernel; None where no sequence is shared. Raises: ConfigError."""
    if mesh.sp_size == 1:
        return None
    refuse_unfit_heads(config, mesh.sp_size, mesh.world_size)
    group = process_groups(mesh).get_sequence_parallel_group()
    return lambda kernel: Exchange(kernel, *heads(config), group)


class Exchange(UlyssesSPAttentionHF):  # type: ignore[misc]
    """DeepSpeed's exchange; its own `forward` would gather the positions in every layer, which our kernels do not read.

    Key/value heads are repeated until P divides them: to lcm(K, P), which divides H as well. Their gradients are summed by autograd.
    """

    def __init__(self, kernel: KernelFunction, count: int, shared: int, group: Any) -> None:
        ranks = group.size()
        self.heads = (count, shared)
        super().__init__(
            attn=kernel,
            batch_size=1,
            attn_head_count=count,
            attn_head_size=0,  # each layer's own, see `_fit`
            kv_head_count=math.lcm(shared, ranks),
            num_hidden_layers=1,
            process_group=group,
            seq_length_is_variable=True,
        )

    def forward(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: None,
        *,
        s_aux: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """query (1, H, s, D), key and value (1, K, s, D) -> (1, s, H, D). `s_aux` (H,): gpt-oss's sinks. Raises: ConfigError."""
        self._fit(query, key, value)
        repeats = self.global_kv_head_count // key.shape[1]
        key, value = (
            x.repeat_interleave(repeats, dim=1) if repeats > 1 else x for x in (key, value)
        )
        whole = self._combine_local_sequences(
            *(x.permute(2, 0, 1, 3) for x in (query, key, value))
        )  # (S, 1, H / P, D)
        if s_aux is not None:
            kwargs["s_aux"] = s_aux.chunk(self.world_size)[self.sp_rank]
        part = (self.sp_rank, self.world_size)
        found, _ = self.attn(
            module, *(x.permute(1, 2, 0, 3) for x in whole), attention_mask, part=part, **kwargs
        )
        mine = self._partition_global_sequence(found.transpose(0, 1).flatten(2))  # (s, 1, H x D)
        return mine.transpose(0, 1).unflatten(-1, (self.attn_head_count, self.attn_head_size)), None

    def _fit(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """This layer's sizes. A layer with other heads than its model's config says was not checked for them."""
        found = (query.shape[1], key.shape[1])
        if found != self.heads or key.shape != value.shape or query.shape[-1] != key.shape[-1]:
            raise ConfigError(
                f"train.sp_size is {self.world_size}; each layer must have {self.heads[0]} query and {self.heads[1]} key/value heads of one "
                f"size, as the model's config says; one has query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}; "
                "set train.sp_size=1"
            )
        self.attn_head_size, self.local_seq_length = query.shape[-1], query.shape[2]
        self.global_seq_length = self.local_seq_length * self.world_size
