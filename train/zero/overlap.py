"""The end of a backward pass at ZeRO 1 and 2 whose reductions overlap with it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from deepspeed.accelerator import get_accelerator


class ZeroOptimizer(Protocol):
    """What is used of DeepSpeed's optimizer of ZeRO 1 and 2."""

    overlap_comm: bool
    reduction_stream: Any
    independent_gradient_partition_epilogue: Callable[[], None]


def wait_for_reductions_on_the_device(zero: ZeroOptimizer) -> None:
    """Let the stream that computes wait for the reductions, in place of the host.

    DeepSpeed waits on the host for the whole device after each backward pass. What follows runs on
    the stream that computes, and memory of the buckets goes back to it, so that its wait is enough.
    Does nothing where no reductions overlap.
    """
    if not zero.overlap_comm:
        return
    epilogue = zero.independent_gradient_partition_epilogue

    def wait(device_index: int | None = None) -> None:
        get_accelerator().current_stream().wait_stream(zero.reduction_stream)

    def epilogue_without_host_wait() -> None:
        with _synchronizing_by(wait):
            epilogue()

    zero.independent_gradient_partition_epilogue = epilogue_without_host_wait


@contextmanager
def _synchronizing_by(wait: Callable[[int | None], None]) -> Iterator[None]:
    """While open, DeepSpeed's wait for the device is `wait`."""
    accelerator = get_accelerator()
    own = vars(accelerator).get("synchronize")
    accelerator.synchronize = wait
    try:
        yield
    finally:
        if own is None:
            del accelerator.synchronize
        else:
            accelerator.synchronize = own
