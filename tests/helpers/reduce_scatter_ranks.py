"""Our reduce-scatter beside DeepSpeed's, as a rank of test_reduce_scatter.py."""

from typing import Any

import torch
import torch.distributed as dist
from deepspeed.runtime.comm import coalesced_collectives
from deepspeed.runtime.zero import stage3
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from ropewalk.train.zero import reduce_scatter

SHAPES: list[list[tuple[int, ...]]] = [
    [(7,), (3, 5), (8, 4), (1,)],
    [(12, 4)],
    [(5, 5)],
    [(2,), (6,)],
]
"""Of the tensors of each call: some are divided by the ranks, some have fewer elements."""


def parts_of_both() -> list[tuple[Any, Any]]:
    """Of each call, the parts that DeepSpeed's function gives and those that ours gives."""
    result = []
    for number, shapes in enumerate(SHAPES):
        generator = torch.Generator().manual_seed(number * 10 + dist.get_rank())
        tensors = [torch.randn(shape, generator=generator) for shape in shapes]
        calls = (
            coalesced_collectives.reduce_scatter_coalesced,
            reduce_scatter.reduce_scatter_coalesced,
        )
        parts = [call([t.clone() for t in tensors], None) for call in calls]
        result.append(tuple([part.numpy().copy() for part in of_call] for of_call in parts))
    return result


class Operations(TorchDispatchMode):
    """How many operations torch dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(world_size: int) -> dict[str, int]:
    """Operations of a bucket of a layer's nine gradients, by whose function it is."""
    dist.destroy_process_group()
    dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=world_size)
    counts = {}
    for name, module in (("deepspeed", coalesced_collectives), ("ours", reduce_scatter)):
        tensors = [torch.ones(world_size * 4 + n % 2) for n in range(9)]
        with Operations() as seen:
            module.reduce_scatter_coalesced(tensors, None)
        counts[name] = seen.count
    return counts


def called_by_stage3() -> bool:
    """Whether an engine of ZeRO 3 would call our function."""
    reduce_scatter.use_few_operations()
    return stage3.reduce_scatter_coalesced is reduce_scatter.reduce_scatter_coalesced
