"""What the ranks of a self-test do together: wait, and tell one another plain values."""

from dataclasses import dataclass
from typing import TypeVar

import torch.distributed as dist

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """Every method is collective, over all ranks."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def of_world(cls) -> "Ranks":
        return cls(dist.get_rank(), dist.get_world_size())

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def gather(self, value: Value) -> list[Value]:
        """The value of each rank, in order."""
        if self.world_size == 1:
            return [value]
        values: list[Value] = [value] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def first(self, message: str) -> str:
        """The first message of any rank that is not empty; else an empty one."""
        return next(filter(None, self.gather(message)), "")
