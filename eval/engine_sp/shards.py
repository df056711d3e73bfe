"""Keys and values of a sequence in parts on the ranks, and attention of one query over all of them.

Each rank attends to its own part. Outputs are merged by their log-sum-exp, as flash-attn merges its
blocks (arXiv 2205.14135, section 3.1; "pass-Q" of arXiv 2411.01783), so the result is that of one
softmax over all keys, and no key moves. A new token's key and value stay on one rank, in turn.

    P ranks   N tokens of this rank   H query heads   K key/value heads   G = H / K
    D head size   E head size of values
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from ropewalk.train.attention.support import KernelFunction

NAME = "ropewalk_shards"
Pair = tuple[torch.Tensor, torch.Tensor]


class Recorder:
    """What the attention of each layer got from this rank's slice in the last pass."""

    def __init__(self) -> None:
        self.layers: dict[int, Pair] = {}
        """Keys (K, s, D) and values (K, s, E), rotated, before any exchange."""
        self.is_on = False

    def around(self, attention: KernelFunction) -> KernelFunction:
        def attend(
            module: nn.Module,
            query: torch.Tensor,
            key: torch.Tensor,
            value: torch.Tensor,
            *args: Any,
            **kwargs: Any,
        ) -> tuple[torch.Tensor, None]:
            if self.is_on:
                self.layers[_layer(module)] = (key[0], value[0])
            return attention(module, query, key, value, *args, **kwargs)

        return attend


class Shards:
    """This rank's part of a prompt's keys and values, in every layer."""

    def __init__(
        self,
        layers: dict[int, Pair],
        index: torch.Tensor,
        positions: torch.Tensor,
        room: int,
        group: dist.ProcessGroup,
    ) -> None:
        """The tokens at `index` (N,) of `layers`, which stand at `positions` (N,). `room`: new
        tokens that this rank keeps at most. `group`: the ranks with the other parts."""
        self.count, self.group = len(index), group
        self.positions = F.pad(positions, (0, room))
        self.layers = {n: _with_room(pair, index, room) for n, pair in layers.items()}
        self.position, self.keeps = 0, False

    def start_step(self, position: int, keeps: bool) -> None:
        """Before a token at `position` is computed. `keeps`: this rank keeps its key and value."""
        self.position, self.keeps = position, keeps
        self.positions[self.count : self.count + keeps] = position
        self.count += keeps

    def visible(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, window: int | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Keys (K, N, D), values (K, N, E), and whether the step's query sees each of them (N,).

        key (K, 1, D), value (K, 1, E): the step's own, kept if it is this rank's turn.
        """
        keys, values = self.layers[layer]
        if self.keeps:
            keys[:, self.count - 1 : self.count] = key
            values[:, self.count - 1 : self.count] = value
        distance = self.position - self.positions[: self.count]
        seen = distance < (window or self.position + 1)
        return keys[:, : self.count], values[:, : self.count], seen


def _with_room(pair: Pair, index: torch.Tensor, room: int) -> Pair:
    """The tokens at `index` (N,), and zeros: (K, N + room, D)."""
    keys, values = (F.pad(x[:, index], (0, 0, 0, room)) for x in pair)
    return keys, values


def attend_shards(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    shards: Shards,
    scaling: float | None = None,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Collective. An attention kernel. query (1, H, 1, D), key (1, K, 1, D), value (1, K, 1, E),
    s_aux (H,) -> (1, 1, H, E)."""
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    keys, values, seen = shards.visible(_layer(module), key[0], value[0], sliding_window)
    queries = query[0, :, 0].unflatten(0, (keys.shape[0], -1))  # (K, G, D)
    scores = (queries @ keys.mT).float() * scale
    own, lse = partial_attention(scores.masked_fill_(~seen, -torch.inf), values)
    part = torch.cat([own, lse[..., None]], 2)
    gathered = part.new_empty(shards.group.size() * part.shape[0], *part.shape[1:])
    dist.all_gather_into_tensor(gathered, part, group=shards.group)
    gathered = gathered.unflatten(0, (-1, part.shape[0]))  # (P, K, G, E + 1)
    sinks = None if s_aux is None else s_aux.float().view(part.shape[:2])
    output = merged(gathered[..., :-1], gathered[..., -1], sinks)
    return output.flatten(0, 1)[None, None].to(query.dtype), None


def partial_attention(
    scores: torch.Tensor, values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (K, G, N), values (K, N, E) -> output (K, G, E) and log-sum-exp (K, G), fp32.

    Without a key that is seen the output is 0 and the log-sum-exp -inf.
    """
    lse = scores.logsumexp(2)
    weights = (scores - lse.nan_to_num(neginf=0.0)[..., None]).exp()
    return (weights.to(values.dtype) @ values).float(), lse


def merged(
    outputs: torch.Tensor, lse: torch.Tensor, sinks: torch.Tensor | None = None
) -> torch.Tensor:
    """Outputs (P, K, G, E) of parts, their log-sum-exp (P, K, G), sinks (K, G) -> (K, G, E)."""
    every = lse if sinks is None else torch.cat([lse, sinks[None]])
    shares = (lse - every.logsumexp(0)).exp()
    return (outputs * shares[..., None]).sum(0)


def _layer(module: nn.Module) -> int:
    return int(module.layer_idx)  # type: ignore[arg-type]
