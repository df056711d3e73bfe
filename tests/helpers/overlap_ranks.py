"""Reductions on a side stream that does not exist, as a rank of test_overlap.py.

DeepSpeed asks its accelerator for streams; this one is the CPU's, but says that it has some, and
writes down who waits for whom.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import memory_runs
import torch
from deepspeed import comm
from deepspeed.accelerator import get_accelerator

from ropewalk.train.loop.micro_batches import to_device
from ropewalk.train.zero import engine as zero_engine

Log = list[tuple[str, ...]]


class Stream:
    """A stream by name. `log` gets ("wait", waiting stream, stream waited for)."""

    def __init__(self, name: str, log: Log) -> None:
        self.name, self.log = name, log

    def wait_stream(self, other: "Stream") -> None:
        self.log.append(("wait", self.name, other.name))


class StreamingDevice:
    """The CPU accelerator's class, changed to compute and reduce on streams."""

    def __init__(self) -> None:
        self.log: Log = []
        self.current = Stream("compute", self.log)

    def install(self) -> None:
        accelerator = get_accelerator()
        accelerator.is_synchronized_device = lambda: False
        accelerator.resolves_data_dependency = lambda: False
        accelerator.handles_memory_backpressure = lambda: True
        kind: Any = type(accelerator)
        kind.Stream = property(lambda _: lambda: Stream("reduce", self.log))
        accelerator.current_stream = lambda: self.current
        accelerator.stream = self.on
        accelerator.synchronize = lambda device_index=None: self.log.append(("host waits",))
        torch.Tensor.record_stream = lambda tensor, stream: None  # type: ignore[method-assign, assignment]
        comm.all_reduce = self.logged(comm.all_reduce)

    @contextmanager
    def on(self, stream: Stream | None) -> Iterator[None]:
        before, self.current = self.current, stream or self.current
        yield
        self.current = before

    def logged(self, all_reduce: Callable[..., Any]) -> Callable[..., Any]:
        def reduce(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self.log.append(("reduce", self.current.name))
            return all_reduce(tensor, *args, **kwargs)

        return reduce


def backward_logs(stage: int, accumulated: int, host_waits: bool) -> list[Log]:
    """What each backward pass of a step logs. `host_waits`: as DeepSpeed does it by itself."""
    device = StreamingDevice()
    device.install()
    if host_waits:
        zero_engine.wait_for_reductions_on_the_device = lambda zero: None
    settings: dict[str, Any] = {"zero_stage": stage, "memory__zero_reduce_bucket_size": 2000}
    if stage == 2:  # the largest parameter must fit
        settings["memory__zero_reduce_bucket_size"] = 97 * 32
    config = memory_runs.make_config(precision="bf16", **settings)
    engine = zero_engine.build_engine(memory_runs.make_model(), config, accumulated)
    logs = []
    for number in range(accumulated):
        loss = engine(**to_device(memory_runs.make_row(number)), total_labels=96)
        device.log.clear()
        engine.set_gradient_accumulation_boundary(number + 1 == accumulated)
        engine.backward(loss)
        logs.append(list(device.log))
        engine.step()
    return logs
