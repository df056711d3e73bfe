"""How the ranks share the work: `world_size` = `dp_size` x `sp_size`.

Ranks that share one sequence are neighbours, so that their exchange of heads stays inside a machine.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.runtime.sequence_parallel import parallel_state_sp

from ropewalk.conf.errors import ConfigError


@dataclass(frozen=True)
class Mesh:
    """One rank's place: `dp_rank` says which sequences it reads, `sp_rank` which slice of each."""

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
        """This process's. Raises: ConfigError when the ranks do not divide."""
        world = dist.get_world_size()
        refuse_unfit(world, sp_size, hpz_size)
        return cls(dist.get_rank(), world, sp_size)


def refuse_unfit(world: int, sp_size: int, hpz_size: int | None = None) -> None:
    """Raises: ConfigError when `world` ranks cannot be cut so."""
    for key, size in (("sp_size", sp_size), ("zero_hpz_size", hpz_size)):
        if size is not None and world % size:
            near = max(n for n in range(1, world + 1) if world % n == 0 and n <= size)
            raise ConfigError(
                f"train.{key} is {size}; it must divide the number of ranks, {world}; "
                f"{'unset it' if near == 1 and key != 'sp_size' else f'set train.{key}={near}'}, or start a multiple of {size} ranks"
            )


def all_reduce_sum(share: torch.Tensor) -> float:
    """The loss of the whole batch, of every rank's share. Every rank calls it."""
    whole = share.detach().clone()
    dist.all_reduce(whole)
    return float(whole)


def process_groups(mesh: Mesh) -> Any:
    """The process groups as DeepSpeed asks for them (`mpu`), made once; None where no sequence is shared."""
    if mesh.sp_size == 1:
        return None
    if parallel_state_sp._SEQUENCE_PARALLEL_GROUP is None:
        parallel_state_sp.initialize_sequence_parallel(mesh.sp_size)
    return parallel_state_sp
