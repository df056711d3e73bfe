"""A process group of ranks that do not exist, for a trace: this process is its rank 0."""

import os

import deepspeed
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore


def join_fake_group(world_size: int) -> None:
    """Make torch's and DeepSpeed's process group, in which collectives return at once.

    For a process of its own: a process group of another size cannot follow.
    """
    if dist.is_initialized():
        assert dist.get_world_size() == world_size
        return
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE=str(world_size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")  # nobody connects
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world_size)  # type: ignore[no-untyped-call]
    deepspeed.init_distributed(dist_backend="fake", verbose=False)
