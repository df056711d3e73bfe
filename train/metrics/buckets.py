"""What the ranks know of a step, summed in one all-reduce of some hundred numbers.

S tokens of a rank's row   K buckets   R facts of a rank   W ranks
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

FIRST, DOUBLINGS = (
    64,
    24,
)  # buckets of positions: [0, 64), [64, 128), [128, 256), ... and what is beyond the last


def edges() -> list[int]:
    """Where buckets begin; each is as long as all before it."""
    return [0, *(FIRST << k for k in range(DOUBLINGS))]


class BucketSums:
    """Sum and count of losses by a number that each token has. (K, 2) float64."""

    def __init__(self, buckets: int, device: torch.device) -> None:
        self.found = torch.zeros(buckets, 2, dtype=torch.float64, device=device)

    def add(self, bucket: torch.Tensor, nll: torch.Tensor, counts: torch.Tensor) -> None:
        """`bucket` (S,) int64, `nll` (S,) nats, `counts` (S,) bool: whether a token's loss counts."""
        both = torch.stack([nll.double() * counts, counts.double()], dim=1)
        self.found.index_add_(0, bucket, both)


def by_position(positions: torch.Tensor) -> torch.Tensor:
    """The bucket of each position, (S,) -> (S,) int64."""
    starts = torch.tensor(edges()[1:], device=positions.device)
    return torch.bucketize(positions, starts, right=True)


def all_reduce(
    parts: dict[str, torch.Tensor], facts: list[float], rank: int, world: int
) -> dict[str, torch.Tensor]:
    """Each part summed over all ranks, and as `ranks` (W, R) the facts of each rank: a sum into which every rank writes its own row."""
    table = torch.zeros(world, len(facts), dtype=torch.float64)
    table[rank] = torch.tensor(facts, dtype=torch.float64)
    device = next(iter(parts.values())).device
    every = {**{name: part.double() for name, part in parts.items()}, "ranks": table.to(device)}
    flat = torch.cat([part.flatten() for part in every.values()])
    dist.all_reduce(flat)
    flat = flat.cpu()
    sizes = [part.numel() for part in every.values()]
    return {
        name: piece.view(part.shape)
        for (name, part), piece in zip(every.items(), flat.split(sizes), strict=True)
    }


def position_rows(found: torch.Tensor) -> list[dict[str, Any]]:
    """(K, 2) -> the mean loss of every bucket that has tokens. `to` is the first position that is not in it, null after the last edge."""
    starts = edges()
    return [
        {"from": start, "to": end, "nll": float(total / count), "tokens": int(count)}
        for start, end, (total, count) in zip(starts, [*starts[1:], None], found, strict=True)
        if count
    ]


def source_rows(found: torch.Tensor, names: Sequence[str]) -> dict[str, Any]:
    """(names, 2) -> the mean loss of every source that the batch has tokens of."""
    return {
        name: {"nll": float(total / count), "tokens": int(count)}
        for name, (total, count) in zip(names, found, strict=True)
        if count
    }
