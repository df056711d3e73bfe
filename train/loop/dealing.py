"""Rows of a measurement dealt to the data-parallel groups, slices of a row to a group's ranks."""

from collections.abc import Callable, Iterator

import numpy as np

from ropewalk.data.dataset import IGNORE, Row
from ropewalk.train.zero.mesh import Mesh


def local_slices(
    count: int, row_of: Callable[[int], Row], mesh: Mesh
) -> Iterator[tuple[int, slice, Row]]:
    """This rank's rows: the number of each, the tokens of it that are this rank's, and its slice.

    As many as every other rank has, which ZeRO 3 needs: a group without a row of its own ignores
    the labels of the last. `row_of(number)` has a length that `sp_size` divides (`padded`).
    """
    for first in range(0, count, mesh.dp_size):
        number = min(first + mesh.dp_rank, count - 1)
        row, is_own = row_of(number), first + mesh.dp_rank < count
        labels = row.labels if is_own else np.full_like(row.labels, IGNORE)
        width = len(labels) // mesh.sp_size
        part = slice(mesh.sp_rank * width, (mesh.sp_rank + 1) * width)
        local = Row(row.input_ids[part], labels[part], row.position_ids[part], row.cu_seqlens)
        yield number, part, local


def padded(tokens: int, sp_size: int) -> int:
    """Up to a multiple of `sp_size`; the padding is a document of its own."""
    return -(-tokens // sp_size) * sp_size
