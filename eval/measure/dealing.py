"""Work dealt over the ranks. Without a process group this process does all of it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")
R = TypeVar("R")


def rank_and_size() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def deal(
    items: Sequence[T], work: Callable[[T], R], *, in_step: bool = False, sp_size: int = 1
) -> Iterator[list[R]]:
    """Collective. `work` of every item, in their order, in rounds: one item for each rank, or for
    each group of `sp_size` ranks, which do it together.

    Every rank has the results of a round before the next begins. `in_step`: every rank calls
    `work` in every round, as weights that all ranks gather need it; a rank without an item left
    repeats another's.
    """
    rank, size = (number // sp_size for number in rank_and_size())
    for start in range(0, len(items), size):
        turn = items[start : start + size]
        done = work(turn[min(rank, len(turn) - 1)]) if rank < len(turn) or in_step else None
        if size == 1:
            assert done is not None
            yield [done]
            continue
        results: list[Any] = [None] * (size * sp_size)
        dist.all_gather_object(results, done)
        yield results[::sp_size][: len(turn)]


def from_first(value: T) -> T:
    """Collective. The first rank's value on every rank."""
    if rank_and_size()[1] == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]
