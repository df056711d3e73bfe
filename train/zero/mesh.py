"""The process group, this rank's device, and how the ranks share the work:
`world_size` = `dp_size` x `sp_size`.

Ranks that share one sequence are neighbours, so that their exchange of heads stays inside a
machine.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.runtime.sequence_parallel import parallel_state_sp
from torch.distributed import distributed_c10d as c10d

from ropewalk.conf.errors import ConfigError


@dataclass(frozen=True)
class Mesh:
    """One rank's coordinates: `dp_rank` chooses its sequences, `sp_rank` its slice of each."""

    rank: int = 0
    world_size: int = 1
    sp_size: int = 1

    @property
    def dp_size(self) -> int:
        return self.world_size // self.sp_size

    @property
    def dp_rank(self) -> int:
        return self.rank // self.sp_size

    @property
    def sp_rank(self) -> int:
        return self.rank % self.sp_size

    @classmethod
    def of(cls, sp_size: int, hpz_size: int | None = None) -> "Mesh":
        """This process's mesh. Raises: ConfigError when a size does not divide the ranks."""
        world_size = dist.get_world_size()
        refuse_unfit(world_size, sp_size, hpz_size)
        return cls(dist.get_rank(), world_size, sp_size)


def refuse_unfit(world_size: int, sp_size: int, hpz_size: int | None = None) -> None:
    """Raises: ConfigError when `sp_size` or `hpz_size` does not divide `world_size`."""
    for key, size in (("sp_size", sp_size), ("memory.zero_hpz_size", hpz_size)):
        if size is None or world_size % size == 0:
            continue
        divisors = [n for n in range(1, world_size + 1) if world_size % n == 0]
        nearest = max(n for n in divisors if n <= size)
        unset = nearest == 1 and key != "sp_size"
        raise ConfigError(
            f"train.{key} is {size}; it must divide the number of ranks, {world_size}; "
            f"{'unset it' if unset else f'set train.{key}={nearest}'}, or start a multiple of "
            f"{size} ranks"
        )


def all_reduce_sum(value: torch.Tensor) -> float:
    """Collective. The sum of every rank's `value`, which is left as it is."""
    total = value.detach().clone()
    dist.all_reduce(total)
    return float(total)


def any_rank(*flags: bool) -> list[bool]:
    """Collective. Whether each of `flags` is set on any rank."""
    reduced = torch.tensor(flags, dtype=torch.float32, device=device())
    dist.all_reduce(reduced, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in reduced.tolist()]


def first_message(message: str) -> str:
    """Collective. The first message of any rank that is not empty; else an empty one."""
    messages = [""] * dist.get_world_size()
    dist.all_gather_object(messages, message)
    return next(filter(None, messages), "")


def process_groups(mesh: Mesh) -> Any:
    """DeepSpeed's process groups (its `mpu`), made once; None where no sequence is shared."""
    if mesh.sp_size == 1:
        return None
    if parallel_state_sp._SEQUENCE_PARALLEL_GROUP is None:
        parallel_state_sp.initialize_sequence_parallel(mesh.sp_size)
    return parallel_state_sp


# After its default of 10 minutes torch would end a run without naming a rank, or while rank 0 alone
# writes a large model. loop/watchdog.py finds a rank that hangs sooner, after
# train.launcher.hang_timeout_s.
COLLECTIVE_TIMEOUT = timedelta(days=1)


def start_distributed() -> None:
    """Join the process group.

    On CPU gloo's own collectives are used, so that nothing is compiled.
    """
    cuda = torch.cuda.is_available()
    if not cuda:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # for this group, and for those that DeepSpeed makes without a timeout
    c10d.default_pg_timeout = c10d.default_pg_nccl_timeout = COLLECTIVE_TIMEOUT
    deepspeed.init_distributed(
        dist_backend="nccl" if cuda else "gloo", verbose=False, timeout=COLLECTIVE_TIMEOUT
    )
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


def device() -> torch.device:
    """This rank's device."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
