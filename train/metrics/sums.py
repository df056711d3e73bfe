"""What each rank adds up in a step, and its one all-reduce (some hundred numbers).

Losses are summed by position and by source; squared gradients by group of parameters, without
gathering a tensor: every element of the averaged gradient lies on exactly one rank (ZeRO 1 to 3)
or on all of them (ZeRO 0, counted on rank 0). They are read after the last backward pass, before
clipping.

S tokens of a rank's row   K buckets   V values of a rank   W ranks
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist

from ropewalk.train.optim.param_groups import GROUPS, group_of
from ropewalk.train.transfer import copy_to_device
from ropewalk.train.zero.engine import Engine
from ropewalk.train.zero.gradient_norms import local_gradient_norms

# buckets of positions: [0, 64), [64, 128), [128, 256), ..., and all positions beyond the last edge
FIRST_WIDTH = 64
DOUBLINGS = 24


def bucket_starts() -> list[int]:
    """The first position of each bucket; a bucket is as long as all buckets before it together."""
    return [0, *(FIRST_WIDTH << k for k in range(DOUBLINGS))]


class BucketSums:
    """Sum and count of token losses by bucket: `sums` is (K, 2) float64."""

    def __init__(self, num_buckets: int, device: torch.device) -> None:
        self.sums = torch.zeros(num_buckets, 2, dtype=torch.float64, device=device)

    def add(self, bucket: torch.Tensor, nll: torch.Tensor, counts: torch.Tensor) -> None:
        """Add a row.

        `bucket` (S,) int64, `nll` (S,) nats, `counts` (S,) bool: whether a token's loss counts.
        """
        values = torch.stack([nll.double() * counts, counts.double()], dim=1)
        self.sums.index_add_(0, bucket, values)


def position_bucket(positions: torch.Tensor) -> torch.Tensor:
    """The bucket of each position, (S,) -> (S,) int64."""
    return torch.bucketize(positions, _inner_edges(positions.device), right=True)


@lru_cache(maxsize=4)
def _inner_edges(device: torch.device) -> torch.Tensor:
    """The starts of all buckets but the first, copied to the device once."""
    with torch.inference_mode(False):
        return torch.tensor(bucket_starts()[1:], device=device)


@dataclass(frozen=True)
class Reduction:
    """An all-reduce that is queued on the device."""

    flat: torch.Tensor
    shapes: dict[str, torch.Size]

    def read(self) -> dict[str, torch.Tensor]:
        """The sums, float64 on the CPU. Waits for all work that is queued on the device."""
        parts = self.flat.cpu().split([shape.numel() for shape in self.shapes.values()])
        return {
            name: part.view(shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }


def all_reduce(
    tensors: dict[str, torch.Tensor], rank_values: list[float], rank: int, world_size: int
) -> Reduction:
    """Sum each tensor over all ranks, in one collective, which is queued only.

    `rank_values` (V,) are not summed: they come back as the entry `ranks`, (W, V), a row for each
    rank.
    """
    table = torch.zeros(world_size, len(rank_values), dtype=torch.float64)
    table[rank] = torch.tensor(rank_values, dtype=torch.float64)
    device = next(iter(tensors.values())).device
    parts = {name: tensor.double() for name, tensor in tensors.items()}
    parts["ranks"] = copy_to_device(table, device)
    flat = torch.cat([part.flatten() for part in parts.values()])
    dist.all_reduce(flat)
    return Reduction(flat, {name: part.shape for name, part in parts.items()})


def position_rows(sums: torch.Tensor) -> list[dict[str, Any]]:
    """The mean loss of every position bucket that has tokens, from `sums` (K, 2).

    A bucket is [`from`, `to`); `to` is None for the last bucket, which has no end.
    """
    starts = bucket_starts()
    return [
        {"from": start, "to": end, "nll": float(total / count), "tokens": int(count)}
        for start, end, (total, count) in zip(starts, [*starts[1:], None], sums, strict=True)
        if count
    ]


def source_rows(sums: torch.Tensor, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The mean loss of every source with tokens in the batch, from `sums` (sources, 2)."""
    return {
        name: {"nll": float(total / count), "tokens": int(count)}
        for name, (total, count) in zip(names, sums, strict=True)
        if count
    }


@torch.no_grad()
def local_squared_norms(engine: Engine, rank: int, device: torch.device) -> torch.Tensor:
    """Sum of squares of this rank's part of the gradient by group, (GROUPS,) float64."""
    squares = torch.zeros(len(GROUPS), dtype=torch.float64, device=device)
    for name, norm in local_gradient_norms(engine, rank):
        squares[GROUPS.index(group_of(name))] += norm.double() ** 2
    return squares


def norms_by_group(squares: torch.Tensor) -> dict[str, float]:
    """The norm of each group that has a gradient, from `squares` (GROUPS,) summed over all
    ranks."""
    return {group: math.sqrt(float(s)) for group, s in zip(GROUPS, squares, strict=True) if s > 0}
