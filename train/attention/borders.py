"""Borders of documents laid end to end, and the check of a kernel's call against them.

The tuple is there so that no layer waits for the device.
"""

from functools import lru_cache
from typing import Any, TypedDict

import torch
from torch import nn

from ropewalk.conf.errors import ConfigError
from ropewalk.train.transfer import copy_to_device

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

    `cu_seqlens` must lie on the host: reading it back from a device would wait for all queued
    work. `device` is where the kernels need it; None leaves it in place. Raises: ValueError.
    """
    if cu_seqlens.device.type != "cpu" or cu_seqlens.dtype != torch.int32:
        raise ValueError(
            f"cu_seqlens is {cu_seqlens.dtype} on {cu_seqlens.device}; it must be int32 on the "
            "host; pass it before it is copied to a device"
        )
    ends = tuple(cu_seqlens.tolist())
    if ends[0] != 0 or min(document_lengths(ends), default=-1) < 0:
        raise ValueError(
            f"cu_seqlens begins {ends[:8]}; it must begin at 0 and never decrease; give 0 and the "
            "end of each document"
        )
    if device is not None:
        cu_seqlens = copy_to_device(cu_seqlens, device)
    longest = max(document_lengths(ends))
    return {"cu_seqlens": cu_seqlens, "document_ends": ends, "max_seqlen": longest}


@lru_cache(maxsize=8)
def document_lengths(ends: Ends) -> tuple[int, ...]:
    """Tokens of each document."""
    return tuple(end - start for start, end in zip(ends, ends[1:], strict=False))


def validate_borders(
    tokens: torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    document_ends: Ends | None,
    max_seqlen: int | None,
) -> DocumentBorders:
    """Check the borders that a kernel was handed with its queries, or keys, (1, H, S, D).

    Their values are known on the host (`document_ends`), so nothing is read from a device. A
    kernel would read a tensor on the host as an address of its device, and one of another dtype as
    other numbers. Raises: ValueError.
    """
    if document_ends is None or cu_seqlens is None or max_seqlen is None:
        raise ValueError(
            "cu_seqlens, document_ends and max_seqlen describe the same documents; give all three "
            "(document_borders) or none"
        )
    if cu_seqlens.device != tokens.device or cu_seqlens.dtype != torch.int32:
        raise ValueError(
            f"cu_seqlens is {cu_seqlens.dtype} on {cu_seqlens.device} and the tokens are on "
            f"{tokens.device}; it must be int32 beside them; call document_borders with this device"
        )
    longest = max(document_lengths(document_ends))
    if cu_seqlens.shape != (len(document_ends),) or max_seqlen != longest:
        raise ValueError(
            f"cu_seqlens has shape {tuple(cu_seqlens.shape)} and max_seqlen is {max_seqlen}; the "
            f"{len(document_ends) - 1} documents have at most {longest} tokens; give the "
            "arguments of one document_borders"
        )
    return {"cu_seqlens": cu_seqlens, "document_ends": document_ends, "max_seqlen": max_seqlen}


UNSUPPORTED_ARGUMENTS = {
    "softcap": "soft-caps its attention scores",
    "position_bias": "adds a bias of positions to its attention scores",
    "indices": "attends to chosen tokens only",
    "block_indices": "attends to chosen blocks only",
    "sinks": "has attention sinks of its own form",
}
"""Keyword arguments that some architectures pass to their attention, and what each means."""


def validate_call(
    module: nn.Module | None,
    query: torch.Tensor,
    key: torch.Tensor,
    ends: Ends,
    dropout: float,
    kwargs: dict[str, Any],
    key_borders: DocumentBorders | None = None,
) -> None:
    """Check a kernel's arguments. query (1, H, S, D), key (1, K, S, D).

    `key_borders`: where the keys are more tokens than the queries.

    Raises: ConfigError when the model asks for what no kernel does, ValueError when shapes and
    borders do not fit each other.
    """
    if query.shape[0] != 1:
        raise ValueError(
            f"batch is {query.shape[0]}; rows are laid end to end, so it must be 1; join the rows"
        )
    if key_borders is not None:
        validate_borders(key, **key_borders)
    key_ends = ends if key_borders is None else key_borders["document_ends"]
    if (query.shape[2], key.shape[2]) != (ends[-1], key_ends[-1]):
        tokens = " and ".join(str(n) for n in dict.fromkeys((ends[-1], key_ends[-1])))
        raise ValueError(
            f"query has {query.shape[2]} tokens, key {key.shape[2]} and the documents {tokens}; "
            "they must be one sequence; give the borders of the whole sequence, and no cache"
        )
    if dropout:
        raise ConfigError(
            f"attention_dropout is {dropout}; it must be 0 for a reproducible extension; "
            "set it to 0 in the model's config"
        )
    for argument, meaning in UNSUPPORTED_ARGUMENTS.items():
        if kwargs.get(argument) is not None:
            raise ConfigError(
                f"model.path has an attention that {meaning}; the trainer's kernels do not; choose "
                "another model"
            )
    if kwargs.get("is_causal") is False or getattr(module, "is_causal", True) is False:
        raise ConfigError(
            "model.path has an attention that looks ahead; a decoder is trained on what came "
            "before; choose another model"
        )
