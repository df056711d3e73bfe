"""How the ranks share the work: `world_size` = `dp_size` x `sp_size`.

Ranks that share one sequence are neighbours, so that their exchange of heads stays inside a machine.
"""

from dataclasses import dataclass

import torch.distributed as dist

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
    def of(cls, sp_size: int) -> "Mesh":
        """This process's. Raises: ConfigError when the ranks do not divide."""
        world = dist.get_world_size()
        if world % sp_size:
            near = max(n for n in range(1, world + 1) if world % n == 0 and n <= sp_size)
            raise ConfigError(
                f"train.sp_size is {sp_size}; it must divide the number of ranks, {world}; set train.sp_size={near}, or start a multiple of {sp_size} ranks"
            )
        return cls(dist.get_rank(), world, sp_size)
