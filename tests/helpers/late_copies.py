"""A side stream on a CPU whose copies are made as late as the waits of a program allow.

A device may be that late: its host runs ahead. So a copy that nobody waits for is never made, and
its target keeps what fresh memory holds here, nan. Memory that is freed while a copy still uses it
is reused on a device; here it is noted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode


def memory_of(tensor: torch.Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())


@dataclass
class Copy:
    """`source`: the memory that it reads and does not keep alive; `content`: what is there."""

    target: torch.Tensor
    source: StorageWeakRef
    content: torch.Tensor


@dataclass
class LateCopies:
    """`CopyStream` for the tests. `faults`: copies whose source was freed before they were made."""

    pinned: bool = False
    queue: list[Copy] = field(default_factory=list)
    made: int = 0
    log: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @contextmanager
    def copying(self) -> Iterator[None]:
        self.log.append("side waits for computing")
        with _Postpone(self):
            yield

    def record(self) -> int:
        self.log.append(f"event {len(self.queue)}")
        return len(self.queue)

    def computing_waits(self, event: object) -> None:
        assert isinstance(event, int)
        self.log.append(f"computing waits for {event}")
        while self.made < event:
            self._make(self.queue[self.made])
            self.made += 1

    def _make(self, copy: Copy) -> None:
        if copy.source.expired():
            self.faults.append(f"copy {self.made} read freed memory")
            return
        with torch.no_grad():
            copy.target.copy_(copy.content)

    @property
    def sources_alive(self) -> int:
        """Sources of copies that have not been freed, whether their copies are made or not."""
        memory = {copy.source.cdata for copy in self.queue if not copy.source.expired()}
        return len(memory)


class _Postpone(TorchDispatchMode):
    def __init__(self, stream: LateCopies) -> None:
        super().__init__()
        self.stream = stream

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.aten.copy_.default:
            return func(*args, **(kwargs or {}))
        target, source, *non_blocking = args
        if non_blocking != [True]:  # the host waits for it
            return func(*args, **(kwargs or {}))
        self.stream.log.append(f"copy {len(self.stream.queue)}")
        self.stream.queue.append(Copy(target, memory_of(source), source.clone()))
        return target.fill_(float("nan"))
