"""The keys and values of several prompts that are decoded at once, each after a trunk.

The prompts of one context have one trunk, which is read where it lies and is neither copied nor
repeated; each prompt's own tokens, the branch, have a small buffer. branch_attention.py reads both.

    B prompts (rows)   K key/value heads   N tokens of a branch   D head size
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from ropewalk.eval.engine.cache import AppendCache

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
        """Nothing: the buffers are made at construction."""

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
