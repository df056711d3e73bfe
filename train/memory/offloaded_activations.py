"""The checkpoints of decoder layers as copies in host memory.

A layer's tensors (its input, and what is kept of its attention) are copied to host memory while
the layer computes, and fetched back while the layer after it is computed in the backward pass. As
in torchtune and TRL the last layers' tensors are referenced until their copies are done: those of
`LAYERS_IN_FLIGHT` layers, however far the host is ahead of the device.
"""

import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch.autograd.graph import saved_tensors_hooks

from ropewalk.train.memory.copy_streams import CopyStream, copy_stream

LAYERS_IN_FLIGHT = 2
"""Layers whose tensors may be on the device in a pass: the one that computes, and its neighbour."""
SMALLEST_BYTES = 1024
"""Smaller tensors, such as a kernel's random state, stay where they are."""


@dataclass(eq=False)
class _Layer:
    """The tensors of one layer in one pass; `previous` is needed after it in the backward pass."""

    previous: "weakref.ref[_Layer] | None"
    copies: "list[weakref.ref[_HostCopy]]" = field(default_factory=list)
    sources: list[tuple[torch.Tensor, object] | None] = field(default_factory=list)
    """Each copied tensor with the event of its copy. Referenced here, because the graph that
    holds the copies may end before they are done."""


@dataclass(eq=False)
class _HostCopy:
    """What autograd holds in place of a tensor."""

    host: torch.Tensor
    device: torch.device
    layer: _Layer
    index: int
    """Of its source in the layer."""
    fetched: tuple[torch.Tensor, object] | None = None


class OffloadedActivations(saved_tensors_hooks):
    """Saved tensors as copies in host memory; on CUDA pinned, and copied on a side stream."""

    def __init__(self, stream: CopyStream | None = None) -> None:
        super().__init__(self._pack, self._unpack)
        self.moved_bytes = 0
        self._stream = copy_stream() if stream is None else stream
        self._last: weakref.ref[_Layer] | None = None
        self._in_flight: deque[_Layer] = deque()

    @contextmanager
    def layer(self) -> Iterator[None]:
        """What autograd saves inside belongs to one layer, the next of the pass."""
        while len(self._in_flight) >= LAYERS_IN_FLIGHT:
            self._release(self._in_flight.popleft())
        layer = _Layer(self._last)
        self._in_flight.append(layer)
        self._last = weakref.ref(layer)
        with self:
            yield

    def _release(self, layer: _Layer) -> None:
        """Give up a layer's tensors: what is computed from now on may take their memory."""
        for source in layer.sources:
            if source is not None:
                self._stream.computing_waits(source[1])
        layer.sources = [None] * len(layer.sources)

    def _pack(self, tensor: torch.Tensor) -> _HostCopy | torch.Tensor:
        if tensor.nbytes < SMALLEST_BYTES or (self._stream.pinned and tensor.is_cpu):
            return tensor
        self.moved_bytes += tensor.nbytes
        host = torch.empty_like(tensor, device="cpu", pin_memory=self._stream.pinned)
        with self._stream.copying():
            host.copy_(tensor, non_blocking=True)
        layer = self._in_flight[-1]
        copy = _HostCopy(host, tensor.device, layer, len(layer.sources))
        layer.sources.append((tensor, self._stream.record()))
        layer.copies.append(weakref.ref(copy))
        return copy

    def _unpack(self, copy: _HostCopy | torch.Tensor) -> torch.Tensor:
        if isinstance(copy, torch.Tensor):
            return copy
        layer = copy.layer
        tensor, event = layer.sources[copy.index] or self._fetch(copy)
        self._stream.computing_waits(event)
        copy.fetched = layer.sources[copy.index] = None
        self._last = layer.previous  # the next pass fetches nothing of this one
        previous = layer.previous() if layer.previous is not None else None
        if previous is not None:
            self._prefetch(previous)
        return tensor

    def _prefetch(self, layer: _Layer) -> None:
        for reference in layer.copies:
            copy = reference()
            if copy is not None and layer.sources[copy.index] is None:
                self._fetch(copy)

    def _fetch(self, copy: _HostCopy) -> tuple[torch.Tensor, object]:
        """Start the copy to the device unless it was started.

        It runs after the copy to the host, on the same stream, and the tensor is of the computing
        stream's memory, which the copy waits for.
        """
        if copy.fetched is None:
            tensor = torch.empty_like(copy.host, device=copy.device)
            with self._stream.copying():
                tensor.copy_(copy.host, non_blocking=True)
            copy.fetched = tensor, self._stream.record()
        return copy.fetched
