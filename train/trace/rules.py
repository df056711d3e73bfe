"""Which operations make the host wait for the device: their result is known there alone."""

from collections.abc import Collection, Sequence

import torch
from torch._ops import OpOverload

aten = torch.ops.aten

READS = {
    aten._local_scalar_dense.default,
    aten._unique2.default,
    aten.bincount.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.repeat_interleave.Tensor,
    aten.unique_consecutive.default,
    aten.unique_dim.default,
}
"""Reads of a number, and operations whose output has a size that depends on values."""
INDEXED = {
    aten._index_put_impl_.default,
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
}


def reads_device(func: OpOverload, args: Sequence[object]) -> bool:
    """Whether the host waits for what `func` computes from tensors of the device.

    An index by a mask is a `nonzero` inside.
    """
    if func in INDEXED:
        return any(x.dtype in (torch.bool, torch.uint8) for x in indices(args))
    return func in READS


def indices(args: Sequence[object]) -> list[torch.Tensor]:
    """The index tensors of one of INDEXED's calls."""
    given = args[1] if len(args) > 1 else ()
    assert isinstance(given, Sequence)
    return [x for x in given if isinstance(x, torch.Tensor)]


def is_large(
    shape: Sequence[int], tokens: int, vocabulary: int, widths: Collection[int] = ()
) -> bool:
    """Whether a tensor grows with the square of the length, or holds a row of the vocabulary for
    each of `tokens`.

    `widths`: the sizes of the weights, which do not grow with the length. A length that is one of
    them shows no tensor of S x S.
    """
    long = [size for size in shape if size >= tokens and size not in {*widths, vocabulary}]
    return len(long) > 1 or (len(long) == 1 and vocabulary in shape)
