"""How the ranks share the work: `world_size` = `dp_size` x `sp_size`.

Ranks that share one sequence are neighbours, so that their exchange of heads stays inside a
machine.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.runtime.sequence_parallel import parallel_state_sp

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


def process_groups(mesh: Mesh) -> Any:
    """DeepSpeed's process groups (its `mpu`), made once; None where no sequence is shared."""
    if mesh.sp_size == 1:
        return None
    if parallel_state_sp._SEQUENCE_PARALLEL_GROUP is None:
        parallel_state_sp.initialize_sequence_parallel(mesh.sp_size)
    return parallel_state_sp
