"""Programs of a rank in test_mesh.py. A forked rank finds them by module name."""

from datetime import timedelta

import torch
import torch.distributed as dist

from ropewalk.train.zero.mesh import Mesh


def coordinates(sp_size: int) -> tuple[int, int, int, int]:
    mesh = Mesh.of(sp_size)
    return mesh.dp_rank, mesh.sp_rank, mesh.dp_size, mesh.sp_size


def timeouts() -> list[timedelta]:
    """Of the default group, and of a new group created as DeepSpeed creates its groups."""
    cpu = torch.device("cpu")
    return [
        group._get_backend(cpu).options._timeout
        for group in (dist.group.WORLD, dist.new_group([0]))
    ]
