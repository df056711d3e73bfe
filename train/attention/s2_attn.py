"""S2-Attn, shifted sparse attention (LongLoRA, arXiv 2309.12307, section 3.2).

It trains at a long context for the price of a short one: half of the heads attend in groups of
`group` tokens; for the other heads the groups are shifted by half a group. Here the groups are
borders counted from each document's start, so no head attends across documents and no group wraps
around. (The paper's code rolls the shifted heads, so that their last group joins the end of the
sequence to its start.) Evaluation and export attend in full.

    S tokens   H query heads   K key/value heads
    D head size of queries and keys   E head size of values
"""

from functools import lru_cache
from typing import Any

import torch
from torch import nn

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.borders import (
    DocumentBorders,
    Ends,
    document_borders,
    document_lengths,
)
from ropewalk.train.attention.support import KernelFunction


def group_borders(ends: Ends, group: int, shift: int) -> Ends:
    """`ends` with a border at shift, shift + group, ... tokens from each document's start."""
    borders = [0]
    for start, length in zip(ends, document_lengths(ends), strict=False):
        borders += [start + n for n in range(shift or group, length, group)] + [start + length]
    return tuple(borders)


@lru_cache(maxsize=4)
def group_border_arguments(
    ends: Ends, group: int, shift: int, device: torch.device
) -> DocumentBorders:
    """The kernel arguments for `group_borders`, cached: once a step and not once a layer."""
    with torch.inference_mode(False):
        cu_seqlens = torch.tensor(group_borders(ends, group, shift), dtype=torch.int32)
        return document_borders(cu_seqlens, device)


def s2_attention(kernel: KernelFunction, group: int) -> KernelFunction:
    """`kernel` on groups of `group` tokens while the model trains, in full otherwise."""

    def attend(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """query (1, H, S, D), key (1, K, S, D), value (1, K, S, E) -> (1, S, H, E).

        The groups of the first H // 2 heads are not shifted. `part` (r, P): these heads are part r
        of P of the model's heads. Raises: ConfigError for windows, sinks and split sequences.
        """
        if not module.training:
            return kernel(module, query, key, value, attention_mask, **kwargs)
        _refuse_unfit_calls(group, kwargs)
        ends = kwargs.get("document_ends") or (0, query.shape[2])
        rank, parts = kwargs.pop("part", (0, 1))
        if 2 * rank + 2 <= parts or 2 * rank >= parts:  # all heads belong to one half
            shift = group // 2 if 2 * rank >= parts else 0
            kwargs |= group_border_arguments(ends, group, shift, query.device)
            return kernel(module, query, key, value, attention_mask, **kwargs)
        half = query.shape[1] // 2
        queries = query.split([half, query.shape[1] - half], dim=1)
        keys, values = (_halves(x, query.shape[1]) for x in (key, value))
        outputs = []
        for q, k, v, shift in zip(queries, keys, values, (0, group // 2), strict=True):
            kwargs |= group_border_arguments(ends, group, shift, query.device)
            outputs.append(kernel(module, q, k, v, attention_mask, **kwargs)[0])
        return torch.cat(outputs, dim=2), None

    return attend


def _refuse_unfit_calls(group: int, kwargs: dict[str, Any]) -> None:
    for name in ("sliding_window", "s_aux"):
        if kwargs.get(name) is not None:
            raise ConfigError(
                f"train.attention.s2_group is {group}; S2-Attn does not go with the model's "
                f"{name}; unset it"
            )
    if kwargs.get("key_borders") is not None:
        raise ConfigError(
            f"train.attention.s2_group is {group}; S2-Attn needs ranks that divide the attention "
            "heads; unset it, or set train.sp_size to a divisor of the heads"
        )


def _halves(x: torch.Tensor, heads: int) -> tuple[torch.Tensor, ...]:
    """Keys or values (1, K, S, D) for each half of the `heads` query heads.

    Shared heads are repeated where the half would separate query heads that share one.
    """
    count = x.shape[1]
    if heads % 2 or count % 2:
        x = x.repeat_interleave(heads // count, dim=1)
        count = heads
    return x.split([count // 2, count - count // 2], dim=1)
