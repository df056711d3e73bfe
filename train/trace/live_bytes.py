"""Bytes that are alive on the traced device, by what they hold, and the peak of their sum."""

import weakref
from collections import Counter

import torch

BLOCK = 512
"""torch's caching allocator rounds each allocation up to a multiple of this."""


class LiveBytes:
    """Counts each storage once, from its first appearance until it is freed."""

    def __init__(self) -> None:
        self.component = "other"
        """What new storages count as."""
        self.now: Counter[str] = Counter()
        self.total = self.peak = 0
        self.at_peak: dict[str, int] = {}
        self.peak_component = ""
        self.allocations = 0
        self._storages: weakref.WeakKeyDictionary[torch.UntypedStorage, _Entry] = (
            weakref.WeakKeyDictionary()
        )

    def add(self, tensor: torch.Tensor, component: str | None = None) -> None:
        """Count `tensor`'s storage unless it is known; with a `component`, as that from now on."""
        storage = tensor.untyped_storage()
        entry = self._storages.get(storage)
        if entry is None:
            entry = _Entry(component or self.component, -(-storage.nbytes() // BLOCK) * BLOCK)
            self._storages[storage] = entry
            weakref.finalize(storage, self._free, entry)
            self.allocations += 1
            self._change(entry, 1)
            self._note_peak()
        elif component is not None and component != entry.component:
            self._change(entry, -1)
            entry.component = component
            self._change(entry, 1)

    def add_workspace(self, num_bytes: int) -> None:
        """Count bytes that a kernel takes and gives back within one call."""
        entry = _Entry("workspace", -(-num_bytes // BLOCK) * BLOCK)
        self._change(entry, 1)
        self._note_peak()
        self._change(entry, -1)

    def _free(self, entry: "_Entry") -> None:
        self._change(entry, -1)

    def _change(self, entry: "_Entry", sign: int) -> None:
        self.now[entry.component] += sign * entry.size
        self.total += sign * entry.size

    def _note_peak(self) -> None:
        if self.total > self.peak:
            self.peak, self.peak_component = self.total, self.component
            self.at_peak = {name: size for name, size in self.now.items() if size}


class _Entry:
    __slots__ = ("component", "size")

    def __init__(self, component: str, size: int) -> None:
        self.component, self.size = component, size
