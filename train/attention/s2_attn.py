"""S2-Attn, shifted sparse attention (LongLoRA, arXiv 2309.12307, section 3.2): training at a long context for the price of a short one.

Half of the heads attend in groups of `group` tokens; for the others the groups are shifted by half a group. Here the groups are borders,
counted from each document's start, so no head attends across documents, and none wraps around: the paper's code rolls the shifted
heads, so that their last group joins the sequence's end to its start. Evaluation and export attend in full.
"""

from functools import lru_cache
from typing import Any

import torch

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.borders import Ends, document_borders, document_lengths


def group_borders(ends: Ends, group: int, shift: int) -> Ends:
    """`ends` with the borders of groups inside each document: at shift, shift + group, ... from its start."""
    found = [0]
    for start, length in zip(ends, document_lengths(ends), strict=False):
        found += [start + at for at in range(shift or group, length, group)] + [start + length]
    return tuple(found)


@lru_cache(maxsize=4)
def group_border_arguments(
    ends: Ends, group: int, shift: int, device: torch.device
) -> dict[str, Any]:
    """What a kernel takes of those borders. Made once a step, not once a layer."""
    with torch.inference_mode(False):
        cu_seqlens = torch.tensor(group_borders(ends, group, shift), dtype=torch.int32)
        return document_borders(cu_seqlens, device)


def s2_attention(kernel: Any, group: int) -> Any:
    """`kernel` on the groups, while the model trains."""

    def attend(
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: None,
        **words: Any,
    ) -> tuple[torch.Tensor, None]:
        """The first H // 2 heads unshifted. Shapes as `sdpa`; `part`: (r, P), these heads are part r of P. Raises: ConfigError for windows
        and sinks."""
        if not module.training:
            return kernel(module, query, key, value, attention_mask, **words)  # type: ignore[no-any-return]
        for word in ("sliding_window", "s_aux"):
            if words.get(word) is not None:
                raise ConfigError(
                    f"train.s2_group is {group}; S2-Attn does not go with the model's {word}; unset it"
                )
        ends = words.get("document_ends") or (0, query.shape[2])
        r, parts = words.pop("part", (0, 1))
        if 2 * r + 2 <= parts or 2 * r >= parts:  # all of them of one half
            words |= group_border_arguments(
                ends, group, group // 2 if 2 * r >= parts else 0, query.device
            )
            return kernel(module, query, key, value, attention_mask, **words)  # type: ignore[no-any-return]
        half = query.shape[1] // 2
        q = query.split([half, query.shape[1] - half], dim=1)
        found = []
        for number, (k, v) in enumerate(
            zip(*(_halves(x, query.shape[1]) for x in (key, value)), strict=True)
        ):
            words |= group_border_arguments(ends, group, number * (group // 2), query.device)
            found.append(kernel(module, q[number], k, v, attention_mask, **words)[0])
        return torch.cat(found, dim=2), None

    return attend


def _halves(x: torch.Tensor, heads: int) -> tuple[torch.Tensor, ...]:
    """The keys or values of each half of the query heads: shared ones are repeated where a half would cut through a group."""
    count = x.shape[1]
    if heads % 2 or count % 2:
        x = x.repeat_interleave(heads // count, dim=1)
        count = heads
    return x.split([count // 2, count - count // 2], dim=1)
