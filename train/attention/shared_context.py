"""Documents that go on from one context, which is computed once: several questions about one text.

The first document of the row is the context with its first question. Each of the other questions is
a document of its own, whose positions go on from the context, and whose queries see the context's
keys before their own: the same attention as if each question stood after a context of its own.

    S tokens of the row   U keys of all its documents, each with the context
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from ropewalk.data.dataset import Row, concatenate
from ropewalk.train.attention.borders import DocumentBorders, Ends, document_borders
from ropewalk.train.attention.support import KernelFunction
from ropewalk.train.transfer import copy_to_device


def row_after_context(documents: Sequence[np.ndarray], context: int, length: int) -> Row:
    """Documents end to end, padded to `length`; the positions of each but the first go on from the
    first `context` tokens."""
    row = concatenate(documents, length)
    row.position_ids[len(documents[0]) : sum(map(len, documents))] += context
    return row


@dataclass
class SharedContext:
    """Which keys each document sees. It reaches the kernel as the argument `shared_context`."""

    first: DocumentBorders
    """Of the first document, which is computed as any other is."""
    others: DocumentBorders
    """Of the queries of the other documents."""
    keys: torch.Tensor
    """(U,) int64: indices into the row of what these see, end to end."""
    key_borders: DocumentBorders
    layers: int = 0
    """Kernel calls that have read it; 0 after a forward pass: the model did not hand it on."""


def shared_context(ends: Ends, documents: int, length: int, device: torch.device) -> SharedContext:
    """The first `length` tokens as the context of the first `documents` documents of a row."""
    context, keys = np.arange(length), []
    others = list(pairwise(ends))[1:]
    for number, (start, end) in enumerate(others, 1):
        own = np.arange(start, end)
        keys.append(np.concatenate([context, own]) if number < documents else own)
    index = copy_to_device(np.concatenate(keys), device)
    lengths = [end - start for start, end in others]
    borders = (_borders(n, device) for n in ([ends[1]], lengths, list(map(len, keys))))
    first, queries, of_keys = borders
    return SharedContext(first, queries, index, of_keys)


def _borders(lengths: Sequence[int], device: torch.device) -> DocumentBorders:
    return document_borders(torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32), device)


def with_shared_context(kernel: KernelFunction) -> Callable[..., tuple[torch.Tensor, None]]:
    """`kernel`, which reads the keys of a shared context where a call has one."""

    @wraps(kernel)
    def attend(
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: None,
        *,
        shared_context: SharedContext | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """query (1, H, S, D), key (1, K, S, D), value (1, K, S, E) -> (1, S, H, E)."""
        if shared_context is None:
            return kernel(module, query, key, value, attention_mask, **kwargs)
        shared_context.layers += 1
        length, seen = shared_context.first["max_seqlen"], shared_context.keys
        context = (x[:, :, :length] for x in (query, key, value))
        first, _ = kernel(module, *context, attention_mask, **{**kwargs, **shared_context.first})
        parts = (query[:, :, length:], *(x.index_select(2, seen) for x in (key, value)))
        kwargs |= {**shared_context.others, "key_borders": shared_context.key_borders}
        others, _ = kernel(module, *parts, attention_mask, **kwargs)
        return torch.cat([first, others], 1), None

    return attend
