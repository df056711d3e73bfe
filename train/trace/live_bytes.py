"""Writes down each storage of the traced device, from its first appearance until it is freed."""

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ropewalk.train.memory.pinned_memory import pinned_bytes
from ropewalk.train.trace.events import COMPUTE, HOST, Event, Parameter, rounded


class LiveBytes:
    """The events of a trace, in order."""

    def __init__(self) -> None:
        self.component = "other"
        """What new storages count as."""
        self.events: list[Event] = []
        self.counts: Counter[Any] = Counter()
        """Since the last mark."""
        self.is_forward = False
        """Whether the step is in a forward pass that is no recomputation."""
        self._ids = 0
        self._is_counting = True
        self._places: weakref.WeakKeyDictionary[torch.UntypedStorage, int] = (
            weakref.WeakKeyDictionary()
        )
        self._last_use: Parameter | None = None

    def add(self, tensor: torch.Tensor, component: str | None = None) -> None:
        """Note `tensor`'s storage unless it is known; with a `component`, as that from its start
        on."""
        storage = tensor.untyped_storage()
        place = self._places.get(storage)
        if place is None:
            self._add(storage, storage.nbytes(), component or self.component, COMPUTE)
        elif component is not None and place >= 0:
            kind, number, size, _, stream = self.events[place]
            self.events[place] = (kind, number, size, component, stream)

    def add_new(self, tensor: torch.Tensor, component: str | None) -> None:
        """Note `tensor`'s storage unless it is known."""
        storage = tensor.untyped_storage()
        if self._is_counting and storage not in self._places:
            self._add(storage, storage.nbytes(), component or self.component, COMPUTE)

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """While open, new storages are none of the device's."""
        self._is_counting = False
        yield
        self._is_counting = True

    def add_host(self, tensor: torch.Tensor) -> None:
        """Note pinned memory of the machine, in the allocator's blocks."""
        storage = tensor.untyped_storage()
        if storage not in self._places:
            self._add(storage, pinned_bytes(storage.nbytes()), "offloaded", HOST)

    def ignore(self, tensor: torch.Tensor) -> None:
        """Count nothing for a storage that is counted by arithmetic."""
        self._places[tensor.untyped_storage()] = -1

    def add_workspace(self, sizes: list[int]) -> None:
        """Note tensors that a kernel allocates and frees within one call."""
        first = self._ids
        for size in sizes:
            self.events.append(
                ("alloc", self._next(), rounded(size), "attention workspace", COMPUTE)
            )
        self.events += [("free", number) for number in range(first, self._ids)]

    def use(self, parameter: Parameter) -> None:
        if parameter != self._last_use:
            self.events.append(("use", parameter))
            self._last_use = parameter

    def gradient(self, parameter: Parameter) -> None:
        self.events.append(("gradient", parameter))

    def mark(self, name: str, layer: int | None = None) -> None:
        if self.counts:
            self.events.append(("count", dict(self.counts)))
            self.counts.clear()
        self.events.append(("mark", name, layer))
        self._last_use = None

    def _next(self) -> int:
        self._ids += 1
        return self._ids - 1

    def _add(self, storage: torch.UntypedStorage, size: int, component: str, stream: int) -> None:
        number = self._next()
        self._places[storage] = len(self.events)
        self.events.append(("alloc", number, rounded(size), component, stream))
        self.counts["allocations"] += 1
        end = weakref.finalize(storage, self.events.append, ("free", number))
        end.atexit = False
