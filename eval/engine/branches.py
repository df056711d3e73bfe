"""Decoding steps of several prompts at once, each after a trunk: keys and values in a cache.

The prompts of one context have one trunk, which is read where it lies and is neither copied nor
repeated; each prompt's own tokens, the branch, have a small buffer. A query's scores over trunk
and branch are joined before the softmax, so the result is that of one sequence.

    B prompts (rows)   R rows of one trunk   H query heads   K key/value heads   G = H / K
    T tokens of a trunk   N tokens of a branch   D head size   E head size of values
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, CacheLayerMixin

from ropewalk.eval.engine.cache import AppendCache

NAME = "ropewalk_branches"
Pair = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Branch:
    """The place of a prompt: the first `trunk_length` tokens of a cache, then tokens of its own."""

    trunk: AppendCache
    trunk_length: int
    own: tuple[Pair, ...]
    """Of each layer: keys and values (K, N, D)."""

    @classmethod
    def of(cls, cache: AppendCache, trunk_length: int, length: int) -> "Branch":
        """The first `length` tokens of a cache; those after the trunk are copied."""
        spans = (layer.span(trunk_length, length) for layer in cache.layers)
        return cls(cache, trunk_length, tuple((k.clone(), v.clone()) for k, v in spans))


class BranchLayer(CacheLayerMixin):
    """Keys and values of the branches in one layer: (B, K, room, D)."""

    def __init__(self, cache: "BranchCache", own: Sequence[Pair], room: int) -> None:
        super().__init__()
        self.cache = cache
        self.keys, self.values = (_padded([pair[n] for pair in own], room) for n in (0, 1))
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        raise NotImplementedError

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Pair:
        """Write a token (B, K, 1, D) at each row's end; the longest branch's: (B, K, N, D)."""
        lengths = self.cache.lengths
        rows, longest = torch.arange(len(lengths), device=lengths.device), self.cache.longest + 1
        assert self.keys is not None and self.values is not None
        self.keys[rows, :, lengths] = key_states[:, :, 0]
        self.values[rows, :, lengths] = value_states[:, :, 0]
        return self.keys[:, :, :longest], self.values[:, :, :longest]

    def keep(self, rows: torch.Tensor) -> None:
        assert self.keys is not None and self.values is not None
        self.keys, self.values = self.keys[rows], self.values[rows]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.longest + query_length, 0

    def get_seq_length(self) -> int:
        return self.cache.longest

    def get_max_length(self) -> int:
        assert self.keys is not None
        return self.keys.shape[2]


def _padded(parts: Sequence[torch.Tensor], room: int) -> torch.Tensor:
    """(K, N, D) of each row -> (B, K, room, D)."""
    heads, _, dim = parts[0].shape
    buffer = parts[0].new_zeros(len(parts), heads, room, dim)
    for row, part in zip(buffer, parts, strict=True):
        row[:, : part.shape[1]] = part
    return buffer


class BranchCache(Cache):
    """The branches of a batch of prompts, which are after one another by their trunks."""

    layers: list[BranchLayer]  # type: ignore[assignment]

    def __init__(self, branches: Sequence[Branch], steps: int) -> None:
        """`steps`: tokens that are decoded at most."""
        self.places = [(branch.trunk, branch.trunk_length) for branch in branches]
        self.host_lengths = [branch.own[0][0].shape[1] for branch in branches]
        device = branches[0].own[0][0].device
        self.lengths = torch.tensor(self.host_lengths, device=device)
        self.starts = torch.tensor([start for _, start in self.places], device=device)
        by_layer = zip(*(branch.own for branch in branches), strict=True)
        room = self.longest + steps
        super().__init__(layers=[BranchLayer(self, own, room) for own in by_layer])

    @property
    def longest(self) -> int:
        return max(self.host_lengths)

    @property
    def positions(self) -> torch.Tensor:
        """Of the next token of each row: (B,)."""
        return self.starts + self.lengths

    def advance(self) -> None:
        """After a step."""
        self.lengths += 1
        self.host_lengths = [length + 1 for length in self.host_lengths]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows."""
        index = torch.tensor(rows, device=self.lengths.device)
        self.places = [self.places[row] for row in rows]
        self.host_lengths = [self.host_lengths[row] for row in rows]
        self.lengths, self.starts = self.lengths[index], self.starts[index]
        for layer in self.layers:
            layer.keep(index)

    def trunks(self) -> Iterator[tuple[AppendCache, int, slice]]:
        """Each trunk with its length and its rows."""
        first = 0
        for row in range(1, len(self.places) + 1):
            if row == len(self.places) or self.places[row] != self.places[first]:
                yield *self.places[first], slice(first, row)
                first = row

    def first_visible(self, length: int, rows: slice, window: int | None) -> int:
        """The first token of a trunk of this length that a row sees."""
        if window is None:
            return 0
        return min(length, max(0, length + min(self.host_lengths[rows]) - window + 1))

    def visible(self, first: int, length: int, rows: slice, window: int | None) -> torch.Tensor:
        """Whether a row sees each key of its trunk from `first` on, and of the branches."""
        lengths = self.lengths[rows, None]
        of_trunk = lengths + length - torch.arange(first, length, device=lengths.device)
        of_branch = lengths - torch.arange(self.longest + 1, device=lengths.device)
        distances = torch.cat([of_trunk, of_branch], 1)
        return (distances >= 0) & (distances < (window or distances.shape[1] + first + 1))


def attend_branches(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    branches: BranchCache,
    scaling: float | None = None,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """An attention kernel. query (B, H, 1, D), key (B, K, N, D), value (B, K, N, E), s_aux (H,)
    -> (B, 1, H, E)."""
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    queries = query[:, :, 0].unflatten(1, (key.shape[1], -1))  # (B, K, G, D)
    sinks = None if s_aux is None else s_aux.view(1, key.shape[1], -1, 1)
    layer, outputs = int(module.layer_idx), []  # type: ignore[arg-type]
    for trunk, length, rows in branches.trunks():
        first = branches.first_visible(length, rows, sliding_window)
        keys, values = trunk.layers[layer].span(first, length)
        hidden = ~branches.visible(first, length, rows, sliding_window)[:, None, None]
        q, k, v = queries[rows], key[rows], value[rows]
        scores = torch.cat([_over_trunk(q, keys.mT), q @ k.mT], 3).float() * scale
        weights = _softmax(scores.masked_fill_(hidden, -torch.inf), sinks).to(v.dtype)
        of_trunk, of_branch = weights.split([length - first, k.shape[2]], 3)
        outputs.append(_over_trunk(of_trunk, values) + of_branch @ v)
    return torch.cat(outputs).flatten(1, 2)[:, None], None


def _over_trunk(rows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """rows (R, K, G, D) times one matrix a head (K, D, T) -> (R, K, G, T)."""
    product = rows.transpose(0, 1).flatten(1, 2) @ matrix
    return product.unflatten(1, (rows.shape[0], -1)).transpose(0, 1)


def _softmax(scores: torch.Tensor, sinks: torch.Tensor | None) -> torch.Tensor:
    """(R, K, G, N) fp32; a sink (1, K, G, 1) takes a share of the weight."""
    if sinks is None:
        return scores.softmax(3)
    column = sinks.float().expand(*scores.shape[:3], 1)
    return torch.cat([scores, column], 3).softmax(3)[..., :-1]
