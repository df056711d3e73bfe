"""Programs of a rank in test_mesh.py. A forked rank finds them by module name."""

import os
import socket
from typing import Any
from unittest.mock import patch

import ranks
import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from ropewalk.conf.errors import RopewalkError
from ropewalk.train.zero import rendezvous
from ropewalk.train.zero.mesh import Mesh, process_groups


def coordinates(sp_size: int) -> tuple[int, int, int, int]:
    mesh = Mesh.of(sp_size)
    return mesh.dp_rank, mesh.sp_rank, mesh.dp_size, mesh.sp_size


def timeouts() -> dict[str, Any]:
    """Of the default group and a new group created as DeepSpeed creates its groups, and of the
    store."""
    cpu = torch.device("cpu")
    groups = [
        group._get_backend(cpu).options._timeout
        for group in (dist.group.WORLD, dist.new_group([0]))
    ]
    return {"groups": groups, "store": _timeout(c10d._get_default_store())}


def _timeout(store: Any) -> Any:
    """torch's stubs have no `timeout` for its stores."""
    return store.timeout


def join(rank: int, world_size: int, timeout_s: float) -> str:
    """The error of a rank to which the others do not come, at a port of its own."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ["MASTER_PORT"] = str(ranks.free_port())
    return _join_error(timeout_s)


def join_at_taken_port() -> str:
    with socket.create_server(("", 0)) as taken:
        os.environ["MASTER_PORT"] = str(taken.getsockname()[1])
        return _join_error(1.0)


def _join_error(timeout_s: float) -> str:
    try:
        rendezvous.join(timeout_s)
    except RopewalkError as error:
        return str(error)
    return ""


def sequence_groups() -> dict[str, Any]:
    """This rank's group of two ranks, what it sums, and how often it asked for a group."""
    calls, new_group, mesh = [], dist.new_group, Mesh.of(2)
    with patch.object(dist, "new_group", lambda *a, **k: calls.append(a) or new_group(*a, **k)):
        mpu = process_groups(mesh)
    value, everyone = (torch.tensor([float(mesh.rank)]) for _ in range(2))
    dist.all_reduce(value, group=mpu.get_sequence_parallel_group())
    dist.all_reduce(everyone, group=mpu.get_sequence_data_parallel_group())
    return {
        "members": dist.get_process_group_ranks(mpu.get_sequence_parallel_group()),
        "sum": value.item(),
        "everyone": everyone.item(),
        "groups": len(calls),
    }
