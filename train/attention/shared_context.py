"""Documents that go on from one context, which is computed once: several questions about one text.

The first document of the row is the context with its first question. Each of the other questions is
a document of its own, whose positions go on from the context, and whose queries see the context's
keys before their own: the same attention as if each question stood after a context of its own.

    S tokens of the row   U keys of all its documents, each with the context
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np
import torch

from ropewalk.train.attention.borders import DocumentBorders, Ends, document_borders
from ropewalk.train.attention.support import KernelFunction
from ropewalk.train.transfer import copy_to_device


@dataclass
class SharedContext:
    """Which keys each document sees. It reaches the kernel as the argument `shared_context`."""

    keys: torch.Tensor
    """(U,) int64: indices into the row, those of each document end to end."""
    borders: DocumentBorders
    """Of the keys."""
    layers: int = 0
    """Kernel calls that have read it; 0 after a forward pass: the model did not hand it on."""


def shared_context(ends: Ends, documents: int, length: int, device: torch.device) -> SharedContext:
    """The first `length` tokens as the context of the first `documents` documents of a row."""
    context, keys = np.arange(length), []
    for number, (start, end) in enumerate(zip(ends, ends[1:], strict=False)):
        own = np.arange(start, end)
        keys.append(np.concatenate([context, own]) if 0 < number < documents else own)
    borders = torch.tensor([0, *(len(part) for part in keys)]).cumsum(0, dtype=torch.int32)
    index = copy_to_device(np.concatenate(keys), device)
    return SharedContext(index, document_borders(borders, device))


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
        if shared_context is not None:
            shared_context.layers += 1
            key, value = (x.index_select(2, shared_context.keys) for x in (key, value))
            kwargs["key_borders"] = shared_context.borders
        return kernel(module, query, key, value, attention_mask, **kwargs)

    return attend
