"""DeepSpeed's exchange of a sequence for heads around attention (Ulysses, arXiv 2309.14509)."""

import math
from typing import Any

import torch
from deepspeed.runtime.sequence_parallel.ulysses_sp import UlyssesSPAttentionHF
from torch import nn
from torch.distributed import ProcessGroup

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.backend import KernelFunction


class HeadExchange(UlyssesSPAttentionHF):  # type: ignore[misc]
    """An attention kernel between two all-to-alls, which attention/ulysses.py explains.

    DeepSpeed's own `forward` would gather the positions in every layer, which our kernels do not
    read. Key/value heads are repeated until the P ranks divide them: to lcm(K, P), which divides H
    as well. Autograd sums their gradients.

        B batch (1)   P ranks of a sequence   S its tokens   s = S / P   H, K heads   D head size
    """

    def __init__(
        self, kernel: KernelFunction, num_heads: int, num_kv_heads: int, group: ProcessGroup
    ) -> None:
        self.heads = (num_heads, num_kv_heads)
        super().__init__(
            attn=kernel,
            batch_size=1,
            attn_head_count=num_heads,
            attn_head_size=0,  # each layer's own, see `_set_sizes`
            kv_head_count=math.lcm(num_kv_heads, group.size()),
            num_hidden_layers=1,
            process_group=group,
            seq_length_is_variable=True,
        )

    def forward(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: None,
        *,
        s_aux: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """Attention over the whole sequence, of which this rank passes and gets its slice.

        query (1, H, s, D), key and value (1, K, s, D) -> (1, s, H, D). `s_aux` (H,): gpt-oss's
        sinks. Raises: ConfigError when a layer's heads differ from the config's.
        """
        self._set_sizes(query, key, value)
        repeats = self.global_kv_head_count // key.shape[1]
        key, value = (
            x.repeat_interleave(repeats, dim=1) if repeats > 1 else x for x in (key, value)
        )
        sequence = self._combine_local_sequences(
            *(x.permute(2, 0, 1, 3) for x in (query, key, value))
        )  # (S, 1, H / P, D)
        if s_aux is not None:
            kwargs["s_aux"] = s_aux.chunk(self.world_size)[self.sp_rank]
        part = (self.sp_rank, self.world_size)
        output, _ = self.attn(
            module, *(x.permute(1, 2, 0, 3) for x in sequence), attention_mask, part=part, **kwargs
        )
        local = self._partition_global_sequence(output.transpose(0, 1).flatten(2))  # (s, 1, H x D)
        heads = (self.attn_head_count, self.attn_head_size)
        return local.transpose(0, 1).unflatten(-1, heads), None

    def _set_sizes(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Set this layer's sizes. Earlier checks read the model's config only."""
        heads = (query.shape[1], key.shape[1])
        if heads != self.heads or key.shape != value.shape or query.shape[-1] != key.shape[-1]:
            raise ConfigError(
                f"train.sp_size is {self.world_size}; each layer must have {self.heads[0]} query "
                f"and {self.heads[1]} key/value heads of one size, as the model's config says; "
                f"one has query {tuple(query.shape)}, key {tuple(key.shape)}, value "
                f"{tuple(value.shape)}; set train.sp_size=1"
            )
        self.attn_head_size, self.local_seq_length = query.shape[-1], query.shape[2]
        self.global_seq_length = self.local_seq_length * self.world_size
