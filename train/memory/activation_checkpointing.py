"""Activation checkpointing, and its checkpoints in host memory.

With it a decoder layer keeps its input, (1, S, E), and is computed again in the backward pass. What is kept of a step is then
layers x S x E, which at length is the largest thing on the device. Offloaded, each input is copied to host memory on a stream of
its own while its layer computes, and fetched back while the layer after it is computed in the backward pass.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel


def enable(model: PreTrainedModel, offload: bool) -> "OffloadedActivations | None":
    """Checkpoint every decoder layer; with `offload` returns who holds the copies."""
    model.activation_checkpointing_enable({"use_reentrant": False})
    if not offload:
        return None
    copies = OffloadedActivations()

    def offloaded(function: Any, *args: Any) -> Any:
        # the hooks see the layer's input alone: inside, checkpoint puts its own in their place
        with copies:
            return checkpoint(function, *args, use_reentrant=False)

    for module in _checkpointed(model):
        module._gradient_checkpointing_func = offloaded  # type: ignore[assignment]
    return copies


def _checkpointed(model: nn.Module) -> list[nn.Module]:
    return [
        module
        for module in model.modules()
        if getattr(module, "_gradient_checkpointing_func", None) is not None
    ]


@dataclass(eq=False)
class _Kept:
    """One input in host memory; `before` was kept before it, and is needed after it."""

    host: torch.Tensor
    device: torch.device
    before: "weakref.ref[_Kept] | None"
    fetched: torch.Tensor | None = None


class OffloadedActivations(saved_tensors_hooks):
    """Saved tensors as copies in host memory: pinned, and on a side stream where there is one. Elsewhere the same, as plain copies."""

    def __init__(self) -> None:
        super().__init__(self._keep, self._give)
        self.moved_bytes = 0
        self._last: weakref.ref[_Kept] | None = None
        self._side = torch.cuda.Stream() if torch.cuda.is_available() else None

    def _keep(self, tensor: torch.Tensor) -> _Kept:
        self.moved_bytes += tensor.numel() * tensor.element_size()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=self._side is not None)
        with self._beside(tensor):
            host.copy_(tensor, non_blocking=True)
        kept = _Kept(host, tensor.device, self._last)
        self._last = weakref.ref(kept)
        return kept

    def _give(self, kept: _Kept) -> torch.Tensor:
        self._fetch(kept)
        found = kept.fetched
        assert found is not None
        if self._side is not None:
            torch.cuda.current_stream().wait_stream(self._side)
            found.record_stream(torch.cuda.current_stream())
        kept.fetched, self._last = None, kept.before
        before = kept.before() if kept.before is not None else None
        if before is not None:
            self._fetch(before)
        return found

    def _fetch(self, kept: _Kept) -> None:
        """Start to copy it back, unless that was done. The side stream has copied it out before: the order is its own."""
        if kept.fetched is None:
            with nullcontext() if self._side is None else torch.cuda.stream(self._side):
                kept.fetched = kept.host.to(kept.device, non_blocking=True)

    @contextmanager
    def _beside(self, tensor: torch.Tensor) -> Iterator[None]:
        """On the side stream, once `tensor` is computed; its memory is not given to others before the copy is done."""
        if self._side is None:
            yield
            return
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            yield
        tensor.record_stream(self._side)
