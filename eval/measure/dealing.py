"""Work dealt over the ranks. Without a process group this process does all of it."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")
R = TypeVar("R")


def rank_and_size() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def deal(
    items: Sequence[T],
    work: Callable[[T], R],
    progress: Callable[[Sequence[T]], Iterable[T]],
    *,
    in_step: bool = False,
) -> list[R]:
    """Collective. `work` of every item, in their order, on every rank.

    Rank r of n does items r, r + n, ..., so items of similar length are done at the same time.
    `progress` shows a rank's share. `in_step`: every rank calls `work` equally often, as weights
    that all ranks gather need it; a rank without an item left repeats another's.
    """
    rank, size = rank_and_size()
    if size == 1:
        return [work(item) for item in progress(items)]
    share = list(items[rank::size])
    done = [work(item) for item in progress(share)]
    if in_step and len(share) < len(items[::size]):
        work(items[-1])
    shares: list[list[R]] = [[] for _ in range(size)]
    dist.all_gather_object(shares, done)
    return [shares[number % size][number // size] for number in range(len(items))]
