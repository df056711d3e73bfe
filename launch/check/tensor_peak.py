"""The most bytes of tensors that are held at once while something runs.

On a GPU as torch's allocator counts them. On a CPU, whose allocator counts nothing: the tensors
that are there before, and every allocation and its end as torch's profiler writes them down.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass
class TensorPeak:
    """Known at the end."""

    bytes: int = 0


@contextmanager
def tensor_peak() -> Iterator[TensorPeak]:
    """Of this process and its device."""
    peak = TensorPeak()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated()
        return
    before = tensor_bytes()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        yield peak
    peak.bytes = before + _most_allocated(profiled)


def tensor_bytes() -> int:
    """Of the tensors that are there, those that share a storage once."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    gc.collect()
    storages: dict[int, int] = {}
    for thing in gc.get_objects():
        if isinstance(thing, torch.Tensor) and thing.device.type == "cpu":
            for tensor in filter(lambda x: x is not None, (thing, _gradient(thing))):
                storage = tensor.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _gradient(tensor: torch.Tensor) -> Any:
    """That no Python object may hold."""
    return tensor.grad if tensor.is_leaf else None


def _most_allocated(profiled: profile) -> int:
    """The highest sum of all allocations and frees, in the order of their times."""
    results: Any = profiled.profiler
    events = [
        (event.start_ns(), event.nbytes())
        for event in results.kineto_results.events()
        if event.name() == "[memory]"
    ]
    return max(accumulate(size for _, size in sorted(events)), default=0)
