"""Keys and values in buffers as long as the longest prompt: appended, and rolled back, in place.

transformers' DynamicLayer joins all keys and values anew for every call, and its sliding layers
forget what a rollback needs. Here a call writes its own tokens, and a rollback sets a length.
Sliding layers keep all of theirs: the attention kernel, or the mask, applies the window.

    K key/value heads   S tokens of a call   U tokens kept   C room   D head size
"""

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin


class AppendLayer(CacheLayerMixin):
    """The keys and values of one layer, of one sequence."""

    is_sliding = False
    is_croppable = True

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.length = room, 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys, self.values = (
            x.new_empty(1, x.shape[1], self.room, x.shape[3]) for x in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append (1, K, S, D); views of all that are kept: (1, K, U, D)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[2]
        if self.length > self.room:
            raise ValueError(f"the cache has room for {self.room} tokens, not {self.length}")
        assert self.keys is not None and self.values is not None
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return self.room

    def crop(self, tokens_to_remove: int) -> None:
        """transformers' rollback: 0, or a negative number of tokens."""
        self.length -= abs(tokens_to_remove)

    def span(self, start: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of these tokens: (K, end - start, D)."""
        assert self.keys is not None and self.values is not None
        return self.keys[0, :, start:end], self.values[0, :, start:end]


class AppendCache(Cache):
    """The keys and values of one sequence in all layers of a model."""

    layers: list[AppendLayer]  # type: ignore[assignment]

    def __init__(self, layers: int, room: int) -> None:
        super().__init__(layers=[AppendLayer(room) for _ in range(layers)])

    def rollback(self, length: int) -> None:
        """Forget all but the first `length` tokens; the next call overwrites the others."""
        for layer in self.layers:
            layer.length = min(layer.length, length)
