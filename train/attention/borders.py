"""Borders of documents laid end to end: a tensor for kernels, a tuple for loops, so that no layer waits for the device."""

from functools import lru_cache
from typing import Any

import torch

Ends = tuple[int, ...]
"""0, each border, S."""


def document_borders(cu_seqlens: torch.Tensor, at: torch.device | None = None) -> dict[str, Any]:
    """What a forward call takes of a step's borders. `cu_seqlens` (documents + 1,) int32 goes to the device `at`.

    Give it as it lies on the host: read back from a device, it waits for all that the device was asked before.
    """
    ends = tuple(cu_seqlens.tolist())
    there = cu_seqlens.to(at, non_blocking=True) if at is not None else cu_seqlens
    return {"cu_seqlens": there, "document_ends": ends, "max_seqlen": max(document_lengths(ends))}


@lru_cache(maxsize=8)
def document_lengths(ends: Ends) -> tuple[int, ...]:
    """Tokens of each document."""
    return tuple(b - a for a, b in zip(ends, ends[1:], strict=False))
