"""Programs of a rank in test_mesh.py. A forked rank finds them by module name."""

from datetime import timedelta

import torch
import torch.distributed as dist

from ropewalk.train.zero.mesh import Mesh


def places(sp_size: int) -> tuple[int, int, int, int]:
    mesh = Mesh.of(sp_size)
    return mesh.dp_rank, mesh.sp_rank, mesh.dp_size, mesh.sp_size


def patience() -> list[timedelta]:
    """Of the group of all ranks, and of one that is made as DeepSpeed makes its own."""
    cpu = torch.device("cpu")
    return [
        group._get_backend(cpu).options._timeout
        for group in (dist.group.WORLD, dist.new_group([0]))
    ]
