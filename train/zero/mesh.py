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
from deepspeed.utils import groups
from torch.distributed import distributed_c10d as c10d

from ropewalk.conf.errors import ConfigError
from ropewalk.train.transfer import copy_to_device
from ropewalk.train.zero import rendezvous


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


def all_reduce_sum(value: torch.Tensor) -> torch.Tensor:
    """Collective. The sum of every rank's `value`, which is left as it is; queued, not read."""
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def any_rank(*flags: bool) -> list[bool]:
    """Collective. Whether each of `flags` is set on any rank."""
    reduced = copy_to_device(torch.tensor(flags, dtype=torch.float32), device())
    dist.all_reduce(reduced, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in reduced.tolist()]


def least_of_ranks(*values: int) -> list[int]:
    """Collective. The least of every rank's value, for each of `values`."""
    reduced = torch.tensor(values, dtype=torch.int64, device=device())
    dist.all_reduce(reduced, op=dist.ReduceOp.MIN)
    return [int(value) for value in reduced.tolist()]


def first_message(message: str) -> str:
    """Collective. The first message of any rank that is not empty; else an empty one."""
    messages = [""] * dist.get_world_size()
    dist.all_gather_object(messages, message)
    return next(filter(None, messages), "")


def process_groups(mesh: Mesh) -> Any:
    """DeepSpeed's process groups (its `mpu`), made once; None where no sequence is shared.

    DeepSpeed's own `initialize_sequence_parallel` makes every group of the world on every rank,
    one after the other.
    """
    if mesh.sp_size == 1:
        return None
    if parallel_state_sp._SEQUENCE_PARALLEL_GROUP is None:
        parallel_state_sp._SEQUENCE_PARALLEL_GROUP = split_world(neighbours(mesh, mesh.sp_size))
        parallel_state_sp._SEQUENCE_DATA_PARALLEL_GROUP = groups._clone_world_group()
    return parallel_state_sp


def _make_hpz_group(size: int) -> None:
    """This rank's group of those that hold ZeRO++'s second copy of the weights, made once.

    In place of DeepSpeed's function, which makes every group of the world on every rank.
    """
    if groups._ZERO_PARAM_INTRA_PARALLEL_GROUP is None:
        mesh = Mesh(dist.get_rank(), dist.get_world_size())
        groups._ZERO_PARAM_INTRA_PARALLEL_GROUP = split_world(neighbours(mesh, size))


def neighbours(mesh: Mesh, size: int) -> list[list[int]]:
    """The ranks in groups of `size` neighbours."""
    return [list(range(n, n + size)) for n in range(0, mesh.world_size, size)]


def split_world(ranks_of_groups: list[list[int]]) -> dist.ProcessGroup:
    """Collective. This rank's group of `ranks_of_groups`, which have every rank once.

    One call whatever the number of groups: NCCL splits the world's communicator by colour, once;
    under another backend the ranks of a group make it among themselves. `new_group` for each
    group in turn is a split of the whole world for each of them.
    """
    if dist.get_backend() == "nccl":
        group = dist.split_group(split_ranks=ranks_of_groups, timeout=COLLECTIVE_TIMEOUT)
    else:
        (own,) = [ranks for ranks in ranks_of_groups if dist.get_rank() in ranks]
        group = dist.new_group(own, timeout=COLLECTIVE_TIMEOUT, use_local_synchronization=True)
    assert isinstance(group, dist.ProcessGroup)
    return group


# After its default of 10 minutes torch would end a run without naming a rank, or while rank 0 alone
# writes a large model. loop/watchdog.py finds a rank that hangs or died sooner.
COLLECTIVE_TIMEOUT = timedelta(days=1)


def start_distributed(start_timeout_s: float = 600.0) -> dist.Store:
    """Wait for all ranks and join their process group; returns their store.

    Raises: RopewalkError after `start_timeout_s` without them.
    """
    store = rendezvous.join(start_timeout_s)
    start_process_group(store)
    return store


def start_process_group(store: dist.Store) -> None:
    """Collective. Join the process group, over the store of ranks that are all there.

    On CPU gloo's own collectives are used, so that nothing is compiled. A GPU is bound to the
    group where there are others, as DeepSpeed would: NCCL can split such a group only.
    """
    cuda, rank, world_size = torch.cuda.is_available(), *rendezvous.rank_and_world_size()
    device_id = None
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        device_id = device() if world_size > 1 else None
    else:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # for this group, and for those that DeepSpeed makes without a timeout
    c10d.default_pg_timeout = c10d.default_pg_nccl_timeout = COLLECTIVE_TIMEOUT
    groups._create_zero_param_parallel_group = _make_hpz_group
    backend = "nccl" if cuda else "gloo"
    dist.init_process_group(
        backend,
        store=dist.PrefixStore("default_pg", store),
        rank=rank,
        world_size=world_size,
        timeout=COLLECTIVE_TIMEOUT,
        device_id=device_id,
    )
    deepspeed.init_distributed(dist_backend=backend, verbose=False, timeout=COLLECTIVE_TIMEOUT)


def end_distributed() -> None:
    """Collective. Wait for all ranks and leave their process group.

    A rank that ends without it lets torch warn of a leak, and may take NCCL's threads of others
    with it.
    """
    dist.barrier()
    deepspeed.comm.destroy_process_group()


def device() -> torch.device:
    """This rank's device."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
