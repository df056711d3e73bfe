"""Borders of documents laid end to end: a tensor for kernels, a tuple for loops.

The tuple is there so that no layer waits for the device.
"""

from functools import lru_cache
from typing import TypedDict

import torch

Ends = tuple[int, ...]
"""0, the end of each document, S."""


class DocumentBorders(TypedDict):
    """Keyword arguments of a forward call, which reach every kernel."""

    cu_seqlens: torch.Tensor  # (documents + 1,) int32
    document_ends: Ends
    max_seqlen: int


def document_borders(
    cu_seqlens: torch.Tensor, device: torch.device | None = None
) -> DocumentBorders:
    """The arguments that describe a step's documents. `cu_seqlens` (documents + 1,) int32.

    Pass `cu_seqlens` as it lies on the host: reading it back from a device would wait for all
    queued work. `device` is where the kernels need it; None leaves it in place.
    """
    ends = tuple(cu_seqlens.tolist())
    if device is not None:
        cu_seqlens = cu_seqlens.to(device, non_blocking=True)
    longest = max(document_lengths(ends))
    return {"cu_seqlens": cu_seqlens, "document_ends": ends, "max_seqlen": longest}


@lru_cache(maxsize=8)
def document_lengths(ends: Ends) -> tuple[int, ...]:
    """Tokens of each document."""
    return tuple(end - start for start, end in zip(ends, ends[1:], strict=False))
