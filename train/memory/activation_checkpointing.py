"""Activation checkpointing, and its checkpoints in host memory.

With it a decoder layer keeps its input, (1, S, E), and is computed again in the backward pass. The
inputs of all layers are then layers x S x E, which at long sequences is the largest tensor on the
device. With offloading each input is copied to host memory on a side stream while its layer
computes, and fetched back while the layer after it is computed in the backward pass.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel


def enable(model: PreTrainedModel, offload: bool) -> "OffloadedActivations | None":
    """Checkpoint every decoder layer. Returns the holder of the host copies if `offload` is set."""
    model.activation_checkpointing_enable({"use_reentrant": False})
    if not offload:
        return None
    activations = OffloadedActivations()

    def offloaded_checkpoint(function: Callable[..., Any], *args: Any) -> Any:
        # the hooks see the layer's input alone: inside, checkpoint installs its own
        with activations:
            return checkpoint(function, *args, use_reentrant=False)

    for module in model.modules():
        if getattr(module, "_gradient_checkpointing_func", None) is not None:
            module._gradient_checkpointing_func = offloaded_checkpoint  # type: ignore[assignment]
    return activations


@dataclass(eq=False)
class _HostCopy:
    """One layer's input in host memory.

    `previous` is the input of the layer before, which is needed after it.
    """

    host: torch.Tensor
    device: torch.device
    previous: "weakref.ref[_HostCopy] | None"
    fetched: torch.Tensor | None = None


class OffloadedActivations(saved_tensors_hooks):
    """Saved tensors as copies in host memory; on CUDA pinned, and copied on a side stream."""

    def __init__(self) -> None:
        super().__init__(self._pack, self._unpack)
        self.moved_bytes = 0
        self._last: weakref.ref[_HostCopy] | None = None
        self._side_stream = torch.cuda.Stream() if torch.cuda.is_available() else None

    def _pack(self, tensor: torch.Tensor) -> _HostCopy:
        self.moved_bytes += tensor.nbytes
        pinned = self._side_stream is not None
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
        with self._on_side_stream(tensor):
            host.copy_(tensor, non_blocking=True)
        copy = _HostCopy(host, tensor.device, self._last)
        self._last = weakref.ref(copy)
        return copy

    def _unpack(self, copy: _HostCopy) -> torch.Tensor:
        tensor = self._fetch(copy)
        if self._side_stream is not None:
            torch.cuda.current_stream().wait_stream(self._side_stream)
            tensor.record_stream(torch.cuda.current_stream())
        copy.fetched, self._last = None, copy.previous
        previous = copy.previous() if copy.previous is not None else None
        if previous is not None:
            self._fetch(previous)
        return tensor

    def _fetch(self, copy: _HostCopy) -> torch.Tensor:
        """Start the copy to the device unless it was started.

        It runs after the copy to the host, on the same stream.
        """
        if copy.fetched is None:
            stream = self._side_stream
            with nullcontext() if stream is None else torch.cuda.stream(stream):
                copy.fetched = copy.host.to(copy.device, non_blocking=True)
        return copy.fetched

    @contextmanager
    def _on_side_stream(self, tensor: torch.Tensor) -> Iterator[None]:
        """Run on the side stream once `tensor` is computed.

        Its memory is not reused before the copy is done.
        """
        if self._side_stream is None:
            yield
            return
        self._side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side_stream):
            yield
        tensor.record_stream(self._side_stream)
