"""ZeRO 3's reduce-scatter of many gradients at once, in as few operations as there are gradients.

DeepSpeed's own cuts every gradient into a slice for every rank, in Python: 370,000 slices in a
backward pass of a 70B model on 512 ranks, seconds of host time in each micro-batch.

    W ranks   C elements of a gradient that a rank gets, the last ranks maybe fewer
"""

from collections.abc import Sequence

import torch
from deepspeed import comm
from deepspeed.runtime.zero import stage3
from torch.distributed import ProcessGroup


def use_few_operations() -> None:
    """Let ZeRO 3 call this module's function in place of its own."""
    stage3.reduce_scatter_coalesced = reduce_scatter_coalesced


@torch.no_grad()
def reduce_scatter_coalesced(
    tensors: Sequence[torch.Tensor], group: ProcessGroup | None = None
) -> list[torch.Tensor]:
    """Collective. The mean over the ranks of this rank's part (C,) of each tensor.

    The same numbers as those of DeepSpeed's function, to the bit. A single tensor that the ranks
    divide is overwritten, as it is there.
    """
    rank, world_size = comm.get_rank(group), comm.get_world_size(group)
    widths = [-(-tensor.numel() // world_size) for tensor in tensors]
    if len(tensors) == 1 and tensors[0].numel() % world_size == 0:
        rows = tensors[0].view(world_size, -1)
    else:
        rows = tensors[0].new_empty(world_size, sum(widths))
        for tensor, columns in zip(tensors, rows.split(widths, dim=1), strict=True):
            _copy_in_rows(tensor.view(-1), columns)
    rows.div_(world_size)
    own = rows[rank]
    comm.reduce_scatter_fn(own, rows.view(-1), group=group)
    return [
        part[: max(0, tensor.numel() - rank * width)]
        for tensor, part, width in zip(tensors, own.split(widths), widths, strict=True)
    ]


def _copy_in_rows(flat: torch.Tensor, columns: torch.Tensor) -> None:
    """Copy `flat` row by row into `columns` (W, C), whose last elements may be left as they are."""
    width = columns.shape[1]
    full = flat.numel() // width if width else 0
    columns[:full].copy_(flat[: full * width].view(full, width))
    rest = flat[full * width :]
    if len(rest):
        columns[full, : len(rest)].copy_(rest)
